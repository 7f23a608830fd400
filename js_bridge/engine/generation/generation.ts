// One generate request: the prompt's pass, then one pass for each new token over a key-value cache, with hooks,
// interventions and captures alive in all of them. Which token comes next, sampling.ts knows.

import type { GeneratedAnswer, GenerateRequest, PassId, TensorId } from "../../protocol.ts";
import type { Value } from "../backend.ts";
import { type NamedCache, offsetIn } from "../pass/cache_table.ts";
import { forward, WHOLE_PASS } from "../decoder/decoder.ts";
import { describeError, EngineError } from "../errors.ts";
import { bytesOfCache, bytesOfCaptures } from "../pass/forecast.ts";
import { checkRoomForNew, GenerationCaptures } from "./captures.ts";
import type { Model } from "../model.ts";
import { checkRoomFor, checkVocabulary, type LivePass, type PassHost, startWhenReady } from "../pass/pass.ts";
import { notWaiting, Run, SLICE } from "../pass/run.ts";
import { type Sample, sampleFrom, Sampler } from "./sampling.ts";
import type { Span } from "../pass/span.ts";
import { TextStream } from "./text_stream.ts";
import { Watch } from "../pass/watch.ts";

export class Generation implements LivePass {
  readonly id: PassId;
  readonly model: Model;
  readonly #request: GenerateRequest;
  readonly #host: PassHost;
  readonly #watch: Watch;
  readonly #sampler: Sampler;
  readonly #stop: ReadonlySet<number>;
  readonly #text: TextStream;
  readonly #cache: NamedCache;
  /** Positions before the prompt. */
  readonly #offset: number;
  /** Tokens that are generated at most. */
  readonly #limit: number;
  readonly #captured: GenerationCaptures;
  readonly #tokens: number[] = [];
  /** The tokens of the next pass, and where the first of them stands. */
  #next: readonly number[] | null;
  #computed: number;
  #run: Run | null = null;
  #isLooping = false;
  #milliseconds = 0;
  #isOver = false;

  /** Checks all that can be without the tensors, names what it will make, and takes its cache into its hands. */
  constructor(request: GenerateRequest, model: Model, host: PassHost) {
    const { tokens, maxTokens, sampling, stop, capture = [] } = request;
    const { tensors, caches } = host;
    this.id = request.pass;
    this.model = model;
    this.#request = request;
    this.#host = host;
    if (!Number.isInteger(maxTokens) || maxTokens < 1)
      throw new EngineError("BadParameter", `maxTokens ${maxTokens}: at least 1 token is generated`, {
        given: maxTokens,
      });
    const end = model.tokenizer?.eos ?? null;
    const stops = stop ?? (end === null ? [] : [end]);
    checkVocabulary([...tokens, ...stops], model);
    this.#stop = new Set(stops);
    this.#sampler = new Sampler(sampling);
    this.#watch = new Watch(request, model, tensors);
    this.#text = new TextStream(model.tokenizer, tokens);
    this.#next = tokens;
    const { L: layers, P: positions } = model.architecture.dimensions;
    const stretch = { first: 0, last: layers, embeds: true, unembeds: true };
    this.#cache =
      request.cache === undefined ? caches.createFor(this.id, model) : caches.claim(request.cache, this.id, model);
    try {
      this.#offset = offsetIn(this.#cache, undefined, stretch);
      this.#computed = this.#offset;
      const whole = this.#offset + tokens.length;
      checkRoomFor({ batch: 1, offset: this.#offset, positions: tokens.length, isPart: false }, model);
      checkRoomForNew(whole, positions, model.name);
      checkCache(this.#cache);
      this.#limit = Math.min(maxTokens, positions - whole);
      this.#captured = new GenerationCaptures(capture, this.id, tensors, (name) => this.#watch.lettersOf(name));
    } catch (error) {
      caches.giveBack(this.#cache);
      throw error;
    }
  }

  get waitingAt(): string | null {
    return this.#run?.waitingAt ?? null;
  }

  start(): void {
    startWhenReady(this, this.#watch.operands, this.#host, () => {
      if (this.#isOver) return;
      this.#check();
      this.#loop();
    });
  }

  answer(replacement: TensorId | null): void {
    if (this.#run === null) throw notWaiting(this.id);
    this.#run.answer(replacement);
  }

  cancel(): void {
    this.fail(
      new EngineError("PassCancelled", `Pass ${this.id} was cancelled after ${this.#tokens.length} tokens`, {
        pass: this.id,
        tokens: this.#tokens,
      }),
    );
  }

  /** Checks what depends on shapes: of the prompt's pass, of a pass for one token, and of all together. */
  #check(): void {
    const { tensors, caches } = this.#host;
    const length = this.#request.tokens.length;
    const whole = this.#spanOf(length + this.#limit - 1, false);
    this.#watch.checkShapes(this.#spanOf(length, true), tensors);
    if (this.#limit > 1)
      this.#watch.checkShapes({ batch: 1, offset: this.#offset + length, positions: 1, isPart: true }, tensors);
    this.#watch.checkPositions(whole);
    this.#watch.checkCaptures(whole);
    const { bytes } = bytesOfCaptures(this.model, this.#watch.captures, whole);
    const cached = bytesOfCache(this.model, whole, this.model.architecture.dimensions.L);
    const what = `Generation ${this.id} of up to ${this.#limit} tokens (${bytes} for ${this.#watch.captures.length} captures, ${cached} for the cache)`;
    tensors.checkRoom(bytes + cached, what, caches.bytes);
  }

  #spanOf(positions: number, isPart: boolean): Span {
    return { batch: 1, offset: this.#offset, positions, isPart };
  }

  /** Pass by pass, in a loop: a pass that does not have to wait ends before `#step` returns. */
  #loop(): void {
    if (this.#isLooping) return;
    const began = this.#host.now();
    this.#isLooping = true;
    try {
      while (this.#next !== null && !this.#isOver) {
        const ids = this.#next;
        this.#next = null;
        this.#step(ids);
        if (this.#next !== null && this.#host.now() - began > SLICE) return this.#host.later(() => this.#resume());
      }
    } finally {
      this.#isLooping = false;
    }
  }

  #resume(): void {
    if (this.#isOver) return;
    try {
      this.#loop();
    } catch (error) {
      this.fail(error);
    }
  }

  #step(ids: readonly number[]): void {
    const { backend, architecture, weights } = this.model;
    const span: Span = { batch: 1, offset: this.#computed, positions: ids.length, isPart: true };
    const steps = forward(backend, architecture, weights, {
      ...WHOLE_PASS,
      ids: Int32Array.from(ids),
      batch: 1,
      positions: ids.length,
      isOn: this.#watch.isOn,
      isWanted: this.#watch.isWanted,
      cache: this.#cache.values,
      logitPositions: [ids.length - 1],
    });
    const run = new Run(
      {
        pass: this.id,
        backend,
        steps,
        span,
        watch: this.#watch,
        capture: (name, value) => this.#capture(name, value, span),
        show: (value) => backend.retain(value),
        finished: (logits) => {
          this.#milliseconds += run.milliseconds;
          this.#run = null;
          this.#computed += ids.length;
          this.#choose(logits);
          this.#loop();
        },
        failed: (error) => this.fail(error),
      },
      this.#host,
    );
    this.#run = run;
    run.start();
  }

  #capture(name: string, value: Value, span: Span): null {
    this.#captured.add(name, value, span, this.model.backend);
    return null;
  }

  /** The next token, from the logits of the last position, which it takes over. [1 1 V] */
  #choose(logits: Value): void {
    const { backend } = this.model;
    const began = this.#host.now();
    let sample: Sample;
    try {
      sample = sampleFrom(backend, logits, this.#sampler);
    } finally {
      backend.release(logits);
    }
    const { token, logProbability } = sample;
    const index = this.#tokens.push(token) - 1;
    const position = this.#offset + this.#request.tokens.length + index;
    const reason = this.#reasonToEnd(token);
    const text = this.#text.add(token) + (reason === null ? "" : this.#text.end());
    this.#milliseconds += this.#host.now() - began;
    this.#host.post({
      kind: "token",
      id: this.#request.id,
      pass: this.id,
      index,
      position,
      token,
      text,
      logProbability,
    });
    if (reason === null) this.#next = [token];
    else this.#finish(reason);
  }

  #reasonToEnd(token: number): GeneratedAnswer["reason"] | null {
    if (this.#stop.has(token)) return "stop";
    if (this.#tokens.length < this.#limit) return null;
    return this.#limit === this.#request.maxTokens ? "length" : "positions";
  }

  #finish(reason: GeneratedAnswer["reason"]): void {
    const shapes = this.#captured.fulfil(this.#spanOf(this.#computed - this.#offset, false), this.model.backend);
    this.#end(null);
    this.#host.post({
      kind: "generated",
      id: this.#request.id,
      pass: this.id,
      tokens: this.#tokens,
      text: this.#text.text,
      reason,
      shapes,
      milliseconds: this.#milliseconds,
    });
  }

  fail(error: unknown): void {
    if (this.#isOver) return;
    this.#end(error);
    this.#host.post({ kind: "failed", id: this.#request.id, pass: this.id, error: describeError(error) });
  }

  #end(error: unknown): void {
    this.#isOver = true;
    this.#next = null;
    this.#run?.end();
    this.#run = null;
    const { tensors, caches } = this.#host;
    caches.giveBack(this.#cache);
    for (const tensor of this.#captured.tensors) if (tensor.state === "pending") tensors.poison(tensor, error);
    tensors.letGo(this.#watch.operands);
    this.#host.ended(this);
  }
}

/** Fails: CacheMismatch, for a cache that one row can't go on with. */
function checkCache({ id, values, padding }: NamedCache): void {
  if (values.batch !== null && values.batch !== 1 && values.length > 0)
    throw new EngineError("CacheMismatch", `Cache ${id} holds ${values.batch} rows; a generation goes on with one`, {
      cache: id,
    });
  if (padding !== null)
    throw new EngineError(
      "CacheMismatch",
      `Cache ${id} holds padding; a generation goes on with one row that has none`,
      { cache: id },
    );
}
