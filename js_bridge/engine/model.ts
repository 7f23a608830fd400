// A model that is ready to run: its architecture, its weights in a backend, its tokenizer. Loading maps the
// checkpoint's tensors to the architecture's parts, one tensor at a time, in the order in which they lie in the files.

import type { HookDescription, ModelId } from "../protocol.ts";
import type { Bundle } from "../store/bundle.ts";
import { readHeader, readTensor, type TensorEntry } from "../store/safetensors.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type Architecture, architectureOf, type Config, type TensorPlan } from "./architecture.ts";
import { type Backend, laidOut, type Matrix, type Value } from "./backend.ts";
import type { Weights } from "./decoder.ts";
import { EngineError } from "./errors.ts";
import { elementsOf, showShape, stridesOf } from "./shape.ts";

const DTYPES: Record<string, string> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

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
): Promise<Model> {
  const { config, architecture, tokenizer, weightFiles } = checkpoint;
  const entries = new Map<string, TensorEntry>();
  for (const file of weightFiles) {
    for (const [tensor, entry] of await readHeader(bundle, file)) entries.set(tensor, entry);
  }
  const found = placed(architecture, entries);
  const loading = new Loading(backend);
  try {
    let file = "";
    for (const { plan, tensor, entry } of found) {
      if (file !== "" && file !== entry.file) bundle.forget(file);
      file = entry.file;
      loading.add(plan, await readTensor(bundle, tensor, entry));
    }
    bundle.forget(file);
  } catch (error) {
    releaseWeights(backend, loading);
    throw error;
  }
  const dtypes = [...new Set(found.map(({ entry }) => DTYPES[entry.dtype]))];
  return {
    id,
    name: bundle.manifest?.id ?? name,
    revision: bundle.manifest?.revision ?? null,
    config,
    architecture,
    hooks: new Map(architecture.hooks.map((hook) => [hook.name, hook])),
    backend,
    weights: loading,
    tokenizer,
    dtype: dtypes.join("+"),
    parameters: found.reduce((sum, { entry }) => sum + elementsOf(entry.shape), 0),
    bytes: loading.bytes,
  };
}

export function releaseWeights(backend: Backend, weights: Weights): void {
  for (const matrix of weights.matrices.values()) backend.releaseMatrix(matrix);
  for (const vector of weights.vectors.values()) backend.release(vector);
}

interface Placed {
  readonly plan: TensorPlan;
  readonly tensor: string;
  readonly entry: TensorEntry;
}

/** Each plan with its tensor in the files, in the order of the files. */
function placed(architecture: Architecture, entries: ReadonlyMap<string, TensorEntry>): Placed[] {
  const found: Placed[] = [];
  for (const plan of architecture.tensors) {
    const tensor = plan.sources.find((source) => entries.has(source));
    if (tensor === undefined) {
      if (plan.tiedTo !== null) continue;
      throw new EngineError(
        "BundleRefused",
        `The checkpoint has no tensor ${plan.sources.join(" or ")}, which ${architecture.name} needs; export it again`,
        { tensor: plan.sources[0] },
      );
    }
    const entry = entries.get(tensor) as TensorEntry;
    if (showShape(entry.shape) !== showShape(plan.stored)) {
      throw new EngineError(
        "BundleRefused",
        `Tensor ${tensor} has shape ${showShape(entry.shape)}; config.json says ${showShape(plan.stored)}`,
        { tensor },
      );
    }
    found.push({ plan, tensor, entry });
  }
  return found.sort((a, b) =>
    a.entry.file === b.entry.file ? a.entry.begin - b.entry.begin : a.entry.file < b.entry.file ? -1 : 1,
  );
}

class Loading implements Weights {
  readonly matrices = new Map<string, Matrix>();
  readonly vectors = new Map<string, Value>();
  bytes = 0;
  readonly #backend: Backend;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  add(plan: TensorPlan, numbers: Float32Array): void {
    for (const [i, part] of cut(plan, numbers).entries()) {
      if (plan.use === "vector" || plan.use === "rows") {
        const value = this.#backend.upload(part.numbers, part.shape);
        this.vectors.set(plan.parts[i], value);
        this.bytes += value.storage.bytes;
      } else {
        const transposed = plan.transpose || plan.use === "table";
        const [rows, columns] = part.shape;
        const [inputs, outputs] = transposed ? [columns, rows] : [rows, columns];
        const matrix = laidOut(this.#backend, part.numbers, { inputs, outputs, transposed, scales: null });
        this.matrices.set(plan.parts[i], matrix);
        this.bytes += matrix.bytes;
      }
    }
  }
}

/** The parts of a stored tensor: its axes put in order, then cut along one of them. */
export function cut(
  plan: Pick<TensorPlan, "stored" | "view" | "permute" | "splitAxis" | "parts">,
  numbers: Float32Array,
): { numbers: Float32Array; shape: number[] }[] {
  let shape: readonly number[] = plan.stored;
  let ordered = numbers;
  if (plan.view !== undefined && plan.permute !== undefined) {
    const { view, permute } = plan;
    const strides = stridesOf(view);
    shape = permute.map((axis) => view[axis]);
    ordered = gather(
      numbers,
      shape,
      permute.map((axis) => strides[axis]),
      0,
    );
  }
  if (plan.splitAxis === null) return [{ numbers: ordered, shape: [...shape] }];
  const axis = plan.splitAxis;
  const size = shape[axis] / plan.parts.length;
  const strides = stridesOf(shape);
  const part = shape.with(axis, size);
  return plan.parts.map((_, i) => ({ numbers: gather(ordered, part, strides, i * size * strides[axis]), shape: part }));
}

/** Rows along the last axis are copied whole where they lie together. */
function gather(
  from: Float32Array,
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
): Float32Array {
  const result = new Float32Array(elementsOf(shape));
  const last = shape.length - 1;
  const copy = (axis: number, source: number, target: number): void => {
    if (axis === last) {
      if (strides[last] === 1) result.set(from.subarray(source, source + shape[last]), target);
      else for (let i = 0; i < shape[last]; i++) result[target + i] = from[source + i * strides[last]];
      return;
    }
    const step = elementsOf(shape.slice(axis + 1));
    for (let i = 0; i < shape[axis]; i++) copy(axis + 1, source + i * strides[axis], target + i * step);
  };
  copy(0, offset, 0);
  return result;
}
