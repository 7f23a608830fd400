// One forward request to a model of a lab: what can be refused is refused before the lab hears of it, what was captured
// becomes tensors of this engine. The lab computes whole passes; what lies before a stop is cut out of one here.

import type { ForwardRequest, Shape, TensorId } from "../../protocol.ts";
import { EngineError } from "../errors.ts";
import { operandOf } from "../pass/intervention.ts";
import { asBase64, type Block, type RemoteTensor } from "./lab.ts";
import { RemoteLivePass } from "./live_pass.ts";
import { hookOf, type RemoteModel } from "./model.ts";
import { readTensor, remoteInterventions, type RemoteHost } from "./run.ts";
import { axesOf, placesOf } from "../pass/span.ts";
import type { Tensor } from "../tensors/tensor_table.ts";

interface Slot {
  readonly tensor: Tensor;
  readonly name: string;
  readonly positions: readonly number[] | null;
}

export class RemotePass extends RemoteLivePass {
  protected readonly operands: readonly Tensor[];
  readonly #request: ForwardRequest;
  readonly #slots: readonly Slot[];
  readonly #logits: Tensor | null;
  readonly #residual: Tensor | null;

  /** Fails: UnknownHook, LabRefused, and what is wrong with the names of tensors. */
  constructor(request: ForwardRequest, model: RemoteModel, host: RemoteHost, ended: () => void) {
    super(request, model, host, ended);
    const { tensors } = host;
    const { capture = [], hooks = [], interventions = [], start } = request;
    this.#request = request;
    checkOffered(request, model);
    for (const name of [...capture.map((each) => each.name), ...hooks, ...interventions.map((each) => each.hook)])
      hookOf(model, name);
    this.operands = [
      ...interventions.map(operandOf).filter((id) => id !== null),
      ...(start === undefined ? [] : [start.tensor]),
    ].map((id) => tensors.at(id));
    const promise = (id: TensorId, what: string) => tensors.promise(id, `pass ${this.id}, ${what}`);
    this.#slots = capture.map(({ name, tensor, positions }) => ({
      tensor: promise(tensor, name),
      name,
      positions: positions ?? null,
    }));
    this.#logits = request.logits == null ? null : promise(request.logits, "logits");
    this.#residual = request.residual == null ? null : promise(request.residual, "residual");
  }

  protected async work(): Promise<void> {
    const block = this.#request.start === undefined ? await this.#pass() : await this.#lens(this.#request.start.tensor);
    if (this.isOver) return;
    const shapes: { tensor: TensorId; shape: Shape }[] = [];
    for (const { tensor, value } of this.#results(block)) {
      const home = this.host.home();
      shapes.push({ tensor: tensor.id, shape: value.shape });
      this.host.tensors.fulfil(tensor, home.upload(value.numbers, [...value.shape]), home);
    }
    this.end(null);
    const { milliseconds } = this.run;
    this.host.post({ kind: "done", id: this.#request.id, pass: this.id, shapes, milliseconds });
  }

  #pass(): Promise<Block> {
    const { tokens = [], hooks = [], interventions = [] } = this.#request;
    const names = [...this.#slots.map((slot) => slot.name), ...this.#stopNames()];
    return this.run.run(
      {
        tokens,
        capture: [...new Set(names)],
        hooks,
        interventions: remoteInterventions(interventions, this.host.tensors),
        seconds: this.#request.hookSeconds,
        logits: this.#logits !== null,
      },
      0,
    );
  }

  /** The final norm and the unembedding alone. */
  #lens(source: TensorId): Promise<Block> {
    const { tensors } = this.host;
    const tensor = asBase64(readTensor(tensors.at(source), tensors));
    return this.model.lab.block("/v1/lens", { model: this.model.name, tensor });
  }

  /** Where the residual stream is at which the pass stops. */
  #stopNames(): string[] {
    const { stop } = this.#request;
    if (stop === undefined) return [];
    const isEnd = stop === this.model.dimensions["L"];
    return [isEnd ? `blocks.${stop - 1}.hook_resid_post` : `blocks.${stop}.hook_resid_pre`];
  }

  #results({ head, tensors }: Block): { tensor: Tensor; value: RemoteTensor }[] {
    const names = (head["names"] ?? []) as string[];
    const valueOf = (name: string): RemoteTensor => {
      const value = tensors.get(String(names.indexOf(name)));
      if (value === undefined)
        throw new EngineError("UnreachedHook", `Hook ${name} was not reached in the lab's pass; leave it out`, { hook: name });
      return value;
    };
    const logits = tensors.get("logits");
    const [residual] = this.#stopNames().map(valueOf);
    return [
      ...this.#slots.map(({ tensor, name, positions }) => ({ tensor, value: this.#part(valueOf(name), name, positions) })),
      ...(this.#logits === null || logits === undefined
        ? []
        : [{ tensor: this.#logits, value: this.#along(logits, 1, this.#request.logitPositions ?? null, "logits") }]),
      ...(this.#residual === null ? [] : [{ tensor: this.#residual, value: residual }]),
    ];
  }

  #part(value: RemoteTensor, name: string, positions: readonly number[] | null): RemoteTensor {
    return this.#along(value, axesOf(hookOf(this.model, name).shape).position, positions, name);
  }

  #along(value: RemoteTensor, axis: number, positions: readonly number[] | null, what: string): RemoteTensor {
    if (positions === null) return value;
    if (axis < 0) throw new EngineError("BadParameter", `${what} has no axis of positions; leave the positions out`);
    const span = { batch: value.shape[0], offset: 0, positions: value.shape[axis], isPart: false };
    return taken(value, axis, placesOf(positions, span, what));
  }

  protected promised(): readonly (Tensor | null)[] {
    return [...this.#slots.map((slot) => slot.tensor), this.#logits, this.#residual];
  }
}

/** Some places along an axis. */
function taken({ shape, numbers }: RemoteTensor, axis: number, places: readonly number[]): RemoteTensor {
  const extents = shape.map((extent, at) => (at === axis ? places.length : extent));
  const inner = shape.slice(axis + 1).reduce((product, extent) => product * extent, 1);
  const outer = shape.slice(0, axis).reduce((product, extent) => product * extent, 1);
  const result = new Float32Array(outer * places.length * inner);
  for (let o = 0; o < outer; o++) {
    for (const [target, place] of places.entries()) {
      const from = (o * shape[axis] + place) * inner;
      result.set(numbers.subarray(from, from + inner), (o * places.length + target) * inner);
    }
  }
  return { shape: extents, numbers: result };
}

/** Fails: LabRefused for what only the page's engine does. */
function checkOffered({ tape, cache, start, padding }: ForwardRequest, model: RemoteModel): void {
  const refuse = (text: string): never => {
    throw new EngineError("LabRefused", `${text} ${model.name} into the page for that, if it is small enough`, {
      status: null,
      code: null,
    });
  };
  if (tape === true) refuse("A lab takes no gradients; load");
  if (cache !== undefined)
    refuse("A lab keeps no keys and values for passes of the image, only within its own generations; load");
  if (padding?.side === "left") refuse("A lab's rows begin at position 0, so it pads none on the left; pad them on the right, or load");
  if (start !== undefined && start.layer !== model.dimensions["L"])
    refuse(`A lab begins a pass at the tokens or at the final norm, not at layer ${start.layer}; load`);
}
