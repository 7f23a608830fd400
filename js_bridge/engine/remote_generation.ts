// One generate request to a model of a lab: a pass for the prompt, then one for each new token, over keys and values
// that the lab keeps for it. Hooks, interventions and captures are alive in all of them; the tokens are chosen here, by
// the same sampler as for a model in the page.

import type { GeneratedAnswer, GenerateRequest, PassId, Shape, TensorId } from "../protocol.ts";
import { CapturedRows } from "./captured_rows.ts";
import { describeError, EngineError } from "./errors.ts";
import { operandOf } from "./intervention.ts";
import type { RemoteTensor } from "./remote_lab.ts";
import { answerRemote, hookOf, type RemoteModel } from "./remote_model.ts";
import type { RemoteLivePass } from "./remote_pass.ts";
import { notWaiting, remoteInterventions, type RemoteHost, RemoteRun } from "./remote_run.ts";
import { Sampler } from "./sampling.ts";
import type { Span } from "./span.ts";
import type { Tensor } from "./tensor_table.ts";

export class RemoteGeneration implements RemoteLivePass {
  readonly id: PassId;
  readonly model: RemoteModel;
  readonly #request: GenerateRequest;
  readonly #host: RemoteHost;
  readonly #ended: () => void;
  readonly #run: RemoteRun;
  readonly #sampler: Sampler;
  readonly #stop: ReadonlySet<number>;
  readonly #captured: readonly { tensor: Tensor; rows: CapturedRows; name: string }[];
  readonly #operands: readonly Tensor[];
  readonly #tokens: number[] = [];
  #text = "";
  #past: string | null = null;
  #isOver = false;

  /** Fails: UnknownHook, LabRefused, BadParameter, and what is wrong with the names of tensors. */
  constructor(request: GenerateRequest, model: RemoteModel, host: RemoteHost, ended: () => void) {
    const { tensors } = host;
    const { capture = [], hooks = [], interventions = [], stop, cache, maxTokens, tokens } = request;
    this.id = request.pass;
    this.model = model;
    this.#request = request;
    this.#host = host;
    this.#ended = ended;
    if (cache !== undefined)
      throw new EngineError("LabRefused", "A lab goes on with no cache of the image; give the whole text instead");
    if (!Number.isInteger(maxTokens) || maxTokens < 1)
      throw new EngineError("BadParameter", `maxTokens ${maxTokens}: at least 1 token is generated`, { given: maxTokens });
    const { P: positions } = model.dimensions;
    if (tokens.length >= positions)
      throw new EngineError(
        "TooManyTokens",
        `${tokens.length} positions are taken before the first new token; ${model.name} has ${positions}; shorten the text by at least one token`,
        { given: tokens.length, allowed: positions - 1 },
      );
    this.#run = new RemoteRun(this.id, model, host);
    this.#sampler = new Sampler(request.sampling);
    this.#stop = new Set(stop ?? (model.eos === null ? [] : [model.eos]));
    for (const name of [...hooks, ...interventions.map((each) => each.hook)]) hookOf(model, name);
    this.#operands = interventions
      .map(operandOf)
      .filter((id) => id !== null)
      .map((id) => tensors.at(id));
    this.#captured = capture.map(({ name, tensor, positions: wanted }) => {
      const { shape } = hookOf(model, name);
      return {
        tensor: tensors.promise(tensor, `pass ${this.id}, ${name}`),
        rows: new CapturedRows(name, shape, wanted ?? null),
        name,
      };
    });
  }

  get waitingAt(): string | null {
    return this.#run.waitingAt;
  }

  start(): void {
    const { tensors } = this.#host;
    tensors.hold(this.#operands);
    tensors.whenSettled(this.#operands, () => {
      if (!this.#isOver) this.#work().catch((error: unknown) => this.fail(error));
    });
  }

  answer(replacement: TensorId | null): void {
    if (this.#isOver) throw notWaiting(this.id);
    this.#run.answer(replacement);
  }

  fail(error: unknown): void {
    if (this.#isOver) return;
    this.#run.end(error);
    this.#end(error);
    this.#host.post({ kind: "failed", id: this.#request.id, pass: this.id, error: describeError(error) });
  }

  async #work(): Promise<void> {
    const { tokens, maxTokens } = this.#request;
    const limit = Math.min(maxTokens, this.model.dimensions["P"] - tokens.length);
    let next = tokens;
    let computed = 0;
    for (;;) {
      const logits = await this.#step(next, computed);
      if (this.#isOver) return;
      computed += next.length;
      const { token, logProbability } = this.#sampler.next(logits.numbers);
      const index = this.#tokens.push(token) - 1;
      const text = await this.#added();
      if (this.#isOver) return;
      const { id, pass } = this.#request;
      this.#host.post({ kind: "token", id, pass, index, position: computed, token, text, logProbability });
      if (this.#stop.has(token)) return this.#finish("stop", computed);
      if (this.#tokens.length === limit) return this.#finish(limit === maxTokens ? "length" : "positions", computed);
      next = [token];
    }
  }

  /** One pass over the lab's cache; the logits of its last position. */
  async #step(tokens: readonly number[], offset: number): Promise<RemoteTensor> {
    const { hooks = [], interventions = [] } = this.#request;
    const block = await this.#run.run(
      {
        tokens: [tokens],
        capture: [...new Set(this.#captured.map((each) => each.name))],
        hooks,
        interventions: remoteInterventions(interventions, this.#host.tensors),
        logits: true,
        last_only: true,
        keep_past: true,
        ...(this.#past === null ? {} : { past: this.#past }),
      },
      offset,
    );
    this.#past = String(block.head["past"]);
    const names = block.head["names"] as string[];
    const span: Span = { batch: 1, offset, positions: tokens.length, isPart: true };
    for (const { name, rows } of this.#captured) {
      const home = this.#host.home();
      const { shape, numbers } = block.tensors.get(String(names.indexOf(name))) as RemoteTensor;
      const value = home.upload(numbers, [...shape]);
      try {
        rows.add(value, span, home);
      } finally {
        home.release(value);
      }
    }
    return block.tensors.get("logits") as RemoteTensor;
  }

  /** What the newest token adds to the text; empty while a character is not complete. */
  async #added(): Promise<string> {
    if (this.model.eos === null && this.#stop.size === 0) return "";
    const { tokens } = this.#request;
    const before = await this.#decode(tokens);
    const after = await this.#decode([...tokens, ...this.#tokens]);
    if (!after.startsWith(before) || after.endsWith("\uFFFD")) return "";
    const whole = after.slice(before.length);
    const added = whole.slice(this.#text.length);
    this.#text = whole;
    return added;
  }

  async #decode(ids: readonly number[]): Promise<string> {
    const answer = await answerRemote(this.model, { kind: "decode", id: 0, model: this.model.id, ids });
    return (answer as { text: string }).text;
  }

  #finish(reason: GeneratedAnswer["reason"], computed: number): void {
    const { tensors } = this.#host;
    const whole: Span = { batch: 1, offset: 0, positions: computed, isPart: false };
    const shapes: { tensor: TensorId; shape: Shape }[] = [];
    for (const { tensor, rows } of this.#captured) {
      const home = this.#host.home();
      try {
        const { numbers, shape } = rows.joined(whole);
        shapes.push({ tensor: tensor.id, shape });
        tensors.fulfil(tensor, home.upload(numbers, shape), home);
      } catch (error) {
        shapes.push({ tensor: tensor.id, shape: [] });
        tensors.poison(tensor, error);
      }
    }
    this.#end(null);
    this.#host.post({
      kind: "generated",
      id: this.#request.id,
      pass: this.id,
      tokens: this.#tokens,
      text: this.#text,
      reason,
      shapes,
      milliseconds: this.#run.milliseconds,
    });
  }

  #end(error: unknown): void {
    this.#isOver = true;
    const { tensors } = this.#host;
    for (const { tensor } of this.#captured) if (tensor.state === "pending") tensors.poison(tensor, error);
    tensors.letGo(this.#operands);
    if (this.#past !== null) void this.model.lab.json("DELETE", `/v1/pasts/${this.#past}`).catch(() => undefined);
    this.#ended();
  }
}
