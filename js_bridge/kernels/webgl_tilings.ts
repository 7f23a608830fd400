// Which tile of a product one fragment makes: real GPUs rank the tilings differently from a software renderer, so the
// backend times them when it opens, and remembers under the GPU's name. Every tiling gives the same bits.

import type { Tiling } from "./shaders_products.ts";

export interface TimedTiling extends Tiling {
  /** Milliseconds, or any unit in which the tilings compare, that one row of tiles takes. */
  readonly cost: number;
}

/** One row by four columns needs no second draw; the others need a draw buffer per texel. */
export const CANDIDATES: readonly Tiling[] = [
  { rows: 1, texels: 1 },
  { rows: 1, texels: 2 },
  { rows: 4, texels: 1 },
  { rows: 4, texels: 2 },
  { rows: 8, texels: 1 },
];

/** Until they are timed: what a software renderer prefers. */
export const UNTIMED: readonly TimedTiling[] = [
  { rows: 1, texels: 1, cost: 1 },
  { rows: 4, texels: 1, cost: 2.2 },
  { rows: 4, texels: 2, cost: 1.8 },
];

export function possible<T extends Tiling>(tilings: readonly T[], drawBuffers: number): T[] {
  return tilings.filter(({ rows, texels }) => rows * texels <= drawBuffers);
}

/** The one that takes least for so many rows. */
export function tilingFor(rows: number, tilings: readonly TimedTiling[]): Tiling {
  let best = tilings[0];
  const total = (tiling: TimedTiling) => Math.ceil(rows / tiling.rows) * tiling.cost;
  for (const tiling of tilings) if (total(tiling) < total(best)) best = tiling;
  return best;
}

/** What was remembered, if it is what this file would have written. */
export function asTilings(remembered: unknown, drawBuffers: number): TimedTiling[] | null {
  if (!Array.isArray(remembered)) return null;
  const tilings = possible(remembered as TimedTiling[], drawBuffers);
  const isOne = ({ rows, texels, cost }: TimedTiling) =>
    cost > 0 && CANDIDATES.some((each) => each.rows === rows && each.texels === texels);
  return tilings.length > 0 && tilings.every(isOne) && tilings.some(({ rows }) => rows === 1) ? tilings : null;
}
