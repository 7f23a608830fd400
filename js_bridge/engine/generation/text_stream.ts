// The text that each new token adds. A token alone has no text of its own: bytes of one character may lie in several
// tokens, and some tokenizers drop or add a space at the beginning; so tokens are decoded behind those before them.
// TextStream has a tokenizer at hand; whoever has to wait for one, as a model of a lab, asks and tells by itself.

import type { Tokenizer } from "../../tokenizer/tokenizer.ts";

/** So many tokens before the new ones are decoded with them. */
const CONTEXT = 4;
const INCOMPLETE = "\uFFFD";

/** The tokens that were taken in, and what is known of their text. */
export class TokenText {
  /** Some tokens whose text is told, then those whose text is not. */
  #told: number[];
  #untold: number[] = [];
  #text = "";

  constructor(before: readonly number[]) {
    this.#told = before.slice(-CONTEXT);
  }

  /** All that was told. */
  get text(): string {
    return this.#text;
  }

  take(token: number): void {
    this.#untold.push(token);
  }

  /** What has to be decoded to learn more: without and with the tokens whose text is not told. Null: all is told. */
  question(): { readonly before: readonly number[]; readonly after: readonly number[] } | null {
    return this.#untold.length === 0 ? null : { before: this.#told, after: [...this.#told, ...this.#untold] };
  }

  /** What they add, once both are decoded; empty while a character is not complete, but at the end. */
  tell(before: string, after: string, isEnd: boolean): string {
    const isWhole = after.startsWith(before) && !after.endsWith(INCOMPLETE);
    if (!isWhole && !isEnd) return "";
    const added = after.startsWith(before) ? after.slice(before.length) : after;
    this.#told = [...this.#told, ...this.#untold].slice(-CONTEXT);
    this.#untold = [];
    this.#text += added;
    return added;
  }
}

export class TextStream {
  readonly #tokenizer: Tokenizer | null;
  readonly #tokens: TokenText;

  constructor(tokenizer: Tokenizer | null, before: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#tokens = new TokenText(before);
  }

  /** All that was told. */
  get text(): string {
    return this.#tokens.text;
  }

  /** What the token adds; empty while a character is not complete. */
  add(token: number): string {
    this.#tokens.take(token);
    return this.#tell(false);
  }

  /** What is still held back. */
  end(): string {
    return this.#tell(true);
  }

  #tell(isEnd: boolean): string {
    const question = this.#tokens.question();
    if (this.#tokenizer === null || question === null) return "";
    return this.#tokens.tell(this.#tokenizer.decode(question.before), this.#tokenizer.decode(question.after), isEnd);
  }
}
