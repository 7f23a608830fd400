// How fast the pairs of a rotated head turn: the base frequencies and their stretching for longer contexts.
// Frequencies and angles are rounded to float32 where PyTorch rounds them: at position 2,000 exact ones would differ
// from the reference by 1e-4.
// Source: Su et al., RoFormer (2021); linear: Chen et al. (2023); YaRN: Peng et al. (2023), sections 3.2 to 3.4;
// LongRoPE: Ding et al. (2024); llama3: Dubey et al., The Llama 3 Herd of Models (2024), section 3.2, and its release.

import { type ConfigReader, isObject, refusal } from "./architecture_config.ts";

/** How the first `width` numbers of each head turn, of queries and keys alike. */
export interface Rotation {
  readonly width: number;
  /** radians per position of the pair (i, i + width/2) */
  readonly frequencies: Float32Array;
  /** Used instead in passes that reach beyond `original` positions. */
  readonly long: Float32Array | null;
  readonly original: number;
  /** What cosines and sines are multiplied by. */
  readonly factor: number;
}

export interface RotaryRule {
  readonly kinds: readonly string[];
  readonly parameters: string;
  readonly scaling: string;
  readonly base: unknown;
  readonly localBase?: unknown;
  readonly share: unknown;
  readonly original?: unknown;
}

/** The rotation of full layers and of those with a window: the same object where they turn alike. */
export interface Rotations {
  readonly full: Rotation;
  readonly sliding: Rotation;
}

/** Fails: BundleRefused for a kind that the family is not run with, or settings that it lacks. */
export function rotationsOf(config: ConfigReader, rule: RotaryRule, head: number, positions: number): Rotations {
  const parameters = config.field(rule.parameters);
  const full = rotation(config, rule, head, positions, parametersOf(config, rule, parameters, "full_attention"));
  const differs = rule.localBase !== undefined || (isObject(parameters) && "sliding_attention" in parameters);
  if (!differs) return { full, sliding: full };
  const sliding = parametersOf(config, rule, parameters, "sliding_attention");
  return { full, sliding: rotation(config, rule, head, positions, sliding) };
}

type Settings = Record<string, unknown>;

function parametersOf(config: ConfigReader, rule: RotaryRule, parameters: unknown, layer: string): Settings {
  if (isObject(parameters)) {
    const own = parameters[layer];
    return isObject(own) ? own : parameters;
  }
  if (layer === "sliding_attention") return { rope_theta: config.number(rule.localBase) };
  const scaling = config.field(rule.scaling);
  return isObject(scaling) ? { ...scaling, rope_type: scaling.rope_type ?? scaling.type } : {};
}

function rotation(
  config: ConfigReader,
  rule: RotaryRule,
  head: number,
  positions: number,
  settings: Settings,
): Rotation {
  const kind = String(settings.rope_type ?? "default");
  if (!rule.kinds.includes(kind)) {
    throw refusal(
      `${rule.parameters} has rope_type ${JSON.stringify(kind)}, which is not supported; supported are ${rule.kinds.join(", ")}`,
    );
  }
  const base = typeof settings.rope_theta === "number" ? settings.rope_theta : config.number(rule.base);
  const share = settings.partial_rotary_factor ?? config.number(rule.share);
  const width = Math.trunc(head * Number(share));
  if (width < 2 || width % 2 !== 0)
    throw refusal(`a share of ${share} rotates ${width} of each head's ${head} numbers; it must be an even number from 2 on`);
  const plain = baseFrequencies(base, width);
  const unscaled = { width, frequencies: plain, long: null, original: positions, factor: 1 };
  const number = (name: string, fallback?: number): number => {
    const value = settings[name] ?? fallback;
    if (typeof value === "number") return value;
    throw refusal(`${rule.parameters} of rope_type ${kind} lacks ${name}, a number`);
  };
  switch (kind) {
    case "linear":
      return { ...unscaled, frequencies: plain.map((each) => each / number("factor")) };
    case "llama3":
      return { ...unscaled, frequencies: stretchedByWaves(plain, number) };
    case "yarn": {
      const factor = number("factor");
      const original = number("original_max_position_embeddings", positions);
      const frequencies = stretchedByParts(plain, base, original, settings, number);
      return { ...unscaled, frequencies, factor: yarnFactor(factor, settings) };
    }
    case "longrope": {
      const declared = settings.original_max_position_embeddings ?? config.value(rule.original ?? null);
      const original = Number(declared ?? positions);
      const scale = declared === null ? number("factor", 1) : positions / original;
      const grown = scale <= 1 ? 1 : Math.sqrt(1 + Math.log(scale) / Math.log(original));
      return {
        width,
        frequencies: divided(plain, settings.short_factor, "short_factor"),
        long: divided(plain, settings.long_factor, "long_factor"),
        original,
        factor: number("attention_factor", grown),
      };
    }
    default:
      return unscaled;
  }
}

/** base^(-2i / width). */
function baseFrequencies(base: number, width: number): Float32Array {
  return Float32Array.from({ length: width / 2 }, (_, i) => 1 / Math.fround(base ** Math.fround((2 * i) / width)));
}

function divided(frequencies: Float32Array, factors: unknown, name: string): Float32Array {
  if (!Array.isArray(factors) || factors.length !== frequencies.length)
    throw refusal(`longrope's ${name} must list ${frequencies.length} numbers, one per pair of a head`);
  return frequencies.map((each, i) => each / Number(factors[i]));
}

/** llama3: slow pairs are stretched, fast ones left, those between mixed. */
function stretchedByWaves(frequencies: Float32Array, number: (name: string) => number): Float32Array {
  const factor = number("factor");
  const [low, high] = [number("low_freq_factor"), number("high_freq_factor")];
  const original = number("original_max_position_embeddings");
  return frequencies.map((each) => {
    const wave = (2 * Math.PI) / each;
    if (wave > original / low) return each / factor;
    if (wave < original / high) return each;
    const share = (original / wave - low) / (high - low);
    return ((1 - share) * each) / factor + share * each;
  });
}

/** YaRN, "NTK-by-parts": a ramp between the pairs that turn beta_slow and beta_fast times in the original context. */
function stretchedByParts(
  frequencies: Float32Array,
  base: number,
  original: number,
  settings: Settings,
  number: (name: string, fallback?: number) => number,
): Float32Array {
  const width = 2 * frequencies.length;
  const pairOf = (turns: number) => (width * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const whole = settings.truncate !== false;
  const [fast, slow] = [pairOf(number("beta_fast", 32)), pairOf(number("beta_slow", 1))];
  const first = Math.max(whole ? Math.floor(fast) : fast, 0);
  const last = Math.min(whole ? Math.ceil(slow) : slow, width - 1);
  const length = last === first ? 0.001 : last - first;
  return frequencies.map((each, i) => {
    const stretched = Math.min(Math.max((i - first) / length, 0), 1);
    return (each / number("factor")) * stretched + each * (1 - stretched);
  });
}

/** YaRN's temperature, spread over queries and keys. */
function yarnFactor(factor: number, settings: Settings): number {
  if (typeof settings.attention_factor === "number") return settings.attention_factor;
  const scale = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  const { mscale, mscale_all_dim: overAll } = settings;
  if (typeof mscale === "number" && typeof overAll === "number" && mscale !== 0 && overAll !== 0)
    return scale(mscale) / scale(overAll);
  return scale(1);
}

/** Cosines and sines of each position, for `rotate`. [positions, width/2] each */
export function turned(
  { frequencies, long, original, factor }: Rotation,
  positions: Int32Array,
  total: number,
): { cosines: Float32Array; sines: Float32Array } {
  const speeds = long !== null && total > original ? long : frequencies;
  const cosines = new Float32Array(positions.length * speeds.length);
  const sines = new Float32Array(cosines.length);
  for (let row = 0, at = 0; row < positions.length; row++) {
    for (let i = 0; i < speeds.length; i++, at++) {
      const angle = Math.fround(positions[row] * speeds[i]);
      cosines[at] = Math.cos(angle) * factor;
      sines[at] = Math.sin(angle) * factor;
    }
  }
  return { cosines, sines };
}
