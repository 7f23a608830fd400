// One pass in a lab, from hook to hook: the lab waits while the image evaluates a block. What the pass is for, a
// forward or one step of a generation, its owner knows.

import type { Answer, Intervention, PassId, TensorId } from "../../protocol.ts";
import type { Backend } from "../backend.ts";
import { EngineError } from "../errors.ts";
import { operandOf } from "../pass/intervention.ts";
import { asBase64, type Block, type RemoteTensor } from "./lab.ts";
import { notWaiting } from "../pass/run.ts";
import type { RemoteModel } from "./model.ts";
import { sameShape, showShape } from "../tensors/shape.ts";
import type { Tensor, TensorTable } from "../tensors/tensor_table.ts";

/** What passes in a lab need of their engine. */
export interface RemoteHost {
  readonly tensors: TensorTable;
  post(message: Answer): void;
  /** Where new tensors go. */
  home(): Backend;
  now(): number;
}

/** The body of POST /v1/passes, but for what a run adds itself. */
export interface RemotePassRequest {
  readonly tokens: readonly (readonly number[])[];
  readonly capture: readonly string[];
  readonly hooks: readonly string[];
  readonly interventions: readonly unknown[];
  readonly logits: boolean;
  readonly last_only?: boolean;
  readonly past?: string;
  readonly keep_past?: boolean;
  /** That a hook waits for its answer. */
  readonly seconds: number | undefined;
}

export class RemoteRun {
  /** In the lab and on the way, without the time at hooks. */
  milliseconds = 0;
  readonly #pass: PassId;
  readonly #model: RemoteModel;
  readonly #host: RemoteHost;
  readonly #abort = new AbortController();
  #waiting: { name: string; answer: (replacement: TensorId | null) => void } | null = null;
  #remoteId: string | null = null;

  constructor(pass: PassId, model: RemoteModel, host: RemoteHost) {
    this.#pass = pass;
    this.#model = model;
    this.#host = host;
  }

  get waitingAt(): string | null {
    return this.#waiting?.name ?? null;
  }

  /** Answers the lab's last block. `offset`: the absolute position of the first token. Fails: what the lab refuses. */
  async run(request: RemotePassRequest, offset: number): Promise<Block> {
    const { lab, name: model } = this.#model;
    const { signal } = this.#abort;
    let block = await this.#timed(lab.block("/v1/passes", { ...request, model }, signal));
    while (block.head["kind"] === "hook") {
      const remote = String(block.head["pass"]);
      this.#remoteId = remote;
      const value = block.tensors.get("value") as RemoteTensor;
      const given = await this.#ask(String(block.head["name"]), value, offset);
      block = await this.#timed(lab.reply(`/v1/passes/${remote}`, given, signal));
    }
    this.#remoteId = null;
    return block;
  }

  /** Fails: UnknownPass when it is not waiting. */
  answer(replacement: TensorId | null): void {
    const waiting = this.#waiting;
    if (waiting === null) throw notWaiting(this.#pass);
    this.#waiting = null;
    waiting.answer(replacement);
  }

  /** Ends it in the lab too; what it was to answer is dropped. */
  end(reason: unknown): void {
    this.#abort.abort(reason);
    this.#waiting = null;
    const id = this.#remoteId;
    this.#remoteId = null;
    if (id !== null) void this.#model.lab.json("DELETE", `/v1/passes/${id}`).catch(() => undefined); // it may be over
  }

  async #timed(block: Promise<Block>): Promise<Block> {
    const began = this.#host.now();
    try {
      return await block;
    } finally {
      this.milliseconds += this.#host.now() - began;
    }
  }

  /** Shows a value to the image; what takes its place. */
  #ask(name: string, { shape, numbers }: RemoteTensor, offset: number): Promise<RemoteTensor | null> {
    const { tensors } = this.#host;
    const home = this.#host.home();
    const tensor = tensors.promise(tensors.nextOwnId(), `pass ${this.#pass}, ${name}`);
    tensors.fulfil(tensor, home.upload(numbers, [...shape]), home);
    if (tensor.state === "poisoned") {
      tensors.release([tensor.id]);
      return Promise.reject(tensor.error);
    }
    this.#host.post({ kind: "hook", pass: this.#pass, name, tensor: tensor.id, shape, offset });
    return new Promise((resolve, reject) => {
      this.#abort.signal.addEventListener("abort", () => reject(this.#abort.signal.reason));
      this.#waiting = {
        name,
        answer: (replacement) => {
          try {
            if (replacement === null) return resolve(null);
            const given = tensors.at(replacement);
            tensors.whenSettled([given], () => {
              try {
                resolve(this.#replacement(name, given, shape));
              } catch (error) {
                reject(error);
              }
            });
          } catch (error) {
            reject(error);
          }
        },
      };
    });
  }

  #replacement(name: string, tensor: Tensor, shape: readonly number[]): RemoteTensor {
    const given = readTensor(tensor, this.#host.tensors);
    if (sameShape(given.shape, shape)) return given;
    throw new EngineError(
      "ShapeMismatch",
      `Hook ${name} was answered with a tensor of shape ${showShape(given.shape)}; its value has shape ${showShape(shape)}, and a replacement must have the same`,
      { hook: name, shapes: [given.shape, shape] },
    );
  }
}

/** The numbers of a settled tensor. Fails: what poisoned it. */
export function readTensor(tensor: Tensor, tensors: TensorTable): RemoteTensor {
  const value = tensors.valueOf(tensor);
  return { shape: value.shape, numbers: (tensor.backend as Backend).read(value) };
}

/** Interventions as a lab reads them: tensors by their numbers instead of their names. */
export function remoteInterventions(interventions: readonly Intervention[], tensors: TensorTable): unknown[] {
  return interventions.map((intervention) => {
    const id = operandOf(intervention);
    return id === null ? intervention : { ...intervention, tensor: asBase64(readTensor(tensors.at(id), tensors)) };
  });
}
