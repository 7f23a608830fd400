// What a generation captures at one hook point: rows of positions, a few from each of its passes, read at once and
// joined at the end to the tensor that one pass over the whole text would show.

import type { Backend, Value } from "../backend.ts";
import { EngineError } from "../errors.ts";
import { elementsOf } from "../tensors/shape.ts";
import { axesOf, placesOf, type Span } from "../pass/span.ts";

/** Rows of some positions: [outer, positions, inner]. */
interface Piece {
  readonly positions: readonly number[];
  readonly shape: readonly number[];
  readonly numbers: Float32Array;
}

export class CapturedRows {
  readonly #name: string;
  readonly #letters: string;
  readonly #positions: readonly number[] | null;
  readonly #pieces: Piece[] = [];

  /** `positions` are absolute, negative ones from the end of what will have been computed; null is all. */
  constructor(name: string, letters: string, positions: readonly number[] | null) {
    this.#name = name;
    this.#letters = letters;
    this.#positions = positions;
  }

  add(value: Value, span: Span, backend: Backend): void {
    const axis = axesOf(this.#letters).position;
    const isFixed = this.#positions !== null && this.#positions.every((position) => position >= 0);
    const places = isFixed
      ? placesOf(this.#positions ?? [], span, this.#name).filter((place) => place >= 0)
      : Array.from({ length: span.positions }, (_, place) => place);
    if (places.length === 0) return;
    const rows = isFixed ? backend.take(value, axis, Int32Array.from(places)) : backend.retain(value);
    try {
      const positions = places.map((place) => span.offset + place);
      this.#pieces.push({ positions, shape: rows.shape, numbers: backend.read(rows) });
    } finally {
      backend.release(rows);
    }
  }

  /** `whole` is the span of all passes together. Fails: BadParameter for a position that was not computed. */
  joined(whole: Span): { numbers: Float32Array; shape: number[] } {
    const { position: axis, key } = axesOf(this.#letters);
    const end = whole.offset + whole.positions;
    const wanted = this.#positions?.map((position) => this.#absolute(position, end)) ?? positionsOf(whole);
    const shape = this.#pieces[0].shape.map((extent, at) => (at === axis ? wanted.length : at === key ? end : extent));
    const outer = elementsOf(shape.slice(0, axis));
    const inner = elementsOf(shape.slice(axis + 1));
    // The keys that a query does not see: no score, no weight.
    const unseen = this.#name.endsWith("scores") ? -Infinity : 0;
    const numbers = new Float32Array(elementsOf(shape)).fill(unseen);
    const piecesAt = new Map(this.#pieces.flatMap((piece) => piece.positions.map((at, row) => [at, { piece, row }])));
    for (const [target, position] of wanted.entries()) {
      const { piece, row } = piecesAt.get(position) as { piece: Piece; row: number };
      const width = elementsOf(piece.shape.slice(axis + 1));
      for (let o = 0; o < outer; o++) {
        const from = (o * piece.positions.length + row) * width;
        numbers.set(piece.numbers.subarray(from, from + width), (o * wanted.length + target) * inner);
      }
    }
    return { numbers, shape };
  }

  #absolute(position: number, end: number): number {
    const absolute = position < 0 ? position + end : position;
    if (this.#pieces.some((piece) => piece.positions.includes(absolute))) return absolute;
    throw new EngineError(
      "BadParameter",
      `Position ${position} of ${this.#name} was not computed: the generation ended with ${end} positions`,
      { given: position, computed: end },
    );
  }
}

function positionsOf({ offset, positions }: Span): number[] {
  return Array.from({ length: positions }, (_, place) => offset + place);
}
