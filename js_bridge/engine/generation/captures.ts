// What a generation captures: the tensors that were promised for it, the rows of each pass, and the tensors filled at
// the end. A generation in a lab captures in the same way.

import type { PassId, Shape, TensorId } from "../../protocol.ts";
import type { Backend, Value } from "../backend.ts";
import { CapturedRows } from "./captured_rows.ts";
import { EngineError } from "../errors.ts";
import { axesOf, type Span } from "../pass/span.ts";
import type { Tensor, TensorTable } from "../tensors/tensor_table.ts";

interface Capture {
  readonly name: string;
  readonly tensor: TensorId;
  readonly positions?: readonly number[];
}

export class GenerationCaptures {
  readonly #table: TensorTable;
  readonly #made: { tensor: Tensor; rows: CapturedRows; name: string }[] = [];

  /**
   * Names the tensors; all of them or none. `lettersOf` answers the shape of a hook point.
   * Fails: BadParameter for a shape without positions, and what `lettersOf` and the names' table refuse.
   */
  constructor(
    captures: readonly Capture[],
    pass: PassId,
    table: TensorTable,
    lettersOf: (name: string) => string,
  ) {
    this.#table = table;
    try {
      for (const { name, tensor, positions } of captures) {
        const letters = lettersOf(name);
        if (axesOf(letters).position < 0)
          throw new EngineError(
            "BadParameter",
            `A capture of ${name} in a generation: its shape ${letters} has no axis T along which its passes could be joined; capture it in a forward`,
            { hook: name },
          );
        const rows = new CapturedRows(name, letters, positions ?? null);
        this.#made.push({ tensor: table.promise(tensor, `pass ${pass}, ${name}`), rows, name });
      }
    } catch (error) {
      this.release();
      throw error;
    }
  }

  get tensors(): Tensor[] {
    return this.#made.map((each) => each.tensor);
  }

  get names(): string[] {
    return [...new Set(this.#made.map((each) => each.name))];
  }

  /** Lets go of the names before anything was computed. */
  release(): void {
    this.#table.release(this.tensors.map((tensor) => tensor.id));
  }

  /** One pass's value at a hook point. */
  add(name: string, value: Value, span: Span, backend: Backend): void {
    for (const each of this.#made) if (each.name === name) each.rows.add(value, span, backend);
  }

  /** Fills the tensors; `whole` is the span of all passes together. Answers their shapes. */
  fulfil(whole: Span, backend: Backend): { tensor: TensorId; shape: Shape }[] {
    return this.#made.map(({ tensor, rows }) => {
      try {
        const { numbers, shape } = rows.joined(whole);
        this.#table.fulfil(tensor, backend.upload(numbers, shape), backend);
        return { tensor: tensor.id, shape };
      } catch (error) {
        this.#table.poison(tensor, error);
        return { tensor: tensor.id, shape: [] };
      }
    });
  }
}

/** Fails: TooManyTokens where no position is left for a new token. */
export function checkRoomForNew(taken: number, positions: number, model: string): void {
  if (taken >= positions)
    throw new EngineError(
      "TooManyTokens",
      `${taken} positions are taken before the first new token; ${model} has ${positions}; shorten the text by at least one token`,
      { given: taken, allowed: positions - 1 },
    );
}
