// Times forward passes of a loaded model, without the mailbox: what the engine alone takes, the logits read back.

import { forward, WHOLE_PASS } from "./decoder.ts";
import { EngineError } from "./errors.ts";
import type { Model } from "./model.ts";

export interface BenchmarkRow {
  readonly length: number;
  /** milliseconds */
  readonly median: number;
  readonly least: number;
  readonly repetitions: number;
  readonly decode: null;
}

/** One row per length; the first pass of each is not counted. Fails: BadParameter. */
export function benchmark(
  model: Model,
  lengths: readonly number[],
  repetitions: number,
  now: () => number,
): BenchmarkRow[] {
  const { P: positions, V: vocabulary } = model.architecture.dimensions;
  if (!Number.isInteger(repetitions) || repetitions < 1)
    throw new EngineError("BadParameter", `${repetitions} repetitions: at least 1 is needed`);
  return lengths.map((length) => {
    if (!Number.isInteger(length) || length < 1 || length > positions) {
      throw new EngineError("BadParameter", `A benchmark of ${length} tokens: ${model.name} takes 1 to ${positions}`);
    }
    const ids = Int32Array.from({ length }, (_, i) => (i * 7919) % vocabulary);
    const times: number[] = [];
    for (let i = 0; i <= repetitions; i++) {
      const began = now();
      runOnce(model, ids);
      if (i > 0) times.push(now() - began);
    }
    times.sort((a, b) => a - b);
    return { length, median: times[Math.floor(times.length / 2)], least: times[0], repetitions, decode: null };
  });
}

function runOnce(model: Model, ids: Int32Array): void {
  const { backend, architecture, weights } = model;
  const run = forward(backend, architecture, weights, {
    ...WHOLE_PASS,
    ids,
    batch: 1,
    positions: ids.length,
  });
  let step = run.next();
  while (step.done !== true) step = run.next();
  backend.read(step.value);
  backend.release(step.value);
}
