// The backend in WebAssembly SIMD: kernels.wasm for the forward pass, plain loops over its memory for the rest.

import type { Activation, Matrix, Storage, Value } from "../engine/backend.ts";
import { EngineError } from "../engine/errors.ts";
import { elementsOf, lastOf, sameShape } from "../engine/shape.ts";
import type { BinaryOperation, Shape } from "../protocol.ts";
import { ArrayBackend } from "./array_backend.ts";
import { Memory } from "./memory.ts";
import { ACTIVATIONS } from "./reference.ts";

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

export class WasmBackend extends ArrayBackend {
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

  matrix(numbers: Float32Array, inputs: number, outputs: number, transposed: boolean): Matrix {
    const panels = Math.ceil(outputs / PANEL);
    const bytes = 4 * panels * inputs * PANEL;
    const start = this.#start(bytes);
    this.bytes += bytes;
    const to = this.#memory.floats(start, bytes / 4);
    const [inputStride, outputStride] = transposed ? [1, inputs] : [outputs, 1];
    for (let panel = 0; panel < panels; panel++) {
      const width = Math.min(PANEL, outputs - panel * PANEL);
      if (width < PANEL) to.fill(0, panel * inputs * PANEL);
      for (let k = 0; k < inputs; k++) {
        const source = k * inputStride + panel * PANEL * outputStride;
        const target = (panel * inputs + k) * PANEL;
        for (let i = 0; i < width; i++) to[target + i] = numbers[source + i * outputStride];
      }
    }
    return { inputs, outputs, bytes, start } as PanelMatrix;
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

  normScale(x: Value, epsilon: number): Value {
    const result = this.allocate([...x.shape.slice(0, -1), 1]);
    this.#kernels.normScale(at(x), at(result), elementsOf(result.shape), lastOf(x.shape), epsilon);
    return result;
  }

  normalize(x: Value, scale: Value): Value {
    const result = this.allocate(x.shape);
    this.#kernels.normalize(at(x), at(scale), at(result), elementsOf(scale.shape), lastOf(x.shape));
    return result;
  }

  affine(x: Value, weight: Value, bias: Value): Value {
    const result = this.allocate(x.shape);
    const width = lastOf(x.shape);
    this.#kernels.affine(at(x), at(weight), at(bias), at(result), elementsOf(x.shape) / width, width);
    return result;
  }

  activate(kind: Activation, x: Value): Value {
    const result = this.allocate(x.shape);
    if (kind === "geluTanh") {
      this.#kernels.geluTanh(at(x), at(result), elementsOf(x.shape));
      return result;
    }
    const from = this.view(x);
    const to = this.view(result);
    const apply = ACTIVATIONS[kind];
    for (let i = 0; i < to.length; i++) to[i] = apply(from[i]);
    return result;
  }

  scores(q: Value, k: Value, factor: number): Value {
    const [batches, positions, heads, width] = q.shape;
    const result = this.allocate([batches, heads, positions, positions]);
    this.#kernels.scores(at(q), at(k), at(result), batches, positions, heads, width, factor);
    return result;
  }

  softmax(x: Value): Value {
    const result = this.allocate(x.shape);
    const width = lastOf(x.shape);
    this.#kernels.softmax(at(x), at(result), elementsOf(x.shape) / width, width);
    return result;
  }

  mix(pattern: Value, v: Value): Value {
    const [batches, positions, heads, width] = v.shape;
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
