// Changes of the weights that leave the logits what they are, as TransformerLens's compatibility mode makes them: norms
// folded into what reads them, means taken from what is written to the stream and from the logits, value biases moved
// to the attention's output. What a change would not leave equal is not done, and the words of the basis say so.
// TransformerLens also takes the mean of what reads a centred stream away: that changes no number, and is left out.

import type { Architecture, TensorPlan } from "../decoder/architecture.ts";
import type { Backend } from "../backend.ts";
import type { Processing } from "../../protocol.ts";
import { EngineError } from "../errors.ts";
import type { WeightLoader } from "./weights.ts";

const WORDS = {
  foldNorms: ["norms", "folded"],
  centreWriting: ["writing", "centred"],
  centreUnembedding: ["unembedding", "centred"],
  foldValueBiases: ["value biases", "folded"],
} as const satisfies Record<keyof Processing, readonly [string, string]>;

/** What was done to weights before they came, in the words of the basis; none where nothing was. */
export function wordsOf(processing: Processing = {}): string[] {
  const names = Object.keys(WORDS) as (keyof Processing)[];
  return names.filter((name) => processing[name] === true).map((name) => WORDS[name].join(" "));
}

/** What becomes of one matrix on its way in: first the folding, then the centring. */
export interface Treatment {
  /** Of the norm whose output the matrix reads: what each input is multiplied by, and what is added to it. */
  readonly weight: Float32Array | null;
  readonly bias: Float32Array | null;
  /** Along which axis the mean is taken away. */
  readonly centre: "inputs" | "outputs" | null;
  /** The part's name, where a tied table becomes the unembedding. */
  readonly rename: string | null;
}

export const UNTREATED: Treatment = { weight: null, bias: null, centre: null, rename: null };

const READERS: readonly [RegExp, string][] = [
  [/^(blocks\.\d+\.)attn\.W_[QKV]$/, "ln1"],
  [/^(blocks\.\d+\.)mlp\.(W_in|W_gate|router\.W|experts\.\{expert\}\.W_(in|gate))$/, "ln2"],
];
const WRITERS = /^blocks\.\d+\.(attn\.W_O|mlp\.W_out)$/;
const WRITTEN = /^blocks\.\d+\.(attn\.b_O|mlp\.b_out)$/;

export class WeightProcessing {
  readonly foldsNorms: boolean;
  readonly centresWriting: boolean;
  readonly centresUnembedding: boolean;
  readonly foldsValueBiases: boolean;
  /** For the basis of results: what was done, and what was asked for and not done, with the reason. */
  readonly words: readonly string[];
  readonly #architecture: Architecture;

  constructor(architecture: Architecture, wanted: Processing = {}) {
    const { decoder } = architecture;
    const reasons: string[] = [];
    const done: string[] = [];
    const decide = (change: keyof Processing, obstacle: string | null): boolean => {
      if (wanted[change] !== true) return false;
      const [name, verb] = WORDS[change];
      if (obstacle === null) done.push(`${name} ${verb}`);
      else reasons.push(`${name} not ${verb}: ${obstacle}`);
      return obstacle === null;
    };
    const isAfter = decoder.normPlacement === "after" ? "its norms write to the stream" : null;
    const keepsMean = decoder.centred ? isAfter : "its norms keep the mean";
    const cap = decoder.logitSoftCap === null ? null : "its logits are capped";
    const sinks = decoder.sinks ? "its patterns don't sum to 1" : null;
    this.#architecture = architecture;
    this.foldsNorms = decide("foldNorms", isAfter);
    this.centresWriting = decide("centreWriting", keepsMean);
    this.centresUnembedding = decide("centreUnembedding", cap);
    this.foldsValueBiases = decide("foldValueBiases", sinks);
    this.words = [...done, ...reasons];
  }

  /** Whether matrices are changed. */
  get changesMatrices(): boolean {
    return this.foldsNorms || this.centresWriting || this.centresUnembedding;
  }

  /** The norm's parts that must be known before a tensor can be treated. */
  normOf(plan: TensorPlan): string | null {
    if (!this.foldsNorms) return null;
    const [part] = plan.parts;
    for (const [pattern, name] of READERS) {
      const at = pattern.exec(part);
      if (at !== null) return `${at[1]}${name}`;
    }
    const last = this.#hasOutput ? "unembed.W_out" : this.#unembedding;
    return part === last && this.#architecture.decoder.finalNorm ? "ln_final" : null;
  }

  /** One per matrix that the tensor becomes. */
  treatmentsOf(plan: TensorPlan, norm: { weight: Float32Array | null; bias: Float32Array | null }): Treatment[] {
    const [part] = plan.parts;
    const isTable = part === "embed.W_E";
    const isUnembedding = part === this.#unembedding;
    const own: Treatment = {
      ...norm,
      centre: this.centresWriting && (WRITERS.test(part) || part === "embed.W_in") ? "outputs" : null,
      rename: null,
    };
    const unembedding: Treatment = {
      ...(this.#hasOutput ? UNTREATED : norm),
      centre: this.centresUnembedding ? "outputs" : null,
      rename: isTable ? "unembed.W_U" : null,
    };
    if (!isTable) return [isUnembedding ? unembedding : own];
    const table: Treatment = { ...UNTREATED, centre: this.centresWriting && !this.#hasInput ? "inputs" : null };
    const isShared = unembedding.weight === null && unembedding.bias === null && unembedding.centre === table.centre;
    return isUnembedding && !isShared ? [table, unembedding] : [table];
  }

  /** A vector or a table of positions, changed in place: rows of `width` numbers. */
  changeVector(part: string, numbers: Float32Array, width: number): void {
    if (!this.centresWriting || !(WRITTEN.test(part) || part === "pos_embed.W_pos")) return;
    for (let start = 0; start < numbers.length; start += width) {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += numbers[start + i];
      for (let i = 0; i < width; i++) numbers[start + i] -= sum / width;
    }
  }

  /** When all is loaded and the vectors wait: drops the folded norms, moves the value biases. */
  finish(loader: WeightLoader, backend: Backend): void {
    const { dimensions } = this.#architecture;
    if (this.centresUnembedding) centre(loader.waiting("unembed.b_U"));
    for (const name of this.foldsNorms ? this.#foldedNorms() : []) {
      loader.drop(`${name}.w`);
      loader.drop(`${name}.b`);
    }
    for (let layer = 0; layer < (this.foldsValueBiases ? dimensions.L : 0); layer++) {
      const at = `blocks.${layer}.attn.`;
      const bias = loader.waiting(`${at}b_V`);
      const matrix = loader.matrices.get(`${at}W_O`);
      if (bias === undefined || matrix === undefined) continue;
      const { H: heads, K: width, KV: shared = heads } = dimensions;
      const perHead = Float32Array.from({ length: heads * width }, (_, i) => {
        const head = Math.floor(i / width);
        return bias[Math.floor((head * shared) / heads) * width + (i % width)];
      });
      const row = backend.upload(perHead, [1, heads * width]);
      const moved = backend.product(row, matrix, null);
      loader.addTo(`${at}b_O`, backend.read(moved));
      backend.release(moved);
      backend.release(row);
      loader.drop(`${at}b_V`);
    }
  }

  /** Fails: BadParameter for codes: a change would round them a second time. */
  refuseCodes(tensor: string): void {
    if (!this.changesMatrices) return;
    throw new EngineError(
      "BadParameter",
      `${tensor} is stored as int8, and folding or centring would round it again; load it without processing, or export the checkpoint anew with it`,
      { tensor },
    );
  }

  #foldedNorms(): string[] {
    const { dimensions } = this.#architecture;
    return [...Array.from({ length: dimensions.L }, (_, layer) => [`blocks.${layer}.ln1`, `blocks.${layer}.ln2`]).flat(), "ln_final"];
  }

  get #unembedding(): string {
    return this.#architecture.decoder.tied ? "embed.W_E" : "unembed.W_U";
  }

  /** Whether matrices lie between the table and the stream. */
  get #hasInput(): boolean {
    return this.#has("embed.W_in");
  }

  get #hasOutput(): boolean {
    return this.#has("unembed.W_out");
  }

  #has(part: string): boolean {
    return this.#architecture.tensors.some((plan) => plan.parts[0] === part);
  }
}

function centre(numbers: Float32Array | undefined): void {
  if (numbers === undefined) return;
  const mean = numbers.reduce((sum, each) => sum + each, 0) / numbers.length;
  for (let i = 0; i < numbers.length; i++) numbers[i] -= mean;
}
