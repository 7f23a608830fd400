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
// Positions, wherever a message names them (captures, regions, logits), are absolute: 0 is the first token of the
// sequence, also where a cache holds it; negative ones count from the end of the sequence as far as the pass goes.
//
// Numbers that JSON lacks (infinities, NaN) are null in a message and themselves in an attachment.

export type TensorId = number;
export type ModelId = number;
export type PassId = number;
/** Given by the image to a key-value cache, as it names its tensors and never reused. */
export type CacheId = number;
export type Shape = readonly number[];
export type Attachment = Float32Array | Uint8Array;
export type BackendName = "wasm" | "webgl" | "reference";
/** Where a model computes: a backend of this engine, or a lab at the other end of the line. */
export type ComputedBy = BackendName | "lab";

// ── Requests: image → engine ────────────────────────────────────────────────────────────────────────────────────────

/**
 * Opens a bundle: a folder's URL or path, a name that the host resolves, or a repository of the Hub. `lab:NAME`, or
 * `lab:http://host:port/NAME`, is a model that a lab computes: it answers the same messages, but for caches and gradients.
 * → `progress`…, then `loaded`
 */
export interface LoadRequest {
  kind: "load";
  id: number;
  bundle: string;
  backend: BackendName | "auto";
  /** Of a repository: a branch, tag or commit; the answer names the commit. */
  revision?: string;
  /** int8: matrices are quantised while they come. Default: as they are stored. */
  dtype?: "stored" | "int8";
  processing?: Processing;
}

/** TransformerLens's changes of the weights that leave the logits what they are; all are off by default. */
export interface Processing {
  /** The weight and bias of each norm go into the matrices that read it. */
  foldNorms?: boolean;
  /** What is written to the residual stream loses its mean (models whose norms subtract it). */
  centreWriting?: boolean;
  /** The logits lose their mean: the one change that moves them, all alike. */
  centreUnembedding?: boolean;
  /** The bias of v goes into that of the attention's output. */
  foldValueBiases?: boolean;
}

/** Ends a running load, whose request is answered `failed` with LoadCancelled; one that is over stays as it is. */
export interface CancelLoadRequest {
  kind: "cancelLoad";
  /** The id of the `load`. */
  load: number;
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

/** Applies the chat template of the tokenizer's configuration. → `chatted` */
export interface ChatRequest {
  kind: "chat";
  id: number;
  model: ModelId;
  messages: readonly { role: string; content: string }[];
  /** Ends with what makes the model answer. */
  addGenerationPrompt: boolean;
}

/**
 * Runs the model, or some layers of it, on a batch of equally long rows of token ids. → `hook`…, then `done` or `failed`
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

/**
 * d of / d tensor for tensors that were captured in a taped pass or made by operations from such; `of` holds one
 * number. No answer, as of `operate`: the error is in the results.
 */
export interface GradientRequest {
  kind: "gradient";
  of: TensorId;
  to: readonly { tensor: TensorId; result: TensorId }[];
  origin?: string;
}

/** Reruns the reference prompts of the bundle. → `parity` */
export interface ParityRequest {
  kind: "parity";
  id: number;
  model: ModelId;
}

/** Ends a parity run, which is answered `failed` with PassCancelled; one that is over stays as it is. */
export interface CancelParityRequest {
  kind: "cancelParity";
  /** The id of the `parity`. */
  parity: number;
}

/** What backends this host has. With `measure` they are measured again. → `backends` */
export interface BackendsRequest {
  kind: "backends";
  id: number;
  measure?: boolean;
}

/** What the weight store holds. → `storage` */
export interface StorageRequest {
  kind: "storage";
  id: number;
}

/** Sets how many bytes the weight store may take, and evicts what is beyond. → `storage` */
export interface StorageBudgetRequest {
  kind: "storageBudget";
  id: number;
  bytes: number;
}

/** Drops a bundle from the weight store; a model that is loaded from it stays. → `storage` */
export interface EvictRequest {
  kind: "evict";
  id: number;
  bundle: string;
}

/** Answers a `hook` event: null leaves the value, a tensor of the same shape takes its place. */
export interface HookAnswer {
  kind: "hookAnswer";
  pass: PassId;
  replacement: TensorId | null;
}

/** Ends a pass. Its `forward` or `generate` is answered `failed` with PassCancelled; captures not yet reached are poisoned. */
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

/**
 * Asks a lab (`neuroscope serve`) anything that its HTTP API has. Attachment 0, where there is one: the JSON that is sent.
 * → `asked`
 */
export interface AskRequest {
  kind: "ask";
  id: number;
  /** Address of the lab; left out: the host's own. */
  lab?: string;
  method: "GET" | "POST" | "DELETE";
  path: string;
  /** Default: JSON. */
  accept?: string;
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

export type Request =
  | LoadRequest
  | CancelLoadRequest
  | UnloadRequest
  | EncodeRequest
  | DecodeRequest
  | ChatRequest
  | ForwardRequest
  | CreateCacheRequest
  | ReleaseCacheRequest
  | ForecastRequest
  | GenerateRequest
  | GradientRequest
  | ParityRequest
  | CancelParityRequest
  | BackendsRequest
  | StorageRequest
  | StorageBudgetRequest
  | EvictRequest
  | HookAnswer
  | CancelRequest
  | CreateRequest
  | OperateRequest
  | ReadRequest
  | StatisticsRequest
  | TopKRequest
  | ReleaseRequest
  | AskRequest
  | LedgerRequest
  | SynchronizeRequest
  | BenchmarkRequest;

// ── Interventions: what happens at a hook point without a round trip ────────────────────────────────────────────────

/**
 * The part of a hook's value that an intervention touches; an axis left out is touched whole.
 * Indices count from 0, negative ones from the end; `position` and `key` are absolute.
 */
export interface Region {
  /** axis B */
  batch?: number | readonly number[];
  /** axis T; of scores and pattern: the query's. Each must be a position that the pass computes. */
  position?: number | readonly number[];
  /** axis H */
  head?: number | readonly number[];
  /** the key's axis of scores and pattern, cached positions included */
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
  /**
   * Puts the same region of a tensor of the hook's whole shape: patching from a cache, freezing, resample ablation.
   * Its positions are the pass's, or all from 0 on; a generation takes of those what each of its passes computes.
   */
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
  /** "raw", or what was done to them, in words: "norms folded, writing centred". */
  weights: string;
  dtype: string;
  backend: ComputedBy;
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
  backend: ComputedBy;
  basis: Basis;
  parameters: number;
  /** bytes that the weights take in the backend */
  bytes: number;
  tokenizer: { size: number; bos: number | null; eos: number | null } | null;
  /** measured at start: milliseconds of the probe, by backend, where "auto" chose; otherwise empty */
  probe: Partial<Record<BackendName, number>>;
  /** Threads of the backend. */
  threads: number;
  /** Backends that failed their self-check at start. */
  refused: readonly RefusedBackend[];
  /** The URL or folder that the weights came from. */
  source: string;
  revision: string | null;
}

export interface RefusedBackend {
  backend: BackendName;
  reason: string;
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

export interface ChattedAnswer {
  kind: "chatted";
  id: number;
  text: string;
  ids: readonly number[];
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

export interface DoneAnswer {
  kind: "done";
  id: number;
  pass: PassId;
  /** Shape of each captured tensor, of the logits and of the residual stream, in the order of the request. */
  shapes: readonly { tensor: TensorId; shape: Shape }[];
  /** in the engine, without the time at hooks */
  milliseconds: number;
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

/** The largest difference to the bundle's reference at each hook point. */
export interface ParityAnswer {
  kind: "parity";
  id: number;
  backend: BackendName;
  /** What made the reference, with its version. */
  madeWith: string;
  /** In forward order. */
  rows: readonly ParityRow[];
}

export interface ParityRow {
  hook: string;
  /** The largest; null where the value has another shape, or a number that is not finite and should be. */
  difference: number | null;
  allowed: number;
  /** Of the norm, relative to it: it watches the numbers between the samples. */
  normDifference: number;
  normAllowed: number;
  /** Numbers that were compared. */
  compared: number;
  isOff: boolean;
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

export interface StorageAnswer {
  kind: "storage";
  id: number;
  /** That the store takes now. */
  bytes: number;
  budget: number;
  /** What the browser allows the site; null where it does not tell. */
  quota: number | null;
  /** `lastUsed` in milliseconds since 1970. */
  bundles: readonly { name: string; bytes: number; lastUsed: number }[];
}

/** Answers any request that failed; `pass` is there where it was a forward or a generate. */
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

/** Attachment 0: the bytes of the lab's answer, whatever its status. */
export interface AskedAnswer {
  kind: "asked";
  id: number;
  status: number;
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

export interface SynchronizedAnswer {
  kind: "synchronized";
  id: number;
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

/** Event: something that costs the reader, and stops nothing: no room to keep what was fetched (StorageFull), say. */
export interface WarningEvent {
  kind: "warning";
  error: ErrorDescription;
}

export type Answer =
  | ProgressEvent
  | LoadedAnswer
  | UnloadedAnswer
  | EncodedAnswer
  | DecodedAnswer
  | ChattedAnswer
  | HookEvent
  | DoneAnswer
  | TokenEvent
  | GeneratedAnswer
  | ForecastAnswer
  | ParityAnswer
  | BackendsAnswer
  | StorageAnswer
  | FailedAnswer
  | NumbersAnswer
  | StatisticsAnswer
  | TopAnswer
  | AskedAnswer
  | LedgerAnswer
  | SynchronizedAnswer
  | BenchmarkedAnswer
  | CollectEvent
  | RestartedEvent
  | WarningEvent;

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
 *   ├── BadMessage                 a message that does not follow this file
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

export interface ErrorDescription {
  name: ErrorName;
  message: string;
  /** Of a poisoned tensor: the operation that failed first. */
  operation?: string;
  origin?: string;
  [detail: string]: unknown;
}
