// The engine: answers the messages of protocol.ts. It runs in a worker of the page, or in the process of Node;
// it never sees the image, the DOM or the network, but what its host hands it. Messages are handled in the order in
// which they come; only loading and hooks let later ones overtake.

import type {
  Answer,
  Attachment,
  BackendName,
  LoadedAnswer,
  LoadRequest,
  ModelId,
  OperateRequest,
  ParityRequest,
  Request,
  TensorId,
} from "../protocol.ts";
import type { ThreadHost } from "../kernels/threads.ts";
import type { FetchKernels } from "../kernels/wasm_module.ts";
import { Bundle, type BundleHost } from "../store/bundle.ts";
import type { ChunkStore } from "../store/chunk_store.ts";
import type { FetchBytes } from "../store/fetch.ts";
import { answerStorage, describeShortage } from "../store/storage.ts";
import type { Backend } from "./backend.ts";
import { benchmark } from "./benchmark.ts";
import { type BackendOpener, Backends } from "./backends/backends.ts";
import { CacheTable } from "./pass/cache_table.ts";
import { describeError, EngineError } from "./errors.ts";
import { forecast } from "./pass/forecast.ts";
import { loadModel, type Model, readCheckpoint, releaseWeights } from "./model.ts";
import { answerGradient } from "./gradient/gradient.ts";
import { operate } from "./tensors/operation.ts";
import { parity, REFERENCE } from "./parity.ts";
import { PassTable } from "./pass/pass_table.ts";
import { Recovery } from "./backends/recovery.ts";
import type { Ask } from "./remote/lab.ts";
import { RemoteModels } from "./remote/models.ts";
import type { Remembered } from "./backends/remembered.ts";
import { checkShape, elementsOf, lastOf, showShape } from "./tensors/shape.ts";
import { statisticsOf, topOf } from "./tensors/statistics.ts";
import { plainOf, Tape } from "./gradient/tape.ts";
import { type Tensor, TensorTable } from "./tensors/tensor_table.ts";
import { wordsOf } from "./weights/processing.ts";

export interface EngineOptions {
  post(message: Answer, attachments: Attachment[]): void;
  fetchBytes: FetchBytes;
  /** A file of the build of js_bridge/kernels, by its name; null when it is not there. */
  fetchKernels?: FetchKernels;
  /** Where the WebAssembly backend gets its helper threads; without it there are none. */
  threads?: ThreadHost | null;
  store?: ChunkStore | null;
  /** Where measurements are kept between visits; without it they are made anew. */
  remembered?: Remembered | null;
  /** Where repositories are looked for; the public Hub where it is left out. */
  hub?: string;
  /** The way to labs; without it there are none. */
  ask?: Ask | null;
  /** The address of the lab that the host means where none is named. */
  lab?: string | null;
  /** SHA-256, where not crypto.subtle's. */
  digest?: (bytes: Uint8Array) => Promise<string>;
  log?: (text: string) => void;
  /** Bytes of live tensors that are allowed, weights not counted. */
  budget?: number;
  /** The page's address for names of bundles; without it a name is an address. */
  resolveBundle?: (name: string) => string;
  now?: () => number;
  /** Runs an action after the messages that are already waiting. */
  defer?: (action: () => void) => void;
  /** Replaces the backends that this file would open. */
  openers?: Partial<Record<BackendName, BackendOpener>>;
}

export interface Engine {
  handle(message: Request, attachments?: readonly Attachment[]): void;
}

const DEFAULT_BUDGET = 2 ** 30;

export function createEngine(options: EngineOptions): Engine {
  return new MessageEngine(options);
}

class MessageEngine implements Engine {
  readonly #options: EngineOptions;
  readonly #now: () => number;
  readonly #tensors: TensorTable;
  readonly #backends: Backends;
  readonly #models = new Map<ModelId, Model>();
  /** Where each model came from. */
  readonly #bundles = new Map<ModelId, Bundle>();
  /** The requests that are being loaded for. */
  readonly #loads = new Map<number, AbortController>();
  /** The requests whose runs go on. */
  readonly #parities = new Set<number>();
  readonly #caches = new CacheTable();
  readonly #passes: PassTable;
  readonly #recovery: Recovery;
  readonly #remotes: RemoteModels;
  #nextModel = 1;
  /** Where new tensors go: the backend of the model loaded last. */
  #home: Backend | null = null;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#tensors = new TensorTable(options.budget ?? DEFAULT_BUDGET, (bytes, budget) =>
      this.#post({ kind: "collect", bytes, budget }),
    );
    this.#passes = new PassTable({
      tensors: this.#tensors,
      caches: this.#caches,
      post: (answer) => this.#post(answer),
      later: (action) => this.#defer(action),
      whenAlive: (model, action, failed) => this.#recovery.whenAlive(model, action, failed),
      now: this.#now,
      tape: (pass, model, real) => {
        const { backend } = model;
        const isAlive = () => this.#models.get(model.id) === model && model.backend === backend;
        const tape = new Tape(backend, { origin: `pass ${pass}`, isAlive }, this.#tensors, real);
        return {
          backend: tape,
          watch: (value) => tape.watch(value),
          watchPart: (whole, axis, places) => tape.watchPart(whole, axis, places),
        };
      },
    });
    if (options.store) {
      options.store.onFull = (shortage) => this.#post({ kind: "warning", error: describeShortage(shortage) });
    }
    this.#backends = new Backends({
      fetchKernels: options.fetchKernels,
      threads: options.threads,
      openers: options.openers ?? {},
      remembered: options.remembered,
      now: this.#now,
      pause: () => new Promise((resolve) => this.#defer(resolve)),
      log: options.log ?? (() => undefined),
      onLost: (backend) => this.#recovery.lose(backend),
    });
    this.#remotes = new RemoteModels({
      tensors: this.#tensors,
      post: (answer, attachments) => this.#post(answer, attachments),
      home: () => this.#home ?? this.#backends.plain,
      now: this.#now,
      ask: options.ask ?? null,
      lab: options.lab ?? null,
      nextModel: () => this.#nextModel++,
    });
    this.#recovery = new Recovery({
      end: (backend, error) => {
        if (this.#home === backend) this.#home = null;
        this.#passes.failOn(backend, error);
        this.#tensors.poisonAllIn(backend, error);
        this.#caches.loseAllIn(backend);
      },
      isLoaded: (model) => this.#models.get(model.id) === model,
      recovered: (model) => {
        this.#home ??= model.backend;
        this.#caches.move(model);
      },
    });
  }

  handle(message: Request, attachments: readonly Attachment[] = []): void {
    const id = "id" in message ? message.id : undefined;
    const pass = "pass" in message ? message.pass : undefined;
    try {
      const answer = this.#remotes.takes(message)
        ? this.#remotes.handle(message, attachments)
        : this.#dispatch(message, attachments);
      answer?.catch((error: unknown) => this.#post({ kind: "failed", id, error: describeError(error) }));
    } catch (error) {
      this.#post({ kind: "failed", id, pass, error: describeError(error) });
    }
  }

  #post(message: Answer, attachments: Attachment[] = []): void {
    this.#options.post(message, attachments);
  }

  #dispatch(message: Request, attachments: readonly Attachment[]): Promise<void> | undefined {
    switch (message.kind) {
      case "load":
        return this.#load(message);
      case "cancelLoad":
        this.#cancelLoad(message.load);
        return undefined;
      case "storage":
      case "storageBudget":
      case "evict":
        return answerStorage(this.#options.store ?? null, message).then((answer) => this.#post(answer));
      case "unload":
        this.#unload(message.model);
        this.#post({ kind: "unloaded", id: message.id, model: message.model });
        return undefined;
      case "encode":
        this.#post({ kind: "encoded", id: message.id, ids: this.#tokenizer(message.model).encode(message.text) });
        return undefined;
      case "decode":
        this.#decode(message.id, message.model, message.ids);
        return undefined;
      case "chat": {
        const { id, messages, addGenerationPrompt } = message;
        this.#post({ kind: "chatted", id, ...this.#tokenizer(message.model).chat(messages, addGenerationPrompt) });
        return undefined;
      }
      case "forward":
        this.#passes.forward(message, (id) => this.#model(id));
        return undefined;
      case "generate":
        this.#passes.generate(message, (id) => this.#model(id));
        return undefined;
      case "hookAnswer":
        this.#passes.answer(message.pass, message.replacement);
        return undefined;
      case "cancel":
        this.#passes.cancel(message.pass);
        return undefined;
      case "createCache":
        this.#caches.create(message.cache, this.#model(message.model));
        return undefined;
      case "releaseCache":
        this.#caches.release(message.cache);
        return undefined;
      case "forecast": {
        const live = this.#tensors.bytes + this.#caches.bytes;
        this.#post(forecast(message, this.#model(message.model), this.#tensors, live));
        return undefined;
      }
      case "create":
        this.#create(message.tensor, message.shape, attachments[0]);
        return undefined;
      case "operate":
        this.#operate(message);
        return undefined;
      case "gradient":
        answerGradient(message, {
          tensors: this.#tensors,
          later: (action) => this.#defer(action),
          now: this.#now,
        });
        return undefined;
      case "parity":
        return this.#parity(message);
      case "cancelParity":
        this.#parities.delete(message.parity);
        return undefined;
      case "read":
        this.#whenReady(message.id, message.tensor, (tensor) => {
          const { shape, numbers } = this.#read(tensor);
          this.#post({ kind: "numbers", id: message.id, tensor: message.tensor, shape, dtype: "float32" }, [numbers]);
        });
        return undefined;
      case "statistics":
        this.#whenReady(message.id, message.tensor, (tensor) => {
          const { shape, numbers } = this.#read(tensor);
          this.#post({ kind: "statistics", id: message.id, tensor: message.tensor, shape, ...statisticsOf(numbers) });
        });
        return undefined;
      case "topK":
        this.#whenReady(message.id, message.tensor, (tensor) => this.#top(message.id, tensor, message.k));
        return undefined;
      case "release":
        this.#tensors.release(message.tensors);
        return undefined;
      case "ledger":
        this.#ledger(message.id);
        return undefined;
      case "synchronize":
        this.#tensors.whenSettled(this.#tensors.pending(), () => this.#post({ kind: "synchronized", id: message.id }));
        return undefined;
      case "benchmark": {
        const model = this.#model(message.model);
        return this.#alive(model).then(() => {
          const rows = benchmark(message, model, this.#tensors, this.#now);
          this.#post({ kind: "benchmarked", id: message.id, backend: model.backend.name, rows });
        });
      }
      case "backends":
        return this.#answerBackends(message.id, message.measure ?? false);
      case "ask": // the remotes have taken it
      default:
        throw unknownKind(message);
    }
  }

  #defer(action: () => void): void {
    const defer = this.#options.defer ?? ((deferred: () => void) => void setTimeout(deferred, 0));
    defer(action);
  }

  #model(id: ModelId): Model {
    const model = this.#models.get(id);
    if (model === undefined) {
      const loaded = [...this.#models.values()].map((each) => `${each.id} (${each.name})`).join(", ");
      throw new EngineError("UnknownModel", `Model ${id} is not loaded; loaded are: ${loaded || "none"}`, {
        model: id,
      });
    }
    return model;
  }

  #alive(model: Model): Promise<void> {
    return new Promise((resolve, reject) => this.#recovery.whenAlive(model, resolve, reject));
  }

  async #answerBackends(id: number, measure: boolean): Promise<void> {
    const { backend, probe } = await this.#backends.measure(measure);
    const { names, refused } = this.#backends;
    this.#post({ kind: "backends", id, names, probe, chosen: backend.name, refused });
  }

  #tokenizer(id: ModelId): NonNullable<Model["tokenizer"]> {
    const { tokenizer, name } = this.#model(id);
    if (tokenizer === null)
      throw new EngineError("NoTokenizer", `${name} came without tokenizer.json; give token ids instead of text`);
    return tokenizer;
  }

  async #load(message: LoadRequest): Promise<void> {
    const { id } = message;
    const cancel = new AbortController();
    this.#loads.set(id, cancel);
    const { signal } = cancel;
    let bundle: Bundle | null = null;
    try {
      bundle = await this.#openBundle(message, (progress) => this.#post({ kind: "progress", id, ...progress }), signal);
      const { model, probe } = await this.#readModel(this.#nextModel++, bundle, message, message.backend);
      await bundle.close();
      if (signal.aborted) {
        releaseWeights(model.backend, model.weights);
        throw signal.reason;
      }
      this.#models.set(model.id, model);
      this.#bundles.set(model.id, bundle);
      this.#home = model.backend;
      this.#recovery.register(model, () => this.#loadAgain(model, message));
      this.#post(loadedAnswer(id, model, probe, bundle.source, this.#backends.refused));
    } finally {
      this.#loads.delete(id);
      void bundle?.close();
    }
  }

  /** The weights of a model whose backend was lost, in a fresh one; from the store, where they are kept. */
  async #loadAgain(lost: Model, message: LoadRequest): Promise<Model> {
    const bundle = await this.#openBundle(message, () => undefined);
    try {
      return (await this.#readModel(lost.id, bundle, message, lost.backend.name)).model;
    } finally {
      void bundle.close();
    }
  }

  #openBundle(
    { bundle, revision, dtype, processing = {} }: LoadRequest,
    onProgress: BundleHost["onProgress"],
    signal?: AbortSignal,
  ): Promise<Bundle> {
    const { fetchBytes, store = null, digest, hub, log, resolveBundle } = this.#options;
    const host: BundleHost = { fetchBytes, store, digest, hub, log, onProgress };
    return Bundle.open(resolveBundle?.(bundle) ?? bundle, host, {
      revision,
      // Codes of processed weights are not kept: what they are made of is.
      keep: dtype === "int8" && !Object.values(processing).includes(true) ? "prepared" : "files",
      signal,
    });
  }

  /** The backend is opened and measured while bytes come over the line. */
  async #readModel(
    id: ModelId,
    bundle: Bundle,
    request: LoadRequest,
    wanted: BackendName | "auto",
  ): Promise<{ model: Model; probe: LoadedAnswer["probe"] }> {
    const reading = readCheckpoint(bundle);
    const coming = bundle.manifest?.files.reduce((sum, { bytes }) => sum + bytes, 0);
    const opening = this.#backends.open(wanted, coming);
    opening.catch(() => undefined); // what is wrong with the checkpoint is told first
    const checkpoint = await reading;
    const { backend, probe } = await opening;
    const options = { quantises: request.dtype === "int8", processing: request.processing };
    return { model: await loadModel(id, bundle.id, bundle, checkpoint, backend, options), probe };
  }

  #cancelLoad(id: number): void {
    this.#loads
      .get(id)
      ?.abort(new EngineError("LoadCancelled", "The load was cancelled; what it had fetched is kept for the next one"));
  }

  #unload(id: ModelId): void {
    const model = this.#model(id);
    this.#passes.cancelOf(model);
    this.#caches.releaseOf(id);
    this.#models.delete(id);
    this.#bundles.delete(id);
    releaseWeights(model.backend, model.weights);
  }

  #decode(id: number, modelId: ModelId, ids: readonly number[]): void {
    const tokenizer = this.#tokenizer(modelId);
    const wrong = ids.find((each) => !tokenizer.has(each));
    if (wrong !== undefined) {
      throw new EngineError("TokenOutOfVocabulary", `Token id ${wrong} is none of the tokenizer's ${tokenizer.size}`, {
        given: wrong,
        allowed: tokenizer.size - 1,
      });
    }
    this.#post({ kind: "decoded", id, text: tokenizer.decode(ids), tokens: tokenizer.textsOf(ids) });
  }

  #create(id: TensorId, shape: readonly number[], numbers: Attachment | undefined): void {
    const tensor = this.#tensors.promise(id, "create");
    try {
      checkShape(shape);
      if (!(numbers instanceof Float32Array) || numbers.length !== elementsOf(shape)) {
        const count = numbers instanceof Float32Array ? `${numbers.length} float32 numbers` : "no float32 numbers";
        throw new EngineError(
          "ShapeMismatch",
          `Tensor ${id} of shape ${showShape(shape)} came with ${count}; it needs ${elementsOf(shape)}`,
          { shapes: [shape] },
        );
      }
      const home = this.#home ?? this.#backends.plain;
      this.#tensors.fulfil(tensor, home.upload(numbers, [...shape]), home);
    } catch (error) {
      this.#tensors.poison(tensor, error);
    }
  }

  #operate(message: OperateRequest): void {
    const origin = message.origin ?? message.op;
    const result = this.#tensors.promise(message.result, origin);
    let inputs: Tensor[];
    try {
      inputs = message.inputs.map((id) => this.#tensors.at(id));
    } catch (error) {
      return this.#tensors.poison(result, withOperation(error, message, []));
    }
    this.#tensors.whenSettled(inputs, () => {
      try {
        const poisoned = inputs.find((each) => each.state === "poisoned");
        if (poisoned !== undefined) return this.#tensors.poison(result, poisoned.error);
        const common = commonBackend(inputs, this.#home ?? this.#backends.plain);
        const values = inputs.map((each) => this.#tensors.valueOf(each, common));
        const backend = inputs.map((each) => each.backend).find((each) => each instanceof Tape) ?? common;
        const value = operate(backend, message.op, values, message.parameters);
        this.#tensors.fulfil(result, value, backend, (error) => withOperation(error, message, inputs));
      } catch (error) {
        this.#tensors.poison(result, withOperation(error, message, inputs));
      }
    });
  }

  async #parity({ id, model: modelId }: ParityRequest): Promise<void> {
    const model = this.#model(modelId);
    const bundle = this.#bundles.get(modelId) as Bundle;
    this.#parities.add(id);
    try {
      await this.#alive(model);
      const { backend } = model;
      const isQuantised = model.dtype.includes("int8") && bundle.manifest?.dtype !== "int8";
      const stored = wordsOf(bundle.manifest?.processing).join(", ") || "raw";
      const changes = model.changes === stored ? "raw" : model.changes; // since they left the bundle
      const bytes = (await bundle.has(REFERENCE)) ? await bundle.readAll(REFERENCE) : null;
      const found = await parity(model, isQuantised ? "quantised to int8 while they came" : changes, bytes, {
        check: () => {
          if (!this.#parities.has(id)) throw new EngineError("PassCancelled", `Parity run ${id} was cancelled`);
          this.#model(modelId);
          if (model.backend !== backend || this.#recovery.isLost(backend))
            throw new EngineError("ContextLost", `Backend ${backend.name} went away during parity run ${id}; ask again`);
        },
        later: (action) => this.#defer(action),
        now: this.#now,
      });
      this.#post({ kind: "parity", id, ...found });
    } finally {
      this.#parities.delete(id);
    }
  }

  /** Runs an action with a tensor once it is computed; answers `failed` with what poisoned it. */
  #whenReady(id: number, tensorId: TensorId, action: (tensor: Tensor) => void): void {
    const tensor = this.#tensors.at(tensorId);
    this.#tensors.whenSettled([tensor], () => {
      try {
        action(tensor);
      } catch (error) {
        this.#post({ kind: "failed", id, error: describeError(error) });
      }
    });
  }

  #read(tensor: Tensor): { shape: readonly number[]; numbers: Float32Array } {
    const value = this.#tensors.valueOf(tensor);
    return { shape: value.shape, numbers: (tensor.backend as Backend).read(value) };
  }

  #top(id: number, tensor: Tensor, k: number): void {
    const { shape, numbers } = this.#read(tensor);
    const width = lastOf(shape);
    if (!Number.isInteger(k) || k < 1 || k > width)
      throw new EngineError(
        "BadParameter",
        `The ${k} largest of ${width} along the last axis: k must lie in 1 … ${width}`,
      );
    const { values, indices } = topOf(numbers, width, k);
    this.#post({ kind: "top", id, tensor: tensor.id, shape: [...shape.slice(0, -1), k] }, [values, indices]);
  }

  #ledger(id: number): void {
    const models = [...this.#models.values()].map((each) => ({ model: each.id, name: each.name, bytes: each.bytes }));
    const backends = this.#backends.ready().map((each) => ({ backend: each.name, bytes: each.bytes }));
    this.#post({
      kind: "ledger",
      id,
      tensors: this.#tensors.ledger(),
      bytes: this.#tensors.bytes,
      tapes: this.#tensors.tapeBytes,
      budget: this.#tensors.budget,
      passes: [...this.#passes.ledger(), ...this.#remotes.ledger()],
      caches: this.#caches.ledger(),
      models,
      backends,
    });
  }
}

/** Where an operation runs: with the first input that is not in plain JavaScript's hands. No tape. */
function commonBackend(inputs: readonly Tensor[], home: Backend): Backend {
  const backends = inputs.map((each) => plainOf(each.backend as Backend));
  return backends.find((each) => each.name !== "reference") ?? backends[0] ?? home;
}

function withOperation(error: unknown, message: OperateRequest, inputs: readonly Tensor[]): EngineError {
  const { name, message: text, ...details } = describeError(error);
  return new EngineError(name, text, {
    ...details,
    operation: message.op,
    origin: message.origin,
    inputs: inputs.map((each) => each.value?.shape ?? null),
  });
}

function unknownKind(message: { readonly kind: string }): EngineError {
  return new EngineError(
    "BadMessage",
    `A message of kind ${JSON.stringify(message.kind)} is none that the engine answers; protocol.ts lists them`,
  );
}

function loadedAnswer(
  id: number,
  model: Model,
  probe: LoadedAnswer["probe"],
  source: string,
  refused: LoadedAnswer["refused"],
): LoadedAnswer {
  const { architecture, backend, tokenizer, name, revision, dtype } = model;
  return {
    kind: "loaded",
    id,
    model: model.id,
    name,
    architecture: architecture.name,
    config: model.config,
    dimensions: architecture.dimensions,
    hooks: architecture.hooks,
    aliases: architecture.aliases,
    dtype,
    backend: backend.name,
    basis: { model: name, revision, weights: model.changes, dtype, backend: backend.name },
    parameters: model.parameters,
    bytes: model.bytes,
    tokenizer: tokenizer === null ? null : { size: tokenizer.size, bos: tokenizer.bos, eos: tokenizer.eos },
    probe,
    threads: backend.threads,
    refused,
    source,
    revision,
  };
}
