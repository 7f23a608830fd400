// The backend in WebAssembly SIMD: kernels.wasm for the forward pass, plain loops over its memory for the rest.

import type {
  Activation,
  Matrix,
  MatrixLayout,
  MatrixWriter,
  Reach,
  ScoreOptions,
  Storage,
  Value,
} from "../engine/backend.ts";
import { EngineError } from "../engine/errors.ts";
import { elementsOf, lastOf, sameShape } from "../engine/shape.ts";
import type { BinaryOperation, Shape } from "../protocol.ts";
import { ArrayKernels } from "./array_kernels.ts";
import { Memory } from "./memory.ts";

interface WasmStorage extends Storage {
  readonly start: number;
}

interface PanelMatrix extends Matrix {
  /** [ceil(outputs/8)][inputs][8] */
  readonly start: number;
}

/** What kernels/assembly/index.ts exports. */
interface Kernels {
  memory: WebAssembly.Memory;
  heapBase(): number;
  product(x: number, panels: number, bias: number, y: number, rows: number, inputs: number, outputs: number): void;
  column(panels: number, id: number, y: number, inputs: number): void;
  normScale(x: number, y: number, rows: number, width: number, epsilon: number): void;
  normalize(x: number, scale: number, y: number, rows: number, width: number): void;
  affine(x: number, weight: number, bias: number, y: number, rows: number, width: number): void;
  geluTanh(x: number, y: number, count: number): void;
  softmax(x: number, y: number, rows: number, width: number): void;
  add(x: number, y: number, z: number, count: number): void;
  scores(
    q: number,
    k: number,
    y: number,
    batches: number,
    positions: number,
    heads: number,
    width: number,
    factor: number,
  ): void;
  mix(pattern: number, v: number, z: number, batches: number, positions: number, heads: number, width: number): void;
}

const NAMES = [
  "memory",
  "heapBase",
  "product",
  "column",
  "normScale",
  "normalize",
  "affine",
  "geluTanh",
  "softmax",
  "add",
  "scores",
  "mix",
] as const satisfies readonly (keyof Kernels)[];

const PANEL = 8;

/** Fails: BackendUnavailable without the file, without SIMD, or with a file of another build. */
export async function openWasmBackend(fetchKernels?: () => Promise<Uint8Array | null>): Promise<WasmBackend> {
  const unavailable = (text: string) =>
    new EngineError("BackendUnavailable", `Backend wasm: ${text}; build it with: node js_bridge/kernels/build.ts`, {
      backend: "wasm",
    });
  const bytes = await fetchKernels?.();
  if (bytes === undefined || bytes === null) throw unavailable("kernels.wasm is not there");
  if (!WebAssembly.validate(bytes as Uint8Array<ArrayBuffer>))
    throw unavailable("kernels.wasm is damaged, or WebAssembly has no SIMD here");
  const { instance } = await WebAssembly.instantiate(bytes as Uint8Array<ArrayBuffer>, {
    env: { abort: () => undefined },
  });
  const missing = NAMES.filter((name) => !(name in instance.exports));
  if (missing.length > 0) throw unavailable(`kernels.wasm is from another build, it lacks ${missing.join(", ")}`);
  return new WasmBackend(instance.exports as unknown as Kernels);
}

export class WasmBackend extends ArrayKernels {
  readonly name = "wasm";
  readonly #kernels: Kernels;
  readonly #memory: Memory;

  constructor(kernels: Kernels) {
    super();
    this.#kernels = kernels;
    this.#memory = new Memory(kernels.memory, kernels.heapBase() >>> 0);
  }

  protected room(bytes: number): Storage {
    return { start: this.#start(bytes), bytes, references: 1 } as WasmStorage;
  }

  protected view(value: Value): Float32Array {
    return this.#memory.floats(at(value), elementsOf(value.shape));
  }

  protected free(storage: Storage): void {
    this.#memory.free((storage as WasmStorage).start, storage.bytes);
  }

  startMatrix({ inputs, outputs, transposed, scales }: MatrixLayout): MatrixWriter {
    const bytes = 4 * Math.ceil(outputs / PANEL) * inputs * PANEL;
    const start = this.#start(bytes);
    this.#memory.floats(start, bytes / 4).fill(0, Math.floor(outputs / PANEL) * inputs * PANEL);
    let row = 0;
    return {
      write: (rows) => {
        const to = this.#memory.floats(start, bytes / 4);
        const width = transposed ? inputs : outputs;
        for (let at = 0; at < rows.length; at += width, row++) {
          for (let i = 0; i < width; i++) {
            const [k, n] = transposed ? [i, row] : [row, i];
            to[((n >> 3) * inputs + k) * PANEL + (n & 7)] = rows[at + i] * (scales?.[n] ?? 1);
          }
        }
      },
      finish: () => {
        this.bytes += bytes;
        return { inputs, outputs, bytes, start } as PanelMatrix;
      },
      abandon: () => this.#memory.free(start, bytes),
    };
  }

  releaseMatrix(matrix: Matrix): void {
    this.bytes -= matrix.bytes;
    this.#memory.free((matrix as PanelMatrix).start, matrix.bytes);
  }

  columns(table: Matrix, ids: Int32Array, lead: Shape): Value {
    const { inputs, start } = table as PanelMatrix;
    const result = this.allocate([...lead, inputs]);
    ids.forEach((id, row) => this.#kernels.column(start, id, at(result) + 4 * row * inputs, inputs));
    return result;
  }

  /** Storages are rounded up to whole panels, so the bias may be read 8 at a time. */
  product(x: Value, matrix: Matrix, bias: Value | null): Value {
    const { inputs, outputs, start } = matrix as PanelMatrix;
    const result = this.allocate([...x.shape.slice(0, -1), outputs]);
    const rows = elementsOf(x.shape) / inputs;
    this.#kernels.product(at(x), start, bias === null ? 0 : at(bias), at(result), rows, inputs, outputs);
    return result;
  }

  productTransposed(y: Value, matrix: Matrix): Value {
    const { inputs, outputs, start } = matrix as PanelMatrix;
    const result = this.allocate([...y.shape.slice(0, -1), inputs]);
    const panels = this.#memory.floats(start, Math.ceil(outputs / PANEL) * inputs * PANEL);
    const [from, to] = [this.view(y), this.view(result)];
    for (let row = 0; row < from.length / outputs; row++) {
      for (let i = 0; i < inputs; i++) {
        let sum = 0;
        for (let o = 0; o < outputs; o++) {
          sum += from[row * outputs + o] * panels[((o >> 3) * inputs + i) * PANEL + (o & 7)];
        }
        to[row * inputs + i] = sum;
      }
    }
    return result;
  }

  override normScale(x: Value, epsilon: number, centred: boolean): Value {
    if (!centred) return super.normScale(x, epsilon, centred);
    const result = this.allocate([...x.shape.slice(0, -1), 1]);
    this.#kernels.normScale(at(x), at(result), elementsOf(result.shape), lastOf(x.shape), epsilon);
    return result;
  }

  override normalize(x: Value, scale: Value, centred: boolean): Value {
    if (!centred) return super.normalize(x, scale, centred);
    const result = this.allocate(x.shape);
    this.#kernels.normalize(at(x), at(scale), at(result), elementsOf(scale.shape), lastOf(x.shape));
    return result;
  }

  override affine(x: Value, weight: Value | null, bias: Value | null): Value {
    if (weight === null || bias === null) return super.affine(x, weight, bias);
    const result = this.allocate(x.shape);
    const width = lastOf(x.shape);
    this.#kernels.affine(at(x), at(weight), at(bias), at(result), elementsOf(x.shape) / width, width);
    return result;
  }

  override activate(kind: Activation, x: Value): Value {
    if (kind !== "geluTanh") return super.activate(kind, x);
    const result = this.allocate(x.shape);
    this.#kernels.geluTanh(at(x), at(result), elementsOf(x.shape));
    return result;
  }

  override scores(q: Value, k: Value, options: ScoreOptions): Value {
    if (options.softCap !== null || !isCausal(options.reach, q, k)) return super.scores(q, k, options);
    const [batches, positions, heads, width] = q.shape;
    const result = this.allocate([batches, heads, positions, positions]);
    this.#kernels.scores(at(q), at(k), at(result), batches, positions, heads, width, options.factor);
    return result;
  }

  override softmax(x: Value, sinks: Value | null): Value {
    if (sinks !== null) return super.softmax(x, sinks);
    const result = this.allocate(x.shape);
    const width = lastOf(x.shape);
    this.#kernels.softmax(at(x), at(result), elementsOf(x.shape) / width, width);
    return result;
  }

  override mix(pattern: Value, v: Value, reach: Reach | null): Value {
    const [batches, heads, positions] = pattern.shape;
    const width = lastOf(v.shape);
    const queries = { shape: [batches, positions, heads, width], storage: v.storage };
    if (!isCausal(reach, queries, v)) return super.mix(pattern, v, reach);
    const result = this.allocate(v.shape);
    this.#kernels.mix(at(pattern), at(v), at(result), batches, positions, heads, width);
    return result;
  }

  override binary(operation: BinaryOperation, a: Value, b: Value, shape: Shape): Value {
    if (operation !== "add" || !sameShape(a.shape, shape) || !sameShape(b.shape, shape))
      return super.binary(operation, a, b, shape);
    const result = this.allocate(shape);
    this.#kernels.add(at(a), at(b), at(result), elementsOf(shape));
    return result;
  }

  #start(bytes: number): number {
    try {
      return this.#memory.allocate(bytes);
    } catch (error) {
      throw new EngineError(
        "OverBudget",
        `${bytes} more bytes don't fit: ${(error as Error).message}; release tensors, or load a smaller model`,
        { bytes },
      );
    }
  }
}

function at(value: Value): number {
  return (value.storage as WasmStorage).start;
}

/** Whether the fast attention kernels do it: every position from the first on, one key head for each head. */
function isCausal(reach: Reach | null, q: Value, k: Value): boolean {
  return (
    reach !== null &&
    reach.offset === 0 &&
    reach.window === null &&
    reach.starts === null &&
    sameShape(q.shape, k.shape)
  );
}
