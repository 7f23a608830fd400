// One generate request to a model of a lab: a pass for the prompt, then one for each new token, over keys and values
// that the lab keeps for it. Hooks, interventions and captures are alive in all of them; the tokens are chosen here, by
// the same sampler as for a model in the page.

import type { GeneratedAnswer, GenerateRequest } from "../../protocol.ts";
import { EngineError } from "../errors.ts";
import { checkRoomForNew, GenerationCaptures } from "../generation/captures.ts";
import { operandOf } from "../pass/intervention.ts";
import type { RemoteTensor } from "./lab.ts";
import { RemoteLivePass } from "./live_pass.ts";
import { answerRemote, hookOf, type RemoteModel } from "./model.ts";
import { remoteInterventions, type RemoteHost } from "./run.ts";
import { Sampler } from "../generation/sampling.ts";
import { TokenText } from "../generation/text_stream.ts";
import type { Span } from "../pass/span.ts";
import type { Tensor } from "../tensors/tensor_table.ts";

export class RemoteGeneration extends RemoteLivePass {
  protected readonly operands: readonly Tensor[];
  readonly #request: GenerateRequest;
  readonly #sampler: Sampler;
  readonly #stop: ReadonlySet<number>;
  readonly #captured: GenerationCaptures;
  readonly #tokens: number[] = [];
  readonly #text: TokenText;
  #past: string | null = null;

  /** Fails: UnknownHook, LabRefused, BadParameter, TooManyTokens, and what is wrong with the names of tensors. */
  constructor(request: GenerateRequest, model: RemoteModel, host: RemoteHost, ended: () => void) {
    super(request, model, host, ended);
    const { tensors } = host;
    const { capture = [], hooks = [], interventions = [], stop, cache, maxTokens, tokens } = request;
    this.#request = request;
    if (cache !== undefined)
      throw new EngineError("LabRefused", "A lab goes on with no cache of the image; give the whole text instead");
    if (!Number.isInteger(maxTokens) || maxTokens < 1)
      throw new EngineError("BadParameter", `maxTokens ${maxTokens}: at least 1 token is generated`, { given: maxTokens });
    checkRoomForNew(tokens.length, model.dimensions["P"], model.name);
    this.#text = new TokenText(tokens);
    this.#sampler = new Sampler(request.sampling);
    this.#stop = new Set(stop ?? (model.eos === null ? [] : [model.eos]));
    for (const name of [...hooks, ...interventions.map((each) => each.hook)]) hookOf(model, name);
    this.operands = interventions
      .map(operandOf)
      .filter((id) => id !== null)
      .map((id) => tensors.at(id));
    this.#captured = new GenerationCaptures(capture, this.id, tensors, (name) => hookOf(model, name).shape);
  }

  protected async work(): Promise<void> {
    const { tokens, maxTokens } = this.#request;
    const limit = Math.min(maxTokens, this.model.dimensions["P"] - tokens.length);
    let next = tokens;
    let computed = 0;
    for (;;) {
      const logits = await this.#step(next, computed);
      if (this.isOver) return;
      computed += next.length;
      const { token, logProbability } = this.#sampler.next(logits.numbers);
      const index = this.#tokens.push(token) - 1;
      const reason = this.#reasonToEnd(token, limit);
      const text = await this.#added(token, reason !== null);
      if (this.isOver) return;
      const { id, pass } = this.#request;
      this.host.post({ kind: "token", id, pass, index, position: computed, token, text, logProbability });
      if (reason !== null) return this.#finish(reason, computed);
      next = [token];
    }
  }

  #reasonToEnd(token: number, limit: number): GeneratedAnswer["reason"] | null {
    if (this.#stop.has(token)) return "stop";
    if (this.#tokens.length < limit) return null;
    return limit === this.#request.maxTokens ? "length" : "positions";
  }

  /** One pass over the lab's cache; the logits of its last position. */
  async #step(tokens: readonly number[], offset: number): Promise<RemoteTensor> {
    const { hooks = [], interventions = [] } = this.#request;
    const block = await this.run.run(
      {
        tokens: [tokens],
        capture: this.#captured.names,
        hooks,
        interventions: remoteInterventions(interventions, this.host.tensors),
        seconds: this.#request.hookSeconds,
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
    for (const name of this.#captured.names) {
      const home = this.host.home();
      const { shape, numbers } = block.tensors.get(String(names.indexOf(name))) as RemoteTensor;
      const value = home.upload(numbers, [...shape]);
      try {
        this.#captured.add(name, value, span, home);
      } finally {
        home.release(value);
      }
    }
    return block.tensors.get("logits") as RemoteTensor;
  }

  /** What the newest token adds to the text. */
  async #added(token: number, isEnd: boolean): Promise<string> {
    this.#text.take(token);
    const question = this.#text.question();
    if (!this.model.hasTokenizer || question === null) return "";
    const [before, after] = await Promise.all([this.#decode(question.before), this.#decode(question.after)]);
    return this.#text.tell(before, after, isEnd);
  }

  async #decode(ids: readonly number[]): Promise<string> {
    const answer = await answerRemote(this.model, { kind: "decode", id: 0, model: this.model.id, ids });
    return (answer as { text: string }).text;
  }

  #finish(reason: GeneratedAnswer["reason"], computed: number): void {
    const whole: Span = { batch: 1, offset: 0, positions: computed, isPart: false };
    const shapes = this.#captured.fulfil(whole, this.host.home());
    this.end(null);
    this.host.post({
      kind: "generated",
      id: this.#request.id,
      pass: this.id,
      tokens: this.#tokens,
      text: this.#text.text,
      reason,
      shapes,
      milliseconds: this.run.milliseconds,
    });
  }

  protected promised(): readonly Tensor[] {
    return this.#captured.tensors;
  }

  protected override end(error: unknown): void {
    super.end(error);
    if (this.#past !== null) void this.model.lab.json("DELETE", `/v1/pasts/${this.#past}`).catch(() => undefined);
  }
}
