// One remembered kernel call of a tape: which earlier steps its inputs came from, and how a gradient goes back to each.
// Steps point back only, and are counted like storages: by the values that came out of them and by the later steps. So
// what a step keeps is freed with the last tensor that rests on it, and there are no cycles to leak.

import type { Backend, Value } from "../backend.ts";
import type { Sweep } from "./gradient.ts";

/** The gradient of a step's result to one of its inputs, owned by the caller; `gradient` is borrowed. */
export type Back = (gradient: Value, sweep: Sweep) => Value;

export interface Path {
  readonly from: Step;
  readonly back: Back;
}

/** Counts what steps keep, against the budget. */
export interface Keeper {
  /** Fails: OverBudget, and then nothing is counted. */
  keep(value: Value): void;
  drop(value: Value): void;
}

/** Where steps were recorded. */
export interface Recording {
  /** For errors: "pass 3". */
  readonly origin: string;
  /** False once the weights that the steps went through are gone. */
  readonly isAlive: () => boolean;
}

let count = 0;

export class Step {
  /** Grows with time: a step's inputs have smaller numbers. */
  readonly number = ++count;
  /** Where its result lies, and its gradient will; no tape. */
  readonly backend: Backend;
  readonly recording: Recording;
  readonly shape: readonly number[];
  readonly paths: readonly Path[];
  /** Its gradient is that of this step, cut: of a value that shows only a part of what the model went on with. */
  cutOf: { readonly whole: Step; readonly cut: (gradient: Value) => Value } | null = null;
  readonly #kept: readonly Value[];
  readonly #weights: readonly Value[];
  readonly #keeper: Keeper;
  #references = 1;

  /** Takes over `kept`, which count against the budget, and `weights`, which are counted elsewhere. */
  constructor(
    backend: Backend,
    recording: Recording,
    shape: readonly number[],
    paths: readonly Path[],
    keeper: Keeper,
    kept: readonly Value[],
    weights: readonly Value[],
  ) {
    this.backend = backend;
    this.recording = recording;
    this.shape = shape;
    this.paths = paths;
    this.#keeper = keeper;
    this.#kept = kept;
    this.#weights = weights;
    for (const { from } of paths) from.retain();
  }

  retain(): void {
    this.#references++;
  }

  /** In a loop: the steps of a deep model would overflow the stack. */
  release(): void {
    const unused: Step[] = [];
    const letGo = (step: Step) => {
      if (--step.#references === 0) unused.push(step);
    };
    letGo(this);
    for (let step = unused.pop(); step !== undefined; step = unused.pop()) {
      for (const value of step.#kept) {
        step.#keeper.drop(value);
        step.backend.release(value);
      }
      for (const value of step.#weights) step.backend.release(value);
      for (const { from } of step.paths) letGo(from);
    }
  }
}

/** The step that made a value; null where no tape remembers it. */
export function stepOf(value: Value): Step | null {
  return (value.past as Step | undefined) ?? null;
}
