// Tensor operations over flat Float32Arrays, for every backend whose numbers JavaScript can see (reference and wasm).
// Plain loops: the forward pass does not spend its time here. Sums are kept in float64.

import type {
  Activation,
  Backend,
  Matrix,
  MatrixLayout,
  MatrixWriter,
  Reach,
  ScoreOptions,
  Storage,
  Value,
} from "../engine/backend.ts";
import { broadcastStrides, elementsOf, lastOf, sameShape } from "../engine/tensors/shape.ts";
import type { BackendName, BinaryOperation, Reduction, Shape, UnaryOperation } from "../protocol.ts";

const UNARY: Record<UnaryOperation, (x: number) => number> = {
  negate: (x) => -x,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  tanh: Math.tanh,
  absolute: Math.abs,
  square: (x) => x * x,
};

const BINARY: Record<BinaryOperation, (a: number, b: number) => number> = {
  add: (a, b) => a + b,
  subtract: (a, b) => a - b,
  multiply: (a, b) => a * b,
  divide: (a, b) => a / b,
  minimum: Math.min,
  maximum: Math.max,
};

export abstract class ArrayBackend implements Backend {
  abstract readonly name: BackendName;
  get threads(): number {
    return 1;
  }

  bytes = 0;

  protected abstract room(bytes: number): Storage;
  /** The numbers of a value; valid until the next `allocate`. */
  protected abstract view(value: Value): Float32Array;
  protected abstract free(storage: Storage): void;

  /** New room for a tensor; what is in it is undefined. */
  protected allocate(shape: Shape): Value {
    const bytes = 4 * elementsOf(shape);
    const storage = this.room(bytes);
    this.bytes += bytes;
    return { shape, storage };
  }

  abstract startMatrix(layout: MatrixLayout): MatrixWriter;
  abstract releaseMatrix(matrix: Matrix): void;
  abstract columns(table: Matrix, ids: Int32Array, lead: Shape): Value;
  abstract product(x: Value, matrix: Matrix, bias: Value | null): Value;
  abstract productTransposed(y: Value, matrix: Matrix): Value;
  abstract normScale(x: Value, epsilon: number, centred: boolean): Value;
  abstract normalize(x: Value, scale: Value, centred: boolean): Value;
  abstract affine(x: Value, weight: Value | null, bias: Value | null): Value;
  abstract norm(x: Value, weight: Value | null, bias: Value | null, epsilon: number, centred: boolean): Value;
  abstract activate(kind: Activation, x: Value): Value;
  abstract activateGradient(kind: Activation, x: Value, gradient: Value): Value;
  abstract rotate(x: Value, cosines: Value, sines: Value): Value;
  abstract scores(q: Value, k: Value, options: ScoreOptions): Value;
  abstract softmax(x: Value, sinks: Value | null): Value;
  abstract mix(pattern: Value, v: Value, reach: Reach | null): Value;
  abstract mixTransposed(pattern: Value, x: Value, keyValueHeads: number): Value;
  abstract extend(before: Value | null, count: number, fresh: Value): Value;

  upload(numbers: Float32Array, shape: Shape): Value {
    const result = this.allocate(shape);
    this.view(result).set(numbers);
    return result;
  }

  read(value: Value): Float32Array {
    return this.view(value).slice();
  }

  retain(value: Value): Value {
    value.storage.references++;
    return value;
  }

  release(value: Value): void {
    if (--value.storage.references > 0) return;
    this.bytes -= value.storage.bytes;
    this.free(value.storage);
  }

  reshape(value: Value, shape: Shape): Value {
    value.storage.references++;
    return { shape, storage: value.storage };
  }

  unary(operation: UnaryOperation, x: Value): Value {
    const result = this.allocate(x.shape);
    const from = this.view(x);
    const to = this.view(result);
    const apply = UNARY[operation];
    for (let i = 0; i < to.length; i++) to[i] = apply(from[i]);
    return result;
  }

  binary(operation: BinaryOperation, a: Value, b: Value, shape: Shape): Value {
    const result = this.allocate(shape);
    const to = this.view(result);
    const left = this.view(a);
    const right = this.view(b);
    const apply = BINARY[operation];
    if (sameShape(a.shape, shape) && sameShape(b.shape, shape)) {
      for (let i = 0; i < to.length; i++) to[i] = apply(left[i], right[i]);
    } else {
      const strides = [broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape)];
      walk(shape, strides, (i, [p, q]) => {
        to[i] = apply(left[p], right[q]);
      });
    }
    return result;
  }

  select(mask: Value, a: Value, b: Value, shape: Shape): Value {
    const result = this.allocate(shape);
    const to = this.view(result);
    const [condition, left, right] = [this.view(mask), this.view(a), this.view(b)];
    const strides = [mask, a, b].map((each) => broadcastStrides(each.shape, shape));
    walk(shape, strides, (i, [m, p, q]) => {
      to[i] = condition[m] !== 0 ? left[p] : right[q];
    });
    return result;
  }

  reduce(operation: Reduction, x: Value, axis: number): Value {
    const extent = x.shape[axis];
    const inner = elementsOf(x.shape.slice(axis + 1));
    const outer = elementsOf(x.shape.slice(0, axis));
    const result = this.allocate(x.shape.with(axis, 1));
    const from = this.view(x);
    const to = this.view(result);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        to[o * inner + i] = reduceRow(operation, from, o * extent * inner + i, extent, inner);
      }
    }
    return result;
  }

  strided(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value {
    const result = this.allocate(shape);
    const from = this.view(x);
    const to = this.view(result);
    walk(shape, [strides], (i, [p]) => {
      to[i] = from[offset + p];
    });
    return result;
  }

  stridedTransposed(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value {
    const result = this.allocate(shape);
    const from = this.view(x);
    const to = this.view(result).fill(0);
    walk(x.shape, [strides], (i, [p]) => {
      to[offset + p] += from[i];
    });
    return result;
  }

  take(x: Value, axis: number, indices: Int32Array): Value {
    const extent = x.shape[axis];
    const inner = elementsOf(x.shape.slice(axis + 1));
    const outer = elementsOf(x.shape.slice(0, axis));
    const result = this.allocate(x.shape.with(axis, indices.length));
    const from = this.view(x);
    const to = this.view(result);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < indices.length; i++) {
        const start = (o * extent + indices[i]) * inner;
        to.set(from.subarray(start, start + inner), (o * indices.length + i) * inner);
      }
    }
    return result;
  }

  takeTransposed(x: Value, axis: number, indices: Int32Array, extent: number): Value {
    const inner = elementsOf(x.shape.slice(axis + 1));
    const outer = elementsOf(x.shape.slice(0, axis));
    const result = this.allocate(x.shape.with(axis, extent));
    const from = this.view(x);
    const to = this.view(result).fill(0);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < indices.length; i++) {
        const source = (o * indices.length + i) * inner;
        const target = (o * extent + indices[i]) * inner;
        for (let j = 0; j < inner; j++) to[target + j] += from[source + j];
      }
    }
    return result;
  }

  matmul(a: Value, b: Value): Value {
    const rows = a.shape[a.shape.length - 2];
    const depth = lastOf(a.shape);
    const columns = lastOf(b.shape);
    const batches = elementsOf(a.shape) / (rows * depth);
    const result = this.allocate([...a.shape.slice(0, -1), columns]);
    const [left, right, to] = [this.view(a), this.view(b), this.view(result)];
    const sums = new Float64Array(columns);
    for (let batch = 0; batch < batches; batch++) {
      for (let row = 0; row < rows; row++) {
        sums.fill(0);
        const base = (batch * rows + row) * depth;
        for (let k = 0; k < depth; k++) {
          const factor = left[base + k];
          const other = (batch * depth + k) * columns;
          for (let column = 0; column < columns; column++) sums[column] += factor * right[other + column];
        }
        to.set(sums, (batch * rows + row) * columns);
      }
    }
    return result;
  }
}

/** Calls `visit` with each flat index of `shape` and, per list of strides, the place that it reads. */
function walk(
  shape: Shape,
  strides: readonly (readonly number[])[],
  visit: (index: number, places: readonly number[]) => void,
): void {
  const total = elementsOf(shape);
  const counters = new Array<number>(shape.length).fill(0);
  const places = new Array<number>(strides.length).fill(0);
  for (let index = 0; index < total; index++) {
    visit(index, places);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const turned = ++counters[axis] === shape[axis];
      for (let s = 0; s < strides.length; s++) {
        places[s] += turned ? -strides[s][axis] * (shape[axis] - 1) : strides[s][axis];
      }
      if (!turned) break;
      counters[axis] = 0;
    }
  }
}

function reduceRow(operation: Reduction, from: Float32Array, start: number, extent: number, stride: number): number {
  let best = from[start];
  let bestAt = 0;
  let sum = 0;
  for (let i = 0; i < extent; i++) {
    const x = from[start + i * stride];
    sum += x;
    if (operation === "min" ? x < best : x > best) {
      best = x;
      bestAt = i;
    }
  }
  switch (operation) {
    case "sum":
      return sum;
    case "mean":
      return sum / extent;
    case "max":
    case "min":
      return best;
    case "argmax":
      return bestAt;
    default:
      return operation satisfies never;
  }
}
