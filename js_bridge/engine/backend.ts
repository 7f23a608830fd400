// What a backend is: somewhere that numbers live, and the few kernels that a decoder and the tensor operations need.
// It is not a tensor library: it has no names, no graph, no gradients, and it checks no shapes; its callers have.
// `reference` is the definition of every kernel; `wasm` is the fast one everywhere, `webgl` the fast one on a real GPU.

import type { BackendName, BinaryOperation, Reduction, Shape, UnaryOperation } from "../protocol.ts";

/** Numbers in a backend, float32. Born with one reference; the backend frees it with the last. */
export interface Storage {
  readonly bytes: number;
  references: number;
}

/** A storage read as a row-major tensor. Values are never written after the kernel that made them. */
export interface Value {
  readonly shape: Shape;
  readonly storage: Storage;
  /** How it came about, where a tape keeps that (tape.ts). Backends neither read nor copy it. */
  readonly past?: object;
}

/** A weight [inputs, outputs], laid out once for `product`. */
export interface Matrix {
  readonly inputs: number;
  readonly outputs: number;
  readonly bytes: number;
}

/** How a weight lies in its file, and whether it is kept as int8. */
export interface MatrixLayout {
  readonly inputs: number;
  readonly outputs: number;
  /** The file has rows of outputs, [outputs, inputs]; otherwise [inputs, outputs]. */
  readonly transposed: boolean;
  /** Of int8 codes: one factor per output, each there before its codes are written, all read by `finish`. Null: float32. */
  readonly scales: Float32Array | null;
}

/** A weight on its way in: whole rows of the file, in their order, in pieces of any size. */
export interface MatrixWriter {
  /** Int8Array where the layout has scales, else Float32Array. */
  write(rows: Float32Array | Int8Array): void;
  /** After the last row. */
  finish(): Matrix;
  /** Frees what was written. */
  abandon(): void;
}

export type Activation = "geluTanh" | "geluErf" | "relu" | "silu";

/** Which keys a query sees: query i those up to `offset + i`. */
export interface Reach {
  /** How many keys come before the first query's own. */
  readonly offset: number;
  /** How many keys are seen, the query's own included; null is all. */
  readonly window: number | null;
  /** The first key that is no padding, by row of the batch; null is 0 everywhere. */
  readonly starts: readonly number[] | null;
}

export interface ScoreOptions {
  readonly factor: number;
  /** c · tanh(score / c), before the mask. */
  readonly softCap: number | null;
  /** Null: no mask. */
  readonly reach: Reach | null;
}

/**
 * Letters as in the README: B batch, T positions of the queries, S positions of the keys, D width, H heads, K width of
 * a head, KV key-value heads: H is a multiple of KV, head h reads key-value head ⌊h · KV / H⌋.
 */
export interface Backend {
  readonly name: BackendName;
  /** Threads that a kernel uses at most. */
  readonly threads: number;
  /** Of all values and weights that are alive here, scratch of running passes included. */
  readonly bytes: number;

  upload(numbers: Float32Array, shape: Shape): Value;
  /** A copy; the one place where numbers leave a backend. */
  read(value: Value): Float32Array;
  retain(value: Value): Value;
  release(value: Value): void;
  /** The same numbers in another shape: shares the storage where the layout allows. */
  reshape(value: Value, shape: Shape): Value;

  startMatrix(layout: MatrixLayout): MatrixWriter;
  releaseMatrix(matrix: Matrix): void;

  /** Column `ids[i]` of the table, for each id: the token embedding. → [...lead D] */
  columns(table: Matrix, ids: Int32Array, lead: Shape): Value;
  /** x · matrix + bias. [... inputs] → [... outputs] */
  product(x: Value, matrix: Matrix, bias: Value | null): Value;
  /** y · matrixᵀ: what a product does to gradients, over the same weights. [... outputs] → [... inputs] */
  productTransposed(y: Value, matrix: Matrix): Value;
  /** √(variance + epsilon) of each row, or of the mean square where rows are not centred. [... D] → [... 1] */
  normScale(x: Value, epsilon: number, centred: boolean): Value;
  /** (x − mean of the row, where centred) / scale. */
  normalize(x: Value, scale: Value, centred: boolean): Value;
  /** x · weight + bias, along the last axis; null is 1, and 0. */
  affine(x: Value, weight: Value | null, bias: Value | null): Value;
  /** The three at once; the same numbers, bit by bit. */
  norm(x: Value, weight: Value | null, bias: Value | null, epsilon: number, centred: boolean): Value;
  activate(kind: Activation, x: Value): Value;
  /** gradient · the activation's derivative at x. */
  activateGradient(kind: Activation, x: Value, gradient: Value): Value;
  /** Turns the first R numbers of each head, in pairs (i, i + R/2). x [B T H K], cosines and sines [B T R/2]. */
  rotate(x: Value, cosines: Value, sines: Value): Value;
  /** q · k · factor, −∞ where the query does not see the key. [B T H K], [B S KV K] → [B H T S] */
  scores(q: Value, k: Value, options: ScoreOptions): Value;
  /** Over the last axis; −∞ becomes exactly 0, a row of nothing else all 0. `sinks` [H]: one more logit per head, dropped. */
  softmax(x: Value, sinks: Value | null): Value;
  /**
   * pattern · v. [B H T S], [B S KV K] → [B T H K]
   * What `reach` hides is not read; with null it is all read, and where the pattern is 0 nothing is added, even of NaN.
   */
  mix(pattern: Value, v: Value, reach: Reach | null): Value;
  /** patternᵀ · x, summed over the heads that share a key-value head. [B H T S], [B T H K] → [B S KV K] */
  mixTransposed(pattern: Value, x: Value, keyValueHeads: number): Value;
  /** The first `count` positions of `before` and then `fresh`; may write behind what `before` shows. [B S KV K] */
  extend(before: Value | null, count: number, fresh: Value): Value;

  unary(operation: UnaryOperation, x: Value): Value;
  /** Broadcast; `shape` is the result's. */
  binary(operation: BinaryOperation, a: Value, b: Value, shape: Shape): Value;
  /** `a` where the mask is not 0, `b` elsewhere; all broadcast to `shape`. */
  select(mask: Value, a: Value, b: Value, shape: Shape): Value;
  /** Σ e^(x − shift) over all of x, NaN left out; where a backend has it, that is faster than to read x and to add up. */
  sumExponentials?(x: Value, shift: number): number;
  /** Over one axis, which is left with extent 1. */
  reduce(operation: Reduction, x: Value, axis: number): Value;
  /** Element at `offset + Σ index·stride` for each index of `shape`: slices, permutations, repetition. */
  strided(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value;
  /** What `strided` does to gradients: adds each element of x at that place of a tensor of `shape` that is 0 elsewhere. */
  stridedTransposed(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value;
  /** The given places along an axis, in that order. */
  take(x: Value, axis: number, indices: Int32Array): Value;
  /** What `take` does to gradients: adds up what goes to each of the `extent` places along the axis; 0 where nothing does. */
  takeTransposed(x: Value, axis: number, indices: Int32Array, extent: number): Value;
  /** [... M N] · [... N O] → [... M O], equal leading axes. */
  matmul(a: Value, b: Value): Value;
}

/** A weight whose numbers are all at hand. */
export function laidOut(backend: Backend, numbers: Float32Array | Int8Array, layout: MatrixLayout): Matrix {
  const writer = backend.startMatrix(layout);
  writer.write(numbers);
  return writer.finish();
}
