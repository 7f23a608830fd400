// Between text and the ids of tokens.

import type { ModelId } from "./names.ts";

/** The tokenizer's own ids for a text; nothing is prepended. → `encoded` */
export interface EncodeRequest {
  kind: "encode";
  id: number;
  model: ModelId;
  text: string;
}

export interface EncodedAnswer {
  kind: "encoded";
  id: number;
  ids: readonly number[];
}

/** The text of ids, and the text of each id alone. → `decoded` */
export interface DecodeRequest {
  kind: "decode";
  id: number;
  model: ModelId;
  ids: readonly number[];
}

export interface DecodedAnswer {
  kind: "decoded";
  id: number;
  text: string;
  /** Each id alone; a part of a character shows as U+FFFD. */
  tokens: readonly string[];
}

/** Applies the chat template of the tokenizer's configuration. → `chatted` */
export interface ChatRequest {
  kind: "chat";
  id: number;
  model: ModelId;
  messages: readonly { role: string; content: string }[];
  /** Ends with what makes the model answer. */
  addGenerationPrompt: boolean;
}

export interface ChattedAnswer {
  kind: "chatted";
  id: number;
  text: string;
  ids: readonly number[];
}
