// Shapes of row-major tensors: extents, strides, broadcasting as NumPy does it. Knows nothing of numbers.

import type { Shape } from "../../protocol.ts";
import { EngineError } from "../errors.ts";

/** No tensor has more axes: the shaders unroll over them. */
export const MAX_AXES = 6;

export function elementsOf(shape: Shape): number {
  let product = 1;
  for (const extent of shape) product *= extent;
  return product;
}

export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

export function lastOf(shape: Shape): number {
  return shape.length === 0 ? 1 : shape[shape.length - 1];
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((extent, axis) => extent === b[axis]);
}

export function showShape(shape: Shape): string {
  return `[${shape.join(" ")}]`;
}

/** The shape that two shapes broadcast to. Fails: ShapeMismatch, naming both. */
export function broadcastShapes(a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length);
  const result = new Array<number>(rank);
  for (let back = 1; back <= rank; back++) {
    const x = a[a.length - back] ?? 1;
    const y = b[b.length - back] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new EngineError(
        "ShapeMismatch",
        `Shapes ${showShape(a)} and ${showShape(b)} don't broadcast: extents ${x} and ${y} differ; reshape one of them`,
        { shapes: [a, b] },
      );
    }
    result[rank - back] = x === 1 ? y : x;
  }
  return result;
}

/** Strides that read a tensor of `shape` as one of `target`: 0 along every axis that is repeated. */
export function broadcastStrides(shape: Shape, target: Shape): number[] {
  const own = stridesOf(shape);
  return target.map((extent, axis) => {
    const inner = axis - (target.length - shape.length);
    return inner < 0 || (shape[inner] === 1 && extent !== 1) ? 0 : own[inner];
  });
}

/** An axis counted from 0, from one that may count from the end. Fails: BadParameter. */
export function resolveAxis(axis: number, rank: number): number {
  const resolved = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || resolved < 0 || resolved >= rank) {
    throw new EngineError(
      "BadParameter",
      `Axis ${axis} of a tensor with ${rank} axes: it must lie in ${-rank} … ${rank - 1}`,
    );
  }
  return resolved;
}

/** An index counted from 0, from one that may count from the end. Fails: BadParameter. */
export function resolveIndex(index: number, extent: number, what: string): number {
  const resolved = index < 0 ? index + extent : index;
  if (!Number.isInteger(index) || resolved < 0 || resolved >= extent) {
    throw new EngineError("BadParameter", `Index ${index} along ${what}: it must lie in ${-extent} … ${extent - 1}`);
  }
  return resolved;
}

/** Fails: BadParameter for extents that are no natural numbers, or too many axes. */
export function checkShape(shape: Shape): void {
  if (
    !Array.isArray(shape) ||
    shape.length > MAX_AXES ||
    !shape.every((extent) => Number.isInteger(extent) && extent > 0)
  ) {
    throw new EngineError(
      "BadParameter",
      `Shape ${JSON.stringify(shape)}: it must be a list of at most ${MAX_AXES} positive integers`,
    );
  }
}
