// Text to token ids and back, as the checkpoint's own tokenizer.json says. The work is @huggingface/tokenizers';
// this file gives it the engine's words, and the texts of single tokens.

import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { type ChatMessage, ChatTemplate } from "./chat.ts";

export class Tokenizer {
  /** Ids of the tokens that begin and end a text; null where the checkpoint names none. */
  readonly bos: number | null;
  readonly eos: number | null;
  readonly size: number;
  readonly #tokenizer: HuggingFaceTokenizer;
  readonly #template: ChatTemplate;

  /** Takes the parsed tokenizer.json and tokenizer_config.json, and the text of chat_template.jinja if there is one. */
  constructor(tokenizer: Record<string, unknown>, config: Record<string, unknown>, chatTemplate: string | null = null) {
    this.#tokenizer = new HuggingFaceTokenizer(tokenizer, config);
    this.#template = new ChatTemplate(config, chatTemplate);
    useUnicodeSpaces(this.#tokenizer.pre_tokenizer);
    this.size = this.#tokenizer.get_vocab().size;
    this.bos = this.#idOf(config.bos_token);
    this.eos = this.#idOf(config.eos_token);
  }

  /** Exactly the tokenizer's own ids: nothing is prepended that tokenizer.json does not prepend. */
  encode(text: string): number[] {
    return [...this.#tokenizer.encode(text).ids];
  }

  /**
   * The text that the checkpoint's template makes of messages, and its ids; the template writes the tokens that begin a
   * text itself, so the tokenizer puts none in front. Fails: BadMessage where there is no template.
   */
  chat(messages: readonly ChatMessage[], addGenerationPrompt: boolean): { text: string; ids: number[] } {
    const text = this.#template.render(messages, addGenerationPrompt);
    return { text, ids: [...this.#tokenizer.encode(text, { add_special_tokens: false }).ids] };
  }

  get canChat(): boolean {
    return this.#template.isPresent;
  }

  decode(ids: readonly number[]): string {
    if (ids.length === 0) return ""; // the library refuses it
    return this.#tokenizer.decode([...ids], { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }

  /** The text of each id alone; a part of a character shows as U+FFFD. */
  textsOf(ids: readonly number[]): string[] {
    return ids.map((id) => this.decode([id]));
  }

  has(id: number): boolean {
    return this.#tokenizer.id_to_token(id) !== undefined;
  }

  /** A special token in a config is its text, or an object that holds it. */
  #idOf(token: unknown): number | null {
    const text = typeof token === "object" && token !== null ? (token as { content?: unknown }).content : token;
    return typeof text === "string" ? (this.#tokenizer.token_to_id(text) ?? null) : null;
  }
}

/**
 * Makes \s mean Unicode's White_Space in every pattern of a pre-tokenizer, as in the Rust library. JavaScript's own
 * counts U+FEFF in and U+0085 out, so a text with either would get other ids.
 */
function useUnicodeSpaces(preTokenizer: unknown): void {
  if (typeof preTokenizer !== "function") return; // the library's objects can be called
  const node = preTokenizer as unknown as { pattern?: unknown; tokenizers?: unknown };
  if (node.pattern instanceof RegExp) {
    const source = node.pattern.source.replace(/\\(.)/gs, (escape, letter: string) => {
      if (letter === "s") return "\\p{White_Space}";
      return letter === "S" ? "\\P{White_Space}" : escape;
    });
    const flags = /[uv]/.test(node.pattern.flags) ? node.pattern.flags : `${node.pattern.flags}u`;
    node.pattern = new RegExp(source, flags);
  }
  if (Array.isArray(node.tokenizers)) for (const each of node.tokenizers) useUnicodeSpaces(each);
}
