// How many bytes captures will take, before anything is computed. It counts what becomes tensors, and the keys and
// values that a cache gains; the scratch of a pass comes and goes, and is in the ledger's backends.

import type { ForecastAnswer, ForecastRequest, Shape } from "../../protocol.ts";
import { EngineError } from "../errors.ts";
import type { Model } from "../model.ts";
import { elementsOf } from "../tensors/shape.ts";
import { axesOf, shapeAt, type Span } from "./span.ts";
import type { TensorTable } from "../tensors/tensor_table.ts";
import { Watch } from "./watch.ts";

const BYTES = 4;

/** What is to be kept of one hook point. */
interface Wanted {
  readonly name: string;
  readonly positions?: readonly number[];
}

/** Of each capture alone, and of all together: the stream behind one block is the stream before the next, kept once. */
export function bytesOfCaptures(
  model: Model,
  captures: readonly Wanted[],
  span: Span,
): { bytes: number; hooks: { name: string; bytes: number }[] } {
  const hooks = captures.map(({ name, positions }) => ({
    name,
    bytes: BYTES * elementsOf(capturedShape(model, name, positions?.length ?? null, span)),
  }));
  const counted = new Set<string>();
  const bytes = hooks.reduce((sum, each, at) => {
    if (captures[at].positions === undefined) {
      const stream = streamOf(each.name);
      if (counted.has(stream)) return sum;
      counted.add(stream);
    }
    return sum + each.bytes;
  }, 0);
  return { bytes, hooks };
}

/** The shape that a capture's tensor will have. */
export function capturedShape(model: Model, name: string, positions: number | null, span: Span): Shape {
  const letters = model.hooks.get(name)?.shape ?? "";
  const shape = shapeAt(letters, model.architecture.dimensions, span);
  return positions === null ? shape : shape.with(axesOf(letters).position, positions);
}

/** What a cache gains by a pass. */
export function bytesOfCache(model: Model, span: Span, layers: number): number {
  const { H: heads, KV: keyValueHeads = heads, K: width } = model.architecture.dimensions;
  return 2 * BYTES * layers * span.batch * span.positions * keyValueHeads * width;
}

/** `live` are the bytes of tensors and caches. Fails: BadParameter, UnknownHook. */
export function forecast(
  { id, batch, positions, names }: ForecastRequest,
  model: Model,
  tensors: TensorTable,
  live: number,
): ForecastAnswer {
  for (const [what, extent] of Object.entries({ batch, positions })) {
    if (!Number.isInteger(extent) || extent < 1)
      throw new EngineError("BadParameter", `A forecast for ${extent} as ${what}: it must be a positive integer`);
  }
  const captures = names.map((name) => ({ name, tensor: 0 }));
  new Watch({ capture: captures, enable: names }, model, tensors); // checks the names
  const { bytes, hooks } = bytesOfCaptures(model, captures, { batch, positions, offset: 0, isPart: false });
  const { budget } = tensors;
  return { kind: "forecast", id, bytes, live, budget, fits: live + bytes <= budget, hooks };
}

function streamOf(name: string): string {
  const post = /^blocks\.(\d+)\.hook_resid_post$/.exec(name);
  return post === null ? name : `blocks.${Number(post[1]) + 1}.hook_resid_pre`;
}
