// What a pass in a lab is to its engine, be it a forward or a generation: it waits for the tensors of its interventions,
// works, and ends once. What it computes is its subclass's business.

import type { PassId, TensorId } from "../../protocol.ts";
import { describeError } from "../errors.ts";
import type { RemoteModel } from "./model.ts";
import { notWaiting } from "../pass/run.ts";
import { type RemoteHost, RemoteRun } from "./run.ts";
import type { Tensor } from "../tensors/tensor_table.ts";

export abstract class RemoteLivePass {
  readonly id: PassId;
  readonly model: RemoteModel;
  protected readonly host: RemoteHost;
  protected readonly run: RemoteRun;
  protected isOver = false;
  /** Held until the end. */
  protected abstract readonly operands: readonly Tensor[];
  readonly #requestId: number;
  readonly #ended: () => void;

  constructor(request: { id: number; pass: PassId }, model: RemoteModel, host: RemoteHost, ended: () => void) {
    this.id = request.pass;
    this.model = model;
    this.host = host;
    this.run = new RemoteRun(this.id, model, host);
    this.#requestId = request.id;
    this.#ended = ended;
  }

  /** Up to its answer; what it throws fails the pass. */
  protected abstract work(): Promise<void>;

  /** The tensors that were promised; those that are not filled at the end are poisoned. */
  protected abstract promised(): readonly (Tensor | null)[];

  get waitingAt(): string | null {
    return this.run.waitingAt;
  }

  start(): void {
    const { tensors } = this.host;
    tensors.hold(this.operands);
    tensors.whenSettled(this.operands, () => {
      if (!this.isOver) this.work().catch((error: unknown) => this.fail(error));
    });
  }

  /** Fails: UnknownPass when it is not waiting. */
  answer(replacement: TensorId | null): void {
    if (this.isOver) throw notWaiting(this.id);
    this.run.answer(replacement);
  }

  fail(error: unknown): void {
    if (this.isOver) return;
    this.run.end(error);
    this.end(error);
    this.host.post({ kind: "failed", id: this.#requestId, pass: this.id, error: describeError(error) });
  }

  protected end(error: unknown): void {
    this.isOver = true;
    const { tensors } = this.host;
    for (const tensor of this.promised()) if (tensor?.state === "pending") tensors.poison(tensor, error);
    tensors.letGo(this.operands);
    this.#ended();
  }
}
