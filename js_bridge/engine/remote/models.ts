// The models of labs that are open beside the engine's own, and their passes: takes the messages that are about them.

import type { Answer, Attachment, AskRequest, LedgerAnswer, LoadRequest, ModelId, PassId, Request } from "../../protocol.ts";
import { describeError, EngineError } from "../errors.ts";
import { type Ask, Lab, LAB_SCHEME } from "./lab.ts";
import { answerRemote, forecastRemote, openRemoteModel, type RemoteModel } from "./model.ts";
import { RemoteGeneration } from "./generation.ts";
import type { RemoteLivePass } from "./live_pass.ts";
import { RemotePass } from "./pass.ts";
import type { RemoteHost } from "./run.ts";

export interface RemoteOptions extends Omit<RemoteHost, "post"> {
  post(message: Answer, attachments?: Attachment[]): void;
  /** Null where the host reaches no network. */
  readonly ask: Ask | null;
  /** Address of the host's own lab. */
  readonly lab: string | null;
  nextModel(): ModelId;
}

export class RemoteModels {
  readonly #options: RemoteOptions;
  readonly #models = new Map<ModelId, RemoteModel>();
  readonly #passes = new Map<PassId, RemoteLivePass>();

  constructor(options: RemoteOptions) {
    this.#options = options;
  }

  /** Whether a message is about a lab; then it is not for the engine's own models. */
  takes(message: Request): boolean {
    if (message.kind === "ask") return true;
    if (message.kind === "load") return message.bundle.startsWith(LAB_SCHEME);
    if (message.kind === "hookAnswer" || message.kind === "cancel") return this.#passes.has(message.pass);
    return "model" in message && this.#models.has(message.model);
  }

  /** Fails: what the lab or this engine refuses; one that is sent later is in the promise. */
  handle(message: Request, attachments: readonly Attachment[]): Promise<void> | undefined {
    switch (message.kind) {
      case "ask":
        return this.#answerAsk(message, attachments[0]);
      case "load":
        return this.#load(message);
      case "hookAnswer":
        this.#passes.get(message.pass)?.answer(message.replacement);
        return undefined;
      case "cancel":
        this.#passes.get(message.pass)?.fail(cancelled(message.pass));
        return undefined;
      case "forward":
        this.#begin(
          message,
          [...(message.capture ?? []).map((each) => each.tensor), message.logits, message.residual],
          (model, ended) => new RemotePass(message, model, this.#options, ended),
        );
        return undefined;
      case "generate":
        this.#begin(
          message,
          (message.capture ?? []).map((each) => each.tensor),
          (model, ended) => new RemoteGeneration(message, model, this.#options, ended),
        );
        return undefined;
      case "unload":
        this.#unload(message.model);
        this.#options.post({ kind: "unloaded", id: message.id, model: message.model });
        return undefined;
      case "forecast": {
        const { bytes, budget } = this.#options.tensors;
        this.#options.post(forecastRemote(this.#model(message.model), message, bytes, budget));
        return undefined;
      }
      default:
        return this.#answer(message);
    }
  }

  ledger(): LedgerAnswer["passes"] {
    return [...this.#passes.values()].map(({ id, model, waitingAt }) => ({ pass: id, model: model.id, waitingAt }));
  }

  #model(id: ModelId): RemoteModel {
    return this.#models.get(id) as RemoteModel;
  }

  async #answer(message: Request): Promise<void> {
    const answer = await answerRemote(this.#model((message as { model: ModelId }).model), message);
    if (answer !== null) this.#options.post(answer);
  }

  async #load(request: LoadRequest): Promise<void> {
    checkWays(request);
    const { nextModel, lab, post } = this.#options;
    const model = await openRemoteModel(nextModel(), request.bundle, lab, this.#asker());
    this.#models.set(model.id, model);
    post(model.loaded(request.id));
  }

  /** What the lab keeps of it stays there: other clients use it too. */
  #unload(id: ModelId): void {
    for (const pass of [...this.#passes.values()]) if (pass.model.id === id) pass.fail(cancelled(pass.id));
    this.#models.delete(id);
  }

  async #answerAsk({ id, lab, method, path, accept }: AskRequest, body: Attachment | undefined): Promise<void> {
    const base = lab ?? this.#options.lab;
    if (base === null) throw new EngineError("FetchFailed", `${path}: no lab is named, and this host has none of its own`);
    const bytes = body === undefined ? null : (body as Uint8Array);
    const answer = await new Lab(base, this.#asker()).raw(method, path, bytes, accept ?? "application/json");
    this.#options.post({ kind: "asked", id, status: answer.status }, [answer.bytes]);
  }

  #asker(): Ask {
    const { ask } = this.#options;
    if (ask === null) throw new EngineError("FetchFailed", "This host reaches no network, so it can ask no lab");
    return ask;
  }

  #begin(
    request: { id: number; pass: PassId; model: ModelId },
    made: readonly (number | null | undefined)[],
    open: (model: RemoteModel, ended: () => void) => RemoteLivePass,
  ): void {
    let pass: RemoteLivePass;
    try {
      pass = open(this.#model(request.model), () => void this.#passes.delete(request.pass));
    } catch (error) {
      // What was posted behind it, on tensors that it was to make, fails with the same error.
      for (const tensor of made) if (tensor != null) this.#options.tensors.refuse(tensor, error);
      this.#options.post({ kind: "failed", id: request.id, pass: request.pass, error: describeError(error) });
      return;
    }
    this.#passes.set(request.pass, pass);
    pass.start();
  }
}

/** Fails: LabRefused for ways to load that a lab has no say in: it was told all that when it started. */
function checkWays({ bundle, backend, dtype = "stored", revision, processing = {} }: LoadRequest): void {
  const asked = [
    ...(backend === "auto" ? [] : [`backend ${backend}`]),
    ...(dtype === "stored" ? [] : [`dtype ${dtype}`]),
    ...(revision === undefined ? [] : [`revision ${revision}`]),
    ...Object.entries(processing).flatMap(([way, isOn]) => (isOn ? [way] : [])),
  ];
  if (asked.length === 0) return;
  const name = bundle.slice(bundle.lastIndexOf("@") + 1); // without a token
  throw new EngineError(
    "LabRefused",
    `${name} was asked for with ${asked.join(", ")}; a lab loads a model as it was told when it started: ask for it plainly`,
    { status: null, code: null },
  );
}

function cancelled(pass: PassId): EngineError {
  return new EngineError("PassCancelled", `Pass ${pass} was cancelled`, { pass });
}
