// One forward pass: drives the decoder's generator from hook point to hook point, intervenes, asks, captures.
// It is a state machine with its own scratch, so any number of passes may be alive, nested or interleaved.

import type {
  Answer,
  ErrorDescription,
  ForwardRequest,
  HookDescription,
  Intervention,
  PassId,
  Shape,
  TensorId,
} from "../protocol.ts";
import type { Backend, Value } from "./backend.ts";
import { forward, type Forward, WHOLE_PASS } from "./decoder.ts";
import { describeError, EngineError, nearMisses } from "./errors.ts";
import { checkIntervention, intervene, operandOf } from "./intervention.ts";
import type { Model } from "./model.ts";
import { sameShape, showShape } from "./shape.ts";
import type { Tensor, TensorTable } from "./tensor_table.ts";

/** What a pass needs of its engine. */
export interface PassHost {
  readonly tensors: TensorTable;
  post(message: Answer): void;
  /** The pass has more to do and lets others go first. */
  later(pass: Pass): void;
  ended(pass: Pass): void;
  now(): number;
}

/** After so many milliseconds a pass lets other messages through, between two blocks. */
const SLICE = 8;

export class Pass {
  readonly id: PassId;
  readonly model: Model;
  readonly #request: ForwardRequest;
  readonly #host: PassHost;
  readonly #captures = new Map<string, Tensor[]>();
  readonly #logits: Tensor | null;
  readonly #awaited: ReadonlySet<string>;
  readonly #enabled: ReadonlySet<string>;
  readonly #interventions = new Map<string, { intervention: Intervention; operand: Tensor | null }[]>();
  readonly #operands: Tensor[] = [];
  /** The names of the captures and the logits, whose shapes the answer lists. */
  readonly #results: { tensor: TensorId; shape: Shape }[] = [];
  #run: Forward | null = null;
  #waiting: { name: string; value: Value } | null = null;
  #milliseconds = 0;
  #isOver = false;

  /** Checks the request and names its tensors; whatever is wrong is told before anything is computed. */
  constructor(request: ForwardRequest, model: Model, host: PassHost) {
    this.id = request.pass;
    this.model = model;
    this.#request = request;
    this.#host = host;
    this.#enabled = new Set(request.enable);
    this.#awaited = new Set(request.hooks);
    checkTokens(request.tokens ?? [], model);
    for (const name of [...this.#enabled]) this.#hook(name, false);
    for (const name of [...this.#awaited, ...(request.capture ?? []).map((each) => each.name)]) this.#hook(name, true);
    for (const intervention of request.interventions ?? []) {
      this.#hook(intervention.hook, true);
      const operand = operandOf(intervention);
      const tensor = operand === null ? null : host.tensors.at(operand);
      if (tensor !== null) this.#operands.push(tensor);
      const list = this.#interventions.get(intervention.hook) ?? [];
      this.#interventions.set(intervention.hook, [...list, { intervention, operand: tensor }]);
    }
    const promised: TensorId[] = [];
    const promise = (id: TensorId, origin: string): Tensor => {
      const tensor = host.tensors.promise(id, origin);
      promised.push(id);
      return tensor;
    };
    try {
      for (const { name, tensor } of request.capture ?? []) {
        this.#captures.set(name, [...(this.#captures.get(name) ?? []), promise(tensor, `pass ${this.id}, ${name}`)]);
      }
      this.#logits = request.logits == null ? null : promise(request.logits, `pass ${this.id}, logits`);
    } catch (error) {
      host.tensors.release(promised);
      throw error;
    }
  }

  get waitingAt(): string | null {
    return this.#waiting?.name ?? null;
  }

  /** Starts once the tensors of its interventions are computed; they are held until the pass ends. */
  start(): void {
    this.#host.tensors.hold(this.#operands);
    this.#host.tensors.whenSettled(this.#operands, () => {
      if (this.#isOver) return;
      this.#guarded(() => {
        this.#checkInterventions();
        const { tokens = [] } = this.#request;
        const [batch, positions] = [tokens.length, tokens[0].length];
        const isOn = (name: string) => this.#enabled.has(name);
        const ids = Int32Array.from(tokens.flat());
        const { backend, architecture, weights } = this.model;
        const options = { ...WHOLE_PASS, ids, batch, positions, isOn, isWanted: () => true };
        this.#run = forward(backend, architecture, weights, options);
        this.#advance(undefined);
      });
    });
  }

  /** Goes on after a break. */
  resume(): void {
    if (!this.#isOver) this.#guarded(() => this.#advance(undefined));
  }

  /** Goes on after a hook, with the tensor that replaces its value. Fails: UnknownPass when it is not waiting. */
  answer(replacement: TensorId | null): void {
    const waiting = this.#waiting;
    if (waiting === null)
      throw new EngineError("UnknownPass", `Pass ${this.id} is not waiting at a hook, so there is nothing to answer`, {
        pass: this.id,
      });
    this.#waiting = null;
    if (replacement === null) return this.#guarded(() => this.#leave(waiting.name, waiting.value));
    this.#guarded(() => {
      const tensor = this.#host.tensors.at(replacement);
      this.#host.tensors.whenSettled([tensor], () => {
        if (!this.#isOver) this.#guarded(() => this.#replace(waiting, tensor));
      });
    });
  }

  cancel(): void {
    this.fail(new EngineError("PassCancelled", `Pass ${this.id} was cancelled`, { pass: this.id }));
  }

  /** Ends the pass: frees its scratch, poisons what it has not reached, answers `failed`. */
  fail(error: unknown): void {
    if (this.#isOver) return;
    this.#end(error);
    const description: ErrorDescription = describeError(error);
    this.#host.post({ kind: "failed", id: this.#request.id, pass: this.id, error: description });
  }

  /** Fails: UnknownHook, DisabledHook. */
  #hook(name: string, mustBeOn: boolean): HookDescription {
    const hook = this.model.hooks.get(name);
    if (hook === undefined) {
      const near = nearMisses(name, this.model.hooks.keys());
      const hint = near.length === 0 ? "the model's hookNames list all" : `near it are ${near.join(", ")}`;
      throw new EngineError("UnknownHook", `${this.model.name} has no hook ${JSON.stringify(name)}; ${hint}`, {
        hook: name,
        nearMisses: near,
      });
    }
    if (mustBeOn && !hook.on && !this.#enabled.has(name)) {
      throw new EngineError(
        "DisabledHook",
        `Hook ${name} is off, because it costs memory or time; turn it on by naming it in the pass's "enable"`,
        { hook: name },
      );
    }
    return hook;
  }

  #checkInterventions(): void {
    const { tokens = [] } = this.#request;
    const { dimensions } = this.model.architecture;
    const extents: Record<string, number> = { ...dimensions, B: tokens.length, T: tokens[0].length, 1: 1 };
    for (const [name, list] of this.#interventions) {
      const letters = this.#hook(name, true).shape;
      const shape = letters.split(" ").map((letter) => extents[letter]);
      for (const { intervention, operand } of list) {
        checkIntervention(intervention, letters, shape, operand === null ? null : this.#host.tensors.valueOf(operand));
      }
    }
  }

  /** Runs from hook point to hook point, until it has to wait, to let others go first, or ends. */
  #advance(next: Value | undefined): void {
    const began = this.#host.now();
    let sent = next;
    try {
      for (;;) {
        const step = (this.#run as Forward).next(sent);
        sent = undefined;
        if (step.done === true) return this.#finish(step.value, began);
        if (step.value === null) {
          if (this.#host.now() - began > SLICE) return this.#host.later(this);
          continue;
        }
        const { name, value } = step.value;
        const intervened = this.#intervene(name, value);
        if (this.#awaited.has(name)) return this.#ask(name, intervened ?? value, intervened);
        this.#capture(name, intervened ?? value);
        sent = intervened ?? undefined;
      }
    } finally {
      this.#milliseconds += this.#host.now() - began;
    }
  }

  /** The value after the interventions at this point, owned by the caller; null where there are none. */
  #intervene(name: string, value: Value): Value | null {
    const { backend, hooks } = this.model;
    const letters = (hooks.get(name) as HookDescription).shape;
    let current: Value | null = null;
    for (const { intervention, operand } of this.#interventions.get(name) ?? []) {
      const given = operand === null ? null : this.#host.tensors.valueOf(operand, backend);
      const next = intervene(backend, intervention, letters, current ?? value, given);
      if (current !== null) backend.release(current);
      current = next;
    }
    return current;
  }

  #ask(name: string, value: Value, intervened: Value | null): void {
    const { backend } = this.model;
    const { tensors } = this.#host;
    const tensor = tensors.promise(tensors.nextOwnId(), `pass ${this.id}, ${name}`);
    tensors.fulfil(tensor, backend.retain(value), backend);
    if (tensor.state === "poisoned") {
      if (intervened !== null) backend.release(intervened);
      tensors.release([tensor.id]);
      throw tensor.error;
    }
    this.#waiting = { name, value: intervened ?? backend.retain(value) };
    this.#host.post({ kind: "hook", pass: this.id, name, tensor: tensor.id, shape: value.shape, offset: 0 });
  }

  #replace(waiting: { name: string; value: Value }, tensor: Tensor): void {
    const { backend } = this.model;
    const { name, value } = waiting;
    try {
      const given = this.#host.tensors.valueOf(tensor, backend);
      if (!sameShape(given.shape, value.shape)) {
        throw new EngineError(
          "ShapeMismatch",
          `Hook ${name} was answered with a tensor of shape ${showShape(given.shape)}; its value has shape ${showShape(value.shape)}, and a replacement must have the same`,
          { hook: name, shapes: [given.shape, value.shape] },
        );
      }
      backend.retain(given);
      backend.release(value);
      this.#leave(name, given);
    } catch (error) {
      backend.release(value);
      throw error;
    }
  }

  /** Captures and goes on with a value that is handed over to the decoder. */
  #leave(name: string, value: Value): void {
    this.#capture(name, value);
    this.#advance(value);
  }

  #capture(name: string, value: Value): void {
    const { backend } = this.model;
    for (const tensor of this.#captures.get(name) ?? []) {
      this.#results.push({ tensor: tensor.id, shape: value.shape });
      this.#host.tensors.fulfil(tensor, backend.retain(value), backend);
    }
  }

  #finish(logits: Value, began: number): void {
    const { backend } = this.model;
    if (this.#logits === null) backend.release(logits);
    else {
      this.#results.push({ tensor: this.#logits.id, shape: logits.shape });
      this.#host.tensors.fulfil(this.#logits, logits, backend);
    }
    this.#run = null;
    const order = [...(this.#request.capture ?? []).map((each) => each.tensor), this.#logits?.id];
    const shapes = this.#results.sort((a, b) => order.indexOf(a.tensor) - order.indexOf(b.tensor));
    const milliseconds = this.#milliseconds + this.#host.now() - began;
    this.#end(null);
    this.#host.post({ kind: "done", id: this.#request.id, pass: this.id, shapes, milliseconds });
  }

  #end(error: unknown): void {
    this.#isOver = true;
    if (this.#waiting !== null) this.model.backend.release(this.#waiting.value);
    this.#waiting = null;
    this.#run?.return(undefined as never);
    this.#run = null;
    for (const tensor of [...this.#captures.values()].flat().concat(this.#logits ?? [])) {
      if (tensor.state === "pending") this.#host.tensors.poison(tensor, error);
    }
    this.#host.tensors.letGo(this.#operands);
    this.#host.ended(this);
  }

  #guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.fail(error);
    }
  }
}

/** Fails: RaggedBatch, TooManyTokens, TokenOutOfVocabulary. */
function checkTokens(tokens: readonly (readonly number[])[], model: Model): void {
  const { P: positions, V: vocabulary } = model.architecture.dimensions;
  const lengths = tokens.map((row) => row.length);
  if (lengths.length === 0 || lengths.some((length) => length !== lengths[0])) {
    throw new EngineError(
      "RaggedBatch",
      `A batch whose rows have ${lengths.length === 0 ? "no" : lengths.join(", ")} tokens: there must be at least one row, all equally long; pad them or run them one by one`,
      { lengths },
    );
  }
  if (lengths[0] < 1 || lengths[0] > positions) {
    throw new EngineError(
      "TooManyTokens",
      `${lengths[0]} tokens were given; ${model.name} takes 1 to ${positions}; shorten the text`,
      { given: lengths[0], allowed: positions },
    );
  }
  for (const id of tokens.flat()) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabulary) {
      throw new EngineError(
        "TokenOutOfVocabulary",
        `Token id ${id} is outside the vocabulary of ${model.name}, 0 … ${vocabulary - 1}`,
        { given: id, allowed: vocabulary - 1 },
      );
    }
  }
}
