// What `operate` can compute. engine/tensors/operation.ts says what shape comes out; the backends compute it.

import type { Shape } from "./names.ts";

export type OperationName =
  | BinaryOperation
  | UnaryOperation
  | Reduction
  /** over the last axis */
  | "softmax"
  | "logSoftmax"
  /** the last two axes multiply, those before broadcast; a vector is a row on the left, a column on the right */
  | "matmul"
  /** `starts` and `sizes`, one number per axis */
  | "slice"
  /** `indices` along `axis`, in that order */
  | "take"
  /** `shape` */
  | "reshape"
  /** `axes`; without it the last two change places */
  | "transpose"
  /** several tensors along `axis` */
  | "concatenate"
  /** the same numbers under another name */
  | "copy";

/** Two tensors, broadcast as NumPy does; or one tensor and `parameters.scalar` (on the left with `reversed`). */
export type BinaryOperation = "add" | "subtract" | "multiply" | "divide" | "minimum" | "maximum";

/** One tensor, each number alone. */
export type UnaryOperation = "negate" | "exp" | "log" | "sqrt" | "tanh" | "absolute" | "square";

/** One tensor over `parameters.axis`; without it over all. `keepAxis` leaves the axis with extent 1. */
export type Reduction = "sum" | "mean" | "max" | "min" | "argmax";

export interface OperationParameters {
  scalar?: number;
  reversed?: boolean;
  axis?: number;
  keepAxis?: boolean;
  axes?: readonly number[];
  starts?: readonly number[];
  sizes?: readonly number[];
  indices?: readonly number[];
  shape?: Shape;
}
