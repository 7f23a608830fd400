// What one request wants at the hook points: which it shows, which it changes, which it keeps. It checks names and
// shapes before anything runs, and says of each point whether anybody looks. It drives no pass; run.ts does.

import type { Capture, HookDescription, Intervention, Watching } from "../../protocol.ts";
import { EngineError, nearMisses } from "../errors.ts";
import { checkIntervention, operandOf } from "./intervention.ts";
import type { Model } from "../model.ts";
import { axesOf, keysOf, placesOf, shapeAt, type Span } from "./span.ts";
import type { Tensor, TensorTable } from "../tensors/tensor_table.ts";

export interface WatchedIntervention {
  readonly intervention: Intervention;
  readonly operand: Tensor | null;
}

/** The blocks that a pass runs: from `first` up to `last`, that one not included. */
export interface Stretch {
  readonly first: number;
  readonly last: number;
  /** From the tokens on, not from a residual stream. */
  readonly embeds: boolean;
  /** Up to the logits. */
  readonly unembeds: boolean;
}

export class Watch {
  /** The tensors that interventions rest on. */
  readonly operands: readonly Tensor[];
  readonly captures: readonly Capture[];
  readonly #model: Model;
  readonly #awaited: ReadonlySet<string>;
  readonly #enabled: ReadonlySet<string>;
  readonly #captured: ReadonlySet<string>;
  readonly #interventions = new Map<string, WatchedIntervention[]>();

  /** Fails: UnknownHook, DisabledHook, UnknownTensor, ReleasedTensor. */
  constructor(request: Watching, model: Model, tensors: TensorTable) {
    this.#model = model;
    this.captures = request.capture ?? [];
    this.#enabled = new Set(request.enable);
    this.#awaited = new Set(request.hooks);
    this.#captured = new Set(this.captures.map((each) => each.name));
    for (const name of this.#enabled) this.#known(name);
    for (const name of [...this.#awaited, ...this.#captured]) this.#switchedOn(name);
    const operands: Tensor[] = [];
    for (const intervention of request.interventions ?? []) {
      this.#switchedOn(intervention.hook);
      const id = operandOf(intervention);
      const operand = id === null ? null : tensors.at(id);
      if (operand !== null) operands.push(operand);
      const list = this.#interventions.get(intervention.hook) ?? [];
      this.#interventions.set(intervention.hook, [...list, { intervention, operand }]);
    }
    this.operands = operands;
  }

  readonly isOn = (name: string): boolean => this.#enabled.has(name);

  readonly isWanted = (name: string): boolean =>
    this.#awaited.has(name) || this.#captured.has(name) || this.#interventions.has(name);

  isAwaited(name: string): boolean {
    return this.#awaited.has(name);
  }

  interventionsAt(name: string): readonly WatchedIntervention[] {
    return this.#interventions.get(name) ?? [];
  }

  lettersOf(name: string): string {
    return (this.#model.hooks.get(name) as HookDescription).shape;
  }

  /** The block before which nobody wants anything more; null where somebody wants what comes after the last. */
  lastWanted(): number | null {
    const wanted = this.#names().map((name) => this.#blockOf(name));
    return wanted.includes("after")
      ? null
      : Math.max(0, ...wanted.map((each) => (typeof each === "number" ? each + 1 : 0)));
  }

  /** Fails: UnreachedHook for a name that the pass does not come by. */
  checkReached({ first, last, embeds, unembeds }: Stretch): void {
    for (const name of this.#names()) {
      const block = this.#blockOf(name);
      const isReached = block === "before" ? embeds : block === "after" ? unembeds : block >= first && block < last;
      if (!isReached) {
        const where = `${embeds ? "begins at the tokens" : `begins at block ${first}`} and ${unembeds ? "ends at the logits" : `ends before block ${last}`}`;
        throw new EngineError(
          "UnreachedHook",
          `Hook ${name} is not reached: the pass ${where}; let it run further, or leave the name out`,
          { hook: name },
        );
      }
    }
  }

  /** Fails, for what does not fit the shapes of a pass: BadParameter, ShapeMismatch. */
  checkShapes(span: Span, tensors: TensorTable): void {
    const { dimensions } = this.#model.architecture;
    for (const [name, list] of this.#interventions) {
      const letters = this.lettersOf(name);
      for (const { intervention, operand } of list) {
        const given = operand === null ? null : tensors.valueOf(operand);
        checkIntervention(intervention, { letters, span }, shapeAt(letters, dimensions, span), given);
      }
    }
  }

  /** Fails: BadParameter for positions and keys of interventions that no part of the span has. */
  checkPositions(span: Span): void {
    for (const [name, list] of this.#interventions) {
      for (const { at } of list.map((each) => each.intervention)) {
        if (at?.position !== undefined) placesOf([at.position].flat(), span, name);
        if (at?.key !== undefined) keysOf([at.key].flat(), span, name);
      }
    }
  }

  /** Fails: BadParameter for positions of captures that the span does not have. */
  checkCaptures(span: Span): void {
    for (const { name, positions } of this.captures) {
      if (positions === undefined) continue;
      if (axesOf(this.lettersOf(name)).position < 0 || positions.length === 0)
        throw new EngineError(
          "BadParameter",
          `A capture of ${name} at positions ${JSON.stringify(positions)}: name at least one, of a hook with an axis T; its shape is ${this.lettersOf(name)}`,
          { hook: name },
        );
      placesOf(positions, span, name);
    }
  }

  #names(): string[] {
    return [...this.#awaited, ...this.#captured, ...this.#interventions.keys()];
  }

  #blockOf(name: string): number | "before" | "after" {
    const block = /^blocks\.(\d+)\./.exec(name);
    if (block !== null) return Number(block[1]);
    const names = [...this.#model.hooks.keys()];
    return names.indexOf(name) < names.findIndex((each) => each.startsWith("blocks.")) ? "before" : "after";
  }

  #known(name: string): HookDescription {
    const hook = this.#model.hooks.get(name);
    if (hook !== undefined) return hook;
    const near = nearMisses(name, this.#model.hooks.keys());
    const hint = near.length === 0 ? "the model's hookNames list all" : `near it are ${near.join(", ")}`;
    throw new EngineError("UnknownHook", `${this.#model.name} has no hook ${JSON.stringify(name)}; ${hint}`, {
      hook: name,
      nearMisses: near,
    });
  }

  #switchedOn(name: string): void {
    if (this.#known(name).on || this.#enabled.has(name)) return;
    throw new EngineError(
      "DisabledHook",
      `Hook ${name} is off, because it costs memory or time; turn it on by naming it in the pass's "enable"`,
      { hook: name },
    );
  }
}
