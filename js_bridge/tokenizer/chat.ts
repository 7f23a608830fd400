// Chat: messages with roles to the one text that a model was trained to read, by the checkpoint's own Jinja template.
// The work is @huggingface/jinja's (raise_exception and strftime_now included); this file finds the template, gives it
// the context that transformers' apply_chat_template gives, and says so where a checkpoint has none. No default is made up: a wrong template answers
// fluently and is wrong.

import { Template } from "@huggingface/jinja";
import { EngineError } from "../engine/errors.ts";

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/** The tokens that templates name, by the keys of tokenizer_config.json. */
const SPECIAL_TOKENS = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

export class ChatTemplate {
  readonly #source: string | null;
  readonly #specialTokens: Record<string, string>;
  #template: Template | null = null;

  /**
   * Takes the parsed tokenizer_config.json and, where the checkpoint has one, the text of chat_template.jinja, which
   * newer ones keep apart and which then counts.
   */
  constructor(config: Record<string, unknown>, file: string | null = null) {
    this.#source = file ?? sourceIn(config["chat_template"]);
    this.#specialTokens = specialTokensIn(config);
  }

  get isPresent(): boolean {
    return this.#source !== null;
  }

  /** Fails: BadMessage where there is no template, or where the template refuses the messages. */
  render(messages: readonly ChatMessage[], addGenerationPrompt: boolean): string {
    if (this.#source === null) {
      throw new EngineError(
        "BadMessage",
        "This model has no chat template (neither chat_template in tokenizer_config.json nor chat_template.jinja): " +
          "it was not trained to chat. Write the text yourself and give it to generate:",
      );
    }
    try {
      this.#template ??= new Template(this.#source);
      return this.#template.render({
        messages: messages.map(({ role, content }) => ({ role, content })),
        add_generation_prompt: addGenerationPrompt,
        tools: null,
        documents: null,
        ...this.#specialTokens,
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const roles = messages.map((each) => each.role).join(", ");
      throw new EngineError("BadMessage", `The model's chat template refuses messages with the roles ${roles}: ${reason}`);
    }
  }
}

/** A template is a text, or one of several with names, of which "default" is the one to take. */
function sourceIn(entry: unknown): string | null {
  if (typeof entry === "string") return entry;
  if (!Array.isArray(entry)) return null;
  const named = entry as { name?: unknown; template?: unknown }[];
  const found = named.find((each) => each.name === "default")?.template;
  return typeof found === "string" ? found : null;
}

function specialTokensIn(config: Record<string, unknown>): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of SPECIAL_TOKENS) {
    const token = config[name];
    const text = typeof token === "object" && token !== null ? (token as { content?: unknown }).content : token;
    if (typeof text === "string") found[name] = text;
  }
  return found;
}
