// The engine about itself: its backends, what is alive, how fast it is, and what happens to it unasked.

import type { BackendName, CacheId, ModelId, PassId, Shape, TensorId } from "./names.ts";

/** What backends this host has. With `measure` they are measured again. → `backends` */
export interface BackendsRequest {
  kind: "backends";
  id: number;
  measure?: boolean;
}

export interface BackendsAnswer {
  kind: "backends";
  id: number;
  names: readonly BackendName[];
  /** Milliseconds by backend. */
  probe: Partial<Record<BackendName, number>>;
  /** What "auto" means. */
  chosen: BackendName;
  refused: readonly RefusedBackend[];
}

/** Failed its self-check at start: it computes nothing. */
export interface RefusedBackend {
  backend: BackendName;
  reason: string;
}

/** What is alive. → `ledger` */
export interface LedgerRequest {
  kind: "ledger";
  id: number;
}

export interface LedgerAnswer {
  kind: "ledger";
  id: number;
  tensors: readonly LedgerLine[];
  /** Of the tensors and of what tapes keep, shared storage counted once. */
  bytes: number;
  /** Those of `bytes` that only tapes keep: freed with the last tensor that rests on them. */
  tapes: number;
  /** Past it operations are refused (OverBudget). */
  budget: number;
  passes: readonly { pass: PassId; model: ModelId; waitingAt: string | null }[];
  /** `bytes` of their keys and values, which are not tensors; `pass` is the one that uses it now. */
  caches: readonly { cache: CacheId; model: ModelId; length: number; bytes: number; pass: PassId | null }[];
  models: readonly { model: ModelId; name: string; bytes: number }[];
  /** All that a backend holds: weights, tensors, scratch of running passes. */
  backends: readonly { backend: BackendName; bytes: number }[];
}

export interface LedgerLine {
  tensor: TensorId;
  shape: Shape;
  bytes: number;
  state: "ready" | "pending" | "poisoned";
  origin: string;
}

/** Answered once everything posted before it has been computed. → `synchronized` */
export interface SynchronizeRequest {
  kind: "synchronize";
  id: number;
}

export interface SynchronizedAnswer {
  kind: "synchronized";
  id: number;
}

/** Times the forward pass of a loaded model, logits read back. → `benchmarked` */
export interface BenchmarkRequest {
  kind: "benchmark";
  id: number;
  model: ModelId;
  /** Lengths in tokens, one measurement each. */
  lengths: readonly number[];
  repetitions: number;
  /** Hook points to capture: names, or "plain" for all that are on by themselves. */
  capture?: "plain" | readonly string[];
  /** Only the matrix products of a pass, one after another. */
  products?: boolean;
  /** Decodes so many tokens with a cache behind each length, and times one. */
  decode?: number;
}

export interface BenchmarkedAnswer {
  kind: "benchmarked";
  id: number;
  backend: BackendName;
  /** In milliseconds; `decode` of one token, where asked for. */
  rows: readonly {
    length: number;
    median: number;
    least: number;
    repetitions: number;
    decode: { tokens: number; median: number; least: number } | null;
  }[];
}

/** Event: live tensors near the budget. The image runs a full collection, so that what it forgot is released. */
export interface CollectEvent {
  kind: "collect";
  bytes: number;
  budget: number;
}

/**
 * Event: the worker died and another one runs in its place. Models, tensors, passes and caches of the first are gone;
 * what was still to be answered has been, with EngineRestarted.
 */
export interface RestartedEvent {
  kind: "restarted";
  reason: string;
}
