// The backend in WebAssembly SIMD: tensors in the memory of kernels.wasm, one kernel for each operation (wasm_module.ts
// opens them, assembly/ has them). `reference` is what every one of them is compared with.

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
import { broadcastStrides, elementsOf, lastOf, sameShape } from "../engine/tensors/shape.ts";
import type { BinaryOperation, Reduction, Shape, UnaryOperation } from "../protocol.ts";
import { ArrayBackend } from "./array_backend.ts";
import { mergeAxes } from "./repetition.ts";
import { PANEL, type PanelMatrix, writePanels } from "./wasm_matrix.ts";
import { bitsOf, type Kernels, openKernels, type WasmOptions } from "./wasm_module.ts";

interface WasmStorage extends Storage {
  readonly start: number;
  /** Numbers from the start that some value shows; what lies behind them may be written. */
  filled: number;
}

// The kernels know these by their places.
const ACTIVATION_KINDS: readonly Activation[] = ["geluTanh", "geluErf", "relu", "silu"];
const BINARY_OPERATIONS: readonly BinaryOperation[] = ["add", "subtract", "multiply", "divide", "minimum", "maximum"];
const UNARY_OPERATIONS: readonly UnaryOperation[] = ["negate", "exp", "log", "sqrt", "tanh", "absolute", "square"];
const REDUCTIONS: readonly Reduction[] = ["sum", "mean", "max", "min", "argmax"];

/** Numbers of a flat operation that make one unit of work. */
const STRETCH = 1024;

/**
 * Panels that make one unit of a product with a single row, which takes them four at a time, and what a multiplication
 * counts there: each waits for a number from memory that nothing else is done with.
 */
const ROW_PANELS = 8;
const ROW_COST = 3;

/** Inputs that make one unit of productTransposed, and the scratch that it needs in each thread. */
const BLOCK = 96;
const BLOCK_SCRATCH = 114_688;

/** Numbers that make one unit of sumExponentials. */
const EXPONENTIALS = 1024;

/** Room that a sequence of keys gets beyond what it needs, when it has outgrown its storage. */
const GROWTH = 1.25;
const LEAST_GROWTH = 16;

/** Fails: BackendUnavailable without the file, without SIMD, or with a file of another build. */
export async function openWasmBackend(options: WasmOptions = {}): Promise<WasmBackend> {
  return new WasmBackend(await openKernels(options));
}

export class WasmBackend extends ArrayBackend {
  readonly name = "wasm";
  readonly #kernels: Kernels;

  constructor(kernels: Kernels) {
    super();
    this.#kernels = kernels;
  }

  override get threads(): number {
    return this.#kernels.threads;
  }

  /** Portions of work that helper threads have done so far. */
  get helped(): number {
    return this.#kernels.helped;
  }

  /** What WebAssembly's memory takes, in use or free. */
  get memoryBytes(): number {
    return this.#kernels.memory.bytes;
  }

  protected room(bytes: number): Storage {
    return { start: this.#start(bytes), bytes, references: 1, filled: bytes / 4 } as WasmStorage;
  }

  protected view(value: Value): Float32Array {
    return this.#kernels.memory.floats(at(value), elementsOf(value.shape));
  }

  protected free(storage: Storage): void {
    this.#kernels.memory.free((storage as WasmStorage).start);
  }

  startMatrix(layout: MatrixLayout): MatrixWriter {
    const room = {
      allocate: (bytes: number) => this.#start(bytes),
      free: (start: number) => this.#kernels.memory.free(start),
    };
    return writePanels(this.#kernels, room, layout, (bytes) => {
      this.bytes += bytes;
    });
  }

  releaseMatrix(matrix: Matrix): void {
    this.bytes -= matrix.bytes;
    this.#kernels.memory.free((matrix as PanelMatrix).start);
  }

  columns(table: Matrix, ids: Int32Array, lead: Shape): Value {
    const { inputs, start, scales } = table as PanelMatrix;
    const result = this.allocate([...lead, inputs]);
    this.#withInts(ids, (list) => {
      this.#kernels.run("COLUMNS", ids.length, 4 * inputs, list, start, scales, at(result), inputs);
    });
    return result;
  }

  /** Storages are rounded up to whole panels, so the bias may be read 8 at a time. */
  product(x: Value, matrix: Matrix, bias: Value | null): Value {
    const { inputs, outputs, start, scales } = matrix as PanelMatrix;
    const result = this.allocate([...x.shape.slice(0, -1), outputs]);
    const rows = elementsOf(x.shape) / inputs;
    const block = rows === 1 ? ROW_PANELS : 1;
    const units = Math.ceil(outputs / PANEL / block);
    const cost = (rows === 1 ? ROW_COST : rows) * block * PANEL * inputs;
    const [from, to, offset] = [at(x), at(result), atOrNone(bias)];
    const shape = [rows, inputs, outputs, block];
    if (scales === 0) this.#kernels.run("PRODUCT", units, cost, from, start, offset, to, ...shape);
    else this.#kernels.run("PRODUCT_INT8", units, cost, from, start, scales, offset, to, ...shape);
    return result;
  }

  productTransposed(y: Value, matrix: Matrix): Value {
    const { inputs, outputs, start, scales } = matrix as PanelMatrix;
    const result = this.allocate([...y.shape.slice(0, -1), inputs]);
    const rows = elementsOf(y.shape) / outputs;
    const blocks = Math.ceil(inputs / BLOCK);
    const cost = BLOCK * rows * outputs;
    const to = at(result);
    this.#kernels.reserve(BLOCK_SCRATCH);
    this.#kernels.run("PRODUCT_TRANSPOSED", blocks, cost, at(y), start, scales, to, rows, inputs, outputs);
    return result;
  }

  normScale(x: Value, epsilon: number, centred: boolean): Value {
    const result = this.allocate([...x.shape.slice(0, -1), 1]);
    const width = lastOf(x.shape);
    const rows = elementsOf(result.shape);
    this.#kernels.run("NORM_SCALE", rows, width, at(x), at(result), width, bitsOf(epsilon), Number(centred));
    return result;
  }

  normalize(x: Value, scale: Value, centred: boolean): Value {
    const result = this.allocate(x.shape);
    const width = lastOf(x.shape);
    const rows = elementsOf(scale.shape);
    this.#kernels.run("NORMALIZE", rows, 2 * width, at(x), at(scale), at(result), width, Number(centred));
    return result;
  }

  affine(x: Value, weight: Value | null, bias: Value | null): Value {
    const result = this.allocate(x.shape);
    const width = lastOf(x.shape);
    const rows = elementsOf(x.shape) / width;
    this.#kernels.run("AFFINE", rows, width, at(x), atOrNone(weight), atOrNone(bias), at(result), width);
    return result;
  }

  norm(x: Value, weight: Value | null, bias: Value | null, epsilon: number, centred: boolean): Value {
    const result = this.allocate(x.shape);
    const width = lastOf(x.shape);
    const [w, b, to] = [atOrNone(weight), atOrNone(bias), at(result)];
    const rows = elementsOf(x.shape) / width;
    this.#kernels.run("NORM", rows, 3 * width, at(x), w, b, to, width, bitsOf(epsilon), Number(centred));
    return result;
  }

  activate(kind: Activation, x: Value): Value {
    const result = this.allocate(x.shape);
    this.#kernels.run("ACTIVATE", groupsOf(x), 64, ACTIVATION_KINDS.indexOf(kind), at(x), at(result));
    return result;
  }

  activateGradient(kind: Activation, x: Value, gradient: Value): Value {
    const result = this.allocate(x.shape);
    const number = ACTIVATION_KINDS.indexOf(kind);
    this.#kernels.run("ACTIVATE_GRADIENT", groupsOf(x), 96, number, at(x), at(gradient), at(result));
    return result;
  }

  rotate(x: Value, cosines: Value, sines: Value): Value {
    const [, , heads, width] = x.shape;
    const result = this.allocate(x.shape);
    const rows = elementsOf(x.shape) / width;
    const half = lastOf(cosines.shape);
    this.#kernels.run("ROTATE", rows, width, at(x), at(cosines), at(sines), at(result), heads, width, half);
    return result;
  }

  scores(q: Value, k: Value, { factor, softCap, reach }: ScoreOptions): Value {
    const [batches, positions, heads, width] = q.shape;
    const [, keyPositions, keyHeads] = k.shape;
    const result = this.allocate([batches, heads, positions, keyPositions]);
    const cap = bitsOf(softCap ?? 0);
    this.#withReach(reach, (...seen) => {
      const shape = [positions, keyPositions, heads, keyHeads, width];
      const rows = batches * heads * positions;
      const cost = keyPositions * width;
      this.#kernels.run("SCORES", rows, cost, at(q), at(k), at(result), ...shape, bitsOf(factor), cap, ...seen);
    });
    return result;
  }

  softmax(x: Value, sinks: Value | null): Value {
    const result = this.allocate(x.shape);
    const width = lastOf(x.shape);
    const rows = elementsOf(x.shape) / width;
    const [heads, queries] = sinks === null ? [1, 1] : [elementsOf(sinks.shape), x.shape[2]];
    this.#kernels.run("SOFTMAX", rows, 16 * width, at(x), atOrNone(sinks), at(result), width, heads, queries);
    return result;
  }

  mix(pattern: Value, v: Value, reach: Reach | null): Value {
    const [batches, heads, positions, keyPositions] = pattern.shape;
    const [, , keyHeads, width] = v.shape;
    const result = this.allocate([batches, positions, heads, width]);
    this.#withReach(reach, (...seen) => {
      const shape = [positions, keyPositions, heads, keyHeads, width];
      const rows = batches * heads * positions;
      this.#kernels.run("MIX", rows, keyPositions * width, at(pattern), at(v), at(result), ...shape, ...seen);
    });
    return result;
  }

  mixTransposed(pattern: Value, x: Value, keyValueHeads: number): Value {
    const [batches, heads, queries, keys] = pattern.shape;
    const width = lastOf(x.shape);
    const result = this.allocate([batches, keys, keyValueHeads, width]);
    const rows = batches * keys * keyValueHeads;
    const cost = (queries * width * heads) / keyValueHeads;
    const shape = [queries, keys, heads, keyValueHeads, width];
    this.#kernels.run("MIX_TRANSPOSED", rows, cost, at(pattern), at(x), at(result), ...shape);
    return result;
  }

  /** In place where `before` shows all that its storage holds and there is room behind it; else a copy, with spare room. */
  extend(before: Value | null, count: number, fresh: Value): Value {
    const [batches, positions, heads, width] = fresh.shape;
    const row = heads * width;
    const shape = [batches, count + positions, heads, width];
    const { memory } = this.#kernels;
    if (before !== null && batches === 1 && count === before.shape[1]) {
      const storage = before.storage as WasmStorage;
      const end = count * row;
      if (storage.filled === end && storage.bytes >= 4 * elementsOf(shape)) {
        memory.floats(storage.start + 4 * end, positions * row).set(this.view(fresh));
        storage.filled = elementsOf(shape);
        storage.references++;
        return { shape, storage };
      }
    }
    const total = count + positions;
    const spare = before === null || batches > 1 ? 0 : Math.max(LEAST_GROWTH, Math.ceil(total * (GROWTH - 1)));
    const { storage } = this.allocate([batches, total + spare, heads, width]);
    (storage as WasmStorage).filled = elementsOf(shape);
    const result = { shape, storage };
    const to = this.view(result);
    const [old, added] = [before === null ? null : this.view(before), this.view(fresh)];
    for (let b = 0; b < batches; b++) {
      const target = b * total * row;
      if (before !== null && old !== null) {
        const source = b * before.shape[1] * row;
        to.set(old.subarray(source, source + count * row), target);
      }
      to.set(added.subarray(b * positions * row, (b + 1) * positions * row), target + count * row);
    }
    return result;
  }

  override unary(operation: UnaryOperation, x: Value): Value {
    const result = this.allocate(x.shape);
    this.#kernels.run("UNARY", groupsOf(x), 32, UNARY_OPERATIONS.indexOf(operation), at(x), at(result));
    return result;
  }

  override binary(operation: BinaryOperation, a: Value, b: Value, shape: Shape): Value {
    const number = BINARY_OPERATIONS.indexOf(operation);
    const merged = mergeAxes(shape, [broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape)]);
    if (merged.shape.length > 2 || merged.strides.some((own) => (own.at(-1) as number) > 1)) {
      const [left, right] = [this.#expanded(a, shape), this.#expanded(b, shape)];
      const result = this.binary(operation, left, right, shape);
      this.release(left);
      this.release(right);
      return result;
    }
    const result = this.allocate(shape);
    if (merged.shape.length === 2) {
      const [rows, width] = merged.shape;
      const [[aRow, aStep], [bRow, bStep]] = merged.strides;
      const [left, right] = [
        [at(a), 4 * aRow, aStep],
        [at(b), 4 * bRow, bStep],
      ];
      this.#kernels.run("BINARY", rows, width, number, ...left, ...right, at(result), width);
      return result;
    }
    // One long row: cut into stretches, and what is left over.
    const [count] = merged.shape;
    const [[aStep], [bStep]] = merged.strides;
    const rows = Math.floor(count / STRETCH);
    const done = rows * STRETCH;
    for (const [begin, times, width] of [
      [0, rows, STRETCH],
      [done, 1, count - done],
    ]) {
      if (times * width === 0) continue;
      const left = [at(a) + 4 * begin * aStep, 4 * STRETCH * aStep, aStep];
      const right = [at(b) + 4 * begin * bStep, 4 * STRETCH * bStep, bStep];
      this.#kernels.run("BINARY", times, width, number, ...left, ...right, at(result) + 4 * begin, width);
    }
    return result;
  }

  override select(mask: Value, a: Value, b: Value, shape: Shape): Value {
    const whole = [mask, a, b].map((each) => this.#expanded(each, shape));
    const result = this.allocate(shape);
    const [m, p, q] = whole.map(at);
    this.#kernels.run("SELECT", groupsOf(result), 8, m, p, q, at(result));
    for (const each of whole) this.release(each);
    return result;
  }

  override reduce(operation: Reduction, x: Value, axis: number): Value {
    const extent = x.shape[axis];
    const inner = elementsOf(x.shape.slice(axis + 1));
    const outer = elementsOf(x.shape.slice(0, axis));
    const result = this.allocate(x.shape.with(axis, 1));
    const number = REDUCTIONS.indexOf(operation);
    this.#kernels.run("REDUCE", outer, 2 * extent * inner, number, at(x), at(result), extent, inner);
    return result;
  }

  sumExponentials(x: Value, shift: number): number {
    const count = elementsOf(x.shape);
    const stretches = Math.ceil(count / EXPONENTIALS);
    const sums = this.#start(8 * stretches);
    try {
      const cost = 8 * EXPONENTIALS;
      this.#kernels.run("SUM_EXPONENTIALS", stretches, cost, at(x), sums, count, bitsOf(shift));
      return new Float64Array(this.#kernels.memory.buffer, sums, stretches).reduce((a, b) => a + b);
    } finally {
      this.#kernels.memory.free(sums);
    }
  }

  override strided(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value {
    const result = this.allocate(shape);
    const merged = mergeAxes(shape, [strides]);
    const rank = merged.shape.length;
    const table = this.#kernels.table([...merged.shape, ...merged.strides[0]]);
    const width = merged.shape[rank - 1];
    const rows = elementsOf(merged.shape) / width;
    this.#kernels.run("GATHER", rows, 4 * width + 16, at(x), at(result), offset, rank, table);
    return result;
  }

  override matmul(a: Value, b: Value): Value {
    const [rows, depth] = a.shape.slice(-2);
    const columns = lastOf(b.shape);
    const result = this.allocate([...a.shape.slice(0, -1), columns]);
    const count = elementsOf(a.shape) / depth;
    this.#kernels.run("MATMUL", count, depth * columns, at(a), at(b), at(result), rows, depth, columns);
    return result;
  }

  /** The value itself, or its repetition; one more reference either way. */
  #expanded(value: Value, shape: Shape): Value {
    if (sameShape(value.shape, shape)) return this.retain(value);
    return this.strided(value, shape, 0, broadcastStrides(value.shape, shape));
  }

  #withInts(numbers: ArrayLike<number>, action: (address: number) => void): void {
    const address = this.#start(4 * numbers.length);
    try {
      new Int32Array(this.#kernels.memory.buffer, address, numbers.length).set(numbers);
      action(address);
    } finally {
      this.#kernels.memory.free(address);
    }
  }

  /** Masked or not, offset, window, address of the starts: the last arguments of the attention's kernels. */
  #withReach(reach: Reach | null, action: (...seen: [number, number, number, number]) => void): void {
    if (reach === null) return action(0, 0, -1, 0);
    const { offset, window, starts } = reach;
    if (starts === null) action(1, offset, window ?? -1, 0);
    else this.#withInts(starts, (address) => action(1, offset, window ?? -1, address));
  }

  #start(bytes: number): number {
    try {
      return this.#kernels.memory.allocate(bytes);
    } catch (error) {
      throw new EngineError(
        "OverBudget",
        `${bytes} more bytes don't fit: ${(error as Error).message}; release tensors, or load a smaller model`,
        { bytes, alive: this.bytes },
      );
    }
  }
}

function at(value: Value): number {
  return (value.storage as WasmStorage).start;
}

function atOrNone(value: Value | null): number {
  return value === null ? 0 : at(value);
}

/** Groups of four numbers, the last one perhaps not full. */
function groupsOf(value: Value): number {
  return Math.ceil(elementsOf(value.shape) / 4);
}
