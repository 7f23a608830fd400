// A model that is ready to run: its architecture, its weights in a backend, its tokenizer. Loading maps the
// checkpoint's tensors to the architecture's parts, a few rows at a time, in the order in which they lie in the files.

import type { HookDescription, ModelId } from "../protocol.ts";
import type { Bundle } from "../store/bundle.ts";
import { readHeader, type TensorEntry } from "../store/safetensors.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type Architecture, architectureOf, type Config } from "./decoder/architecture.ts";
import type { Backend } from "./backend.ts";
import { elementsOf } from "./tensors/shape.ts";
import type { Weights } from "./weights/weights.ts";
import { loadWeights, type WeightOptions } from "./weights/load.ts";

export { releaseWeights } from "./weights/weights.ts";

export interface Model {
  readonly id: ModelId;
  readonly name: string;
  readonly revision: string | null;
  readonly config: Config;
  readonly architecture: Architecture;
  readonly hooks: ReadonlyMap<string, HookDescription>;
  readonly backend: Backend;
  readonly weights: Weights;
  readonly tokenizer: Tokenizer | null;
  readonly dtype: string;
  /** What was done to the weights, in words; "raw" where nothing was. */
  readonly changes: string;
  readonly parameters: number;
  /** that the weights take in the backend */
  readonly bytes: number;
}

/** What is known of a checkpoint before its weights are read. */
export interface Checkpoint {
  readonly config: Config;
  readonly architecture: Architecture;
  readonly tokenizer: Tokenizer | null;
  readonly weightFiles: readonly string[];
}

/** Reads all that is small. Fails: BundleRefused, FetchFailed, ChunkMismatch. */
export async function readCheckpoint(bundle: Bundle): Promise<Checkpoint> {
  const names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"];
  const weightFiles = await weightFilesOf(bundle);
  bundle.expect([...names, ...weightFiles]);
  // All at once: on a slow line the round trips of small files would add up, and the weights can come meanwhile.
  const readingConfig = bundle.readJson("config.json");
  const readingTokenizer = readTokenizer(bundle);
  readingTokenizer.catch(() => undefined); // what is wrong with the configuration is told first
  bundle.fetchAhead(weightFiles[0]);
  const config = await readingConfig;
  const architecture = architectureOf(config);
  return { config, architecture, tokenizer: await readingTokenizer, weightFiles };
}

async function readTokenizer(bundle: Bundle): Promise<Tokenizer | null> {
  if (!(await bundle.has("tokenizer.json"))) return null;
  const hasSettings = await bundle.has("tokenizer_config.json");
  const [tokenizer, settings] = await Promise.all([
    bundle.readJson("tokenizer.json"),
    hasSettings ? bundle.readJson("tokenizer_config.json") : {},
  ]);
  // Newer checkpoints keep the template apart.
  const hasTemplate = !("chat_template" in settings) && (await bundle.has("chat_template.jinja"));
  const template = hasTemplate ? new TextDecoder().decode(await bundle.readAll("chat_template.jinja")) : null;
  return new Tokenizer(tokenizer, settings, template);
}

async function weightFilesOf(bundle: Bundle): Promise<string[]> {
  if (!(await bundle.has("model.safetensors.index.json"))) return ["model.safetensors"];
  const index = (await bundle.readJson("model.safetensors.index.json")) as { weight_map?: Record<string, string> };
  return [...new Set(Object.values(index.weight_map ?? {}))].sort();
}

/** Fails: BundleRefused for a tensor that is missing, or lies otherwise than config.json says; frees what was loaded. */
export async function loadModel(
  id: ModelId,
  name: string,
  bundle: Bundle,
  checkpoint: Checkpoint,
  backend: Backend,
  options: Partial<WeightOptions> = {},
): Promise<Model> {
  const { config, architecture, tokenizer, weightFiles } = checkpoint;
  const entries = new Map<string, TensorEntry>();
  for (const file of weightFiles) {
    for (const [tensor, entry] of await readHeader(bundle, file)) entries.set(tensor, entry);
  }
  const { quantises = false, processing } = options;
  const loaded = await loadWeights(bundle, entries, architecture, backend, { quantises, processing });
  return {
    id,
    name: bundle.manifest?.id ?? name,
    revision: bundle.manifest?.revision ?? bundle.revision,
    config,
    architecture,
    hooks: new Map(architecture.hooks.map((hook) => [hook.name, hook])),
    backend,
    tokenizer,
    parameters: architecture.tensors.reduce((sum, { stored }) => sum + elementsOf(stored), 0),
    ...loaded,
  };
}
