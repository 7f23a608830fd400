// One forward request: checks it wholly before anything is computed, runs the decoder over its stretch of layers and
// positions, and hands out what it was to keep. How a run goes from hook point to hook point, run.ts knows.

import type { ForwardRequest, Padding, PassId, Shape, TensorId } from "../../protocol.ts";
import type { Backend, Value } from "../backend.ts";
import { type CacheTable, cutBack, type NamedCache, offsetIn } from "./cache_table.ts";
import { forward } from "../decoder/decoder.ts";
import { describeError, EngineError } from "../errors.ts";
import { bytesOfCache, bytesOfCaptures } from "./forecast.ts";
import type { Model } from "../model.ts";
import { cachedAfter, cachedWithin, paddingOf, realPositions } from "./padding.ts";
import { notWaiting, Run, type RunHost } from "./run.ts";
import { elementsOf, showShape } from "../tensors/shape.ts";
import { axesOf, placesOf, type Span } from "./span.ts";
import type { Tensor } from "../tensors/tensor_table.ts";
import { type Stretch, Watch } from "./watch.ts";

/** What a pass is to its engine: a forward or a generation. */
export interface LivePass {
  readonly id: PassId;
  readonly model: Model;
  readonly waitingAt: string | null;
  start(): void;
  /** Fails: UnknownPass when it is not waiting. */
  answer(replacement: TensorId | null): void;
  cancel(): void;
  /** Ends it with an error: frees its scratch, poisons what it has not reached, answers `failed`. */
  fail(error: unknown): void;
}

/** A backend that remembers what is computed in it, so that gradients can be taken. */
export interface Taping {
  readonly backend: Backend;
  /** The same value, as one that gradients can be asked for; owned by the caller. */
  watch(value: Value): Value;
  /** The same of some places along an axis of a watched value. */
  watchPart(whole: Value, axis: number, places: Int32Array): Value;
}

/** What a pass needs of its engine. */
export interface PassHost extends RunHost {
  readonly caches: CacheTable;
  ended(pass: LivePass): void;
  /** Does something once the model's backend is alive: at once, unless it was lost (recovery.ts). */
  whenAlive(model: Model, action: () => void, failed: (error: unknown) => void): void;
  /** `real` tells which of B*T positions are no padding; null: all. */
  tape(pass: PassId, model: Model, real: readonly boolean[] | null): Taping;
}

/** Begins once the tensors that a pass rests on are computed, and held; what `begin` throws fails the pass. */
export function startWhenReady(pass: LivePass, needed: readonly Tensor[], host: PassHost, begin: () => void): void {
  const { tensors } = host;
  const fail = (error: unknown): void => pass.fail(error);
  const attempt = (): void => {
    try {
      begin();
    } catch (error) {
      fail(error);
    }
  };
  tensors.hold(needed);
  tensors.whenSettled(needed, () => host.whenAlive(pass.model, attempt, fail));
}

/** Where the value of a hook point goes. */
interface Slot {
  readonly tensor: Tensor;
  readonly axis: number;
  /** Along the axis of positions; null: all. */
  readonly places: Int32Array | null;
}

/** What is known once the tensors that the request names are computed. */
interface Plan {
  readonly span: Span;
  readonly residual: Value | null;
  readonly logitPlaces: readonly number[] | null;
  readonly padding: Padding | null;
}

export class Pass implements LivePass {
  readonly id: PassId;
  readonly model: Model;
  readonly #request: ForwardRequest;
  readonly #host: PassHost;
  readonly #watch: Watch;
  readonly #stretch: Stretch;
  readonly #source: Tensor | null;
  readonly #cache: NamedCache | null;
  /** Cached positions that stay. */
  readonly #offset: number;
  readonly #captured: readonly Tensor[];
  readonly #logits: Tensor | null;
  readonly #residual: Tensor | null;
  readonly #slots = new Map<string, Slot[]>();
  readonly #shapes = new Map<Tensor, Shape>();
  #run: Run | null = null;
  #isOver = false;

  /** Checks all that can be without the tensors, names what it will make, and takes its cache into its hands. */
  constructor(request: ForwardRequest, model: Model, host: PassHost) {
    const { tensors, caches } = host;
    this.id = request.pass;
    this.model = model;
    this.#request = request;
    this.#host = host;
    checkRows(request, model);
    this.#watch = new Watch(request, model, tensors);
    this.#stretch = stretchOf(request, this.#watch, model);
    this.#watch.checkReached(this.#stretch);
    this.#source = request.start === undefined ? null : tensors.at(request.start.tensor);
    this.#cache = request.cache === undefined ? null : caches.claim(request.cache, this.id, model);
    const promised: TensorId[] = [];
    const promise = (id: TensorId | null | undefined, what: string): Tensor | null => {
      if (id == null) return null;
      const tensor = tensors.promise(id, `pass ${this.id}, ${what}`);
      promised.push(id);
      return tensor;
    };
    try {
      this.#offset = this.#cache === null ? 0 : offsetIn(this.#cache, request.keep, this.#stretch);
      this.#captured = this.#watch.captures.map(({ name, tensor }) => promise(tensor, name) as Tensor);
      this.#logits = promise(request.logits, "logits");
      this.#residual = promise(request.residual, "residual");
    } catch (error) {
      tensors.release(promised);
      if (this.#cache !== null) caches.giveBack(this.#cache);
      throw error;
    }
  }

  get waitingAt(): string | null {
    return this.#run?.waitingAt ?? null;
  }

  /** Starts once the tensors that it rests on are computed; they are held until it ends. */
  start(): void {
    startWhenReady(this, this.#needed(), this.#host, () => {
      if (!this.#isOver) this.#begin(this.#plan());
    });
  }

  answer(replacement: TensorId | null): void {
    if (this.#run === null) throw notWaiting(this.id);
    this.#run.answer(replacement);
  }

  cancel(): void {
    this.fail(new EngineError("PassCancelled", `Pass ${this.id} was cancelled`, { pass: this.id }));
  }

  #needed(): Tensor[] {
    return [...this.#watch.operands, ...(this.#source === null ? [] : [this.#source])];
  }

  /** Checks what depends on shapes. */
  #plan(): Plan {
    const { backend } = this.model;
    const { tokens, logitPositions } = this.#request;
    const { tensors } = this.#host;
    const residual = this.#source === null ? null : tensors.valueOf(this.#source, backend);
    if (residual !== null) checkResidual(residual.shape, tokens, this.model);
    const [batch, positions] = residual?.shape ?? [(tokens ?? []).length, (tokens ?? [[]])[0].length];
    const span: Span = { batch, offset: this.#offset, positions, isPart: false };
    checkRoomFor(span, this.model);
    checkBatch(this.#cache, span);
    if (logitPositions?.length === 0)
      throw new EngineError("BadParameter", "logitPositions is empty: name at least one position, or leave it out");
    const logitPlaces = logitPositions === undefined ? null : placesOf(logitPositions, span, "logitPositions");
    this.#watch.checkShapes(span, tensors);
    this.#watch.checkCaptures(span);
    this.#place(span);
    this.#checkBytes(span, logitPlaces?.length ?? positions);
    const padding = paddingOf(this.#request.padding, cachedWithin(this.#cache?.padding ?? null, span.offset), span);
    return { span, residual, logitPlaces, padding };
  }

  /** Where each captured value goes. */
  #place(span: Span): void {
    for (const [at, { name, positions }] of this.#watch.captures.entries()) {
      const { position: axis } = axesOf(this.#watch.lettersOf(name));
      const places = positions === undefined ? null : Int32Array.from(placesOf(positions, span, name));
      this.#slots.set(name, [...(this.#slots.get(name) ?? []), { tensor: this.#captured[at], axis, places }]);
    }
  }

  #checkBytes(span: Span, logitCount: number): void {
    const { tensors, caches } = this.#host;
    const { D: width, V: vocabulary } = this.model.architecture.dimensions;
    const { first, last } = this.#stretch;
    const results =
      4 *
      span.batch *
      ((this.#logits === null ? 0 : logitCount * vocabulary) + (this.#residual === null ? 0 : span.positions * width));
    const { bytes } = bytesOfCaptures(this.model, this.#watch.captures, span);
    const cached = this.#cache === null ? 0 : bytesOfCache(this.model, span, last - first);
    const parts = [
      `${bytes} for ${this.#watch.captures.length} captures`,
      `${results} for logits and residual stream`,
      ...(cached === 0 ? [] : [`${cached} for the cache`]),
    ];
    tensors.checkRoom(bytes + results + cached, `Pass ${this.id} (${parts.join(", ")})`, caches.bytes);
  }

  #begin({ span, residual, logitPlaces, padding }: Plan): void {
    const { architecture, weights } = this.model;
    const { batch, positions, offset } = span;
    const { first, last, unembeds } = this.#stretch;
    if (this.#cache !== null) cutBack(this.#cache, offset);
    const taping =
      this.#request.tape === true ? this.#host.tape(this.id, this.model, realPositions(padding, span)) : null;
    const backend = taping?.backend ?? this.model.backend;
    const steps = forward(backend, architecture, weights, {
      ids: Int32Array.from(this.#request.tokens?.flat() ?? new Int32Array(batch * positions)),
      batch,
      positions,
      isOn: this.#watch.isOn,
      isWanted: this.#watch.isWanted,
      padding,
      start: residual === null ? null : { layer: first, residual },
      stop: unembeds ? null : last,
      cache: this.#cache?.values ?? null,
      logitPositions: logitPlaces,
    });
    this.#run = new Run(
      {
        pass: this.id,
        backend,
        steps,
        span,
        watch: this.#watch,
        capture: (name, value) => this.#capture(backend, taping, name, value),
        show: (value) => taping?.watch(value) ?? backend.retain(value),
        finished: (result) => {
          if (this.#cache !== null) this.#cache.padding = cachedAfter(padding, this.#cache.padding, span);
          this.#finish(backend, result);
        },
        failed: (error) => this.fail(error),
      },
      this.#host,
    );
    this.#run.start();
  }

  #capture(backend: Backend, taping: Taping | null, name: string, value: Value): Value | null {
    const slots = this.#slots.get(name);
    if (slots === undefined) return null;
    const watched = taping?.watch(value) ?? null;
    const whole = watched ?? value;
    for (const { tensor, axis, places } of slots) {
      const kept =
        places === null
          ? backend.retain(whole)
          : (taping?.watchPart(whole, axis, places) ?? backend.take(whole, axis, places));
      this.#fulfil(tensor, kept, backend);
    }
    return watched;
  }

  #fulfil(tensor: Tensor, value: Value, backend: Backend): void {
    this.#shapes.set(tensor, value.shape);
    this.#host.tensors.fulfil(tensor, value, backend);
  }

  #finish(backend: Backend, result: Value): void {
    const wanted = this.#logits ?? this.#residual;
    if (wanted === null) backend.release(result);
    else this.#fulfil(wanted, result, backend);
    const shapes = this.#results().map((tensor) => ({ tensor: tensor.id, shape: this.#shapes.get(tensor) as Shape }));
    const milliseconds = this.#run?.milliseconds ?? 0;
    this.#end(null);
    this.#host.post({ kind: "done", id: this.#request.id, pass: this.id, shapes, milliseconds });
  }

  /** Ends the pass: frees its scratch, poisons what it has not reached, answers `failed`. */
  fail(error: unknown): void {
    if (this.#isOver) return;
    this.#end(error);
    this.#host.post({ kind: "failed", id: this.#request.id, pass: this.id, error: describeError(error) });
  }

  #end(error: unknown): void {
    this.#isOver = true;
    this.#run?.end();
    this.#run = null;
    const { tensors, caches } = this.#host;
    if (this.#cache !== null) caches.giveBack(this.#cache);
    for (const tensor of this.#results()) if (tensor.state === "pending") tensors.poison(tensor, error);
    tensors.letGo(this.#needed());
    this.#host.ended(this);
  }

  #results(): Tensor[] {
    return [...this.#captured, ...[this.#logits, this.#residual].filter((each) => each !== null)];
  }
}

/** The layers that a request runs: what nobody asked for is not computed. Fails: BadMessage, BadParameter. */
function stretchOf(request: ForwardRequest, watch: Watch, model: Model): Stretch {
  const { L: layers } = model.architecture.dimensions;
  const { start, stop, logits, residual, cache, keep, tape } = request;
  const first = start?.layer ?? 0;
  if (!Number.isInteger(first) || first < 0 || first > layers)
    throw new EngineError(
      "BadParameter",
      `start at layer ${first}: ${model.name} has layers 0 … ${layers - 1}, and ${layers} is the final norm`,
      {
        given: first,
        allowed: layers,
      },
    );
  if (stop !== undefined && (!Number.isInteger(stop) || stop < first || stop > layers))
    throw new EngineError(
      "BadParameter",
      `stop before layer ${stop}: it must lie in ${first} … ${layers}; ${layers} is the final norm`,
      {
        given: stop,
        allowed: layers,
      },
    );
  if (stop !== undefined && logits != null)
    throw new EngineError(
      "BadMessage",
      `The pass stops before layer ${stop}, so it has no logits; ask for "residual", or leave stop out`,
    );
  if (stop === undefined && residual != null)
    throw new EngineError("BadMessage", 'A residual stream is asked for without "stop": say before which layer it is');
  if (cache === undefined && keep !== undefined)
    throw new EngineError("BadMessage", `keep ${keep} without a cache: name the cache whose positions are kept`);
  if (cache !== undefined && tape === true)
    throw new EngineError(
      "BadMessage",
      "A taped pass with a cache: gradients can't go back through cached positions; leave one of them out",
    );
  if (cache !== undefined && first === (stop ?? layers))
    throw new EngineError(
      "BadMessage",
      "A pass over no layers with a cache: there is nothing to put into it; leave the cache out",
    );
  const wanted = logits != null ? null : watch.lastWanted();
  const needed = stop ?? (wanted !== null && cache !== undefined ? layers : wanted); // a cache is filled in all layers
  const last = needed === null ? layers : Math.max(first, needed);
  return { first, last, embeds: start === undefined, unembeds: needed === null };
}

/** Fails: RaggedBatch, TokenOutOfVocabulary. */
function checkRows({ tokens = [], start }: ForwardRequest, model: Model): void {
  if (tokens.length === 0 && start !== undefined) return;
  const lengths = tokens.map((row) => row.length);
  if (lengths.length === 0 || lengths.some((length) => length !== lengths[0])) {
    throw new EngineError(
      "RaggedBatch",
      `A batch whose rows have ${lengths.length === 0 ? "no" : lengths.join(", ")} tokens: there must be at least one row, all equally long; fill the shorter ones up and say so with "padding"`,
      { lengths },
    );
  }
  checkVocabulary(tokens.flat(), model);
}

/** Fails: TokenOutOfVocabulary. */
export function checkVocabulary(ids: readonly number[], model: Model): void {
  const { V: vocabulary } = model.architecture.dimensions;
  const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
  if (wrong === undefined) return;
  throw new EngineError(
    "TokenOutOfVocabulary",
    `Token id ${wrong} is outside the vocabulary of ${model.name}, 0 … ${vocabulary - 1}`,
    { given: wrong, allowed: vocabulary - 1 },
  );
}

/** Fails: TooManyTokens. */
export function checkRoomFor({ offset, positions }: Span, model: Model): void {
  const { P: allowed } = model.architecture.dimensions;
  if (positions >= 1 && offset + positions <= allowed) return;
  const cached = offset === 0 ? "" : ` after ${offset} cached positions`;
  throw new EngineError(
    "TooManyTokens",
    `${positions} tokens were given${cached}; ${model.name} takes 1 to ${allowed - offset}${offset === 0 ? "" : ` more, ${allowed} in all`}; ${offset === 0 ? "shorten the text" : "keep fewer positions, or shorten the text"}`,
    { given: positions, cached: offset, allowed },
  );
}

function checkBatch(cache: NamedCache | null, { batch, offset }: Span): void {
  const cached = cache?.values.batch ?? null;
  if (cached !== null && cached !== batch && offset > 0)
    throw new EngineError(
      "CacheMismatch",
      `Cache ${(cache as NamedCache).id} holds ${cached} rows, the pass has ${batch}; give it the same batch, or an empty cache`,
      { cached, given: batch },
    );
}

function checkResidual(shape: Shape, tokens: ForwardRequest["tokens"], model: Model): void {
  const { D: width } = model.architecture.dimensions;
  const wanted = tokens === undefined ? `[B T ${width}]` : showShape([tokens.length, tokens[0].length, width]);
  const fits = tokens === undefined ? shape.length === 3 && shape[2] === width : showShape(shape) === wanted;
  if (!fits || elementsOf(shape) === 0)
    throw new EngineError(
      "ShapeMismatch",
      `start with a residual stream of shape ${showShape(shape)}: it must be ${wanted}`,
      { shapes: [shape] },
    );
}
