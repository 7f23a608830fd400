// How broadcast operands lie, in as few axes as will do: neighbouring axes that every operand walks through in one
// stride are one axis.

import type { Shape } from "../protocol.ts";

export interface Merged {
  readonly shape: readonly number[];
  /** By operand. */
  readonly strides: readonly (readonly number[])[];
}

/** At least one axis is left. */
export function mergeAxes(shape: Shape, strides: readonly (readonly number[])[]): Merged {
  const extents: number[] = [];
  const steps: number[][] = strides.map(() => []);
  shape.forEach((extent, axis) => {
    if (extent === 1) return;
    const last = extents.length - 1;
    if (last >= 0 && strides.every((own, i) => steps[i][last] === own[axis] * extent)) {
      extents[last] *= extent;
      for (const [i, own] of strides.entries()) steps[i][last] = own[axis];
    } else {
      extents.push(extent);
      for (const [i, own] of strides.entries()) steps[i].push(own[axis]);
    }
  });
  if (extents.length > 0) return { shape: extents, strides: steps };
  return { shape: [1], strides: strides.map(() => [1]) };
}
