// The forward pass of a decoder, as a generator that stops at every hook point: it yields the value there and goes on
// with the value it is sent back. So a pass can be suspended, interleaved with others, nested and cancelled
// (`return()` runs the `finally`s, which free the scratch). It knows no hooks, tensors or messages; pass.ts does.
//
// resid_mid is a point of the residual stream itself: a replacement reaches the MLP *and* resid_post.

import type { Architecture } from "./architecture.ts";
import type { Backend, Matrix, Reach, Value } from "./backend.ts";

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

export interface ForwardOptions {
  readonly ids: Int32Array;
  readonly batch: number;
  readonly positions: number;
  /** Whether an optional point is switched on; the others are always yielded. */
  readonly isOn: (name: string) => boolean;
}

/** A step of the pass: a hook point, or null between two blocks. It is sent the value to go on with, handed over. */
export type Forward = Generator<HookPoint | null, Value, Value | undefined>;

const EVERYTHING_BEFORE: Reach = { offset: 0, window: null, starts: null };

/** Values that live as long as one stretch of the pass. */
class Scratch {
  readonly #backend: Backend;
  readonly #values: Value[] = [];

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  keep(value: Value): Value {
    this.#values.push(value);
    return value;
  }

  /** Stops at a hook point; takes over the value, and the one that is sent back. */
  *point(name: string, value: Value): Generator<HookPoint, Value, Value | undefined> {
    this.keep(value);
    const next = yield { name, value };
    return next === undefined ? value : this.keep(next);
  }

  free(): void {
    for (const value of this.#values) this.#backend.release(value);
    this.#values.length = 0;
  }
}

/** Yields at each hook point in order; returns the logits, which the caller then owns. [B T V] */
export function* forward(
  backend: Backend,
  architecture: Architecture,
  weights: Weights,
  options: ForwardOptions,
): Forward {
  const { ids, batch, positions } = options;
  const scratch = new Scratch(backend);
  let residual: Value | null = null;
  try {
    const table = matrixNamed(weights, "embed.W_E");
    const embedding = yield* scratch.point("hook_embed", backend.columns(table, ids, [batch, positions])); // B T D
    const rows = Int32Array.from({ length: batch * positions }, (_, i) => i % positions);
    const taken = scratch.keep(backend.take(vectorNamed(weights, "pos_embed.W_pos"), 0, rows)); // B*T D
    const position = yield* scratch.point("hook_pos_embed", backend.reshape(taken, embedding.shape)); // B T D
    residual = backend.binary("add", embedding, position, embedding.shape);
    for (let layer = 0; layer < architecture.dimensions.L; layer++) {
      const previous: Value = residual;
      residual = null; // `block` frees it
      residual = yield* block(backend, architecture, weights, options, layer, previous);
      yield null;
    }
    const last = scratch.keep(residual);
    residual = null;
    const normed = yield* norm(backend, architecture, weights, scratch, "ln_final", last);
    const read = yield* scratch.point("unembed.hook_in", backend.retain(normed));
    const unembedding = weights.matrices.get("unembed.W_U") ?? table;
    const logits = yield* scratch.point("unembed.hook_out", backend.product(read, unembedding, null)); // B T V
    return backend.retain(logits);
  } finally {
    if (residual !== null) backend.release(residual);
    scratch.free();
  }
}

/** One layer: takes over the residual stream before it, hands over the one after it. [B T D] */
function* block(
  backend: Backend,
  architecture: Architecture,
  weights: Weights,
  options: ForwardOptions,
  layer: number,
  before: Value,
): Forward {
  const at = `blocks.${layer}.`;
  const scratch = new Scratch(backend);
  try {
    const pre = yield* scratch.point(`${at}hook_resid_pre`, before);
    const attention = yield* attend(backend, architecture, weights, options, scratch, layer, pre);
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
  const [q, k, v] = parts;
  const factor = architecture.decoder.scaleScores ? 1 / Math.sqrt(width) : 1;
  const scores = yield* scratch.point(`${at}attn.hook_attn_scores`, backend.scores(q, k, { factor, softCap: null, reach: EVERYTHING_BEFORE })); // B H T T
  const pattern = yield* scratch.point(`${at}attn.hook_pattern`, backend.softmax(scores, null)); // B H T T
  const z = yield* scratch.point(`${at}attn.hook_z`, backend.mix(pattern, v, EVERYTHING_BEFORE)); // B T H K
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
