// A mixture of experts: the router chooses X of E experts for each token, and what these answer is added up, weighted
// by the softmax over the chosen alone. The choice is made here, from numbers that are read back; everything else
// stays in the backend. Its hook points have one axis for rows and positions together, as in TransformerLens.
// Source: the gpt-oss model card (OpenAI, 2025), section 2.2, for the clamped, biased SwiGLU.

import type { Matrix, Value } from "../backend.ts";
import type { Frame, Stretch } from "./frame.ts";

interface ExpertSettings {
  readonly alpha: number;
  readonly limit: number;
}

/** The caller owns the result. [B T D] */
export function* mixExperts(frame: Frame, settings: ExpertSettings, x: Value): Stretch {
  const { backend, context } = frame;
  const { E: experts, X: chosen, D: model } = context.dimensions;
  const input = yield* frame.point("mlp.hook_pre", backend.retain(x)); // B T D
  const tokens = input.shape[0] * input.shape[1];
  const rows = frame.keep(backend.reshape(input, [tokens, model])); // B*T D
  const logits = yield* frame.point(
    "mlp.router.hook_out",
    backend.product(rows, frame.matrix("mlp.router.W"), frame.vector("mlp.router.b")),
  ); // B*T E
  let choice = bestOf(backend.read(logits), experts, chosen); // B*T X
  const placesOf = () => choice.map((expert, i) => Math.floor(i / chosen) * experts + expert);
  const flat = frame.keep(backend.reshape(logits, [tokens * experts]));
  const picked = frame.keep(backend.take(flat, 0, placesOf()));
  let scores = frame.keep(backend.softmax(frame.keep(backend.reshape(picked, [tokens, chosen])), null)); // B*T X
  if (frame.isWanted("mlp.hook_expert_weights")) {
    const list = frame.keep(backend.reshape(scores, [tokens * chosen]));
    const spread = frame.keep(backend.takeTransposed(list, 0, placesOf(), tokens * experts));
    const weights = yield* frame.point("mlp.hook_expert_weights", backend.reshape(spread, [tokens, experts])); // B*T E
    const again = frame.keep(backend.take(frame.keep(backend.reshape(weights, [tokens * experts])), 0, placesOf()));
    scores = frame.keep(backend.reshape(again, [tokens, chosen]));
  }
  if (frame.isWanted("mlp.hook_expert_indices")) {
    const shown = backend.upload(Float32Array.from(choice), [tokens, chosen]);
    const indices = yield* frame.point("mlp.hook_expert_indices", shown); // B*T X
    if (indices !== shown) choice = Int32Array.from(backend.read(indices), (each) => clamp(each, experts - 1));
  }
  scores = yield* frame.point("mlp.hook_router_scores", backend.retain(scores)); // B*T X
  const weights = frame.keep(backend.reshape(scores, [tokens * chosen, 1]));
  let sum: Value | null = null;
  try {
    for (let expert = 0; expert < experts; expert++) {
      const slots = slotsOf(choice, expert);
      if (slots.length === 0) continue;
      const owners = slots.map((slot) => Math.floor(slot / chosen));
      const answers = answer(frame, settings, expert, backend.take(rows, 0, owners)); // n D
      const factors = backend.take(weights, 0, slots); // n 1
      const weighted = backend.binary("multiply", answers, factors, answers.shape);
      const placed = backend.takeTransposed(weighted, 0, owners, tokens); // B*T D
      for (const each of [answers, factors, weighted]) backend.release(each);
      if (sum === null) sum = placed;
      else {
        const before = sum;
        sum = backend.binary("add", before, placed, placed.shape);
        backend.release(before);
        backend.release(placed);
      }
    }
    return backend.reshape(sum as Value, input.shape);
  } finally {
    if (sum !== null) backend.release(sum);
  }
}

/** What one expert makes of its tokens, which are handed over. [n D] */
function answer(frame: Frame, { alpha, limit }: ExpertSettings, expert: number, x: Value): Value {
  const { backend, context, at } = frame;
  const { matrices, vectors } = context.weights;
  const name = `${at}mlp.experts.${expert}.`;
  const values: Value[] = [x];
  const keep = (value: Value): Value => {
    values.push(value);
    return value;
  };
  const read = (part: string, from: Value) =>
    backend.product(from, matrices.get(`${name}W_${part}`) as Matrix, vectors.get(`${name}b_${part}`) ?? null);
  const number = (n: number) => keep(backend.upload(Float32Array.of(n), [1]));
  try {
    const shape = [x.shape[0], context.dimensions.F];
    const gate = keep(backend.binary("minimum", keep(read("gate", x)), number(limit), shape));
    const bounded = keep(backend.binary("minimum", keep(read("in", x)), number(limit), shape));
    const linear = keep(backend.binary("maximum", bounded, number(-limit), shape));
    // gate · sigmoid(alpha · gate) = silu(alpha · gate) / alpha
    const steep = keep(backend.binary("multiply", gate, number(alpha), shape));
    const active = keep(backend.binary("divide", keep(backend.activate("silu", steep)), number(alpha), shape));
    const raised = keep(backend.binary("add", linear, number(1), shape));
    return read("out", keep(backend.binary("multiply", active, raised, shape)));
  } finally {
    for (const value of values) backend.release(value);
  }
}

/** Per row the places of its `count` largest numbers, largest first; of equal ones the first. */
function bestOf(numbers: Float32Array, width: number, count: number): Int32Array {
  const best = new Int32Array((numbers.length / width) * count);
  for (let row = 0, at = 0; row < numbers.length; row += width) {
    const order = Array.from({ length: width }, (_, i) => i);
    // Not a number counts as the least, so that padding chooses some expert.
    const size = (i: number) => (Number.isNaN(numbers[row + i]) ? -Infinity : numbers[row + i]);
    order.sort((a, b) => (size(a) === size(b) ? a - b : size(b) - size(a)));
    for (let i = 0; i < count; i++) best[at++] = order[i];
  }
  return best;
}

function slotsOf(choice: Int32Array, expert: number): Int32Array {
  const slots: number[] = [];
  for (let slot = 0; slot < choice.length; slot++) if (choice[slot] === expert) slots.push(slot);
  return Int32Array.from(slots);
}

function clamp(x: number, most: number): number {
  return Math.min(Math.max(Math.round(x), 0), most);
}
