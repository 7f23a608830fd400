// One load of a checkpoint's weights: finds each tensor that the architecture asks for, and puts it into the backend in
// the order in which the files have them; a norm that is folded is read when the first matrix needs it.

import type { Processing } from "../../protocol.ts";
import type { Bundle } from "../../store/bundle.ts";
import type { TensorEntry } from "../../store/safetensors.ts";
import type { Architecture, TensorPlan } from "../decoder/architecture.ts";
import type { Backend } from "../backend.ts";
import { EngineError } from "../errors.ts";
import { elementsOf, sameShape, showShape } from "../tensors/shape.ts";
import { releaseWeights, WeightLoader, type Weights } from "./weights.ts";
import { WeightProcessing, wordsOf } from "./processing.ts";
import { isByOutputs, openCodes, openNumbers, openPacked, openTensor, type StoredTensor } from "./source.ts";

const DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16", I8: "int8", MXFP4: "mxfp4" } as const;

export interface WeightOptions {
  /** Matrices become int8 while they come. */
  readonly quantises: boolean;
  readonly processing: Processing | undefined;
}

export interface LoadedWeights {
  readonly weights: Weights;
  readonly bytes: number;
  readonly dtype: string;
  /** What was done to them, before they came and now, in words; "raw" where nothing was. */
  readonly changes: string;
}

/** Fails: BundleRefused for a tensor that is missing, or lies otherwise than config.json says; frees what was loaded. */
export async function loadWeights(
  bundle: Bundle,
  entries: ReadonlyMap<string, TensorEntry>,
  architecture: Architecture,
  backend: Backend,
  options: WeightOptions,
): Promise<LoadedWeights> {
  const load = new WeightLoad(bundle, entries, architecture, backend, options);
  return load.run();
}

interface Placed {
  readonly plan: TensorPlan;
  readonly tensor: string;
  /** Of the tensor, or of its MXFP4 blocks. */
  readonly entry: TensorEntry;
  /** Of MXFP4 blocks. */
  readonly scales: TensorEntry | null;
}

class WeightLoad {
  readonly #bundle: Bundle;
  readonly #entries: ReadonlyMap<string, TensorEntry>;
  readonly #architecture: Architecture;
  readonly #backend: Backend;
  readonly #quantises: boolean;
  readonly #processing: WeightProcessing;
  readonly #loader: WeightLoader;
  readonly #done = new Set<TensorPlan>();
  readonly #dtypes = new Set<string>();
  /** What the store is writing. */
  #keeping: Promise<void> = Promise.resolve();

  constructor(
    bundle: Bundle,
    entries: ReadonlyMap<string, TensorEntry>,
    architecture: Architecture,
    backend: Backend,
    { quantises, processing }: WeightOptions,
  ) {
    this.#bundle = bundle;
    this.#entries = entries;
    this.#architecture = architecture;
    this.#backend = backend;
    this.#quantises = quantises;
    this.#processing = new WeightProcessing(architecture, processing);
    this.#loader = new WeightLoader(backend);
  }

  async run(): Promise<LoadedWeights> {
    const placed = this.#architecture.tensors.map((plan) => this.#find(plan)).sort(byPlace);
    const loader = this.#loader;
    try {
      let file = "";
      for (const each of placed) {
        if (file !== "" && file !== each.entry.file) this.#bundle.forget(file);
        file = each.entry.file;
        await this.#add(each);
      }
      this.#bundle.forget(file);
      await this.#keeping;
      this.#processing.finish(loader, this.#backend);
      loader.finish();
    } catch (error) {
      releaseWeights(this.#backend, loader);
      throw error;
    }
    const dtype = [...this.#dtypes].join("+");
    const before = wordsOf(this.#bundle.manifest?.processing);
    const words = [...before, ...this.#processing.words.filter((each) => !before.includes(each))];
    return { weights: loader, bytes: loader.bytes, dtype, changes: words.length === 0 ? "raw" : words.join(", ") };
  }

  async #add(placed: Placed): Promise<void> {
    const { plan } = placed;
    if (this.#done.has(plan)) return;
    this.#done.add(plan);
    if (plan.use === "vector" || plan.use === "rows") return this.#addVectors(placed);
    const norm = await this.#norm(this.#processing.normOf(plan));
    const treatments = this.#processing.treatmentsOf(plan, norm);
    const isPlain = treatments.length === 1 && Object.values(treatments[0]).every((each) => each === null);
    const keeps = this.#quantises && isPlain && this.#bundle.prepared !== null;
    const stored = (keeps ? await this.#keptCodes(placed) : null) ?? (await this.#open(placed));
    if (stored.scales !== null) this.#processing.refuseCodes(placed.tensor);
    this.#dtypes.add(DTYPES[this.#quantises ? "I8" : stored.dtype]);
    const codes = await this.#loader.addMatrices(plan, stored, { quantises: this.#quantises, treatments, keeps });
    if (codes !== null) await this.#keep(placed.tensor, "int8", codes.bytes);
  }

  async #addVectors(placed: Placed): Promise<void> {
    const { plan, tensor } = placed;
    const { prepared } = this.#bundle;
    const kept = this.#quantises ? await prepared?.get(tensor, "float32") : null;
    const stored = kept == null ? await this.#open(placed) : openNumbers(plan, kept);
    if (stored.dtype !== "F32") this.#dtypes.add(DTYPES[stored.dtype]);
    const isKept = this.#quantises && kept == null && prepared !== null;
    const copy = isKept ? new Float32Array(elementsOf(plan.stored)) : null;
    let seen = 0;
    const see = (numbers: Float32Array): void => {
      copy?.set(numbers, seen);
      seen += numbers.length;
    };
    await this.#loader.addVectors(plan, stored, see, (part, numbers, width) => {
      offsetNorm(this.#architecture, part, numbers);
      this.#processing.changeVector(part, numbers, width);
    });
    if (copy !== null) await this.#keep(tensor, "float32", new Uint8Array(copy.buffer));
  }

  #open({ plan, tensor, entry, scales }: Placed): Promise<StoredTensor> {
    if (scales !== null) return Promise.resolve(openPacked(this.#bundle, entry, scales));
    return openTensor(this.#bundle, plan, tensor, entry, this.#entries);
  }

  async #keptCodes({ plan, tensor, scales }: Placed): Promise<StoredTensor | null> {
    const bytes = await this.#bundle.prepared?.get(tensor, "int8");
    return bytes == null ? null : openCodes(plan, bytes, scales !== null || isByOutputs(plan));
  }

  /** One tensor is written while the next is read. */
  async #keep(tensor: string, form: string, bytes: Uint8Array): Promise<void> {
    await this.#keeping;
    this.#keeping = this.#bundle.prepared?.put(tensor, form, bytes) ?? Promise.resolve();
  }

  /** The numbers of a norm, which are read ahead where the file has them later. */
  async #norm(name: string | null): Promise<{ weight: Float32Array | null; bias: Float32Array | null }> {
    if (name === null) return { weight: null, bias: null };
    for (const plan of this.#architecture.tensors) {
      if (plan.parts[0] === `${name}.w` || plan.parts[0] === `${name}.b`) await this.#add(this.#find(plan));
    }
    const of = (part: string) => this.#loader.waiting(`${name}.${part}`) ?? null;
    return { weight: of("w"), bias: of("b") };
  }

  #find(plan: TensorPlan): Placed {
    const tensor = plan.sources.find((source) => this.#entries.has(source));
    if (tensor !== undefined) {
      const entry = this.#entries.get(tensor) as TensorEntry;
      const flipped = [...plan.stored.slice(0, -2), ...plan.stored.slice(-2).reverse()];
      const wanted = entry.dtype === "I8" && plan.use === "matrix" ? [plan.stored, flipped] : [plan.stored];
      checkShape(tensor, entry, wanted);
      return { plan, tensor, entry, scales: null };
    }
    const pair = plan.packed.find(({ blocks, scales }) => this.#entries.has(blocks) && this.#entries.has(scales));
    if (pair === undefined) {
      throw new EngineError(
        "BundleRefused",
        `The checkpoint has no tensor ${plan.sources.join(" or ")}, which ${this.#architecture.name} needs; export it again`,
        { tensor: plan.sources[0] },
      );
    }
    const [experts, inputs, outputs] = plan.stored;
    const [blocks, scales] = [pair.blocks, pair.scales].map((each) => this.#entries.get(each) as TensorEntry);
    checkShape(pair.blocks, blocks, [[experts, outputs, inputs / 32, 16]]);
    checkShape(pair.scales, scales, [[experts, outputs, inputs / 32]]);
    return { plan, tensor: pair.blocks, entry: blocks, scales };
  }
}

function byPlace(a: Placed, b: Placed): number {
  if (a.entry.file !== b.entry.file) return a.entry.file < b.entry.file ? -1 : 1;
  return a.entry.begin - b.entry.begin;
}

/** Gemma stores the weights of its norms less one. */
function offsetNorm({ decoder }: Architecture, part: string, numbers: Float32Array): void {
  if (decoder.normWeightOffset === 0 || !part.endsWith(".w")) return;
  for (let i = 0; i < numbers.length; i++) numbers[i] += decoder.normWeightOffset;
}

function checkShape(tensor: string, entry: TensorEntry, wanted: readonly (readonly number[])[]): void {
  if (wanted.some((shape) => sameShape(shape, entry.shape))) return;
  throw new EngineError(
    "BundleRefused",
    `Tensor ${tensor} has shape ${showShape(entry.shape)}; config.json says ${showShape(wanted[0])}`,
    { tensor },
  );
}
