// Attention of one layer, up to its output bias: readers, rotation, cache, scores, pattern, mix.
// Optional points give each head its own copy of the stream (hook_q_input, …) or show what each head adds to it
// (hook_result): another order of the same sums, so they are computed so only where somebody looks.

import type { Matrix, Value } from "../backend.ts";
import type { Frame, Stretch } from "./frame.ts";
import { headNorm, norm, plainNorm } from "./norm.ts";

type Letter = "q" | "k" | "v";

const READERS = {
  q: { weight: "attn.W_Q", bias: "attn.b_Q", point: "attn.hook_q" },
  k: { weight: "attn.W_K", bias: "attn.b_K", point: "attn.hook_k" },
  v: { weight: "attn.W_V", bias: "attn.b_V", point: "attn.hook_v" },
} as const;

/** Reads the residual stream `pre`; the caller owns the result. [B T D] */
export function* attend(frame: Frame, layer: number, pre: Value): Stretch {
  const { backend, context, decoder } = frame;
  const { batch, positions, cache } = context.options;
  const { H: heads, K: width } = context.dimensions;
  const { window, rotation } = decoder.layers[layer];
  const normed = decoder.normPlacement === "after" ? pre : yield* norm(frame, "ln1", pre);
  const inputs = yield* readerInputs(frame, pre);
  let q = yield* read(frame, "q", normed, inputs.q); // B T H K
  let k = yield* read(frame, "k", normed, inputs.k); // B T KV K
  let v = yield* read(frame, "v", normed, inputs.v); // B T KV K
  if (decoder.queryKeyNorm) {
    q = yield* headNorm(frame, "q", q);
    k = yield* headNorm(frame, "k", k);
  }
  if (rotation !== null) {
    const { cosines, sines } = context.angles(rotation);
    q = yield* frame.point("attn.hook_rot_q", backend.rotate(q, cosines, sines));
    k = yield* frame.point("attn.hook_rot_k", backend.rotate(k, cosines, sines));
  }
  if (cache !== null) ({ k, v } = cache.append(layer, k, v)); // B S KV K
  const reach = context.reach(window);
  const options = { factor: decoder.scoreFactor, softCap: decoder.attentionSoftCap, reach };
  const scores = yield* frame.point("attn.hook_attn_scores", backend.scores(q, k, options)); // B H T S
  const softened = backend.softmax(scores, decoder.sinks ? frame.vector("attn.sinks") : null);
  const pattern = yield* frame.point("attn.hook_pattern", softened); // B H T S
  // A pattern of somebody else's may look anywhere.
  const z = yield* frame.point("attn.hook_z", backend.mix(pattern, v, pattern === softened ? reach : null)); // B T H K
  const matrix = frame.matrix("attn.W_O");
  const bias = frame.vector("attn.b_O");
  if (frame.isOn("attn.hook_result")) {
    const result = yield* frame.point("attn.hook_result", resultPerHead(frame, z, matrix)); // B T H D
    const sum = frame.keep(backend.reduce("sum", result, 2)); // B T 1 D
    const flat = frame.keep(backend.reshape(sum, pre.shape));
    return bias === null ? backend.retain(flat) : backend.binary("add", flat, bias, pre.shape);
  }
  return backend.product(frame.keep(backend.reshape(z, [batch, positions, heads * width])), matrix, bias);
}

/** Queries, keys or values, from what all heads read, or from each head's own input. [B T H K], [B T KV K] */
function* read(frame: Frame, letter: Letter, normed: Value, input: Value | undefined): Stretch {
  const { backend, context } = frame;
  const { batch, positions } = context.options;
  const matrix = frame.matrix(READERS[letter].weight);
  const bias = frame.vector(READERS[letter].bias);
  const flat =
    input === undefined
      ? backend.product(normed, matrix, bias) // B T H*K
      : productPerHead(frame, inputNorm(frame, input), matrix, bias);
  const shape = [batch, positions, headsOf(frame, letter), context.dimensions.K];
  return yield* frame.point(READERS[letter].point, backend.reshape(frame.keep(flat), shape));
}

function headsOf({ context: { dimensions } }: Frame, letter: Letter): number {
  return letter === "q" ? dimensions.H : (dimensions.KV ?? dimensions.H);
}

function inputNorm(frame: Frame, input: Value): Value {
  return frame.decoder.normPlacement === "after" ? input : plainNorm(frame, "ln1", input);
}

/**
 * The optional points before the norm, where each head reads its own copy of the stream. [B T H D], [B T KV D]
 * Key-value heads read the first copies of hook_attn_in, as in TransformerLens.
 */
function* readerInputs(
  frame: Frame,
  pre: Value,
): Generator<{ name: string; value: Value }, Partial<Record<Letter, Value>>, Value | undefined> {
  const { backend } = frame;
  const [batch, positions, model] = pre.shape;
  const copies = (heads: number) =>
    backend.strided(pre, [batch, positions, heads, model], 0, [positions * model, model, 0, 1]);
  const together = frame.isOn("hook_attn_in")
    ? yield* frame.point("hook_attn_in", copies(headsOf(frame, "q")))
    : undefined;
  const first = (heads: number, all: Value) =>
    heads === all.shape[2]
      ? backend.retain(all)
      : backend.strided(all, all.shape.with(2, heads), 0, [
          positions * all.shape[2] * model,
          all.shape[2] * model,
          model,
          1,
        ]);
  const inputs: Partial<Record<Letter, Value>> = {};
  for (const letter of ["q", "k", "v"] as const) {
    const heads = headsOf(frame, letter);
    const name = `hook_${letter}_input`;
    if (frame.isOn(name)) {
      inputs[letter] = yield* frame.point(name, together === undefined ? copies(heads) : first(heads, together));
    } else if (together !== undefined) {
      inputs[letter] = frame.keep(first(heads, together));
    }
  }
  return inputs;
}

/** Each head's columns of the product from that head's own row: the diagonal of [B T H, H*K]. → [B T H*K] */
function productPerHead(frame: Frame, x: Value, matrix: Matrix, bias: Value | null): Value {
  const { backend } = frame;
  const [batch, positions, heads] = x.shape;
  const all = frame.keep(backend.product(x, matrix, bias)); // B T H H*K
  const row = matrix.outputs;
  const width = row / heads;
  const shape = [batch, positions, heads, width];
  const strides = [positions * heads * row, heads * row, row + width, 1];
  const diagonal = frame.keep(backend.strided(all, shape, 0, strides)); // B T H K
  return backend.reshape(diagonal, [batch, positions, row]);
}

/** What each head adds to the residual stream: z with all other heads zero, times W_O. [B T H K] → [B T H D] */
function resultPerHead(frame: Frame, z: Value, matrix: Matrix): Value {
  const { backend } = frame;
  const [batch, positions, heads, width] = z.shape;
  const identity = new Float32Array(heads * heads);
  for (let head = 0; head < heads; head++) identity[head * (heads + 1)] = 1;
  const mask = frame.keep(backend.upload(identity, [heads, heads, 1]));
  const copies = frame.keep(backend.reshape(z, [batch, positions, 1, heads, width]));
  const expanded = [batch, positions, heads, heads, width];
  const alone = frame.keep(backend.select(mask, copies, frame.number(0), expanded)); // B T H H K
  return backend.product(frame.keep(backend.reshape(alone, [batch, positions, heads, heads * width])), matrix, null);
}
