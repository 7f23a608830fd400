// Where a pass lies: which rows, positions and layers it computes, and what that makes of the shapes at its hook
// points. Positions in messages are absolute; here they become places along the pass's own axis. It knows no numbers.

import type { Region } from "../../protocol.ts";
import type { Dimensions } from "../decoder/architecture.ts";
import { EngineError } from "../errors.ts";

export interface Span {
  readonly batch: number;
  /** Positions before this pass's: those in its cache. */
  readonly offset: number;
  readonly positions: number;
  /** What has no place in this pass is left out, not refused: a generation computes it in another of its passes. */
  readonly isPart: boolean;
}

/** Which axis each word of a region means, for a hook of these shape letters; -1 where it has none. */
export function axesOf(letters: string): Record<keyof Region, number> {
  const axes = letters.split(" ");
  const position = axes.indexOf("T");
  const key = axes.indexOf("T", position + 1);
  return {
    batch: axes.indexOf("B"),
    position,
    head: axes.indexOf("H"),
    key: position < 0 ? -1 : key,
    neuron: key > position && key === axes.length - 1 ? -1 : axes.length - 1,
  };
}

/** The shape of a hook's value in a pass; the second T is the keys', cached ones included. */
export function shapeAt(letters: string, dimensions: Dimensions, span: Span): number[] {
  const { position } = axesOf(letters);
  const { batch, offset, positions } = span;
  return letters.split(" ").map((letter, axis) => {
    if (letter === "T" && axis !== position) return offset + positions;
    // An axis of several letters, as B*T, has them one after another.
    const extents: Record<string, number> = { ...dimensions, B: batch, T: positions, 1: 1 };
    return letter.split("*").reduce((product, each) => product * extents[each], 1);
  });
}

/** Places along the axis of positions; of a part -1 for what it does not compute. Fails: BadParameter. */
export function placesOf(given: readonly number[], span: Span, what: string): number[] {
  const end = span.offset + span.positions;
  return given.map((position) => {
    const place = (position < 0 ? position + end : position) - span.offset;
    if (Number.isInteger(position) && place >= 0 && place < span.positions) return place;
    if (span.isPart && Number.isInteger(position)) return -1;
    const allowed =
      span.offset === 0
        ? `it must lie in ${-end} … ${end - 1}`
        : `the pass computes ${span.offset} … ${end - 1}, behind ${span.offset} cached positions (-1 … ${span.offset - end} from the end)`;
    throw new EngineError("BadParameter", `Index ${position} along position of ${what}: ${allowed}`, {
      given: position,
      allowed: [span.offset, end - 1],
    });
  });
}

/** Places along the axis of keys, which begins at position 0; of a part -1 for keys that are not there yet. */
export function keysOf(given: readonly number[], span: Span, what: string): number[] {
  const end = span.offset + span.positions;
  return given.map((key) => {
    const place = key < 0 ? key + end : key;
    if (Number.isInteger(key) && place >= 0 && place < end) return place;
    if (span.isPart && Number.isInteger(key)) return -1;
    throw new EngineError("BadParameter", `Index ${key} along key of ${what}: it must lie in ${-end} … ${end - 1}`, {
      given: key,
      allowed: [0, end - 1],
    });
  });
}

/** Fails: BadParameter for an empty list. */
export function listOf(given: number | readonly number[], word: string, hook: string): readonly number[] {
  const list = typeof given === "number" ? [given] : given;
  if (!Array.isArray(list) || list.length === 0)
    throw new EngineError(
      "BadParameter",
      `An empty list of ${word} indices at ${hook}: name one, or leave ${word} out for all`,
    );
  return list;
}
