// Reads an architecture's table (architectures/*.json) against a config.json: dimensions, the decoder's settings,
// which checkpoint tensor becomes which parts, and the hook points. The tables hold every fact about a family;
// this file holds none.

import gpt2 from "../architectures/gpt2.json" with { type: "json" };
import type { HookDescription } from "../protocol.ts";
import type { Activation } from "./backend.ts";
import { EngineError } from "./errors.ts";

export type Config = Record<string, unknown>;
/** Extents by shape letter. */
export type Dimensions = Record<string, number>;

/** What the parametric decoder can be told. */
export interface DecoderSettings {
  readonly epsilon: number;
  readonly activation: Activation;
  readonly scaleScores: boolean;
}

/** One tensor of the checkpoint and what becomes of it. */
export interface TensorPlan {
  /** Its names in a checkpoint, the first that is there counts. */
  readonly sources: readonly string[];
  /** As it lies in the file. */
  readonly stored: readonly number[];
  /** After `view`, the order of its axes. */
  readonly view?: readonly number[];
  readonly permute?: readonly number[];
  /** Stored as [outputs, inputs]. */
  readonly transpose: boolean;
  /** The axis along which it is cut into its parts, of equal size. */
  readonly splitAxis: number | null;
  readonly parts: readonly string[];
  /** How the decoder uses it: multiplies by it, looks up its rows (as a product's transposed matrix, or as numbers), adds it. */
  readonly use: "matrix" | "table" | "rows" | "vector";
  /** The part whose numbers it shares when the checkpoint leaves it out. */
  readonly tiedTo: string | null;
}

export interface Architecture {
  readonly name: string;
  readonly dimensions: Dimensions;
  readonly decoder: DecoderSettings;
  readonly tensors: readonly TensorPlan[];
  readonly hooks: readonly HookDescription[];
  readonly aliases: Record<string, string>;
}

type Extent =
  { config: string; or?: string; default?: Extent } | { quotient: string[] } | { product: (string | number)[] };

interface TensorRow {
  source: string;
  prefixes?: string[];
  stored: string[];
  view?: string[];
  permute?: number[];
  transpose?: boolean;
  split?: { axis: number };
  use?: "table" | "rows";
  parts: string[];
  tiedTo?: string;
}

interface Table {
  architecture: string;
  modelTypes: string[];
  dimensions: Record<string, Extent>;
  decoder: {
    epsilon: { config: string; default: number };
    activation: { config: string; default: string; names: Record<string, string> };
    scaleScores: { config: string; default: boolean };
  };
  refused: Record<string, unknown[]>;
  tensorPrefixes: string[];
  tensors: TensorRow[];
  hooks: { name: string; shape: string; on?: boolean }[];
  aliases: Record<string, string>;
}

const TABLES: readonly Table[] = [gpt2 as unknown as Table];

/** Fails: BundleRefused for a family, setting or dimension that no table knows. */
export function architectureOf(config: Config): Architecture {
  const table = TABLES.find((each) => each.modelTypes.includes(String(config.model_type)));
  if (table === undefined) {
    const known = TABLES.flatMap((each) => each.modelTypes).join(", ");
    throw refusal(
      `model_type ${JSON.stringify(config.model_type)} is no architecture that this engine runs; it runs: ${known}`,
    );
  }
  for (const [key, values] of Object.entries(table.refused)) {
    if (values.includes(config[key]))
      throw refusal(`${key} = ${JSON.stringify(config[key])} is not supported; export a checkpoint without it`);
  }
  const dimensions = dimensionsOf(table, config);
  return {
    name: table.architecture,
    dimensions,
    decoder: settingsOf(table, config),
    tensors: table.tensors.flatMap((row) => plansOf(row, table.tensorPrefixes, dimensions)),
    hooks: hooksOf(table, dimensions.L),
    aliases: table.aliases,
  };
}

function refusal(text: string): EngineError {
  return new EngineError("BundleRefused", `config.json: ${text}`, { file: "config.json" });
}

function dimensionsOf(table: Table, config: Config): Dimensions {
  const dimensions: Dimensions = {};
  const extentOf = (rule: Extent): number => {
    if ("quotient" in rule) return dimensions[rule.quotient[0]] / dimensions[rule.quotient[1]];
    if ("product" in rule)
      return rule.product.reduce<number>(
        (product, each) => product * (typeof each === "number" ? each : dimensions[each]),
        1,
      );
    const given = config[rule.config] ?? (rule.or === undefined ? undefined : config[rule.or]);
    return given === undefined || given === null
      ? rule.default === undefined
        ? NaN
        : extentOf(rule.default)
      : Number(given);
  };
  for (const [letter, rule] of Object.entries(table.dimensions)) {
    const extent = extentOf(rule);
    if (!Number.isInteger(extent) || extent < 1) {
      throw refusal(
        `dimension ${letter} (${JSON.stringify(rule)}) comes out as ${extent}; it must be a positive integer`,
      );
    }
    dimensions[letter] = extent;
  }
  return dimensions;
}

function settingsOf(table: Table, config: Config): DecoderSettings {
  const { epsilon, activation, scaleScores } = table.decoder;
  const name = String(config[activation.config] ?? activation.default);
  const kind = activation.names[name];
  if (kind === undefined) {
    throw refusal(
      `${activation.config} = ${name} is not supported; supported are ${Object.keys(activation.names).join(", ")}`,
    );
  }
  return {
    epsilon: Number(config[epsilon.config] ?? epsilon.default),
    activation: kind as Activation,
    scaleScores: Boolean(config[scaleScores.config] ?? scaleScores.default),
  };
}

/** "3D" is three times dimension D. */
function extent(term: string, dimensions: Dimensions): number {
  const [, factor, letter] = /^(\d*)([A-Z]?)$/.exec(term) as RegExpExecArray;
  return (factor === "" ? 1 : Number(factor)) * (letter === "" ? 1 : dimensions[letter]);
}

function plansOf(row: TensorRow, tablePrefixes: readonly string[], dimensions: Dimensions): TensorPlan[] {
  const layers = row.source.includes("{layer}") ? dimensions.L : 1;
  const prefixes = row.prefixes ?? tablePrefixes;
  return Array.from({ length: layers }, (_, layer) => ({
    sources: prefixes.map((prefix) => prefix + inLayer(row.source, layer)),
    stored: row.stored.map((term) => extent(term, dimensions)),
    view: row.view?.map((term) => extent(term, dimensions)),
    permute: row.permute,
    transpose: row.transpose ?? false,
    splitAxis: row.split?.axis ?? null,
    parts: row.parts.map((part) => inLayer(part, layer)),
    use: row.use ?? (row.stored.length === 1 ? "vector" : "matrix"),
    tiedTo: row.tiedTo ?? null,
  }));
}

function hooksOf(table: Table, layers: number): HookDescription[] {
  const describe = (row: Table["hooks"][number], layer: number) => ({
    name: inLayer(row.name, layer),
    shape: row.shape,
    on: row.on ?? true,
  });
  const inBlock = table.hooks.filter((row) => row.name.includes("{layer}"));
  const first = table.hooks.indexOf(inBlock[0]);
  const before = table.hooks.slice(0, first);
  const after = table.hooks.slice(first + inBlock.length);
  return [
    ...before.map((row) => describe(row, 0)),
    ...Array.from({ length: layers }, (_, layer) => inBlock.map((row) => describe(row, layer))).flat(),
    ...after.map((row) => describe(row, 0)),
  ];
}

function inLayer(pattern: string, layer: number): string {
  return pattern.replace("{layer}", String(layer));
}
