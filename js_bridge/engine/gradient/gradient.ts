// Gradients of one number to values that tapes remember: one sweep from the newest step back to the oldest wanted, for
// all values at once, and the `gradient` message that asks for it. It yields between steps, so that the engine answers
// other messages meanwhile. No second derivatives: results have no past.

import type { GradientRequest } from "../../protocol.ts";
import type { Backend, Value } from "../backend.ts";
import { describeError, EngineError } from "../errors.ts";
import { elementsOf, showShape } from "../tensors/shape.ts";
import { type Recording, type Step, stepOf } from "./tape_step.ts";
import type { Tensor, TensorTable } from "../tensors/tensor_table.ts";

/** The scratch of one way back. */
export class Sweep {
  /** Of the step that is at its turn. */
  backend: Backend;
  readonly #scratch: Value[] = [];
  readonly #once = new Map<string, Value>();
  readonly #constants = new Map<string, { backend: Backend; value: Value }>();

  constructor(backend: Backend) {
    this.backend = backend;
  }

  /** Takes a value over until the step is done. */
  keep(value: Value): Value {
    this.#scratch.push(value);
    return value;
  }

  /** What several paths of one step share; `make` keeps it. */
  once(name: string, make: () => Value): Value {
    const value = this.#once.get(name) ?? make();
    this.#once.set(name, value);
    return value;
  }

  /** A value that the whole sweep shares. */
  constant(name: string, make: () => Value): Value {
    const key = `${this.backend.name} ${name}`;
    const known = this.#constants.get(key);
    if (known !== undefined) return known.value;
    const value = make();
    this.#constants.set(key, { backend: this.backend, value });
    return value;
  }

  /** A tensor without axes. */
  number(x: number): Value {
    return this.constant(`number ${x}`, () => this.backend.upload(Float32Array.of(x), []));
  }

  endStep(): void {
    for (const value of this.#scratch.splice(0)) this.backend.release(value);
    this.#once.clear();
  }

  end(): void {
    this.endStep();
    for (const { backend, value } of this.#constants.values()) backend.release(value);
    this.#constants.clear();
  }
}

/** Everything that a value rests on, oldest first. */
function ancestors(last: Step): Step[] {
  const found = new Set<Step>([last]);
  for (const step of found) for (const { from } of step.paths) found.add(from);
  return [...found].sort((a, b) => a.number - b.number);
}

/**
 * The gradients of a number to the results of steps, which the caller owns: by step, none where no way leads there.
 * Yields after each step that it went back through.
 */
export function* sweepBack(of: Step, to: ReadonlySet<Step>): Generator<void, Map<Step, Value>, void> {
  const steps = ancestors(of);
  const wanted = new Set<Step>();
  for (const step of steps) if (to.has(step) || step.paths.some(({ from }) => wanted.has(from))) wanted.add(step);
  const gradients = new Map<Step, Value>();
  const found = new Map<Step, Value>();
  const sweep = new Sweep(of.backend);
  let isFinished = false;
  try {
    gradients.set(of, of.backend.upload(Float32Array.of(1), of.shape));
    for (const step of steps.reverse()) {
      const gradient = gradients.get(step);
      if (gradient === undefined) continue;
      gradients.delete(step);
      if (to.has(step)) found.set(step, step.backend.retain(gradient));
      sweep.backend = step.backend;
      sweep.keep(gradient);
      for (const { from, back } of step.paths) {
        if (wanted.has(from)) add(gradients, from, back(gradient, sweep));
      }
      sweep.endStep();
      yield;
    }
    isFinished = true;
    return found;
  } finally {
    sweep.end();
    for (const [step, gradient] of gradients) step.backend.release(gradient);
    if (!isFinished) for (const [step, gradient] of found) step.backend.release(gradient);
  }
}

/** Adds a share, taken over, to what has come to a step so far. */
function add(gradients: Map<Step, Value>, step: Step, share: Value): void {
  const before = gradients.get(step);
  gradients.set(step, share);
  if (before === undefined) return;
  const { backend } = step;
  gradients.set(step, backend.binary("add", before, share, share.shape));
  backend.release(before);
  backend.release(share);
}

/** What gradients need of their engine. */
export interface GradientHost {
  readonly tensors: TensorTable;
  /** Runs an action after the messages that are already waiting. */
  later(action: () => void): void;
  now(): number;
}

/** After so many milliseconds a sweep lets other messages through. */
const SLICE = 8;

/** Answers a `gradient` message into its results. Fails: BadMessage. */
export function answerGradient(request: GradientRequest, host: GradientHost): void {
  new GradientAnswer(request, host).start();
}

interface Asked {
  readonly tensor: Tensor;
  readonly result: Tensor;
}

class GradientAnswer {
  readonly #request: GradientRequest;
  readonly #host: GradientHost;
  readonly #origin: string;
  #asked: Asked[] = [];

  constructor(request: GradientRequest, host: GradientHost) {
    this.#request = request;
    this.#host = host;
    this.#origin = request.origin ?? "gradient";
  }

  start(): void {
    const { tensors } = this.#host;
    const results: Tensor[] = [];
    try {
      for (const { result } of this.#request.to) results.push(tensors.promise(result, this.#origin));
    } catch (error) {
      for (const result of results) tensors.poison(result, error);
      throw error;
    }
    let of: Tensor;
    try {
      of = tensors.at(this.#request.of);
    } catch (error) {
      for (const result of results) this.#refuse(result, error, []);
      return;
    }
    for (const [i, { tensor }] of this.#request.to.entries()) {
      try {
        this.#asked.push({ tensor: tensors.at(tensor), result: results[i] });
      } catch (error) {
        this.#refuse(results[i], error, [of]);
      }
    }
    const inputs = [of, ...this.#asked.map(({ tensor }) => tensor)];
    tensors.hold(inputs);
    tensors.whenSettled(inputs, () => {
      try {
        this.#begin(of, () => tensors.letGo(inputs));
      } catch (error) {
        this.#end(error, of);
        tensors.letGo(inputs);
      }
    });
  }

  /** Fails: what poisoned `of`, ShapeMismatch, NotTaped. */
  #begin(of: Tensor, ended: () => void): void {
    const value = this.#host.tensors.valueOf(of);
    if (elementsOf(value.shape) !== 1) {
      throw new EngineError(
        "ShapeMismatch",
        `Gradient of tensor ${of.id} of shape ${showShape(value.shape)}: it must hold one number; sum it, or slice one out`,
        { shapes: [value.shape] },
      );
    }
    const last = this.#stepAt(of, value);
    const recordings = new Set<Recording>();
    for (const step of ancestors(last)) recordings.add(step.recording);
    const steps = new Map<Tensor, Step>();
    this.#asked = this.#asked.filter(({ tensor, result }) => {
      try {
        const step = this.#stepAt(tensor, this.#host.tensors.valueOf(tensor));
        if (!recordings.has(step.recording)) {
          throw new EngineError(
            "NotTaped",
            `Tensor ${of.id} (${of.origin}) does not rest on ${step.recording.origin}, which made tensor ${tensor.id} (${tensor.origin}); compute the number from that pass, or name a tensor of ${[...recordings].map((each) => each.origin).join(" or ")}`,
            { tensor: tensor.id },
          );
        }
        steps.set(tensor, step);
        return true;
      } catch (error) {
        this.#refuse(result, error, [of, tensor]);
        return false;
      }
    });
    const wholes = new Set([...steps.values()].map((step) => step.cutOf?.whole ?? step));
    const run = sweepBack(last, wholes);
    this.#advance(run, of, steps, recordings, ended);
  }

  /** Goes on until it is finished, failed, nobody wants the results any more, or the slice is over. */
  #advance(
    run: Generator<void, Map<Step, Value>, void>,
    of: Tensor,
    steps: ReadonlyMap<Tensor, Step>,
    recordings: ReadonlySet<Recording>,
    ended: () => void,
  ): void {
    const began = this.#host.now();
    let isOver = true;
    try {
      for (;;) {
        if (this.#asked.every(({ result }) => result.released)) {
          for (const { result } of this.#asked) this.#host.tensors.poison(result, new Error("released"));
          return;
        }
        if (of.state === "poisoned") throw of.error; // its backend was lost on the way
        const dead = [...recordings].find((each) => !each.isAlive());
        if (dead !== undefined) {
          throw new EngineError(
            "NotTaped",
            `Gradient through ${dead.origin}: the weights of its model are gone, so there is no way back; load the model and run the pass again`,
            { tensor: of.id },
          );
        }
        const step = run.next();
        if (step.done === true) {
          this.#fulfil(step.value, steps);
          return;
        }
        if (this.#host.now() - began > SLICE) {
          isOver = false;
          return this.#host.later(() => this.#advance(run, of, steps, recordings, ended));
        }
      }
    } catch (error) {
      this.#end(error, of);
    } finally {
      if (isOver) {
        run.return(new Map());
        ended();
      }
    }
  }

  #fulfil(found: ReadonlyMap<Step, Value>, steps: ReadonlyMap<Tensor, Step>): void {
    for (const { tensor, result } of this.#asked) {
      const step = steps.get(tensor) as Step;
      const { backend, shape } = step;
      const whole = found.get(step.cutOf?.whole ?? step);
      const value =
        whole === undefined
          ? backend.upload(new Float32Array(elementsOf(shape)), shape)
          : step.cutOf === null
            ? backend.retain(whole)
            : step.cutOf.cut(whole);
      this.#host.tensors.fulfil(result, value, backend);
    }
    for (const [step, value] of found) step.backend.release(value);
  }

  /** Fails: NotTaped. */
  #stepAt(tensor: Tensor, value: Value): Step {
    const step = stepOf(value);
    if (step === null) {
      throw new EngineError(
        "NotTaped",
        `Tensor ${tensor.id} (${tensor.origin}) has no past that a gradient could go through; run its pass with "tape", and capture the value there or compute it from what the pass captured`,
        { tensor: tensor.id },
      );
    }
    return step;
  }

  #end(error: unknown, of: Tensor): void {
    for (const { tensor, result } of this.#asked) {
      if (result.state === "pending") this.#refuse(result, error, [of, tensor]);
    }
  }

  #refuse(result: Tensor, error: unknown, inputs: readonly Tensor[]): void {
    const { name, message, ...details } = describeError(error);
    const shapes = inputs.map((each) => each.value?.shape ?? null);
    const more = { operation: "gradient", origin: this.#request.origin, inputs: shapes };
    this.#host.tensors.poison(result, new EngineError(name, message, { ...details, ...more }));
  }
}
