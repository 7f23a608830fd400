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
}

/** A weight [inputs, outputs], laid out once for `product`. */
export interface Matrix {
  readonly inputs: number;
  readonly outputs: number;
  readonly bytes: number;
}

export type Activation = "geluTanh" | "geluErf" | "relu";

/** Letters as in the README: B batch, T positions, D width, H heads, K width of a head. */
export interface Backend {
  readonly name: BackendName;
  /** Of all values and weights that are alive here, scratch of running passes included. */
  readonly bytes: number;

  upload(numbers: Float32Array, shape: Shape): Value;
  /** A copy; the one place where numbers leave a backend. */
  read(value: Value): Float32Array;
  retain(value: Value): Value;
  release(value: Value): void;
  /** The same numbers in another shape: shares the storage where the layout allows. */
  reshape(value: Value, shape: Shape): Value;

  /** Takes over row-major [inputs, outputs], or with `transposed` [outputs, inputs]. */
  matrix(numbers: Float32Array, inputs: number, outputs: number, transposed: boolean): Matrix;
  releaseMatrix(matrix: Matrix): void;

  /** Column `ids[i]` of the table, for each id: the token embedding. → [...lead D] */
  columns(table: Matrix, ids: Int32Array, lead: Shape): Value;
  /** x · matrix + bias. [... inputs] → [... outputs] */
  product(x: Value, matrix: Matrix, bias: Value | null): Value;
  /** √(variance + epsilon) of each row. [... D] → [... 1] */
  normScale(x: Value, epsilon: number): Value;
  /** (x − mean of the row) / scale. */
  normalize(x: Value, scale: Value): Value;
  /** x · weight + bias, along the last axis. */
  affine(x: Value, weight: Value, bias: Value): Value;
  activate(kind: Activation, x: Value): Value;
  /** q · k · factor, −∞ where the key lies after the query. [B T H K] × 2 → [B H T T] */
  scores(q: Value, k: Value, factor: number): Value;
  /** Over the last axis; −∞ becomes exactly 0. */
  softmax(x: Value): Value;
  /** pattern · v. [B H T T], [B T H K] → [B T H K] */
  mix(pattern: Value, v: Value): Value;

  unary(operation: UnaryOperation, x: Value): Value;
  /** Broadcast; `shape` is the result's. */
  binary(operation: BinaryOperation, a: Value, b: Value, shape: Shape): Value;
  /** `a` where the mask is not 0, `b` elsewhere; all broadcast to `shape`. */
  select(mask: Value, a: Value, b: Value, shape: Shape): Value;
  /** Over one axis, which is left with extent 1. */
  reduce(operation: Reduction, x: Value, axis: number): Value;
  /** Element at `offset + Σ index·stride` for each index of `shape`: slices, permutations, repetition. */
  strided(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value;
  /** The given places along an axis, in that order. */
  take(x: Value, axis: number, indices: Int32Array): Value;
  /** [... M N] · [... N O] → [... M O], equal leading axes. */
  matmul(a: Value, b: Value): Value;
}
