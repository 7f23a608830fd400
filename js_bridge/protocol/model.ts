// A model comes and goes: loading with its progress, what a loaded model says of itself, unloading.

import type { RefusedBackend } from "./engine.ts";
import type { BackendName, ComputedBy, ModelId } from "./names.ts";

/**
 * Opens a bundle: a folder's URL or path, a name that the host resolves, or a repository of the Hub. `lab:NAME`, or
 * `lab:http://host:port/NAME`, is a model that a lab computes: it answers the same messages, but for caches and
 * gradients, and it is loaded as the lab was told when it started, in no other way.
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

/** Event while a `load` runs; bytes of the whole bundle. `cached` of them came from the store. */
export interface ProgressEvent {
  kind: "progress";
  id: number;
  file: string;
  bytesLoaded: number;
  bytesTotal: number;
  cached: number;
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

export interface UnloadedAnswer {
  kind: "unloaded";
  id: number;
  model: ModelId;
}
