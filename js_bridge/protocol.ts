// The messages between the image's mailbox and the engine: types only, no code.
// A message is a JSON object with `kind`, beside it a list of binary attachments; what each attachment is stands
// at the kind that has it. A request carries an `id` that its one answer repeats; a message without `id` has no answer.
//
// Tensors are named by integers: the image names its own (positive, never reused), the engine names the values that
// it shows at hooks (negative). A tensor never changes: every operation makes a new one. Whoever holds a name lets go
// of it with `release`; that includes the tensor of a `hook` event whose pass the image has already forgotten.
// Operations are pipelined: an operation, `read` or `forward` may name tensors that are still being computed, and waits
// for them; an operation that fails poisons its result, and each use of the result fails with the first error.
//
// Numbers that JSON lacks (infinities, NaN) are null in a message and themselves in an attachment.

export type TensorId = number;
export type ModelId = number;
export type PassId = number;
export type Shape = readonly number[];
export type Attachment = Float32Array | Uint8Array;
export type BackendName = "wasm" | "webgl" | "reference";

// ── Requests: image → engine ────────────────────────────────────────────────────────────────────────────────────────

/** Opens a bundle: a folder's URL or path, or a name that the host resolves. → `progress`…, then `loaded`. */
export interface LoadRequest {
  kind: "load";
  id: number;
  bundle: string;
  backend: BackendName | "auto";
}

/** Frees a model's weights; its passes end as cancelled, its tensors stay. → `unloaded` */
export interface UnloadRequest {
  kind: "unload";
  id: number;
  model: ModelId;
}

/** The tokenizer's own ids for a text; nothing is prepended. → `encoded` */
export interface EncodeRequest {
  kind: "encode";
  id: number;
  model: ModelId;
  text: string;
}

/** The text of ids, and the text of each id alone. → `decoded` */
export interface DecodeRequest {
  kind: "decode";
  id: number;
  model: ModelId;
  ids: readonly number[];
}

/**
 * Runs the model on a batch of equally long rows of token ids. → `hook`…, then `done` or `failed`
 *
 * At each hook point: first the interventions in their order, then the `hook` event if the name is in `hooks`,
 * then the capture; so a captured value is the one that the model went on with.
 */
export interface ForwardRequest {
  kind: "forward";
  id: number;
  model: ModelId;
  pass: PassId;
  tokens: readonly (readonly number[])[];
  capture?: readonly { name: string; tensor: TensorId }[];
  hooks?: readonly string[];
  interventions?: readonly Intervention[];
  /** Optional hook points to switch on for this pass (those that `loaded` lists with on: false). */
  enable?: readonly string[];
  /** The name that the logits get, shape B T V; without it they are not kept. */
  logits?: TensorId | null;
}

/** Answers a `hook` event: null leaves the value, a tensor of the same shape takes its place. */
export interface HookAnswer {
  kind: "hookAnswer";
  pass: PassId;
  replacement: TensorId | null;
}

/** Ends a pass. Its `forward` is answered `failed` with PassCancelled; captures not yet reached are poisoned. */
export interface CancelRequest {
  kind: "cancel";
  pass: PassId;
}

/** Names a new tensor. Attachment 0: its numbers, a Float32Array in row-major order. */
export interface CreateRequest {
  kind: "create";
  tensor: TensorId;
  shape: Shape;
}

/** Computes `result` from `inputs`; no answer, the error of a failed operation is in its result. */
export interface OperateRequest {
  kind: "operate";
  op: OperationName;
  inputs: readonly TensorId[];
  parameters?: OperationParameters;
  result: TensorId;
  /** Where it was posted (a Smalltalk method and line): repeated in errors and in the ledger. */
  origin?: string;
}

/** → `numbers` */
export interface ReadRequest {
  kind: "read";
  id: number;
  tensor: TensorId;
}

/** → `statistics` */
export interface StatisticsRequest {
  kind: "statistics";
  id: number;
  tensor: TensorId;
}

/** The k largest along the last axis, largest first, equal ones by index. → `top` */
export interface TopKRequest {
  kind: "topK";
  id: number;
  tensor: TensorId;
  k: number;
}

/** Lets go of tensors; naming one that is already released is no error. */
export interface ReleaseRequest {
  kind: "release";
  tensors: readonly TensorId[];
}

/** What is alive. → `ledger` */
export interface LedgerRequest {
  kind: "ledger";
  id: number;
}

/** Answered once everything posted before it has been computed. → `synchronized` */
export interface SynchronizeRequest {
  kind: "synchronize";
  id: number;
}

/** Times the forward pass of a loaded model. → `benchmarked` */
export interface BenchmarkRequest {
  kind: "benchmark";
  id: number;
  model: ModelId;
  /** Lengths in tokens, one measurement each. */
  lengths: readonly number[];
  repetitions: number;
}

export type Request =
  | LoadRequest
  | UnloadRequest
  | EncodeRequest
  | DecodeRequest
  | ForwardRequest
  | HookAnswer
  | CancelRequest
  | CreateRequest
  | OperateRequest
  | ReadRequest
  | StatisticsRequest
  | TopKRequest
  | ReleaseRequest
  | LedgerRequest
  | SynchronizeRequest
  | BenchmarkRequest;

// ── Interventions: what happens at a hook point without a round trip ────────────────────────────────────────────────

/**
 * The part of a hook's value that an intervention touches; an axis left out is touched whole.
 * Indices count from 0, negative ones from the end.
 */
export interface Region {
  /** axis B */
  batch?: number | readonly number[];
  /** axis T; of scores and pattern: the query's */
  position?: number | readonly number[];
  /** axis H */
  head?: number | readonly number[];
  /** the key's axis of scores and pattern */
  key?: number | readonly number[];
  /** the last axis, of width D, K, F or V */
  neuron?: number | readonly number[];
}

export type Intervention = { hook: string; at?: Region } & (
  | { action: "zero" }
  | { action: "scale"; by: number }
  /** Adds a number, or `times` (1 by default) a tensor that broadcasts to the region. */
  | { action: "add"; value: number }
  | { action: "add"; tensor: TensorId; times?: number }
  /** Puts a number, or a tensor that broadcasts to the region. */
  | { action: "set"; value: number }
  | { action: "set"; tensor: TensorId }
  /** Puts the same region of a tensor of the hook's whole shape: patching from a cache, freezing, resample ablation. */
  | { action: "patch"; tensor: TensorId }
  /** Takes away the component along a direction, a tensor as long as the last axis; `neuron` can't be given. */
  | { action: "projectOut"; tensor: TensorId }
);

// ── Operations ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** Two tensors, broadcast as NumPy does; or one tensor and `parameters.scalar` (on the left with `reversed`). */
export type BinaryOperation = "add" | "subtract" | "multiply" | "divide" | "minimum" | "maximum";
/** One tensor, each number alone. */
export type UnaryOperation = "negate" | "exp" | "log" | "sqrt" | "tanh" | "absolute" | "square";
/** One tensor over `parameters.axis`; without it over all. `keepAxis` leaves the axis with extent 1. */
export type Reduction = "sum" | "mean" | "max" | "min" | "argmax";

export type OperationName =
  | BinaryOperation
  | UnaryOperation
  | Reduction
  /** over the last axis */
  | "softmax"
  | "logSoftmax"
  /** the last two axes multiply, those before broadcast; a vector is a row on the left, a column on the right */
  | "matmul"
  /** `starts` and `sizes`, one number per axis */
  | "slice"
  /** `indices` along `axis`, in that order */
  | "take"
  /** `shape` */
  | "reshape"
  /** `axes`; without it the last two change places */
  | "transpose"
  /** several tensors along `axis` */
  | "concatenate"
  /** the same numbers under another name */
  | "copy";

export interface OperationParameters {
  scalar?: number;
  reversed?: boolean;
  axis?: number;
  keepAxis?: boolean;
  axes?: readonly number[];
  starts?: readonly number[];
  sizes?: readonly number[];
  indices?: readonly number[];
  shape?: Shape;
}

// ── Answers and events: engine → image ──────────────────────────────────────────────────────────────────────────────

/** Event while a `load` runs; bytes of the whole bundle. `cached` of them came from the store. */
export interface ProgressEvent {
  kind: "progress";
  id: number;
  file: string;
  bytesLoaded: number;
  bytesTotal: number;
  cached: number;
}

export interface HookDescription {
  name: string;
  /** Shape letters, e.g. "B T H K": batch, positions, heads, width of a head; "1" is an axis of extent one. */
  shape: string;
  /** False: only in passes whose `enable` names it. */
  on: boolean;
}

/** What a result rests on. */
export interface Basis {
  model: string;
  revision: string | null;
  weights: "raw";
  dtype: string;
  backend: BackendName;
}

export interface LoadedAnswer {
  kind: "loaded";
  id: number;
  model: ModelId;
  name: string;
  architecture: string;
  /** config.json as it came */
  config: Record<string, unknown>;
  /** Extents by shape letter: L D H K F V; P is the number of positions (n_ctx). */
  dimensions: Record<string, number>;
  hooks: readonly HookDescription[];
  /** The component names of `layer -> #component`, e.g. residual → hook_resid_post (below "blocks.L."). */
  aliases: Record<string, string>;
  dtype: string;
  backend: BackendName;
  basis: Basis;
  parameters: number;
  /** bytes that the weights take in the backend */
  bytes: number;
  tokenizer: { size: number; bos: number | null; eos: number | null } | null;
  /** measured at start: milliseconds of the probe, by backend, where "auto" chose; otherwise empty */
  probe: Partial<Record<BackendName, number>>;
}

export interface UnloadedAnswer {
  kind: "unloaded";
  id: number;
  model: ModelId;
}

export interface EncodedAnswer {
  kind: "encoded";
  id: number;
  ids: readonly number[];
}

export interface DecodedAnswer {
  kind: "decoded";
  id: number;
  text: string;
  /** Each id alone; a part of a character shows as U+FFFD. */
  tokens: readonly string[];
}

/** A value at a hook point; the pass waits for the `hookAnswer`. The image owns `tensor` from now on. */
export interface HookEvent {
  kind: "hook";
  pass: PassId;
  name: string;
  tensor: TensorId;
  shape: Shape;
}

export interface DoneAnswer {
  kind: "done";
  id: number;
  pass: PassId;
  /** Shape of each captured tensor, and of the logits, in the order of the request. */
  shapes: readonly { tensor: TensorId; shape: Shape }[];
  /** in the engine, without the time at hooks */
  milliseconds: number;
}

/** Answers any request that failed; `pass` is there where it was a forward. */
export interface FailedAnswer {
  kind: "failed";
  id?: number;
  pass?: PassId;
  error: ErrorDescription;
}

/** Attachment 0: the numbers, a Float32Array in row-major order. */
export interface NumbersAnswer {
  kind: "numbers";
  id: number;
  tensor: TensorId;
  shape: Shape;
  dtype: "float32";
}

/** Over the finite numbers; `nonFinite` counts the others. The deviation is the population's. Null where there is none. */
export interface StatisticsAnswer {
  kind: "statistics";
  id: number;
  tensor: TensorId;
  shape: Shape;
  elements: number;
  nonFinite: number;
  mean: number | null;
  standardDeviation: number | null;
  norm: number | null;
  min: number | null;
  max: number | null;
}

/** Attachment 0: the values, 1: their indices as floats; both of `shape`, the tensor's with k in place of the last axis. */
export interface TopAnswer {
  kind: "top";
  id: number;
  tensor: TensorId;
  shape: Shape;
}

export interface LedgerAnswer {
  kind: "ledger";
  id: number;
  tensors: readonly LedgerLine[];
  /** Of the tensors, shared storage counted once. */
  bytes: number;
  /** Past it operations are refused (OverBudget). */
  budget: number;
  passes: readonly { pass: PassId; model: ModelId; waitingAt: string | null }[];
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

export interface SynchronizedAnswer {
  kind: "synchronized";
  id: number;
}

export interface BenchmarkedAnswer {
  kind: "benchmarked";
  id: number;
  backend: BackendName;
  rows: readonly { length: number; median: number; least: number; repetitions: number }[];
}

/** Event: live tensors near the budget. The image runs a full collection, so that what it forgot is released. */
export interface CollectEvent {
  kind: "collect";
  bytes: number;
  budget: number;
}

export type Answer =
  | ProgressEvent
  | LoadedAnswer
  | UnloadedAnswer
  | EncodedAnswer
  | DecodedAnswer
  | HookEvent
  | DoneAnswer
  | FailedAnswer
  | NumbersAnswer
  | StatisticsAnswer
  | TopAnswer
  | LedgerAnswer
  | SynchronizedAnswer
  | BenchmarkedAnswer
  | CollectEvent;

// ── Errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * The engine's errors. The text says what happened, the value, what is allowed and what to do.
 *
 *   EngineError
 *   ├── ModelError
 *   │   ├── UnknownModel           no model of that id is loaded
 *   │   ├── BundleRefused          a bundle, config or weight file that can't be used; `file`
 *   │   ├── ChunkMismatch          a chunk whose SHA-256 is wrong twice; `file`, `offset`
 *   │   ├── FetchFailed            a file that can't be fetched; `file`
 *   │   ├── NoTokenizer            the bundle has none
 *   │   └── BackendUnavailable     a backend that this host lacks; `backend`
 *   ├── HookError
 *   │   ├── UnknownHook            `hook`, `nearMisses`
 *   │   └── DisabledHook           `hook`; the text says how to turn it on
 *   ├── TokenError
 *   │   ├── TooManyTokens          `given`, `allowed`
 *   │   ├── TokenOutOfVocabulary   `given`, `allowed`
 *   │   └── RaggedBatch            `lengths`
 *   ├── TensorError
 *   │   ├── UnknownTensor          a name that was never given
 *   │   ├── ReleasedTensor         use after release
 *   │   ├── ShapeMismatch          `shapes`
 *   │   ├── BadParameter           an operation or intervention with a parameter out of range
 *   │   └── OverBudget             `bytes`, `budget`, `ledger`
 *   ├── PassError
 *   │   ├── UnknownPass            an answer to a pass that is not waiting
 *   │   ├── PassCancelled
 *   │   └── CacheMismatch          a cache of another batch, or one that a pass uses already
 *   ├── ContextLost                the graphics context went away: load the model again
 *   ├── BadMessage                 a message that does not follow this file
 *   └── EngineDefect               an error of the engine itself; `stack`
 */
export type ErrorName =
  | "UnknownModel"
  | "BundleRefused"
  | "ChunkMismatch"
  | "FetchFailed"
  | "NoTokenizer"
  | "BackendUnavailable"
  | "UnknownHook"
  | "DisabledHook"
  | "TooManyTokens"
  | "TokenOutOfVocabulary"
  | "RaggedBatch"
  | "UnknownTensor"
  | "ReleasedTensor"
  | "ShapeMismatch"
  | "BadParameter"
  | "OverBudget"
  | "UnknownPass"
  | "PassCancelled"
  | "CacheMismatch"
  | "ContextLost"
  | "BadMessage"
  | "EngineDefect";

export interface ErrorDescription {
  name: ErrorName;
  message: string;
  /** Of a poisoned tensor: the operation that failed first. */
  operation?: string;
  origin?: string;
  [detail: string]: unknown;
}
