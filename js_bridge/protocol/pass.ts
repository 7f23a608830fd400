// One pass through the model: what goes in, what happens at its hook points, what it leaves; the cache of keys and
// values that it goes on from, and the bytes that its captures would take. Generations watch in the same way.

import type { Intervention } from "./intervention.ts";
import type { CacheId, ModelId, PassId, Shape, TensorId } from "./names.ts";

/**
 * Runs the model, or some layers of it, on a batch of equally long rows of token ids.
 * → `hook`…, then `done` or `failed`
 *
 * At each hook point: first the interventions in their order, then the `hook` event if the name is in `hooks`,
 * then the capture; so a captured value is the one that the model went on with.
 */
export interface ForwardRequest extends Watching {
  kind: "forward";
  id: number;
  model: ModelId;
  pass: PassId;
  /** May be left out where `start` is given. */
  tokens?: readonly (readonly number[])[];
  /** Rows of different lengths, filled up to one; what lies at the padding changes no other number. */
  padding?: Padding;
  /** Begins at blocks.<layer>.hook_resid_pre with this residual stream, B T D; layer L: at the final norm. */
  start?: { layer: number; tensor: TensorId };
  /** Ends before this block (L: before the final norm): there are no logits then. */
  stop?: number;
  /** With `stop`: the name that the residual stream there gets, B T D. */
  residual?: TensorId | null;
  /**
   * Keys and values of earlier positions; those of this pass are put behind them. A pass that fails leaves the cache
   * with the positions that it kept.
   */
  cache?: CacheId;
  /** How many cached positions stay; the others are dropped first. Default: all. */
  keep?: number;
  /** The name that the logits get, shape B T V; without it they are not kept. */
  logits?: TensorId | null;
  /** Positions whose logits are computed, in this order; default all. The hook points show all nevertheless. */
  logitPositions?: readonly number[];
  /** Remembers its operations, so that `gradient` can go back through them. */
  tape?: boolean;
}

/** What a pass does at its hook points. */
export interface Watching {
  /** The tensor gets the value, or of its position axis (of scores and pattern the query's) the named positions. */
  capture?: readonly Capture[];
  hooks?: readonly string[];
  interventions?: readonly Intervention[];
  /** Optional hook points to switch on for this pass (those that `loaded` lists with on: false). */
  enable?: readonly string[];
  /** Of a lab's model: so long a pass there waits for the answer to a hook. Default: what the lab's description says. */
  hookSeconds?: number;
}

export interface Capture {
  name: string;
  tensor: TensorId;
  positions?: readonly number[];
}

/** Row b has `lengths[b]` tokens of its own, cached ones included; on `side` of them lies the padding. */
export interface Padding {
  side: "left" | "right";
  lengths: readonly number[];
}

export interface DoneAnswer {
  kind: "done";
  id: number;
  pass: PassId;
  /** Shape of each captured tensor, of the logits and of the residual stream, in the order of the request. */
  shapes: readonly { tensor: TensorId; shape: Shape }[];
  /** in the engine, without the time at hooks */
  milliseconds: number;
}

/** A value at a hook point; the pass waits for the `hookAnswer`. The image owns `tensor` from now on. */
export interface HookEvent {
  kind: "hook";
  pass: PassId;
  name: string;
  tensor: TensorId;
  shape: Shape;
  /** The absolute position of the first of the pass's tokens. */
  offset: number;
}

/** Answers a `hook` event: null leaves the value, a tensor of the same shape takes its place. */
export interface HookAnswer {
  kind: "hookAnswer";
  pass: PassId;
  replacement: TensorId | null;
}

/**
 * Ends a pass. Its `forward` or `generate` is answered `failed` with PassCancelled; captures not yet reached are poisoned.
 */
export interface CancelRequest {
  kind: "cancel";
  pass: PassId;
}

/** Names an empty cache, for passes of this model. */
export interface CreateCacheRequest {
  kind: "createCache";
  cache: CacheId;
  model: ModelId;
}

/** Lets go of a cache, at the end of the pass that uses it; one that is already released is no error. */
export interface ReleaseCacheRequest {
  kind: "releaseCache";
  cache: CacheId;
}

/** The bytes that captures of these names would take, before they are made. → `forecast` */
export interface ForecastRequest {
  kind: "forecast";
  id: number;
  model: ModelId;
  batch: number;
  positions: number;
  names: readonly string[];
}

export interface ForecastAnswer {
  kind: "forecast";
  id: number;
  /** Of all the captures; a stream that two names show is counted once. */
  bytes: number;
  /** Of the tensors that live now. */
  live: number;
  budget: number;
  fits: boolean;
  hooks: readonly { name: string; bytes: number }[];
}
