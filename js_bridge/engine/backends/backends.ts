// Opens backends by name, once each, refuses those that compute wrongly, and chooses one by measuring: a software
// renderer loses to WebAssembly, a real GPU wins, and only the machine itself can tell. What was measured is remembered
// between visits; `measure` measures anew.

import type { BackendName, RefusedBackend } from "../../protocol.ts";
import { ReferenceBackend } from "../../kernels/reference.ts";
import type { ThreadHost } from "../../kernels/threads.ts";
import { openWasmBackend } from "../../kernels/wasm.ts";
import type { FetchKernels } from "../../kernels/wasm_module.ts";
import { openWebglBackend, WebglBackend } from "../../kernels/webgl.ts";
import { tune } from "../../kernels/webgl_tuning.ts";
import type { Backend } from "../backend.ts";
import { probe } from "./probe.ts";
import { EngineError } from "../errors.ts";
import type { Remembered } from "./remembered.ts";
import { selfCheck } from "./self_check.ts";

/** Whoever loses the backend later calls `onLost`. Fails: BackendUnavailable. */
export type BackendOpener = (onLost: () => void) => Promise<Backend>;

export interface BackendsOptions {
  readonly fetchKernels?: FetchKernels;
  readonly threads?: ThreadHost | null;
  readonly openers: Partial<Record<BackendName, BackendOpener>>;
  readonly remembered?: Remembered | null;
  readonly now: () => number;
  /** Lets messages that wait go first. */
  readonly pause: () => Promise<void>;
  readonly log: (text: string) => void;
  /** A backend is gone, with all that lay in it. */
  readonly onLost: (backend: Backend) => void;
}

type Times = Partial<Record<BackendName, number>>;

export interface OpenedBackend {
  readonly backend: Backend;
  /** milliseconds of the probe by backend, where one was chosen */
  readonly probe: Times;
}

/** What "auto" chooses among; where none of them opens it is `reference`. */
const CANDIDATES = ["wasm", "webgl"] as const;

/** Tuning wins at most about so much. */
const TUNED_BELOW = 3;
/** Bytes of a model that take as long to come as measuring does. */
const MEASURED_FROM = 2 ** 25;
/** Milliseconds after which what was not measured at once is measured. */
const LATER = 5000;

export class Backends {
  readonly plain: Backend = new ReferenceBackend();
  readonly #options: BackendsOptions;
  readonly #opened = new Map<BackendName, Promise<Backend>>();
  readonly #ready = new Map<BackendName, Backend>();
  readonly #refused = new Map<BackendName, string>();
  readonly #openers: Record<BackendName, BackendOpener>;
  #chosen: Promise<OpenedBackend> | null = null;

  constructor(options: BackendsOptions) {
    this.#options = options;
    this.#openers = {
      reference: async () => this.plain,
      wasm: () => openWasmBackend(options),
      webgl: async (onLost) => openWebglBackend(onLost),
      ...options.openers,
    };
  }

  get names(): BackendName[] {
    return Object.keys(this.#openers) as BackendName[];
  }

  /** Those that failed their self-check. */
  get refused(): RefusedBackend[] {
    return [...this.#refused].map(([backend, reason]) => ({ backend, reason }));
  }

  /**
   * While so many bytes of a model come. Where they are few, "auto" is what was chosen before, or else the first that
   * opens, and is measured afterwards: opening a GPU takes longer than a small model, whose reader waits for a picture.
   * Fails: BackendUnavailable; "auto" falls back to the next that there is.
   */
  async open(name: BackendName | "auto", bytes = Infinity): Promise<OpenedBackend> {
    if (name === "auto") {
      if (this.#chosen !== null || bytes >= MEASURED_FROM) return this.#choice();
      return (await this.#recalled()) ?? this.#first();
    }
    const backend = await this.#open(name);
    await this.#tune(backend);
    return { backend, probe: {} };
  }

  /** What "auto" means; `again` forgets what earlier visits measured. */
  async measure(again: boolean): Promise<OpenedBackend> {
    if (again) this.#chosen = null;
    return this.#choice(again);
  }

  /** Those that are open. */
  ready(): Backend[] {
    return [...new Set([this.plain, ...this.#ready.values()])];
  }

  #open(name: BackendName): Promise<Backend> {
    if (!(name in this.#openers)) {
      throw new EngineError(
        "BackendUnavailable",
        `Backend ${JSON.stringify(name)} does not exist; there are ${this.names.join(", ")} and auto`,
        { backend: name },
      );
    }
    const known = this.#opened.get(name);
    if (known !== undefined) return known;
    const opening = this.#openChecked(name);
    this.#opened.set(name, opening);
    opening.then(
      (backend) => this.#ready.set(name, backend),
      () => this.#forget(name),
    );
    return opening;
  }

  async #openChecked(name: BackendName): Promise<Backend> {
    let opened: Backend | null = null;
    opened = await this.#openers[name](() => {
      this.#forget(name);
      if (opened !== null) this.#options.onLost(opened);
    });
    if (opened === this.plain) return opened;
    const wrong = await selfCheck(opened, this.plain, this.#options.pause);
    if (wrong === null) {
      this.#refused.delete(name);
      return opened;
    }
    this.#refused.set(name, wrong);
    const others = this.names.filter((each) => each !== name && !this.#refused.has(each));
    throw new EngineError(
      "BackendUnavailable",
      `Backend ${name} computes wrongly on this machine, so it is not used: ${wrong}; use ${others.join(" or ")}`,
      { backend: name, reason: wrong },
    );
  }

  #forget(name: BackendName): void {
    this.#opened.delete(name);
    this.#ready.delete(name);
    this.#chosen = null;
  }

  #choice(again = false): Promise<OpenedBackend> {
    if (this.#chosen !== null) return this.#chosen;
    const choosing = this.#choose(again);
    this.#chosen = choosing;
    choosing.catch(() => {
      if (this.#chosen === choosing) this.#chosen = null;
    });
    return choosing;
  }

  get #key(): string {
    return `backend chosen, ${globalThis.navigator?.userAgent ?? "no browser"}, ${this.names.join(" ")}`;
  }

  /** What was chosen on an earlier visit; null where that is not known, or not there any more. */
  async #recalled(): Promise<OpenedBackend | null> {
    const { remembered = null, log } = this.#options;
    const known = asTimes(await remembered?.recall(this.#key));
    if (known === null) return null;
    try {
      const backend = await this.#open(fastest(known));
      await this.#tune(backend);
      return { backend, probe: known };
    } catch (error) {
      log(`backend ${fastest(known)} was chosen on an earlier visit: ${(error as Error).message}`);
      return null;
    }
  }

  /** Without measuring: that comes later, where somebody remembers it. */
  async #first(): Promise<OpenedBackend> {
    const { remembered = null, log } = this.#options;
    if (remembered !== null) setTimeout(() => void this.#choice().catch(() => undefined), LATER);
    for (const name of CANDIDATES) {
      try {
        return { backend: await this.#open(name), probe: {} };
      } catch (error) {
        log(`backend ${name}: ${(error as Error).message}`);
      }
    }
    return { backend: this.plain, probe: {} };
  }

  async #choose(again: boolean): Promise<OpenedBackend> {
    const { remembered = null, log } = this.#options;
    const known = again ? null : await this.#recalled();
    if (known !== null) return known;
    const times: Times = {};
    for (const name of CANDIDATES) {
      try {
        const backend = await this.#open(name);
        const best = Math.min(...Object.values(times), Infinity);
        times[name] = await probe(backend, { ...this.#options, best });
        // A renderer in software is not worth tuning; a GPU that comes near WebAssembly is.
        if (!(backend instanceof WebglBackend) || times[name] > TUNED_BELOW * best) continue;
        await this.#tune(backend, again);
        times[name] = await probe(backend, { ...this.#options, best });
      } catch (error) {
        log(`backend ${name}: ${(error as Error).message}`);
      }
    }
    if (Object.keys(times).length === 0) return { backend: this.plain, probe: times };
    // One that could not be opened today may be there tomorrow.
    if (CANDIDATES.every((name) => times[name] !== undefined)) await remembered?.remember(this.#key, times);
    return { backend: await this.#open(fastest(times)), probe: times };
  }

  async #tune(backend: Backend, again = false): Promise<void> {
    if (!(backend instanceof WebglBackend)) return;
    const { remembered = null, now, pause } = this.#options;
    await tune(backend, { remembered, now, pause }, again);
  }
}

function fastest(times: Times): BackendName {
  return (Object.entries(times) as [BackendName, number][]).reduce((best, each) =>
    each[1] < best[1] ? each : best,
  )[0];
}

/** What was remembered, if it is what this file would have written. */
function asTimes(remembered: unknown): Times | null {
  if (typeof remembered !== "object" || remembered === null) return null;
  const entries = Object.entries(remembered);
  const isTime = ([name, time]: [string, unknown]) =>
    CANDIDATES.some((each) => each === name) && typeof time === "number" && time >= 0;
  return entries.length > 0 && entries.every(isTime) ? (remembered as Times) : null;
}
