// Tensors that are alive in the engine: made, computed, differentiated, read, let go of.
//
// Operations are pipelined: an operation, `read` or `forward` may name tensors that are still being computed, and waits
// for them; an operation that fails poisons its result, and each use of the result fails with the first error.

import type { Shape, TensorId } from "./names.ts";
import type { OperationName, OperationParameters } from "./operation.ts";

/** Names a new tensor. Attachment 0: its numbers, a Float32Array in row-major order. */
export interface CreateRequest {
  kind: "create";
  tensor: TensorId;
  shape: Shape;
}

/** Computes `result` from `inputs`; no answer, the error of a failed operation is in its result. */
export interface OperateRequest {
  kind: "operate";
  op: OperationName;
  inputs: readonly TensorId[];
  parameters?: OperationParameters;
  result: TensorId;
  /** Where it was posted (a Smalltalk method and line): repeated in errors and in the ledger. */
  origin?: string;
}

/**
 * d of / d tensor for tensors that were captured in a taped pass or made by operations from such; `of` holds one
 * number. No answer, as of `operate`: the error is in the results.
 */
export interface GradientRequest {
  kind: "gradient";
  of: TensorId;
  to: readonly { tensor: TensorId; result: TensorId }[];
  origin?: string;
}

/** → `numbers` */
export interface ReadRequest {
  kind: "read";
  id: number;
  tensor: TensorId;
}

/** Attachment 0: the numbers, a Float32Array in row-major order. */
export interface NumbersAnswer {
  kind: "numbers";
  id: number;
  tensor: TensorId;
  shape: Shape;
  dtype: "float32";
}

/** → `statistics` */
export interface StatisticsRequest {
  kind: "statistics";
  id: number;
  tensor: TensorId;
}

/** Over the finite numbers; `nonFinite` counts the others. The deviation is the population's. Null where none is. */
export interface StatisticsAnswer {
  kind: "statistics";
  id: number;
  tensor: TensorId;
  shape: Shape;
  elements: number;
  nonFinite: number;
  mean: number | null;
  standardDeviation: number | null;
  norm: number | null;
  min: number | null;
  max: number | null;
}

/** The k largest along the last axis, largest first, equal ones by index. → `top` */
export interface TopKRequest {
  kind: "topK";
  id: number;
  tensor: TensorId;
  k: number;
}

/** Attachment 0: the values, 1: their indices as floats; both of `shape`, the tensor's with k as its last extent. */
export interface TopAnswer {
  kind: "top";
  id: number;
  tensor: TensorId;
  shape: Shape;
}

/** Lets go of tensors; naming one that is already released is no error. */
export interface ReleaseRequest {
  kind: "release";
  tensors: readonly TensorId[];
}
