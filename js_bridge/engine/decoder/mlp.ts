// The MLP of one layer: plain, gated, or a mixture of experts (experts.ts).

import type { Value } from "../backend.ts";
import type { Frame, Stretch } from "./frame.ts";
import { mixExperts } from "./experts.ts";

/** From what the norm before it gives; the caller owns the result. [B T D] */
export function* feed(frame: Frame, x: Value): Stretch {
  const { backend, decoder } = frame;
  if (decoder.experts !== null) return yield* mixExperts(frame, decoder.experts, x);
  // Where it is gated, hook_pre is the gate before its activation, and hook_pre_linear what it multiplies.
  const reads = decoder.gated ? "gate" : "in";
  const pre = yield* frame.point(
    "mlp.hook_pre",
    backend.product(x, frame.matrix(`mlp.W_${reads}`), frame.vector(`mlp.b_${reads}`)),
  ); // B T F
  let active = backend.activate(decoder.activation, pre);
  if (decoder.gated) {
    frame.keep(active);
    const linear = yield* frame.point(
      "mlp.hook_pre_linear",
      backend.product(x, frame.matrix("mlp.W_in"), frame.vector("mlp.b_in")),
    ); // B T F
    active = backend.binary("multiply", active, linear, active.shape);
  }
  const post = yield* frame.point("mlp.hook_post", active); // B T F
  return backend.product(post, frame.matrix("mlp.W_out"), frame.vector("mlp.b_out"));
}
