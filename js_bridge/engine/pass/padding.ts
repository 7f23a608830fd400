// Rows of a batch that are shorter than the others: what a request says of them, and what a cache remembers.
// Padding on the left moves the row's positions and hides its first keys from all passes that follow; padding on the
// right needs nothing but care, since no query sees the keys behind it, until real tokens come behind the padding.

import type { Padding, Shape } from "../../protocol.ts";
import { EngineError } from "../errors.ts";
import { showShape } from "../tensors/shape.ts";
import type { Span } from "./span.ts";

/** What of a cache's positions is real, by row: those from `starts` on, or those before `lengths`. */
export type CachedPadding =
  | { readonly side: "left"; readonly starts: readonly number[] }
  | { readonly side: "right"; readonly lengths: readonly number[] };

/** The padding of a pass; null where there is none. Fails: BadParameter, CacheMismatch. */
export function paddingOf(given: Padding | undefined, cached: CachedPadding | null, span: Span): Padding | null {
  const { offset, positions } = span;
  const whole = offset + positions;
  if (given === undefined) {
    if (cached?.side === "left") return { side: "left", lengths: cached.starts.map((start) => whole - start) };
    checkBehind(cached, span, null);
    return null;
  }
  checkLengths(given, span);
  if (given.side === "left") {
    const starts = given.lengths.map((length) => whole - length);
    const before = cached?.side === "left" ? cached.starts : starts.map(() => 0);
    if (offset > 0 && (cached?.side === "right" || starts.some((start, row) => start !== before[row]))) {
      throw new EngineError(
        "CacheMismatch",
        `Lengths ${showShape(given.lengths)} of ${whole} positions mean that the rows begin at ${showShape(starts)}; in the cache they begin at ${showShape(before)}; leave padding out to go on as the cache is`,
        { given: starts, cached: before },
      );
    }
    return starts.some((start) => start > 0) ? { side: "left", lengths: given.lengths } : null;
  }
  if (cached?.side === "left") {
    throw new EngineError(
      "CacheMismatch",
      "The cache's rows are padded on the left, the pass's on the right; leave padding out to go on as the cache is",
    );
  }
  checkBehind(cached, span, given.lengths);
  return given.lengths.some((length) => length < whole) ? { side: "right", lengths: given.lengths } : null;
}

/** What a cache remembers of a pass that went through it. */
export function cachedAfter(padding: Padding | null, before: CachedPadding | null, span: Span): CachedPadding | null {
  if (padding === null) return null;
  const whole = span.offset + span.positions;
  if (padding.side === "left") return { side: "left", starts: padding.lengths.map((length) => whole - length) };
  const earlier = before?.side === "right" ? before.lengths : null;
  return {
    side: "right",
    lengths: padding.lengths.map((length, row) =>
      length > span.offset ? length : Math.min(length, earlier?.[row] ?? length),
    ),
  };
}

/** What is left of it when a cache is cut back to `count` positions. */
export function cachedWithin(cached: CachedPadding | null, count: number): CachedPadding | null {
  if (cached === null || count === 0) return null;
  if (cached.side === "left") return cached;
  return cached.lengths.every((length) => length >= count) ? null : cached;
}

/** Which of the pass's positions are real: [batch * positions]; null where all are. */
export function realPositions(padding: Padding | null, { batch, offset, positions }: Span): boolean[] | null {
  if (padding === null) return null;
  const whole = offset + positions;
  return Array.from({ length: batch * positions }, (_, i) => {
    const position = offset + (i % positions);
    const length = padding.lengths[Math.floor(i / positions)];
    return padding.side === "left" ? position >= whole - length : position < length;
  });
}

function checkLengths({ side, lengths }: Padding, { batch, offset, positions }: Span): void {
  if ((side !== "left" && side !== "right") || !Array.isArray(lengths))
    throw new EngineError(
      "BadMessage",
      `Padding ${JSON.stringify({ side, lengths })}: it must be { side: "left" or "right", lengths: [one for each row] }`,
    );
  if (lengths.length !== batch)
    throw new EngineError(
      "BadParameter",
      `Padding with ${lengths.length} lengths for ${batch} rows: give each row its number of tokens`,
      { given: lengths.length, allowed: batch },
    );
  const row = lengths.findIndex((length) => !Number.isInteger(length) || length < 1 || length > offset + positions);
  if (row >= 0)
    throw new EngineError(
      "BadParameter",
      `Padding says that row ${row} has ${lengths[row]} tokens: it must lie in 1 … ${offset + positions}, cached ones included`,
      { row, given: lengths[row], allowed: [1, offset + positions] satisfies Shape },
    );
}

/** No real token may stand behind padding on the right: it would see the padding's keys. */
function checkBehind(cached: CachedPadding | null, { offset }: Span, lengths: readonly number[] | null): void {
  if (cached?.side !== "right") return;
  const row = cached.lengths.findIndex((real, at) => real < offset && (lengths === null || lengths[at] > offset));
  if (row >= 0)
    throw new EngineError(
      "CacheMismatch",
      `Row ${row} has only ${cached.lengths[row]} real tokens among the ${offset} cached ones, so its next would see padding; keep ${Math.min(...cached.lengths)} positions, or pad on the left`,
      { row, real: cached.lengths[row], cached: offset },
    );
}
