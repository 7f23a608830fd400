// The `parity` message: runs the bundle's reference prompts on a loaded model and says, hook by hook, how far this
// host's numbers are from those that PyTorch gave when the bundle was made. It judges nothing but the engine: the
// reference was made with the very weights of the bundle, rounded as they are. The tolerances and their reasons are
// those of `neuroscope verify` (export/verify.py); the format of the reference is export/reference.py's.

import type { ParityAnswer, ParityRow } from "../protocol.ts";
import { forward, WHOLE_PASS } from "./decoder/decoder.ts";
import { EngineError } from "./errors.ts";
import type { Model } from "./model.ts";

export const REFERENCE = "reference.safetensors";

const TOLERANCE = 1e-4;
const NORM_TOLERANCE = 1e-5;

/** What is known of one hook point's value: its norm, and its numbers at some places. */
export interface HookReference {
  readonly norm: number;
  readonly places: readonly number[];
  readonly samples: Float32Array;
}

export interface PromptReference {
  readonly tokens: readonly number[];
  readonly hooks: ReadonlyMap<string, HookReference>;
}

export interface Reference {
  readonly madeWith: string;
  readonly prompts: readonly PromptReference[];
}

/** Reads a reference file. Fails: BundleRefused for a damaged one. */
export function readReference(bytes: Uint8Array): Reference {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Record<
      string,
      { data_offsets: [number, number] }
    >;
    const { made_with: madeWith, elements } = header["__metadata__"] as unknown as Record<string, string>;
    const dataOf = (name: string): ArrayBuffer => {
      const [begin, end] = header[name].data_offsets;
      return bytes.slice(8 + length + begin, 8 + length + end).buffer as ArrayBuffer;
    };
    const integers = (name: string) => Array.from(new BigInt64Array(dataOf(name)), Number);
    const floats = (name: string) => new Float32Array(dataOf(name));
    const prompts = (JSON.parse(elements) as Record<string, number>[]).map((sizes, index) => {
      const at = `prompts/${index}`;
      const hooks = Object.entries(sizes).map(([hook, size]): [string, HookReference] => [
        hook,
        {
          norm: floats(`${at}/${hook}/norm`)[0],
          places: integers(`places/${size}`),
          samples: floats(`${at}/${hook}/samples`),
        },
      ]);
      return { tokens: integers(`${at}/tokens`), hooks: new Map(hooks) };
    });
    return { madeWith, prompts };
  } catch (error) {
    throw new EngineError("BundleRefused", `${REFERENCE} is damaged (${(error as Error).message}); export it again`, {
      file: REFERENCE,
    });
  }
}

/** How far a value is from its reference; null where it has another shape, or a number that is not finite and should be. */
export function compare(hook: string, reference: HookReference, numbers: Float32Array): ParityRow {
  const { norm, places, samples } = reference;
  let largest = 1;
  for (const x of samples) if (Number.isFinite(x)) largest = Math.max(largest, Math.abs(x));
  let difference: number | null = 0;
  for (const [i, wanted] of samples.entries()) {
    const ours = numbers[places[i]];
    if (Number.isFinite(wanted) && Number.isFinite(ours)) difference = Math.max(difference, Math.abs(ours - wanted));
    else if (!Object.is(ours, wanted)) {
      difference = null;
      break;
    }
  }
  let squares = 0;
  for (const x of numbers) if (Number.isFinite(x)) squares += x * x;
  const normDifference = Math.abs(Math.sqrt(squares) - norm) / Math.max(norm, TOLERANCE);
  const allowed = TOLERANCE * largest;
  const isOff = difference === null || difference > allowed || !(normDifference <= NORM_TOLERANCE);
  return { hook, difference, allowed, normDifference, normAllowed: NORM_TOLERANCE, compared: samples.length, isOff };
}

/** How much of its tolerance a row takes up. */
function strain({ difference, allowed, normDifference }: ParityRow): number {
  return difference === null ? Infinity : Math.max(difference / allowed, normDifference / NORM_TOLERANCE);
}

/** The rows over all prompts, in forward order. Yields after each hook point, so that others can go first. */
export function* parityRows(model: Model, { prompts }: Reference): Generator<void, ParityRow[], void> {
  const { backend, architecture, weights } = model;
  const rows = new Map<string, ParityRow>();
  for (const { tokens, hooks } of prompts) {
    const steps = forward(backend, architecture, weights, {
      ...WHOLE_PASS,
      ids: Int32Array.from(tokens),
      batch: 1,
      positions: tokens.length,
      isWanted: (name) => hooks.has(name),
    });
    const missing = new Set(hooks.keys());
    try {
      for (let step = steps.next(); ; step = steps.next()) {
        if (step.done === true) {
          backend.release(step.value);
          break;
        }
        const reference = step.value === null ? undefined : hooks.get(step.value.name);
        if (step.value === null || reference === undefined) continue;
        missing.delete(step.value.name);
        const now = compare(step.value.name, reference, backend.read(step.value.value));
        const before = rows.get(now.hook);
        const worst = before !== undefined && strain(before) > strain(now) ? before : now;
        rows.set(now.hook, { ...worst, compared: now.compared + (before?.compared ?? 0) });
        yield;
      }
    } finally {
      steps.return(undefined as never);
    }
    // A point that the decoder does not come by differs by definition: it must not vanish from the table.
    for (const name of missing) rows.set(name, compare(name, hooks.get(name) as HookReference, new Float32Array(0)));
  }
  return [...rows.values()];
}

/** What a parity run needs of its engine. */
export interface ParityHost {
  /** Fails, once the run is to end: when it was cancelled, or the model unloaded. */
  check(): void;
  /** Runs an action after the messages that are already waiting. */
  later(action: () => void): void;
  now(): number;
}

/** After so many milliseconds it lets other messages through. */
const SLICE = 8;

/** `changes` are those of the weights since they left the bundle. Fails: NoReference, BundleRefused; what ended it. */
export async function parity(
  model: Model,
  changes: string,
  bytes: Uint8Array | null,
  host: ParityHost,
): Promise<Pick<ParityAnswer, "backend" | "madeWith" | "rows">> {
  if (bytes === null) {
    throw new EngineError(
      "NoReference",
      `${model.name} came without ${REFERENCE}, so there is nothing to compare with; export the checkpoint on a machine with PyTorch`,
      { file: REFERENCE },
    );
  }
  if (changes !== "raw") {
    throw new EngineError(
      "NoReference",
      `${REFERENCE} belongs to the weights as they are stored; those of ${model.name} are ${changes}; load it without that`,
      { file: REFERENCE },
    );
  }
  const reference = readReference(bytes);
  const run = parityRows(model, reference);
  try {
    for (;;) {
      const began = host.now();
      do {
        host.check();
        const step = run.next();
        if (step.done === true) return { backend: model.backend.name, madeWith: reference.madeWith, rows: step.value };
      } while (host.now() - began < SLICE);
      await new Promise<void>((resolve) => host.later(resolve));
    }
  } finally {
    run.return([]);
  }
}
