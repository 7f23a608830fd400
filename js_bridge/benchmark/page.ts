// The page in which `neuroscope bench engine` measures: the engine's worker and a rival's beside it, one waiting while
// the other runs. The command line calls what is here, one measurement a call, so that rivals take turns.

import type { WorkerSettings } from "../engine/worker.ts";
import type { LoadedAnswer } from "../protocol.ts";
import type { WatchedBytes } from "./buffer_watch.ts";
import { EngineClient } from "./engine_client.ts";

let engine: EngineClient;
let loaded: LoadedAnswer;
const workers = new Map<string, Worker>();

const bench = {
  isIsolated: () => globalThis.crossOriginIsolated,

  async open(script: string, settings: WorkerSettings, bundle: string, backend: "wasm" | "webgl"): Promise<unknown> {
    engine = new EngineClient(script, settings);
    const began = performance.now();
    const { message } = await engine.ask({ kind: "load", bundle, backend });
    loaded = message as LoadedAnswer;
    return { ...loaded, hooks: loaded.hooks.length, milliseconds: performance.now() - began };
  },

  close: () => engine.close(),

  /** What a watched engine's worker has asked for. */
  watched(): Promise<WatchedBytes> {
    const channel = new BroadcastChannel("neuroscope buffers");
    return new Promise((resolve) => {
      channel.onmessage = ({ data }) => {
        channel.close();
        resolve(data);
      };
      channel.postMessage("report");
    });
  },

  /** Milliseconds of a pass with all logits read back; with the plain hook set kept, or only its products. */
  async pass(length: number, repetitions: number, only: "everything" | "capture" | "products"): Promise<number> {
    const { message } = await engine.ask({
      kind: "benchmark",
      model: loaded.model,
      lengths: [length],
      repetitions,
      ...(only === "capture" ? { capture: "plain" } : {}),
      ...(only === "products" ? { products: true } : {}),
    });
    if (message.kind !== "benchmarked") throw new Error(`a benchmark was answered ${message.kind}`);
    return message.rows[0].median;
  },

  /** The logits after the last token. */
  async logits(tokens: number[]): Promise<number[]> {
    await engine.ask({ kind: "forward", model: loaded.model, pass: 1, tokens: [tokens], logits: 1 });
    const parameters = { starts: [0, tokens.length - 1, 0], sizes: [1, 1, loaded.dimensions.V] };
    engine.tell({ kind: "operate", op: "slice", inputs: [1], parameters, result: 2 });
    const { attachments } = await engine.ask({ kind: "read", tensor: 2 });
    engine.tell({ kind: "release", tensors: [1, 2] });
    return [...attachments[0]];
  },

  /** Greedy decoding: the tokens, and the milliseconds from each to the next. */
  async decode(tokens: number[], maxTokens: number): Promise<{ tokens: number[]; gaps: number[] }> {
    const times: number[] = [];
    const made: number[] = [];
    await engine.ask(
      { kind: "generate", pass: 2, model: loaded.model, tokens, maxTokens, sampling: { temperature: 0, seed: 0 } },
      (answer) => {
        if (answer.kind !== "token") return;
        times.push(performance.now());
        made.push(answer.token);
      },
    );
    return { tokens: made, gaps: times.slice(1).map((time, i) => time - times[i]) };
  },

  openWorker(name: string, script: string): void {
    workers.set(name, new Worker(script, { type: "module" }));
  },

  closeWorker(name: string): void {
    workers.get(name)?.terminate();
    workers.delete(name);
  },

  /** Calls a function of a worker; one call at a time. */
  call(name: string, method: string, ...values: unknown[]): Promise<unknown> {
    const worker = workers.get(name) as Worker;
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => ("error" in data ? reject(new Error(data.error)) : resolve(data.result));
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage({ method, values });
    });
  },
};

(globalThis as unknown as { bench: typeof bench }).bench = bench;
