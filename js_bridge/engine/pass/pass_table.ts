// The passes that are alive: forwards and generations, by the number that the image gave each.

import type { ForwardRequest, GenerateRequest, LedgerAnswer, ModelId, PassId, TensorId } from "../../protocol.ts";
import type { Backend } from "../backend.ts";
import { EngineError } from "../errors.ts";
import { Generation } from "../generation/generation.ts";
import type { Model } from "../model.ts";
import { type LivePass, Pass, type PassHost } from "./pass.ts";

export class PassTable {
  readonly #passes = new Map<PassId, LivePass>();
  readonly #host: PassHost;

  constructor(host: Omit<PassHost, "ended">) {
    this.#host = { ...host, ended: (pass) => void this.#passes.delete(pass.id) };
  }

  forward(request: ForwardRequest, model: (id: ModelId) => Model): void {
    const made = [...(request.capture ?? []).map((each) => each.tensor), request.logits, request.residual];
    this.#begin(request, made, () => new Pass(request, model(request.model), this.#host));
  }

  generate(request: GenerateRequest, model: (id: ModelId) => Model): void {
    const made = (request.capture ?? []).map((each) => each.tensor);
    this.#begin(request, made, () => new Generation(request, model(request.model), this.#host));
  }

  /** Fails: UnknownPass. */
  answer(id: PassId, replacement: TensorId | null): void {
    const pass = this.#passes.get(id);
    if (pass === undefined)
      throw new EngineError("UnknownPass", `Pass ${id} is not alive, so its hook can't be answered`, { pass: id });
    pass.answer(replacement);
  }

  cancel(id: PassId): void {
    this.#passes.get(id)?.cancel();
  }

  cancelOf(model: Model): void {
    for (const pass of [...this.#passes.values()]) if (pass.model === model) pass.cancel();
  }

  /** Ends the passes that run on a backend that is gone. */
  failOn(backend: Backend, error: unknown): void {
    for (const pass of [...this.#passes.values()]) if (pass.model.backend === backend) pass.fail(error);
  }

  ledger(): LedgerAnswer["passes"] {
    return [...this.#passes.values()].map(({ id, model, waitingAt }) => ({ pass: id, model: model.id, waitingAt }));
  }

  #begin(request: { pass: PassId }, made: readonly (TensorId | null | undefined)[], open: () => LivePass): void {
    if (this.#passes.has(request.pass)) {
      throw new EngineError("BadMessage", `Pass ${request.pass} is already running; give each pass its own number`);
    }
    let pass: LivePass;
    try {
      pass = open();
    } catch (error) {
      // What was posted behind it, on tensors that it was to make, fails with the same error.
      for (const tensor of made) if (tensor != null) this.#host.tensors.refuse(tensor, error);
      throw error;
    }
    this.#passes.set(request.pass, pass);
    pass.start();
  }
}
