// A model that is ready to run: its architecture, its weights in a backend, its tokenizer. Loading maps the
// checkpoint's tensors to the architecture's parts, a few rows at a time, in the order in which they lie in the files.

import type { HookDescription, ModelId } from "../protocol.ts";
import type { Bundle } from "../store/bundle.ts";
import { readHeader, type TensorEntry } from "../store/safetensors.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type Architecture, architectureOf, type Config, type TensorPlan } from "./architecture.ts";
import type { Backend } from "./backend.ts";
import { EngineError } from "./errors.ts";
import { elementsOf, sameShape, showShape } from "./shape.ts";
import { releaseWeights, WeightLoader, type Weights } from "./weights.ts";
import { UNTREATED } from "./weights_processing.ts";
import { openPacked, openTensor } from "./weights_source.ts";

export { releaseWeights } from "./weights.ts";

const DTYPES: Record<string, string> = {
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
  I8: "int8",
  MXFP4: "mxfp4",
};

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

/** Fails: BundleRefused for a tensor that is missing or has another shape than the config says; what was loaded is freed. */
export async function loadModel(
  id: ModelId,
  name: string,
  bundle: Bundle,
  checkpoint: Checkpoint,
  backend: Backend,
  { quantises = false }: { quantises?: boolean } = {},
): Promise<Model> {
  const { config, architecture, tokenizer, weightFiles } = checkpoint;
  const entries = new Map<string, TensorEntry>();
  for (const file of weightFiles) {
    for (const [tensor, entry] of await readHeader(bundle, file)) entries.set(tensor, entry);
  }
  const found = placed(architecture, entries);
  const loader = new WeightLoader(backend);
  const dtypes = new Set<string>();
  try {
    let file = "";
    for (const { plan, tensor, entry, scales } of found) {
      if (file !== "" && file !== entry.file) bundle.forget(file);
      file = entry.file;
      const stored =
        scales === null
          ? await openTensor(bundle, tensor, entry, entries)
          : openPacked(bundle, tensor, entry, scales);
      const isMatrix = plan.use === "matrix" || plan.use === "table";
      if (isMatrix) await loader.addMatrices(plan, stored, quantises, [UNTREATED]);
      else await loader.addVectors(plan, stored, (part, numbers) => offsetNorm(architecture, part, numbers));
      if (isMatrix || stored.dtype !== "F32") dtypes.add(DTYPES[isMatrix && quantises ? "I8" : stored.dtype]);
    }
    bundle.forget(file);
    loader.finish();
  } catch (error) {
    releaseWeights(backend, loader);
    throw error;
  }
  return {
    id,
    name: bundle.manifest?.id ?? name,
    revision: bundle.manifest?.revision ?? null,
    config,
    architecture,
    hooks: new Map(architecture.hooks.map((hook) => [hook.name, hook])),
    backend,
    weights: loader,
    tokenizer,
    dtype: [...dtypes].join("+"),
    parameters: found.reduce((sum, { plan }) => sum + elementsOf(plan.stored), 0),
    bytes: loader.bytes,
  };
}

/** Gemma stores the weights of its norms less one. */
function offsetNorm({ decoder }: Architecture, part: string, numbers: Float32Array): void {
  if (decoder.normWeightOffset === 0 || !part.endsWith(".w")) return;
  for (let i = 0; i < numbers.length; i++) numbers[i] += decoder.normWeightOffset;
}

interface Placed {
  readonly plan: TensorPlan;
  readonly tensor: string;
  /** Of the tensor, or of its MXFP4 blocks. */
  readonly entry: TensorEntry;
  /** Of MXFP4 blocks. */
  readonly scales: TensorEntry | null;
}

/** Each plan with its tensor in the files, in the order of the files. */
function placed(architecture: Architecture, entries: ReadonlyMap<string, TensorEntry>): Placed[] {
  return architecture.tensors
    .map((plan) => find(plan, architecture, entries))
    .sort((a, b) =>
      a.entry.file === b.entry.file ? a.entry.begin - b.entry.begin : a.entry.file < b.entry.file ? -1 : 1,
    );
}

function find(plan: TensorPlan, { name }: Architecture, entries: ReadonlyMap<string, TensorEntry>): Placed {
  const tensor = plan.sources.find((source) => entries.has(source));
  if (tensor !== undefined) {
    const entry = entries.get(tensor) as TensorEntry;
    const flipped = [...plan.stored.slice(0, -2), ...plan.stored.slice(-2).reverse()];
    const wanted = entry.dtype === "I8" && plan.use === "matrix" ? [plan.stored, flipped] : [plan.stored];
    checkShape(tensor, entry, wanted);
    return { plan, tensor, entry, scales: null };
  }
  const pair = plan.packed.find(({ blocks, scales }) => entries.has(blocks) && entries.has(scales));
  if (pair === undefined) {
    throw new EngineError(
      "BundleRefused",
      `The checkpoint has no tensor ${plan.sources.join(" or ")}, which ${name} needs; export it again`,
      { tensor: plan.sources[0] },
    );
  }
  const [experts, inputs, outputs] = plan.stored;
  const [blocks, scales] = [pair.blocks, pair.scales].map((each) => entries.get(each) as TensorEntry);
  checkShape(pair.blocks, blocks, [[experts, outputs, inputs / 32, 16]]);
  checkShape(pair.scales, scales, [[experts, outputs, inputs / 32]]);
  return { plan, tensor: pair.blocks, entry: blocks, scales };
}

function checkShape(tensor: string, entry: TensorEntry, wanted: readonly (readonly number[])[]): void {
  if (wanted.some((shape) => sameShape(shape, entry.shape))) return;
  throw new EngineError(
    "BundleRefused",
    `Tensor ${tensor} has shape ${showShape(entry.shape)}; config.json says ${showShape(wanted[0])}`,
    { tensor },
  );
}
