// Tensor operations: checks what an `operate` message asks for, and composes it from a backend's kernels.
// Each function makes a new value that the caller owns; inputs stay the caller's.

import type {
  BinaryOperation,
  OperationName,
  OperationParameters,
  Reduction,
  Shape,
  UnaryOperation,
} from "../../protocol.ts";
import type { Backend, Value } from "../backend.ts";
import { EngineError } from "../errors.ts";
import {
  broadcastShapes,
  broadcastStrides,
  checkShape,
  elementsOf,
  resolveAxis,
  resolveIndex,
  sameShape,
  showShape,
  stridesOf,
} from "./shape.ts";

/** Fails: ShapeMismatch, BadParameter. */
export function operate(
  backend: Backend,
  operation: OperationName,
  inputs: readonly Value[],
  parameters: OperationParameters = {},
): Value {
  switch (operation) {
    case "add":
    case "subtract":
    case "multiply":
    case "divide":
    case "minimum":
    case "maximum":
      return binary(backend, operation, inputs, parameters);
    case "negate":
    case "exp":
    case "log":
    case "sqrt":
    case "tanh":
    case "absolute":
    case "square":
      return backend.unary(operation satisfies UnaryOperation, only(operation, inputs));
    case "sum":
    case "mean":
    case "max":
    case "min":
    case "argmax":
      return reduction(backend, operation, only(operation, inputs), parameters);
    case "softmax":
      return backend.softmax(ofAxes(operation, only(operation, inputs), 1), null);
    case "logSoftmax":
      return logSoftmax(backend, ofAxes(operation, only(operation, inputs), 1));
    case "matmul":
      return matmul(backend, inputs);
    case "slice":
      return slice(backend, only(operation, inputs), parameters);
    case "take":
      return take(backend, only(operation, inputs), parameters);
    case "reshape":
      return reshape(backend, only(operation, inputs), parameters);
    case "transpose":
      return transpose(backend, only(operation, inputs), parameters);
    case "concatenate":
      return concatenate(backend, inputs, parameters);
    case "copy":
      return copy(backend, only(operation, inputs));
    default:
      throw unknown(operation);
  }
}

/** A value of its own, also to a tape: its gradient is not that of what it was copied from. */
function copy(backend: Backend, x: Value): Value {
  return backend.reshape(x, x.shape);
}

function unknown(operation: never): EngineError {
  return new EngineError(
    "BadMessage",
    `Operation ${JSON.stringify(operation)} is not one that the engine has; protocol/operation.ts lists them`,
  );
}

function only(operation: OperationName, inputs: readonly Value[]): Value {
  return counted(operation, inputs, 1)[0];
}

function counted(operation: OperationName, inputs: readonly Value[], count: number): readonly Value[] {
  if (inputs.length !== count)
    throw new EngineError("BadMessage", `${operation} was given ${inputs.length} tensors; it takes ${count}`);
  return inputs;
}

function ofAxes(operation: OperationName, value: Value, least: number): Value {
  if (value.shape.length < least) {
    throw new EngineError(
      "ShapeMismatch",
      `${operation} of a tensor of shape ${showShape(value.shape)}: it needs at least ${least} axes`,
      { shapes: [value.shape] },
    );
  }
  return value;
}

function required<T>(operation: OperationName, name: string, parameter: T | undefined): T {
  if (parameter === undefined) throw new EngineError("BadMessage", `${operation} lacks its parameter ${name}`);
  return parameter;
}

function binary(
  backend: Backend,
  operation: BinaryOperation,
  inputs: readonly Value[],
  { scalar, reversed }: OperationParameters,
): Value {
  if (scalar === undefined) {
    const [a, b] = counted(operation, inputs, 2);
    return backend.binary(operation, a, b, broadcastShapes(a.shape, b.shape));
  }
  const x = only(operation, inputs);
  return withScalar(backend, scalar, (number) =>
    reversed === true ? backend.binary(operation, number, x, x.shape) : backend.binary(operation, x, number, x.shape),
  );
}

/** Runs `use` with a number as a tensor without axes. */
export function withScalar(backend: Backend, scalar: number, use: (number: Value) => Value): Value {
  const number = backend.upload(Float32Array.of(scalar), []);
  try {
    return use(number);
  } finally {
    backend.release(number);
  }
}

function reduction(backend: Backend, operation: Reduction, x: Value, { axis, keepAxis }: OperationParameters): Value {
  if (axis === undefined) {
    const flat = backend.reshape(x, [elementsOf(x.shape)]);
    const reduced = backend.reduce(operation, flat, 0);
    backend.release(flat);
    return renamed(backend, reduced, keepAxis === true ? x.shape.map(() => 1) : []);
  }
  const resolved = resolveAxis(axis, x.shape.length);
  const reduced = backend.reduce(operation, x, resolved);
  return keepAxis === true ? reduced : renamed(backend, reduced, x.shape.toSpliced(resolved, 1));
}

/** Another shape for a value that nobody else holds. */
function renamed(backend: Backend, value: Value, shape: Shape): Value {
  const result = backend.reshape(value, shape);
  backend.release(value);
  return result;
}

/** x − max − log Σ exp(x − max): finite where softmax would underflow to 0. */
function logSoftmax(backend: Backend, x: Value): Value {
  const axis = x.shape.length - 1;
  const made: Value[] = [];
  const keep = (value: Value) => (made.push(value), value);
  try {
    const max = keep(backend.reduce("max", x, axis));
    const shifted = keep(backend.binary("subtract", x, max, x.shape));
    const total = keep(backend.reduce("sum", keep(backend.unary("exp", shifted)), axis));
    return backend.binary("subtract", shifted, keep(backend.unary("log", total)), x.shape);
  } finally {
    for (const value of made) backend.release(value);
  }
}

function matmul(backend: Backend, inputs: readonly Value[]): Value {
  const [a, b] = counted("matmul", inputs, 2);
  ofAxes("matmul", a, 1);
  ofAxes("matmul", b, 1);
  const left = a.shape.length === 1 ? [1, a.shape[0]] : a.shape;
  const right = b.shape.length === 1 ? [b.shape[0], 1] : b.shape;
  if (left[left.length - 1] !== right[right.length - 2]) {
    throw new EngineError(
      "ShapeMismatch",
      `matmul of ${showShape(a.shape)} and ${showShape(b.shape)}: the inner extents ${left[left.length - 1]} and ${right[right.length - 2]} must be equal`,
      { shapes: [a.shape, b.shape] },
    );
  }
  const lead = broadcastShapes(left.slice(0, -2), right.slice(0, -2));
  const expanded = [
    expand(backend, a, left, [...lead, ...left.slice(-2)]),
    expand(backend, b, right, [...lead, ...right.slice(-2)]),
  ];
  const product = backend.matmul(expanded[0], expanded[1]);
  for (const value of expanded) backend.release(value);
  const shape = [
    ...lead,
    ...(a.shape.length === 1 ? [] : left.slice(-2, -1)),
    ...(b.shape.length === 1 ? [] : right.slice(-1)),
  ];
  return renamed(backend, product, shape);
}

/** A value read as `shape`, repeated to `target`. */
function expand(backend: Backend, value: Value, shape: Shape, target: Shape): Value {
  if (sameShape(shape, target)) return backend.reshape(value, shape);
  return backend.strided(value, target, 0, broadcastStrides(shape, target));
}

function slice(backend: Backend, x: Value, parameters: OperationParameters): Value {
  const starts = required("slice", "starts", parameters.starts);
  const sizes = required("slice", "sizes", parameters.sizes);
  const { shape } = x;
  const fits = (axis: number) =>
    Number.isInteger(starts[axis]) &&
    Number.isInteger(sizes[axis]) &&
    starts[axis] >= 0 &&
    sizes[axis] > 0 &&
    starts[axis] + sizes[axis] <= shape[axis];
  if (starts.length !== shape.length || sizes.length !== shape.length || !shape.every((_, axis) => fits(axis))) {
    throw new EngineError(
      "BadParameter",
      `Slice from ${showShape(starts)} of size ${showShape(sizes)}: it must lie inside shape ${showShape(shape)}, with one number per axis`,
      { shapes: [shape] },
    );
  }
  const strides = stridesOf(shape);
  const offset = strides.reduce((sum, stride, axis) => sum + stride * starts[axis], 0);
  return backend.strided(x, sizes, offset, strides);
}

function take(backend: Backend, x: Value, parameters: OperationParameters): Value {
  const axis = resolveAxis(required("take", "axis", parameters.axis), x.shape.length);
  const indices = required("take", "indices", parameters.indices);
  if (indices.length === 0)
    throw new EngineError("BadParameter", `take of no indices along axis ${axis}: name at least one`);
  return backend.take(
    x,
    axis,
    Int32Array.from(indices, (index) =>
      resolveIndex(index, x.shape[axis], `axis ${axis} of shape ${showShape(x.shape)}`),
    ),
  );
}

function reshape(backend: Backend, x: Value, parameters: OperationParameters): Value {
  const shape = required("reshape", "shape", parameters.shape);
  checkShape(shape);
  if (elementsOf(shape) !== elementsOf(x.shape)) {
    throw new EngineError(
      "ShapeMismatch",
      `Shape ${showShape(x.shape)} has ${elementsOf(x.shape)} elements, shape ${showShape(shape)} has ${elementsOf(shape)}; they must be equal`,
      { shapes: [x.shape, shape] },
    );
  }
  return backend.reshape(x, shape);
}

function transpose(backend: Backend, x: Value, parameters: OperationParameters): Value {
  const rank = x.shape.length;
  const axes = parameters.axes?.map((axis) => resolveAxis(axis, rank)) ?? swapLast(ofAxes("transpose", x, 2).shape);
  if (axes.length !== rank || new Set(axes).size !== rank) {
    throw new EngineError(
      "BadParameter",
      `Axes ${showShape(axes)}: each of the ${rank} axes of shape ${showShape(x.shape)} must come once`,
    );
  }
  const strides = stridesOf(x.shape);
  return backend.strided(
    x,
    axes.map((axis) => x.shape[axis]),
    0,
    axes.map((axis) => strides[axis]),
  );
}

function swapLast(shape: Shape): number[] {
  const axes = shape.map((_, axis) => axis);
  return [...axes.slice(0, -2), axes.length - 1, axes.length - 2];
}

/** Each piece is stretched over the whole extent, then taken where it is its turn. */
function concatenate(backend: Backend, inputs: readonly Value[], parameters: OperationParameters): Value {
  if (inputs.length === 0)
    throw new EngineError("BadMessage", "concatenate was given no tensors; it takes at least one");
  const { shape } = inputs[0];
  const axis = resolveAxis(required("concatenate", "axis", parameters.axis), shape.length);
  for (const each of inputs) {
    if (each.shape.length !== shape.length || !each.shape.every((extent, i) => i === axis || extent === shape[i])) {
      throw new EngineError(
        "ShapeMismatch",
        `Shapes ${showShape(shape)} and ${showShape(each.shape)} can't be joined along axis ${axis}: all other extents must be equal`,
        { shapes: [shape, each.shape] },
      );
    }
  }
  const total = inputs.reduce((sum, each) => sum + each.shape[axis], 0);
  const target = shape.with(axis, total);
  const maskShape = new Array<number>(shape.length - axis).fill(1).with(0, total);
  let start = inputs[0].shape[axis];
  let joined = stretch(backend, inputs[0], axis, 0, total);
  for (const each of inputs.slice(1)) {
    const end = start + each.shape[axis];
    const mask = backend.upload(
      Float32Array.from({ length: total }, (_, i) => (i >= start && i < end ? 1 : 0)),
      maskShape,
    );
    const stretched = stretch(backend, each, axis, start, total);
    const next = backend.select(mask, stretched, joined, target);
    for (const value of [mask, stretched, joined]) backend.release(value);
    joined = next;
    start = end;
  }
  return joined;
}

function stretch(backend: Backend, x: Value, axis: number, start: number, total: number): Value {
  const extent = x.shape[axis];
  return backend.take(
    x,
    axis,
    Int32Array.from({ length: total }, (_, i) => Math.min(Math.max(i - start, 0), extent - 1)),
  );
}
