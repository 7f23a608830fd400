// Reads values of a config.json as the architecture files name them: fields, dotted or nested, defaults, translations,
// conditions and extents. It knows no families; schemas/architecture.schema.json describes the rules it reads.

import { EngineError } from "../errors.ts";

export type Config = Record<string, unknown>;
/** Extents by shape letter. */
export type Dimensions = Record<string, number>;

export interface FieldRule {
  readonly config: string;
  readonly or?: string;
  readonly default?: unknown;
  readonly names?: Record<string, unknown>;
  readonly nullable?: true;
}

export type ExtentRule =
  | number
  | { readonly config: string; readonly or?: string; readonly default?: ExtentRule }
  | { readonly quotient: readonly string[] }
  | { readonly product: readonly (string | number)[] };

export type ConditionRule =
  | { readonly config: string; readonly or?: string; readonly default?: unknown; readonly is?: unknown }
  | { readonly differ: readonly string[] };

export class ConfigReader {
  readonly #config: Config;

  /** Fields are looked up in the object of the field `nested`, where there is one. */
  constructor(config: Config, nested: string | undefined) {
    const inner = nested === undefined ? undefined : config[nested];
    this.#config = isObject(inner) ? inner : config;
  }

  /** What a field holds; null where it is missing. */
  field(path: string): unknown {
    return this.#at(path) ?? null;
  }

  #isThere(path: string): boolean {
    return this.#at(path) !== undefined;
  }

  #at(path: string): unknown {
    let value: unknown = this.#config;
    for (const part of path.split(".")) value = isObject(value) ? value[part] : undefined;
    return value;
  }

  /** A constant as it is, or what the field says. Fails: BundleRefused for a missing field, or an unknown name in it. */
  value(rule: unknown): unknown {
    if (!isField(rule)) return rule;
    const given = this.#given(rule);
    if (given === null && rule.nullable === true && this.#isThere(rule.config)) return null;
    if (given === null && rule.default === undefined)
      throw refusal(`${rule.config} is missing; complete the file from the checkpoint's origin`);
    const value = given ?? rule.default;
    const { names } = rule;
    if (names === undefined || value === null) return value;
    return Array.isArray(value) ? value.map((each) => translate(rule, names, each)) : translate(rule, names, value);
  }

  /** Fails: BundleRefused for anything but a finite number. */
  number(rule: unknown): number {
    const value = this.value(rule);
    if (typeof value !== "number" || !Number.isFinite(value))
      throw refusal(`${nameOf(rule)} is ${JSON.stringify(value)}; it must be a number`);
    return value;
  }

  numberOrNull(rule: unknown): number | null {
    return this.value(rule) === null ? null : this.number(rule);
  }

  /** Whether a row that has this condition exists. */
  holds(rule: ConditionRule | undefined, dimensions: Dimensions): boolean {
    if (rule === undefined) return true;
    if ("differ" in rule) return dimensions[rule.differ[0]] !== dimensions[rule.differ[1]];
    return this.value({ config: rule.config, or: rule.or, default: rule.default }) === (rule.is ?? true);
  }

  /** Fails: BundleRefused where an extent is no positive integer. */
  dimensions(rules: Record<string, ExtentRule>): Dimensions {
    const dimensions: Dimensions = {};
    for (const [letter, rule] of Object.entries(rules)) {
      const extent = this.#extent(rule, dimensions);
      if (!Number.isInteger(extent) || extent < 1) {
        throw refusal(
          `dimension ${letter} (${JSON.stringify(rule)}) comes out as ${extent}; it must be a positive integer`,
        );
      }
      dimensions[letter] = extent;
    }
    return dimensions;
  }

  #extent(rule: ExtentRule, dimensions: Dimensions): number {
    if (typeof rule === "number") return rule;
    if ("quotient" in rule) return dimensions[rule.quotient[0]] / dimensions[rule.quotient[1]];
    if ("product" in rule) {
      return rule.product.reduce<number>(
        (product, each) => product * (typeof each === "number" ? each : dimensions[each]),
        1,
      );
    }
    const given = this.#given(rule);
    if (given !== null) return Number(given);
    return rule.default === undefined ? NaN : this.#extent(rule.default, dimensions);
  }

  #given({ config, or }: { config: string; or?: string }): unknown {
    return this.field(config) ?? (or === undefined ? null : this.field(or));
  }
}

export function refusal(text: string): EngineError {
  return new EngineError("BundleRefused", `config.json: ${text}`, { file: "config.json" });
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isField(rule: unknown): rule is FieldRule {
  return isObject(rule) && typeof rule.config === "string";
}

function nameOf(rule: unknown): string {
  return isField(rule) ? rule.config : JSON.stringify(rule);
}

function translate(rule: FieldRule, names: Record<string, unknown>, value: unknown): unknown {
  if (String(value) in names) return names[String(value)];
  throw refusal(
    `${rule.config} = ${String(value)} is not supported; supported are ${Object.keys(names).join(", ")}`,
  );
}

/** "3D" is three times D, "H*K" a product, "P+2" a sum. */
export function extentOf(term: string, dimensions: Dimensions): number {
  return term
    .split("+")
    .map((sum) => sum.split("*").reduce((product, factor) => product * factorOf(factor, dimensions), 1))
    .reduce((sum, each) => sum + each);
}

function factorOf(factor: string, dimensions: Dimensions): number {
  const [, count, letters] = /^(\d*)([A-Z]*)$/.exec(factor) as RegExpExecArray;
  return (count === "" ? 1 : Number(count)) * (letters === "" ? 1 : dimensions[letters]);
}
