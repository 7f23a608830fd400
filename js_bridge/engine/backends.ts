// Opens backends by name, once each, and chooses one by measuring: a software renderer loses to WebAssembly, a real
// GPU wins, and only the machine itself can tell.

import type { BackendName } from "../protocol.ts";
import { ReferenceBackend } from "../kernels/reference.ts";
import type { ThreadHost } from "../kernels/threads.ts";
import { openWasmBackend } from "../kernels/wasm.ts";
import type { FetchKernels } from "../kernels/wasm_module.ts";
import { openWebglBackend } from "../kernels/webgl.ts";
import { type Backend, laidOut } from "./backend.ts";
import { EngineError } from "./errors.ts";

/** Fails: BackendUnavailable. */
export type BackendOpener = () => Promise<Backend>;

export interface BackendsOptions {
  readonly fetchKernels?: FetchKernels;
  readonly threads?: ThreadHost | null;
  readonly openers: Partial<Record<BackendName, BackendOpener>>;
  readonly now: () => number;
  readonly log: (text: string) => void;
}

export interface OpenedBackend {
  readonly backend: Backend;
  /** milliseconds of the probe by backend, where one was chosen */
  readonly probe: Partial<Record<BackendName, number>>;
}

export class Backends {
  readonly plain: Backend = new ReferenceBackend();
  readonly #options: BackendsOptions;
  readonly #opened = new Map<BackendName, Promise<Backend>>();
  readonly #ready = new Map<BackendName, Backend>();
  readonly #openers: Record<BackendName, BackendOpener>;
  #chosen: Promise<OpenedBackend> | null = null;

  constructor(options: BackendsOptions) {
    this.#options = options;
    this.#openers = {
      reference: async () => this.plain,
      wasm: () => openWasmBackend(options),
      webgl: async () => openWebglBackend(() => this.#forget("webgl")),
      ...options.openers,
    };
  }

  /** Fails: BackendUnavailable; "auto" falls back to the next that there is. */
  async open(name: BackendName | "auto"): Promise<OpenedBackend> {
    if (name !== "auto") return { backend: await this.#open(name), probe: {} };
    this.#chosen ??= this.#choose();
    return this.#chosen;
  }

  #open(name: BackendName): Promise<Backend> {
    if (!(name in this.#openers)) {
      throw new EngineError(
        "BackendUnavailable",
        `Backend ${JSON.stringify(name)} does not exist; there are ${Object.keys(this.#openers).join(", ")} and auto`,
        { backend: name },
      );
    }
    const known = this.#opened.get(name);
    if (known !== undefined) return known;
    const opening = this.#openers[name]();
    this.#opened.set(name, opening);
    opening.then(
      (backend) => this.#ready.set(name, backend),
      () => this.#forget(name),
    );
    return opening;
  }

  /** Those that are open. */
  ready(): Backend[] {
    return [...new Set([this.plain, ...this.#ready.values()])];
  }

  #forget(name: BackendName): void {
    this.#opened.delete(name);
    this.#ready.delete(name);
    this.#chosen = null;
  }

  async #choose(): Promise<OpenedBackend> {
    const probe: Partial<Record<BackendName, number>> = {};
    let best: Backend | null = null;
    for (const name of ["wasm", "webgl"] as const) {
      try {
        const backend = await this.#open(name);
        probe[name] = probeMilliseconds(backend, this.#options.now);
        if (best === null || (probe[name] as number) < (probe[best.name] as number)) best = backend;
      } catch (error) {
        this.#options.log(`backend ${name}: ${(error as Error).message}`);
      }
    }
    return { backend: best ?? this.plain, probe };
  }
}

/** The least time of three products like a small model's: 16 rows of 256 by 1024, eight after one another, then a read. */
function probeMilliseconds(backend: Backend, now: () => number): number {
  const [rows, width, products] = [16, 256, 8];
  const noise = Float32Array.from({ length: width * width * 4 }, (_, i) => Math.sin(i) / 16);
  const layout = { transposed: false, scales: null };
  const wide = laidOut(backend, noise, { ...layout, inputs: width, outputs: width * 4 });
  const narrow = laidOut(backend, noise, { ...layout, inputs: width * 4, outputs: width });
  let least = Infinity;
  for (let round = 0; round < 3; round++) {
    let x = backend.upload(noise.subarray(0, rows * width), [rows, width]);
    const began = now();
    for (let i = 0; i < products; i++) {
      const next = backend.product(x, i % 2 === 0 ? wide : narrow, null);
      backend.release(x);
      x = next;
    }
    backend.read(x);
    backend.release(x);
    least = Math.min(least, now() - began);
  }
  backend.releaseMatrix(wide);
  backend.releaseMatrix(narrow);
  return least;
}
