// The text that each new token adds. A token alone has no text of its own: bytes of one character may lie in several
// tokens, and some tokenizers drop or add a space at the beginning; so tokens are decoded behind those before them.

import type { Tokenizer } from "../../tokenizer/tokenizer.ts";

/** So many tokens before the new ones are decoded with them. */
const CONTEXT = 4;
const INCOMPLETE = "\uFFFD";

export class TextStream {
  readonly #tokenizer: Tokenizer | null;
  /** Some tokens whose text is told, then those whose text is not. */
  #told: number[];
  #untold: number[] = [];
  #text = "";

  constructor(tokenizer: Tokenizer | null, before: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#told = before.slice(-CONTEXT);
  }

  /** All that was told. */
  get text(): string {
    return this.#text;
  }

  /** What the token adds; empty while a character is not complete. */
  add(token: number): string {
    this.#untold.push(token);
    return this.#tell(false);
  }

  /** What is still held back. */
  end(): string {
    return this.#tell(true);
  }

  #tell(isEnd: boolean): string {
    if (this.#tokenizer === null || this.#untold.length === 0) return "";
    const before = this.#tokenizer.decode(this.#told);
    const after = this.#tokenizer.decode([...this.#told, ...this.#untold]);
    const isWhole = after.startsWith(before) && !after.endsWith(INCOMPLETE);
    if (!isWhole && !isEnd) return "";
    const added = after.startsWith(before) ? after.slice(before.length) : after;
    this.#told = [...this.#told, ...this.#untold].slice(-CONTEXT);
    this.#untold = [];
    this.#text += added;
    return added;
  }
}
