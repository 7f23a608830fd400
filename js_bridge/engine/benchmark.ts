// Times passes of a loaded model, without the mailbox: what the engine alone takes, the logits read back. With captures
// every value is kept until the pass ends, as a forward that names them would; decoding is greedy, over a cache.

import type { BenchmarkedAnswer, BenchmarkRequest } from "../protocol.ts";
import type { Backend, Matrix, Value } from "./backend.ts";
import { forward, type ForwardOptions, WHOLE_PASS } from "./decoder/decoder.ts";
import { EngineError } from "./errors.ts";
import { KeyValueCache } from "./decoder/key_value_cache.ts";
import type { Model } from "./model.ts";
import { sampleFrom, Sampler } from "./generation/sampling.ts";
import type { TensorTable } from "./tensors/tensor_table.ts";
import { Watch } from "./pass/watch.ts";

export type BenchmarkRow = BenchmarkedAnswer["rows"][number];

/** One row per length; the first pass of each is not counted. Fails: BadParameter, UnknownHook, DisabledHook. */
export function benchmark(
  { lengths, repetitions, capture, products = false, decode = 0 }: BenchmarkRequest,
  model: Model,
  tensors: TensorTable,
  now: () => number,
): BenchmarkRow[] {
  const { P: positions } = model.architecture.dimensions;
  if (!Number.isInteger(repetitions) || repetitions < 1)
    throw new EngineError("BadParameter", `${repetitions} repetitions: at least 1 is needed`);
  if (!Number.isInteger(decode) || decode < 0)
    throw new EngineError("BadParameter", `decode ${decode}: it must be a number of tokens, or be left out`);
  const wanted = wantedNames(capture, model, tensors);
  return lengths.map((length) => {
    if (!Number.isInteger(length) || length < 1 || length + decode > positions) {
      throw new EngineError(
        "BadParameter",
        `A benchmark of ${length} tokens${decode === 0 ? "" : ` and ${decode} more`}: ${model.name} takes 1 to ${positions}`,
      );
    }
    const measured = products ? () => runProducts(model, length, now) : () => runPass(model, length, wanted, now);
    const passes = timesOf(repetitions, measured);
    const steps = decode === 0 ? null : decodeTimes(model, length, decode, now);
    return { length, ...passes, repetitions, decode: steps === null ? null : { tokens: decode, ...summary(steps) } };
  });
}

function wantedNames(capture: BenchmarkRequest["capture"], model: Model, tensors: TensorTable): ReadonlySet<string> {
  if (capture === "plain") return new Set([...model.hooks.values()].filter((hook) => hook.on).map((hook) => hook.name));
  const names = capture ?? [];
  new Watch({ hooks: names }, model, tensors); // checks the names
  return new Set(names);
}

function timesOf(repetitions: number, run: () => number): { median: number; least: number } {
  run();
  return summary(Array.from({ length: repetitions }, run));
}

function summary(times: readonly number[]): { median: number; least: number } {
  const sorted = times.toSorted((a, b) => a - b);
  return { median: sorted[Math.floor(sorted.length / 2)], least: sorted[0] };
}

/** Milliseconds of a pass and of reading its logits. */
function runPass(model: Model, length: number, wanted: ReadonlySet<string>, now: () => number): number {
  const { backend } = model;
  const kept: Value[] = [];
  const began = now();
  const logits = runThrough(
    backend,
    model,
    { ids: idsOf(model, length), positions: length, isWanted: (name) => wanted.has(name) },
    (value) => kept.push(backend.retain(value)),
  );
  backend.read(logits);
  const milliseconds = now() - began;
  for (const value of [logits, ...kept]) backend.release(value);
  return milliseconds;
}

/** Milliseconds of a pass's matrix products alone, on rows of ones, the last one read: what the rest is measured by. */
function runProducts(model: Model, length: number, now: () => number): number {
  const { backend } = model;
  const calls = productsOf(model, length);
  const inputs = new Map<number, Value>();
  for (const { matrix, rows } of calls) {
    const { inputs: width } = matrix;
    const key = rows * 2 ** 26 + width;
    if (!inputs.has(key)) inputs.set(key, backend.upload(new Float32Array(rows * width).fill(1), [rows, width]));
  }
  const began = now();
  let last: Value | null = null;
  for (const { matrix, rows, bias } of calls) {
    if (last !== null) backend.release(last);
    last = backend.product(inputs.get(rows * 2 ** 26 + matrix.inputs) as Value, matrix, bias);
  }
  if (last !== null) backend.read(last);
  const milliseconds = now() - began;
  for (const value of inputs.values()) backend.release(value);
  if (last !== null) backend.release(last);
  return milliseconds;
}

interface ProductCall {
  readonly matrix: Matrix;
  readonly rows: number;
  readonly bias: Value | null;
}

/** The products that a pass asks its backend for. */
function productsOf(model: Model, length: number): ProductCall[] {
  const calls: ProductCall[] = [];
  const listening = new Proxy(model.backend, {
    get(backend, name) {
      if (name === "product") {
        return (x: Value, matrix: Matrix, bias: Value | null): Value => {
          calls.push({ matrix, rows: x.shape.slice(0, -1).reduce((a, b) => a * b, 1), bias });
          return backend.product(x, matrix, bias);
        };
      }
      const found: unknown = Reflect.get(backend, name, backend);
      return typeof found === "function" ? found.bind(backend) : found;
    },
  });
  const logits = runThrough(listening, model, { ids: idsOf(model, length), positions: length });
  model.backend.release(logits);
  return calls;
}

/** Milliseconds of each token behind the first. */
function decodeTimes(model: Model, length: number, count: number, now: () => number): number[] {
  const { backend, architecture } = model;
  const cache = new KeyValueCache(backend, architecture.dimensions.L);
  const sampler = new Sampler({ temperature: 0 });
  const times: number[] = [];
  let ids = idsOf(model, length);
  try {
    for (let i = 0; i <= count; i++) {
      const began = now();
      const positions = ids.length;
      const logits = runThrough(backend, model, { ids, positions, cache, logitPositions: [positions - 1] });
      ids = Int32Array.of(sampleFrom(backend, logits, sampler).token);
      backend.release(logits);
      if (i > 0) times.push(now() - began); // the first is the prompt's pass
    }
  } finally {
    cache.release();
  }
  return times;
}

function idsOf(model: Model, length: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => (i * 7919) % model.architecture.dimensions.V);
}

/** The logits, owned by the caller. */
function runThrough(
  backend: Backend,
  { architecture, weights }: Model,
  options: Partial<ForwardOptions> & Pick<ForwardOptions, "ids" | "positions">,
  look: (value: Value) => void = () => undefined,
): Value {
  const run = forward(backend, architecture, weights, { ...WHOLE_PASS, batch: 1, ...options });
  for (;;) {
    const step = run.next();
    if (step.done === true) return step.value;
    if (step.value !== null) look(step.value.value);
  }
}
