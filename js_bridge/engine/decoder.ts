// The forward pass of a decoder, as a generator that stops at every hook point: it yields the value there and goes on
// with the value it is sent back. So a pass can be suspended, interleaved with others, nested and cancelled
// (`return()` runs the `finally`s, which free the scratch). It knows no hooks, tensors or messages; pass.ts does.
//
// resid_mid is a point of the residual stream itself: a replacement reaches the MLP *and* resid_post.

import type { Architecture } from "./architecture.ts";
import type { Backend, Matrix, Reach, Value } from "./backend.ts";
import type { KeyValueCache } from "./key_value_cache.ts";

/** The weights of one model in its backend, by the names of the architecture's table. */
export interface Weights {
  readonly matrices: ReadonlyMap<string, Matrix>;
  readonly vectors: ReadonlyMap<string, Value>;
}

export interface HookPoint {
  readonly name: string;
  /** Borrowed: whoever keeps it retains it. */
  readonly value: Value;
}

/** Rows of a batch that are shorter than the others. */
export interface Padding {
  readonly side: "left" | "right";
  /** How many tokens of each row are real, cached ones included. */
  readonly lengths: readonly number[];
}

export interface ForwardOptions {
  readonly ids: Int32Array;
  readonly batch: number;
  /** Those that this pass computes. */
  readonly positions: number;
  /** Whether an optional point is switched on; the others are always there. */
  readonly isOn: (name: string) => boolean;
  /** Whether anybody looks at a point or changes it; where nobody does it is not yielded, and kernels may be fused. */
  readonly isWanted: (name: string) => boolean;
  /** What lies at padding changes no number elsewhere, be it NaN. */
  readonly padding: Padding | null;
  /** Begins at blocks.<layer>.hook_resid_pre with this value, which is borrowed; layer L: before the final norm. [B T D] */
  readonly start: { readonly layer: number; readonly residual: Value } | null;
  /** Ends before this block (L: before the final norm): the result is the residual stream there. [B T D] */
  readonly stop: number | null;
  /** Keys and values of earlier positions; this pass's are put behind them. */
  readonly cache: KeyValueCache | null;
  /** Positions of this pass, from 0 on, whose logits are computed; null: all. */
  readonly logitPositions: readonly number[] | null;
}

/** Of a pass that computes everything for rows of equal length. */
export const WHOLE_PASS = {
  isOn: () => false,
  isWanted: () => false,
  padding: null,
  start: null,
  stop: null,
  cache: null,
  logitPositions: null,
} as const satisfies Partial<ForwardOptions>;

/** A step of the pass: a hook point, or null between two blocks. It is sent the value to go on with, handed over. */
export type Forward = Generator<HookPoint | null, Value, Value | undefined>;

/** Values that live as long as one stretch of the pass. */
class Scratch {
  readonly #backend: Backend;
  readonly #isWanted: (name: string) => boolean;
  readonly #values: Value[] = [];

  constructor(backend: Backend, isWanted: (name: string) => boolean) {
    this.#backend = backend;
    this.#isWanted = isWanted;
  }

  keep(value: Value): Value {
    this.#values.push(value);
    return value;
  }

  /** Stops at a hook point that somebody wants; takes over the value, and the one that is sent back. */
  *point(name: string, value: Value): Generator<HookPoint, Value, Value | undefined> {
    this.keep(value);
    if (!this.#isWanted(name)) return value;
    const next = yield { name, value };
    return next === undefined ? value : this.keep(next);
  }

  free(): void {
    for (const value of this.#values) this.#backend.release(value);
    this.#values.length = 0;
  }
}

/** Where the positions of a pass lie among all. */
interface Place {
  /** Positions before this pass's. */
  readonly offset: number;
  readonly reach: Reach;
  /** Of each of B*T tokens, among the real ones of its row. */
  readonly positions: Int32Array;
}

/**
 * Yields at each wanted hook point in order; returns the logits, or the residual stream where it stops, which the
 * caller then owns. [B T V], [B T D]
 */
export function* forward(
  backend: Backend,
  architecture: Architecture,
  weights: Weights,
  options: ForwardOptions,
): Forward {
  const { batch, start, cache } = options;
  const layers = architecture.dimensions.L;
  const first = start?.layer ?? 0;
  const last = options.stop ?? layers;
  const offset = cache?.begin(batch, first, last) ?? 0;
  const place = placeOf(options, offset);
  const scratch = new Scratch(backend, options.isWanted);
  let residual: Value | null = null;
  let isFinished = false;
  try {
    residual =
      start === null
        ? yield* embed(backend, weights, options, scratch, place)
        : backend.retain(start.residual); // B T D
    for (let layer = first; layer < last; layer++) {
      const previous: Value = residual;
      residual = null; // `block` frees it
      residual = yield* block(backend, architecture, weights, options, place, layer, previous);
      yield null;
    }
    const result = options.stop === null ? yield* unembed(backend, architecture, weights, options, scratch, residual) : backend.retain(residual);
    isFinished = true;
    return result;
  } finally {
    cache?.end(isFinished, offset);
    if (residual !== null) backend.release(residual);
    scratch.free();
  }
}

function placeOf({ batch, positions, padding }: ForwardOptions, offset: number): Place {
  const starts = padding?.side === "left" ? padding.lengths.map((length) => offset + positions - length) : null;
  return {
    offset,
    reach: { offset, window: null, starts },
    positions: Int32Array.from({ length: batch * positions }, (_, i) =>
      Math.max(0, offset + (i % positions) - (starts?.[Math.floor(i / positions)] ?? 0)),
    ),
  };
}

/** The residual stream before the first block; the caller owns it. [B T D] */
function* embed(
  backend: Backend,
  weights: Weights,
  { ids, batch, positions }: ForwardOptions,
  scratch: Scratch,
  place: Place,
): Forward {
  const table = matrixNamed(weights, "embed.W_E");
  const embedding = yield* scratch.point("hook_embed", backend.columns(table, ids, [batch, positions])); // B T D
  const taken = scratch.keep(backend.take(vectorNamed(weights, "pos_embed.W_pos"), 0, place.positions)); // B*T D
  const position = yield* scratch.point("hook_pos_embed", backend.reshape(taken, embedding.shape)); // B T D
  return backend.binary("add", embedding, position, embedding.shape);
}

/** The logits of the chosen positions; the caller owns them. [B T V] */
function* unembed(
  backend: Backend,
  architecture: Architecture,
  weights: Weights,
  { isWanted, logitPositions }: ForwardOptions,
  scratch: Scratch,
  residual: Value,
): Forward {
  const chosen = (x: Value): Value =>
    logitPositions === null ? x : scratch.keep(backend.take(x, 1, Int32Array.from(logitPositions)));
  const normed = yield* norm(backend, architecture, weights, scratch, "ln_final", residual);
  const read = yield* scratch.point("unembed.hook_in", backend.retain(normed));
  const unembedding = weights.matrices.get("unembed.W_U") ?? matrixNamed(weights, "embed.W_E");
  // Whoever looks at the point sees all positions; else only what was asked for is computed.
  if (!isWanted("unembed.hook_out")) return backend.product(chosen(read), unembedding, null);
  const logits = yield* scratch.point("unembed.hook_out", backend.product(read, unembedding, null)); // B T V
  return backend.retain(chosen(logits));
}

/** One layer: takes over the residual stream before it, hands over the one after it. [B T D] */
function* block(
  backend: Backend,
  architecture: Architecture,
  weights: Weights,
  options: ForwardOptions,
  place: Place,
  layer: number,
  before: Value,
): Forward {
  const at = `blocks.${layer}.`;
  const scratch = new Scratch(backend, options.isWanted);
  try {
    const pre = yield* scratch.point(`${at}hook_resid_pre`, before);
    const attention = yield* attend(backend, architecture, weights, options, place, scratch, layer, pre);
    const attentionOut = yield* scratch.point(`${at}hook_attn_out`, attention);
    const mid = yield* scratch.point(`${at}hook_resid_mid`, backend.binary("add", pre, attentionOut, pre.shape));
    const input = options.isOn(`${at}hook_mlp_in`)
      ? yield* scratch.point(`${at}hook_mlp_in`, backend.retain(mid))
      : mid;
    const normed = yield* norm(backend, architecture, weights, scratch, `${at}ln2`, input);
    const inner = yield* scratch.point(
      `${at}mlp.hook_pre`,
      backend.product(normed, matrixNamed(weights, `${at}mlp.W_in`), vectorNamed(weights, `${at}mlp.b_in`)),
    ); // B T F
    const active = yield* scratch.point(`${at}mlp.hook_post`, backend.activate(architecture.decoder.activation, inner));
    const out = yield* scratch.point(
      `${at}hook_mlp_out`,
      backend.product(active, matrixNamed(weights, `${at}mlp.W_out`), vectorNamed(weights, `${at}mlp.b_out`)),
    ); // B T D
    const post = yield* scratch.point(`${at}hook_resid_post`, backend.binary("add", mid, out, mid.shape));
    return backend.retain(post);
  } finally {
    scratch.free();
  }
}

/** Attention up to its output bias; the caller owns the result. [B T D] */
function* attend(
  backend: Backend,
  architecture: Architecture,
  weights: Weights,
  options: ForwardOptions,
  place: Place,
  scratch: Scratch,
  layer: number,
  pre: Value,
): Forward {
  const at = `blocks.${layer}.`;
  const { H: heads, K: width, D: model } = architecture.dimensions;
  const { batch, positions } = options;
  const perHead = [batch, positions, heads, width];
  const normed = yield* norm(backend, architecture, weights, scratch, `${at}ln1`, pre);
  const inputs = yield* readerInputs(backend, options, scratch, at, pre, [batch, positions, heads, model]);
  const parts: Value[] = [];
  for (const letter of ["q", "k", "v"] as const) {
    const matrix = matrixNamed(weights, `${at}attn.W_${letter.toUpperCase()}`);
    const bias = vectorNamed(weights, `${at}attn.b_${letter.toUpperCase()}`);
    const input = inputs[letter];
    const flat = scratch.keep(
      input === undefined
        ? backend.product(normed, matrix, bias) // B T H*K
        : productPerHead(
            backend,
            plainNorm(backend, architecture, weights, scratch, `${at}ln1`, input),
            matrix,
            bias,
            scratch,
            width,
          ),
    );
    parts.push(yield* scratch.point(`${at}attn.hook_${letter}`, backend.reshape(flat, perHead))); // B T H K
  }
  const q = parts[0];
  const { k, v } = options.cache?.append(layer, parts[1], parts[2]) ?? { k: parts[1], v: parts[2] }; // B S H K
  const factor = architecture.decoder.scaleScores ? 1 / Math.sqrt(width) : 1;
  const scores = yield* scratch.point(
    `${at}attn.hook_attn_scores`,
    backend.scores(q, k, { factor, softCap: null, reach: place.reach }),
  ); // B H T S
  const softened = backend.softmax(scores, null);
  const pattern = yield* scratch.point(`${at}attn.hook_pattern`, softened); // B H T S
  // A pattern of somebody else's may look anywhere.
  const reach = pattern === softened ? place.reach : null;
  const z = yield* scratch.point(`${at}attn.hook_z`, backend.mix(pattern, v, reach)); // B T H K
  const matrix = matrixNamed(weights, `${at}attn.W_O`);
  const bias = vectorNamed(weights, `${at}attn.b_O`);
  if (options.isOn(`${at}attn.hook_result`)) {
    const result = yield* scratch.point(`${at}attn.hook_result`, resultPerHead(backend, z, matrix, scratch)); // B T H D
    const sum = scratch.keep(backend.reduce("sum", result, 2)); // B T 1 D
    return backend.binary("add", scratch.keep(backend.reshape(sum, pre.shape)), bias, pre.shape);
  }
  return backend.product(scratch.keep(backend.reshape(z, [batch, positions, heads * width])), matrix, bias);
}

/** The optional points before the norm, where each head reads its own copy of the residual stream. [B T H D] */
function* readerInputs(
  backend: Backend,
  options: ForwardOptions,
  scratch: Scratch,
  at: string,
  pre: Value,
  shape: readonly number[],
): Generator<HookPoint, Partial<Record<"q" | "k" | "v", Value>>, Value | undefined> {
  const [, positions, , model] = shape;
  const copies = () => backend.strided(pre, shape, 0, [positions * model, model, 0, 1]);
  const together = options.isOn(`${at}hook_attn_in`) ? yield* scratch.point(`${at}hook_attn_in`, copies()) : undefined;
  const inputs: Partial<Record<"q" | "k" | "v", Value>> = {};
  for (const letter of ["q", "k", "v"] as const) {
    const name = `${at}hook_${letter}_input`;
    if (options.isOn(name)) {
      inputs[letter] = yield* scratch.point(name, together === undefined ? copies() : backend.retain(together));
    } else if (together !== undefined) {
      inputs[letter] = together;
    }
  }
  return inputs;
}

/** Layer norm with its two hook points; scratch owns the result. [B T D] */
function* norm(
  backend: Backend,
  architecture: Architecture,
  weights: Weights,
  scratch: Scratch,
  name: string,
  x: Value,
): Forward {
  const scale = yield* scratch.point(`${name}.hook_scale`, backend.normScale(x, architecture.decoder.epsilon, true)); // B T 1
  const normalized = yield* scratch.point(`${name}.hook_normalized`, backend.normalize(x, scale, true));
  return scratch.keep(backend.affine(normalized, vectorNamed(weights, `${name}.w`), vectorNamed(weights, `${name}.b`)));
}

/** The same without stopping. */
function plainNorm(
  backend: Backend,
  architecture: Architecture,
  weights: Weights,
  scratch: Scratch,
  name: string,
  x: Value,
): Value {
  const scale = scratch.keep(backend.normScale(x, architecture.decoder.epsilon, true));
  const normalized = scratch.keep(backend.normalize(x, scale, true));
  return scratch.keep(backend.affine(normalized, vectorNamed(weights, `${name}.w`), vectorNamed(weights, `${name}.b`)));
}

/** Each head's columns of the product from that head's own row: the diagonal of [B T H, H*K]. → [B T H*K] */
function productPerHead(
  backend: Backend,
  x: Value,
  matrix: Matrix,
  bias: Value,
  scratch: Scratch,
  width: number,
): Value {
  const [batch, positions, heads] = x.shape;
  const all = scratch.keep(backend.product(x, matrix, bias)); // B T H H*K
  const shape = [batch, positions, heads, width];
  const row = heads * width;
  const diagonal = scratch.keep(backend.strided(all, shape, 0, [positions * heads * row, heads * row, row + width, 1])); // B T H K
  return backend.reshape(diagonal, [batch, positions, row]);
}

/** What each head adds to the residual stream: z with all other heads zero, times W_O. [B T H K] → [B T H D] */
function resultPerHead(backend: Backend, z: Value, matrix: Matrix, scratch: Scratch): Value {
  const [batch, positions, heads, width] = z.shape;
  const expanded = [batch, positions, heads, heads, width];
  const identity = new Float32Array(heads * heads);
  for (let head = 0; head < heads; head++) identity[head * (heads + 1)] = 1;
  const mask = scratch.keep(backend.upload(identity, [heads, heads, 1]));
  const zero = scratch.keep(backend.upload(new Float32Array(1), [1]));
  const copies = scratch.keep(backend.reshape(z, [batch, positions, 1, heads, width]));
  const alone = scratch.keep(backend.select(mask, copies, zero, expanded)); // B T H H K
  return backend.product(scratch.keep(backend.reshape(alone, [batch, positions, heads, heads * width])), matrix, null);
}

function matrixNamed(weights: Weights, name: string): Matrix {
  return weights.matrices.get(name) as Matrix;
}

function vectorNamed(weights: Weights, name: string): Value {
  return weights.vectors.get(name) as Value;
}
