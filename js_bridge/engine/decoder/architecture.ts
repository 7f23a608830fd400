// Reads an architecture's table (architectures/*.json) against a config.json: dimensions, the decoder's settings,
// which checkpoint tensor becomes which parts, and the hook points. The tables hold every fact about a family;
// this file holds none.

import gemma2 from "../../architectures/gemma2.json" with { type: "json" };
import gemma3 from "../../architectures/gemma3.json" with { type: "json" };
import gpt2 from "../../architectures/gpt2.json" with { type: "json" };
import gptNeo from "../../architectures/gpt_neo.json" with { type: "json" };
import gptNeox from "../../architectures/gpt_neox.json" with { type: "json" };
import gptOss from "../../architectures/gpt_oss.json" with { type: "json" };
import llama from "../../architectures/llama.json" with { type: "json" };
import mistral from "../../architectures/mistral.json" with { type: "json" };
import opt from "../../architectures/opt.json" with { type: "json" };
import phi3 from "../../architectures/phi3.json" with { type: "json" };
import qwen2 from "../../architectures/qwen2.json" with { type: "json" };
import qwen3 from "../../architectures/qwen3.json" with { type: "json" };
import type { HookDescription } from "../../protocol.ts";
import {
  type ConditionRule,
  type Config,
  ConfigReader,
  type Dimensions,
  type ExtentRule,
  extentOf,
  refusal,
} from "./architecture_config.ts";
import type { Activation } from "../backend.ts";
import { type Rotation, type RotaryRule, rotationsOf } from "./rotary.ts";

export type { Config, Dimensions } from "./architecture_config.ts";

/** What one layer does otherwise than others. */
export interface LayerSettings {
  /** How many keys a query sees, its own included; null is all. */
  readonly window: number | null;
  readonly rotation: Rotation | null;
}

/** What the parametric decoder can be told; the schema of the architecture files says what each means. */
export interface DecoderSettings {
  readonly centred: boolean;
  readonly normWeightOffset: number;
  readonly normPlacement: "before" | "after" | "both";
  readonly finalNorm: boolean;
  readonly epsilon: number;
  readonly positions: "learned" | "rotary";
  readonly positionOffset: number;
  readonly embeddingScale: number | null;
  readonly activation: Activation;
  readonly gated: boolean;
  readonly parallel: boolean;
  /** What q · k is multiplied by. */
  readonly scoreFactor: number;
  readonly queryKeyNorm: boolean;
  readonly sinks: boolean;
  readonly attentionSoftCap: number | null;
  readonly logitSoftCap: number | null;
  readonly experts: { readonly alpha: number; readonly limit: number } | null;
  readonly tied: boolean;
  readonly layers: readonly LayerSettings[];
}

/** One tensor of the checkpoint and what becomes of it. */
export interface TensorPlan {
  /** Its names in a checkpoint, the first that is there counts. */
  readonly sources: readonly string[];
  /** The names of the tensors that hold it in MXFP4, each pair in place of the source of the same index. */
  readonly packed: readonly { readonly blocks: string; readonly scales: string }[];
  /** As it lies in the file. */
  readonly stored: readonly number[];
  /** Stored as [outputs, inputs]. */
  readonly transposed: boolean;
  /** Multiplied by; looked up in, and multiplied by as well; only looked up in; added. */
  readonly use: "matrix" | "table" | "rows" | "vector";
  /** {expert} in them stands for each place along the first axis. */
  readonly parts: readonly string[];
  /** How many outputs go to each part in turn, again and again. */
  readonly sizes: readonly number[];
}

export interface Architecture {
  readonly name: string;
  readonly dimensions: Dimensions;
  readonly decoder: DecoderSettings;
  readonly tensors: readonly TensorPlan[];
  readonly hooks: readonly HookDescription[];
  readonly aliases: Record<string, string>;
}

interface TensorRow {
  source: string;
  prefixes?: string[];
  stored: string[];
  transpose?: boolean;
  split?: { sizes?: string[] };
  use?: "table" | "rows" | "vector";
  when?: ConditionRule;
  packed?: { blocks: string; scales: string };
  parts: string[];
  tiedTo?: string;
}

interface HookRow {
  name: string;
  shape: string;
  on?: boolean;
  when?: ConditionRule;
}

interface WindowRule {
  size: unknown;
  when: unknown;
  layers: unknown;
  otherwise: "every" | { from: unknown } | { except: unknown } | { runs: unknown; sliding: string };
}

interface Table {
  architecture: string;
  modelTypes: string[];
  nested?: string;
  dimensions: Record<string, ExtentRule>;
  decoder: Record<Exclude<keyof DecoderSettings, "centred" | "scoreFactor" | "layers" | "experts">, unknown> & {
    norm: "layerNorm" | "rmsNorm";
    rotary: RotaryRule | null;
    scaleScores: unknown;
    scoreScale: unknown;
    window: WindowRule | null;
    experts: { alpha: unknown; limit: unknown } | null;
  };
  refused: Record<string, unknown[]>;
  tensorPrefixes: string[];
  tensors: TensorRow[];
  hooks: HookRow[];
  aliases: Record<string, string>;
}

const TABLES = [
  gpt2,
  gptNeo,
  gptNeox,
  opt,
  llama,
  mistral,
  qwen2,
  qwen3,
  phi3,
  gemma2,
  gemma3,
  gptOss,
] as unknown as readonly Table[];

/** Fails: BundleRefused for a family, setting or dimension that no table knows. */
export function architectureOf(config: Config): Architecture {
  const table = TABLES.find((each) => each.modelTypes.includes(String(config.model_type)));
  if (table === undefined) {
    const known = TABLES.flatMap((each) => each.modelTypes).join(", ");
    throw refusal(
      `model_type ${JSON.stringify(config.model_type)} is no architecture that this engine runs; it runs: ${known}`,
    );
  }
  const reader = new ConfigReader(config, table.nested);
  for (const [field, values] of Object.entries(table.refused)) {
    const value = reader.field(field);
    if (values.includes(value))
      throw refusal(`${field} = ${JSON.stringify(value)} is not supported; export a checkpoint without it`);
  }
  const dimensions = reader.dimensions(table.dimensions);
  const decoder = settingsOf(table, reader, dimensions);
  return {
    name: table.architecture,
    dimensions,
    decoder,
    tensors: table.tensors
      .filter((row) => reader.holds(row.when, dimensions) && !(decoder.tied && row.tiedTo !== undefined))
      .flatMap((row) => plansOf(row, table.tensorPrefixes, dimensions)),
    hooks: hooksOf(
      table.hooks.filter((row) => reader.holds(row.when, dimensions)),
      dimensions.L,
    ),
    aliases: table.aliases,
  };
}

function settingsOf(table: Table, reader: ConfigReader, dimensions: Dimensions): DecoderSettings {
  const { decoder } = table;
  const { D: model, K: head, P: positions, H: heads, KV: keyValueHeads = heads } = dimensions;
  if (heads % keyValueHeads !== 0)
    throw refusal(`${heads} heads share ${keyValueHeads} key-value heads; their number must be a multiple of it`);
  const rotations = decoder.rotary === null ? null : rotationsOf(reader, decoder.rotary, head, positions);
  const scoreScale = reader.numberOrNull(decoder.scoreScale) ?? head;
  return {
    centred: decoder.norm === "layerNorm",
    normWeightOffset: reader.number(decoder.normWeightOffset),
    normPlacement: reader.value(decoder.normPlacement) as DecoderSettings["normPlacement"],
    finalNorm: reader.value(decoder.finalNorm) === true,
    epsilon: reader.number(decoder.epsilon),
    positions: decoder.positions as DecoderSettings["positions"],
    positionOffset: reader.number(decoder.positionOffset),
    embeddingScale: decoder.embeddingScale === "rootOfWidth" ? Math.sqrt(model) : null,
    activation: reader.value(decoder.activation) as Activation,
    gated: decoder.gated === true,
    parallel: reader.value(decoder.parallel) === true,
    scoreFactor: reader.value(decoder.scaleScores) === false ? 1 : scoreScale ** -0.5,
    queryKeyNorm: decoder.queryKeyNorm === true,
    sinks: decoder.sinks === true,
    attentionSoftCap: reader.numberOrNull(decoder.attentionSoftCap),
    logitSoftCap: reader.numberOrNull(decoder.logitSoftCap),
    experts:
      decoder.experts === null
        ? null
        : { alpha: reader.number(decoder.experts.alpha), limit: reader.number(decoder.experts.limit) },
    tied: reader.value(decoder.tied) === true,
    layers: windowsOf(decoder.window, reader, dimensions.L).map((window) => ({
      window,
      rotation: rotations === null ? null : window === null ? rotations.full : rotations.sliding,
    })),
  };
}

/** Per layer, how many keys a query sees. */
function windowsOf(rule: WindowRule | null, reader: ConfigReader, layers: number): (number | null)[] {
  const size = rule === null || reader.value(rule.when) === false ? null : reader.numberOrNull(rule.size);
  if (rule === null || size === null) return new Array<null>(layers).fill(null);
  const sliding = slidingLayers(rule, reader, layers);
  if (sliding.length !== layers)
    throw refusal(`the kinds of attention of ${sliding.length} layers are listed; the model has ${layers}`);
  return sliding.map((each) => (each ? size : null));
}

function slidingLayers({ layers: listed, otherwise }: WindowRule, reader: ConfigReader, layers: number): boolean[] {
  const given = reader.value(listed);
  if (Array.isArray(given)) return given as boolean[];
  const each = (isSliding: (layer: number) => boolean) =>
    Array.from({ length: layers }, (_, layer) => isSliding(layer));
  if (otherwise === "every") return each(() => true);
  if ("from" in otherwise) {
    const first = reader.number(otherwise.from);
    return each((layer) => layer >= first);
  }
  if ("except" in otherwise) {
    const period = reader.number(otherwise.except);
    return each((layer) => (layer + 1) % period !== 0);
  }
  const runs = reader.value(otherwise.runs) as [string[], number][];
  return runs.flatMap(([kinds, times]) =>
    Array.from({ length: times }, () => kinds.map((kind) => kind === otherwise.sliding)).flat(),
  );
}

function plansOf(row: TensorRow, tablePrefixes: readonly string[], dimensions: Dimensions): TensorPlan[] {
  const layers = row.source.includes("{layer}") ? dimensions.L : 1;
  const prefixes = row.prefixes ?? tablePrefixes;
  const stored = row.stored.map((term) => extentOf(term, dimensions));
  const transposed = row.transpose ?? false;
  const outputs = stored[stored.length - (transposed ? 2 : 1)];
  const sizes = row.split?.sizes?.map((term) => extentOf(term, dimensions));
  return Array.from({ length: layers }, (_, layer) => ({
    sources: prefixes.map((prefix) => prefix + inLayer(row.source, layer)),
    packed: (row.packed === undefined ? [] : prefixes).map((prefix) => ({
      blocks: prefix + inLayer(row.packed?.blocks as string, layer),
      scales: prefix + inLayer(row.packed?.scales as string, layer),
    })),
    stored,
    transposed,
    use: row.use ?? (stored.length === 1 ? "vector" : "matrix"),
    parts: row.parts.map((part) => inLayer(part, layer)),
    sizes: sizes ?? row.parts.map(() => outputs / row.parts.length),
  }));
}

function hooksOf(rows: readonly HookRow[], layers: number): HookDescription[] {
  const describe = (row: HookRow, layer: number) => ({
    name: inLayer(row.name, layer),
    shape: row.shape,
    on: row.on ?? true,
  });
  const inBlock = rows.filter((row) => row.name.includes("{layer}"));
  const first = rows.indexOf(inBlock[0]);
  const before = rows.slice(0, first);
  const after = rows.slice(first + inBlock.length);
  return [
    ...before.map((row) => describe(row, 0)),
    ...Array.from({ length: layers }, (_, layer) => inBlock.map((row) => describe(row, layer))).flat(),
    ...after.map((row) => describe(row, 0)),
  ];
}

function inLayer(pattern: string, layer: number): string {
  return pattern.replace("{layer}", String(layer));
}
