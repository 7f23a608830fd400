// What happens when a backend is lost, as WebGL's is whenever the browser takes the graphics context away: what ran on
// it fails with ContextLost, which says that it may be tried again; what lay in it is poisoned with the same error; and
// the next pass on a model that was loaded there first loads its weights anew into a fresh backend of the same name.
// It opens no backend and reads no bundle itself: whoever loaded a model leaves the way to do so again.

import type { Backend } from "../backend.ts";
import { describeError, EngineError } from "../errors.ts";
import { type Model, releaseWeights } from "../model.ts";

/** Loads the model once more. Fails: as loading does. */
export type Reload = () => Promise<Model>;

export interface RecoveryHost {
  /** Ends the passes that run on a backend, and poisons the tensors and caches in it. */
  end(backend: Backend, error: EngineError): void;
  isLoaded(model: Model): boolean;
  /** A model has come back in a fresh backend: new tensors go there, and its caches. */
  recovered(model: Model): void;
}

type Living = { -readonly [key in "backend" | "weights" | "bytes"]: Model[key] };

export class Recovery {
  readonly #host: RecoveryHost;
  readonly #lost = new WeakSet<Backend>();
  readonly #reloads = new WeakMap<Model, Reload>();
  readonly #running = new Map<Model, Promise<void>>();

  constructor(host: RecoveryHost) {
    this.#host = host;
  }

  /** Leaves the way to load a model again. */
  register(model: Model, reload: Reload): void {
    this.#reloads.set(model, reload);
  }

  isLost(backend: Backend): boolean {
    return this.#lost.has(backend);
  }

  /** A backend is gone. */
  lose(backend: Backend): void {
    if (this.#lost.has(backend)) return;
    this.#lost.add(backend);
    this.#host.end(
      backend,
      new EngineError(
        "ContextLost",
        `The browser took the graphics context away, and every tensor of backend ${backend.name} is gone; run the pass again: its weights are then loaded anew`,
        { backend: backend.name, retriable: true },
      ),
    );
  }

  /** Does something with a model whose backend is alive: at once, or after its weights were loaded again. */
  whenAlive(model: Model, action: () => void, failed: (error: unknown) => void): void {
    if (!this.#lost.has(model.backend)) return action();
    const running = this.#running.get(model) ?? this.#recover(model);
    running.then(action).catch(failed);
  }

  #recover(model: Model): Promise<void> {
    const running = this.#reload(model).finally(() => this.#running.delete(model));
    this.#running.set(model, running);
    return running;
  }

  async #reload(model: Model): Promise<void> {
    const reload = this.#reloads.get(model);
    if (reload === undefined) throw cannotRecover(model, "how it was loaded is not known");
    let fresh: Model;
    try {
      fresh = await reload();
    } catch (error) {
      const { name, message } = describeError(error);
      throw name === "BackendUnavailable" ? cannotRecover(model, message) : error;
    }
    if (!this.#host.isLoaded(model)) return releaseWeights(fresh.backend, fresh.weights);
    const { backend, weights, bytes } = fresh;
    Object.assign(model as Living, { backend, weights, bytes });
    this.#host.recovered(model);
  }
}

function cannotRecover(model: Model, reason: string): EngineError {
  return new EngineError(
    "ContextLost",
    `The graphics context that ${model.name} was loaded into is gone, and there is no new one (${reason}); load the model again with backend wasm, or reload the page`,
    { backend: model.backend.name, retriable: false },
  );
}
