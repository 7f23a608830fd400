// Text that goes on token by token.

import type { CacheId, ModelId, PassId, Shape, TensorId } from "./names.ts";
import type { Watching } from "./pass.ts";

/**
 * Goes on with a text, token by token, over a key-value cache. → `hook`… and `token`…, then `generated` or `failed`
 *
 * Its passes are the prompt's and then one for each token but the last; hooks, interventions and captures are alive in
 * all of them. An intervention acts at those of its positions that a pass computes, -1 being the newest in each; a
 * capture's tensor holds what one pass over the whole text would show, along the positions.
 */
export interface GenerateRequest extends Watching {
  kind: "generate";
  id: number;
  /** Answers to hooks and `cancel` name it, as they name a forward's. */
  pass: PassId;
  model: ModelId;
  /** One row, at least one token. */
  tokens: readonly number[];
  maxTokens: number;
  sampling: Sampling;
  /** Tokens that end it; they are part of what is generated. Default: the tokenizer's end of text. */
  stop?: readonly number[];
  /** Keys and values of earlier positions, which `tokens` follow; it is left with all positions that were computed. */
  cache?: CacheId;
}

/** Which token comes next. First the temperature, then topK, then topP, as in Hugging Face's `generate`. */
export interface Sampling {
  /** Logits are divided by it; 0 is greedy, and the rest is then not looked at. */
  temperature: number;
  /** Only tokens at least as likely as the topK-th. */
  topK?: number;
  /** Only the fewest likeliest tokens whose probabilities reach topP. */
  topP?: number;
  /** Same seed, same tokens. Default 0. */
  seed?: number;
}

/** Event: a generation has come to its next token. */
export interface TokenEvent {
  kind: "token";
  id: number;
  pass: PassId;
  /** Among the generated: from 0 on. */
  index: number;
  /** Where it will stand in the sequence. */
  position: number;
  token: number;
  /** What it adds to the text; empty while a character is not complete, or where the model has no tokenizer. */
  text: string;
  /** Of the token, in the model's own distribution: before temperature, topK and topP. */
  logProbability: number;
}

export interface GeneratedAnswer {
  kind: "generated";
  id: number;
  pass: PassId;
  /** Those that were generated. */
  tokens: readonly number[];
  text: string;
  /** A stop token; maxTokens; the model's positions are all used. */
  reason: "stop" | "length" | "positions";
  /** Shape of each captured tensor, in the order of the request. */
  shapes: readonly { tensor: TensorId; shape: Shape }[];
  /** in the engine, without the time at hooks */
  milliseconds: number;
}
