// The decoder, driven once from hook point to hook point: intervenes, asks, captures, and lets other messages through.
// It is a state machine with its own scratch, so any number of runs may be alive, nested or interleaved. What a run is
// for, a forward or one step of a generation, its owner knows.

import type { Answer, PassId, TensorId } from "../../protocol.ts";
import type { Backend, Value } from "../backend.ts";
import type { Forward } from "../decoder/decoder.ts";
import { EngineError } from "../errors.ts";
import { intervene } from "./intervention.ts";
import { sameShape, showShape } from "../tensors/shape.ts";
import type { Span } from "./span.ts";
import type { Tensor, TensorTable } from "../tensors/tensor_table.ts";
import type { Watch } from "./watch.ts";

/** What a run needs of its engine. */
export interface RunHost {
  readonly tensors: TensorTable;
  post(message: Answer): void;
  /** Runs an action after the messages that are already waiting. */
  later(action: () => void): void;
  now(): number;
}

export interface RunOptions {
  readonly pass: PassId;
  readonly backend: Backend;
  readonly steps: Forward;
  readonly span: Span;
  readonly watch: Watch;
  /** A value at a hook point, borrowed; answers what the model goes on with in its place, handed over, or null. */
  capture(name: string, value: Value): Value | null;
  /** The value that a hook shows, and that goes on if it is not replaced; owned by the caller. */
  show(value: Value): Value;
  /** The result, handed over. */
  finished(result: Value): void;
  failed(error: unknown): void;
}

/** After so many milliseconds a run lets other messages through, between two blocks. */
export const SLICE = 8;

export class Run {
  /** Of computing, without the time at hooks. */
  milliseconds = 0;
  readonly #options: RunOptions;
  readonly #host: RunHost;
  #waiting: { name: string; value: Value } | null = null;
  #isOver = false;

  constructor(options: RunOptions, host: RunHost) {
    this.#options = options;
    this.#host = host;
  }

  get waitingAt(): string | null {
    return this.#waiting?.name ?? null;
  }

  start(): void {
    this.#guarded(() => this.#advance(undefined));
  }

  /** Goes on after a hook, with the tensor that replaces its value. Fails: UnknownPass when it is not waiting. */
  answer(replacement: TensorId | null): void {
    const waiting = this.#waiting;
    if (waiting === null) throw notWaiting(this.#options.pass);
    this.#waiting = null;
    if (replacement === null) return this.#guarded(() => this.#leave(waiting.name, waiting.value));
    this.#guarded(() => {
      let tensor: Tensor;
      try {
        tensor = this.#host.tensors.at(replacement);
      } catch (error) {
        this.#options.backend.release(waiting.value);
        throw error;
      }
      this.#host.tensors.whenSettled([tensor], () => {
        if (this.#isOver) this.#options.backend.release(waiting.value);
        else this.#guarded(() => this.#replace(waiting, tensor));
      });
    });
  }

  /** Ends it and frees its scratch; nothing more is told. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#waiting !== null) this.#options.backend.release(this.#waiting.value);
    this.#waiting = null;
    this.#options.steps.return(undefined as never);
  }

  /** Runs from hook point to hook point, until it has to wait, to let others go first, or is finished. */
  #advance(next: Value | undefined): void {
    const { steps, watch, capture, finished } = this.#options;
    const began = this.#host.now();
    let sent = next;
    let result: Value;
    try {
      for (;;) {
        const step = steps.next(sent);
        sent = undefined;
        if (step.done === true) {
          result = step.value;
          break;
        }
        if (step.value === null) {
          if (this.#host.now() - began > SLICE) return this.#host.later(() => this.#resume());
          continue;
        }
        const { name, value } = step.value;
        const intervened = this.#intervene(name, value);
        if (watch.isAwaited(name)) return this.#ask(name, value, intervened);
        sent = intervened === null ? (capture(name, value) ?? undefined) : this.#captured(name, intervened);
      }
    } finally {
      this.milliseconds += this.#host.now() - began;
    }
    this.#isOver = true;
    finished(result);
  }

  #resume(): void {
    if (!this.#isOver) this.#guarded(() => this.#advance(undefined));
  }

  /** The value after the interventions at this point, owned by the caller; null where there are none. */
  #intervene(name: string, value: Value): Value | null {
    const { backend, span, watch } = this.#options;
    const scene = { letters: watch.lettersOf(name), span };
    let current: Value | null = null;
    try {
      for (const { intervention, operand } of watch.interventionsAt(name)) {
        const given = operand === null ? null : this.#host.tensors.valueOf(operand, backend);
        const next = intervene(backend, intervention, scene, current ?? value, given);
        if (next === null) continue;
        if (current !== null) backend.release(current);
        current = next;
      }
      return current;
    } catch (error) {
      if (current !== null) backend.release(current);
      throw error;
    }
  }

  #ask(name: string, original: Value, intervened: Value | null): void {
    const { backend, pass, span, show } = this.#options;
    const { tensors } = this.#host;
    const value = show(intervened ?? original);
    if (intervened !== null) backend.release(intervened);
    const tensor = tensors.promise(tensors.nextOwnId(), `pass ${pass}, ${name}`);
    tensors.fulfil(tensor, backend.retain(value), backend);
    if (tensor.state === "poisoned") {
      backend.release(value);
      tensors.release([tensor.id]);
      throw tensor.error;
    }
    this.#waiting = { name, value };
    this.#host.post({ kind: "hook", pass, name, tensor: tensor.id, shape: value.shape, offset: span.offset });
  }

  #replace({ name, value }: { name: string; value: Value }, tensor: Tensor): void {
    const { backend } = this.#options;
    let given: Value;
    try {
      given = this.#host.tensors.valueOf(tensor, backend);
      if (!sameShape(given.shape, value.shape)) {
        throw new EngineError(
          "ShapeMismatch",
          `Hook ${name} was answered with a tensor of shape ${showShape(given.shape)}; its value has shape ${showShape(value.shape)}, and a replacement must have the same`,
          { hook: name, shapes: [given.shape, value.shape] },
        );
      }
      backend.retain(given);
    } finally {
      backend.release(value);
    }
    this.#leave(name, given);
  }

  /** Captures and goes on with a value that is handed over to the decoder. */
  #leave(name: string, value: Value): void {
    this.#advance(this.#captured(name, value));
  }

  /** Captures a value that the run owns; what takes its place, or itself. */
  #captured(name: string, value: Value): Value {
    const { backend, capture } = this.#options;
    try {
      const next = capture(name, value);
      if (next === null) return value;
      backend.release(value);
      return next;
    } catch (error) {
      backend.release(value);
      throw error;
    }
  }

  #guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#options.failed(error);
    }
  }
}

export function notWaiting(pass: PassId): EngineError {
  return new EngineError("UnknownPass", `Pass ${pass} is not waiting at a hook, so there is nothing to answer`, { pass });
}
