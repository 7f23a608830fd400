// Text to token ids and back, as the checkpoint's own tokenizer.json says. The work is @huggingface/tokenizers';
// this file gives it the engine's words, and the texts of single tokens.

import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers"

export class Tokenizer {
  /** Ids of the tokens that begin and end a text; null where the checkpoint names none. */
  readonly bos: number | null
  readonly eos: number | null
  readonly size: number
  readonly #tokenizer: HuggingFaceTokenizer

  /** Takes the parsed tokenizer.json and tokenizer_config.json. */
  constructor(tokenizer: Record<string, unknown>, config: Record<string, unknown>) {
    this.#tokenizer = new HuggingFaceTokenizer(tokenizer, config)
    this.size = this.#tokenizer.get_vocab().size
    this.bos = this.#idOf(config.bos_token)
    this.eos = this.#idOf(config.eos_token)
  }

  /** Exactly the tokenizer's own ids: nothing is prepended that tokenizer.json does not prepend. */
  encode(text: string): number[] {
    return [...this.#tokenizer.encode(text).ids]
  }

  decode(ids: readonly number[]): string {
    return this.#tokenizer.decode([...ids], { skip_special_tokens: false, clean_up_tokenization_spaces: false })
  }

  /** The text of each id alone; a part of a character shows as U+FFFD. */
  textsOf(ids: readonly number[]): string[] {
    return ids.map((id) => this.decode([id]))
  }

  has(id: number): boolean {
    return this.#tokenizer.id_to_token(id) !== undefined
  }

  /** A special token in a config is its text, or an object that holds it. */
  #idOf(token: unknown): number | null {
    const text = typeof token === "object" && token !== null ? (token as { content?: unknown }).content : token
    return typeof text === "string" ? (this.#tokenizer.token_to_id(text) ?? null) : null
  }
}
