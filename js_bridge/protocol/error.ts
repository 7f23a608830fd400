// What went wrong: the answer to a request that failed, the warning that stops nothing, and the tree of the errors.

import type { PassId } from "./names.ts";

/** Answers any request that failed; `pass` is there where it was a forward or a generate. */
export interface FailedAnswer {
  kind: "failed";
  id?: number;
  pass?: PassId;
  error: ErrorDescription;
}

/** Event: something that costs the reader, and stops nothing: no room to keep what was fetched (StorageFull), say. */
export interface WarningEvent {
  kind: "warning";
  error: ErrorDescription;
}

export interface ErrorDescription {
  name: ErrorName;
  message: string;
  /** Of a poisoned tensor: the operation that failed first. */
  operation?: string;
  origin?: string;
  [detail: string]: unknown;
}

/**
 * The engine's errors. The text says what happened, the value, what is allowed and what to do.
 *
 *   EngineError
 *   ├── ModelError
 *   │   ├── UnknownModel           no model of that id is loaded
 *   │   ├── BundleRefused          a bundle, config or weight file that can't be used; `file`
 *   │   ├── ChunkMismatch          a chunk whose SHA-256 is wrong twice; `file`, `offset`
 *   │   ├── FetchFailed            a file that can't be fetched; `file`
 *   │   ├── GatedRepository        a repository whose terms have to be accepted first; `repository`
 *   │   ├── RateLimited            the Hub answers no more for a while; `seconds`, where it told
 *   │   ├── StorageFull            no room in the browser's storage, also after evicting; `bytes`, `quota`
 *   │   ├── LabRefused             a lab does not do that; `status`, `code` where it said so itself
 *   │   ├── LoadCancelled
 *   │   ├── NoTokenizer            the bundle has none
 *   │   ├── NoReference            a parity run of a model without reference numbers; `file`
 *   │   └── BackendUnavailable     a backend that this host lacks; `backend`
 *   ├── HookError
 *   │   ├── UnknownHook            `hook`, `nearMisses`
 *   │   ├── DisabledHook           `hook`; the text says how to turn it on
 *   │   └── UnreachedHook          `hook`; it lies outside the layers that the pass runs
 *   ├── TokenError
 *   │   ├── TooManyTokens          `given`, `allowed`
 *   │   ├── TokenOutOfVocabulary   `given`, `allowed`
 *   │   └── RaggedBatch            `lengths`
 *   ├── TensorError
 *   │   ├── UnknownTensor          a name that was never given
 *   │   ├── ReleasedTensor         use after release
 *   │   ├── ShapeMismatch          `shapes`
 *   │   ├── BadParameter           an operation or intervention with a parameter out of range
 *   │   ├── NotTaped               a gradient of or to a tensor that no taped pass made; `tensor`
 *   │   └── OverBudget             `bytes`, `budget`, `ledger`; before a pass also `needed`
 *   ├── PassError
 *   │   ├── UnknownPass            an answer to a pass that is not waiting
 *   │   ├── UnknownCache           a cache that was never made, or is released; `cache`
 *   │   ├── CacheMismatch          a cache of another model, batch or length, or one in use; `cache`
 *   │   └── PassCancelled
 *   ├── ContextLost                the graphics context went away: where `retriable`, run the pass again
 *   ├── EngineRestarted            the worker died, and what was asked of it with it: load the model again
 *   ├── BadMessage                 a message that does not follow these files
 *   └── EngineDefect               an error of the engine itself; `stack`
 */
export type ErrorName =
  | "UnknownModel"
  | "BundleRefused"
  | "ChunkMismatch"
  | "FetchFailed"
  | "GatedRepository"
  | "RateLimited"
  | "StorageFull"
  | "LabRefused"
  | "LoadCancelled"
  | "NoTokenizer"
  | "BackendUnavailable"
  | "UnknownHook"
  | "DisabledHook"
  | "UnreachedHook"
  | "TooManyTokens"
  | "TokenOutOfVocabulary"
  | "RaggedBatch"
  | "UnknownTensor"
  | "ReleasedTensor"
  | "ShapeMismatch"
  | "BadParameter"
  | "NotTaped"
  | "NoReference"
  | "OverBudget"
  | "UnknownPass"
  | "UnknownCache"
  | "PassCancelled"
  | "CacheMismatch"
  | "ContextLost"
  | "EngineRestarted"
  | "BadMessage"
  | "EngineDefect";
