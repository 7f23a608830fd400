// The forward pass of a decoder, as a generator that stops at every hook point: it yields the value there and goes on
// with the value it is sent back. So a pass can be suspended, interleaved with others, nested and cancelled
// (`return()` runs the `finally`s, which free the scratch). It knows no hooks, tensors or messages; pass.ts does.
//
// resid_mid is a point of the residual stream itself: a replacement reaches the MLP *and* resid_post.

import type { Architecture } from "./architecture.ts";
import type { Backend, Value } from "../backend.ts";
import { attend } from "./attention.ts";
import { Frame, PassContext, type Stretch } from "./frame.ts";
import { feed } from "./mlp.ts";
import { norm } from "./norm.ts";
import type { KeyValueCache } from "./key_value_cache.ts";
import type { Weights } from "../weights/weights.ts";

export type { Weights } from "../weights/weights.ts";

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
  /** Begins at blocks.<layer>.hook_resid_pre with this value, borrowed; layer L: before the final norm. [B T D] */
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
  const { batch, start, stop, cache } = options;
  const first = start?.layer ?? 0;
  const last = stop ?? architecture.dimensions.L;
  const offset = cache?.begin(batch, first, last) ?? 0;
  const context = new PassContext(backend, architecture, weights, options, offset);
  const frame = new Frame(context, "");
  let residual: Value | null = null;
  let isFinished = false;
  try {
    residual = start === null ? yield* embed(frame) : backend.retain(start.residual); // B T D
    for (let layer = first; layer < last; layer++) {
      const before: Value = residual;
      residual = null; // `block` frees it
      residual = yield* block(context, layer, before);
      yield null;
    }
    const result = stop === null ? yield* unembed(frame, residual) : backend.retain(residual);
    isFinished = true;
    return result;
  } finally {
    cache?.end(isFinished, offset);
    if (residual !== null) backend.release(residual);
    frame.free();
    context.free();
  }
}

/** The residual stream before the first block; the caller owns it. [B T D] */
function* embed(frame: Frame): Stretch {
  const { backend, context, decoder } = frame;
  const { ids, batch, positions } = context.options;
  const { W: width, D: model } = context.dimensions;
  let looked = backend.columns(frame.matrix("embed.W_E"), ids, [batch, positions]); // B T D, or B T W
  if (width !== undefined && width !== model) {
    looked = backend.product(frame.keep(looked), frame.matrix("embed.W_in"), null);
  }
  if (decoder.embeddingScale !== null) {
    const scale = frame.number(decoder.embeddingScale);
    looked = backend.binary("multiply", frame.keep(looked), scale, looked.shape);
  }
  const embedding = yield* frame.point("hook_embed", looked); // B T D
  if (decoder.positions !== "learned") return backend.retain(embedding);
  const rows = context.positions.map((position) => position + decoder.positionOffset);
  const taken = frame.keep(backend.take(frame.vector("pos_embed.W_pos") as Value, 0, rows)); // B*T D
  const position = yield* frame.point("hook_pos_embed", backend.reshape(taken, embedding.shape)); // B T D
  return backend.binary("add", embedding, position, embedding.shape);
}

/** The logits of the chosen positions; the caller owns them. [B T V] */
function* unembed(frame: Frame, residual: Value): Stretch {
  const { backend, context, decoder } = frame;
  const { logitPositions } = context.options;
  const chosen = (x: Value): Value =>
    logitPositions === null ? x : frame.keep(backend.take(x, 1, Int32Array.from(logitPositions)));
  // Whoever looks at a point sees all positions; what nobody looks at is computed for those that were asked for.
  const isOutputSeen = frame.isWanted("unembed.hook_out");
  const inputs = ["ln_final.hook_scale", "ln_final.hook_normalized", "unembed.hook_in"];
  const isInputSeen = inputs.some((name) => frame.isWanted(name));
  let x = isOutputSeen || isInputSeen ? residual : chosen(residual);
  if (decoder.finalNorm) x = yield* norm(frame, "ln_final", x);
  x = yield* frame.point("unembed.hook_in", backend.retain(x));
  if (isInputSeen && !isOutputSeen) x = chosen(x);
  if (context.weights.matrices.has("unembed.W_out")) {
    x = frame.keep(backend.product(x, frame.matrix("unembed.W_out"), frame.vector("unembed.b_out"))); // B T W
  }
  const matrix = frame.matrix("unembed.W_U") ?? frame.matrix("embed.W_E");
  let logits = yield* frame.point("unembed.hook_out", backend.product(x, matrix, frame.vector("unembed.b_U"))); // B T V
  if (isOutputSeen) logits = chosen(logits);
  if (decoder.logitSoftCap !== null) {
    const cap = frame.number(decoder.logitSoftCap);
    const bent = backend.unary("tanh", frame.keep(backend.binary("divide", logits, cap, logits.shape)));
    return backend.binary("multiply", frame.keep(bent), cap, logits.shape);
  }
  return backend.retain(logits);
}

/** One layer: takes over the residual stream before it, hands over the one after it. [B T D] */
function* block(context: PassContext, layer: number, before: Value): Stretch {
  const frame = new Frame(context, `blocks.${layer}.`);
  const { backend, decoder } = frame;
  const { normPlacement, parallel } = decoder;
  const sum = (a: Value, b: Value) => backend.binary("add", a, b, a.shape);
  try {
    const pre = yield* frame.point("hook_resid_pre", before);
    let written = yield* attend(frame, layer, pre);
    if (normPlacement === "both") {
      const raw = yield* frame.point("attn.hook_out", written);
      written = backend.retain(yield* norm(frame, "ln1_post", raw));
    }
    const attention = yield* frame.point("hook_attn_out", written);
    let mid = pre;
    if (!parallel) {
      let added = sum(pre, attention);
      if (normPlacement === "after") added = backend.retain(yield* norm(frame, "ln1", frame.keep(added)));
      mid = yield* frame.point("hook_resid_mid", added);
    }
    const input = frame.isOn("hook_mlp_in") ? yield* frame.point("hook_mlp_in", backend.retain(mid)) : mid;
    written = yield* feed(frame, normPlacement === "after" ? input : yield* norm(frame, "ln2", input));
    if (normPlacement === "both") {
      const raw = yield* frame.point("mlp.hook_out", written);
      written = backend.retain(yield* norm(frame, "ln2_post", raw));
    }
    const out = yield* frame.point("hook_mlp_out", written);
    const answer = decoder.experts === null ? out : yield* frame.point("mlp.hook_post", backend.retain(out));
    let added = parallel ? sum(frame.keep(sum(answer, attention)), pre) : sum(mid, answer);
    if (normPlacement === "after") added = backend.retain(yield* norm(frame, "ln2", frame.keep(added)));
    return backend.retain(yield* frame.point("hook_resid_post", added));
  } finally {
    frame.free();
  }
}
