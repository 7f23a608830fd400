// The norms of a decoder: of the residual stream, with their two hook points, and of single heads.

import type { Value } from "../backend.ts";
import type { Frame, Stretch } from "./frame.ts";

/** The rows of x, normed by the weights `name`; the frame owns the result. [... D] */
export function* norm(frame: Frame, name: string, x: Value): Stretch {
  const { backend, decoder } = frame;
  const [scaleName, normalizedName] = [`${name}.hook_scale`, `${name}.hook_normalized`];
  if (!frame.isWanted(scaleName) && !frame.isWanted(normalizedName)) return plainNorm(frame, name, x);
  const { epsilon, centred } = decoder;
  const scale = yield* frame.point(scaleName, backend.normScale(x, epsilon, centred)); // B T 1
  const normalized = yield* frame.point(normalizedName, backend.normalize(x, scale, centred));
  const [weight, bias] = [frame.vector(`${name}.w`), frame.vector(`${name}.b`)];
  return weight === null && bias === null ? normalized : frame.keep(backend.affine(normalized, weight, bias));
}

/** The same without stopping. */
export function plainNorm(frame: Frame, name: string, x: Value): Value {
  const { epsilon, centred } = frame.decoder;
  const [weight, bias] = [frame.vector(`${name}.w`), frame.vector(`${name}.b`)];
  return frame.keep(frame.backend.norm(x, weight, bias, epsilon, centred));
}

/** Each head's query or key; at the hook points the axis of heads comes before that of positions. [B T H K] */
export function* headNorm(frame: Frame, letter: "q" | "k", x: Value): Stretch {
  const { backend, decoder } = frame;
  const name = `attn.${letter}_norm`;
  const [scaleName, normalizedName] = [`${name}.hook_scale`, `${name}.hook_normalized`];
  let normed: Value;
  if (!frame.isWanted(scaleName) && !frame.isWanted(normalizedName)) normed = plainNorm(frame, name, x);
  else {
    const { epsilon, centred } = decoder;
    const scale = yield* byHeads(frame, scaleName, frame.keep(backend.normScale(x, epsilon, centred))); // B T H 1
    const normalized = yield* byHeads(frame, normalizedName, frame.keep(backend.normalize(x, scale, centred)));
    normed = frame.keep(backend.affine(normalized, frame.vector(`${name}.w`), frame.vector(`${name}.b`)));
  }
  return yield* byHeads(frame, `attn.hook_${letter}_normed`, normed);
}

/** A hook point that sees the value's second and third axis exchanged; the frame owns value and result. */
function* byHeads(frame: Frame, name: string, value: Value): Stretch {
  if (!frame.isWanted(name)) return value;
  const seen = yield* frame.point(name, exchanged(frame, value));
  return frame.keep(exchanged(frame, seen));
}

function exchanged({ backend }: Frame, value: Value): Value {
  const [batch, second, third, width] = value.shape;
  return backend.strided(value, [batch, third, second, width], 0, [second * third * width, width, third * width, 1]);
}
