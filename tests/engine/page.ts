// The page of the browser tests: an engine in a worker, and `runJobs` for Playwright to call.

import type { FromWorker, ToWorker, WorkerSettings } from "../../js_bridge/engine/worker.ts";
import { laidOut } from "../../js_bridge/engine/backend.ts";
import { createEngine, type Engine } from "../../js_bridge/engine/engine.ts";
import { besideKernels } from "../../js_bridge/kernels/threads.ts";
import { WebglBackend } from "../../js_bridge/kernels/webgl.ts";
import { WebglContext } from "../../js_bridge/kernels/webgl_context.ts";
import type { Answer } from "../../js_bridge/protocol.ts";
import { fetchOverHttp } from "../../js_bridge/store/fetch.ts";
import { indexedMeasurements } from "../../js_bridge/store/indexed_measurements.ts";
import { type Job, type JobResult, type Mailbox, runJob } from "./jobs.ts";

async function runJobs(jobs: Job[], settings: WorkerSettings): Promise<unknown[]> {
  const worker = new Worker("worker.js", { type: "module" });
  const send = (data: ToWorker) => worker.postMessage(data);
  const mailbox: Mailbox = {
    post: (message, attachments = []) => send({ message, attachments }),
    onMessage: () => undefined,
  };
  const logs: string[] = [];
  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
    if ("log" in data) logs.push(data.log);
    else if ("message" in data) mailbox.onMessage(data.message, data.attachments);
  };
  const failed = new Promise<never>((_, reject) => {
    worker.onerror = (event) => reject(new Error(`worker: ${event.message}`));
  });
  send({ settings });
  const results: (JobResult | { error: unknown })[] = [];
  for (const job of jobs) {
    try {
      results.push(await Promise.race([runJob(mailbox, job), failed]));
    } catch (error) {
      results.push({ error: error instanceof Error ? String(error.stack) : error });
    }
  }
  worker.terminate();
  return [results, logs];
}

/** What an engine with the browser's memory of measurements chooses, asked twice; and the next engine. */
async function chosenBackends(settings: WorkerSettings): Promise<Answer[]> {
  const answers: Answer[] = [];
  const ask = (measure: boolean, engine: Engine) =>
    new Promise<void>((resolve) => {
      answered = resolve;
      engine.handle({ kind: "backends", id: 1, measure });
    });
  let answered: () => void = () => undefined;
  const opened = () =>
    createEngine({
      post: (message) => {
        answers.push(message);
        answered();
      },
      fetchBytes: fetchOverHttp,
      fetchKernels: (file) => fetchOverHttp(besideKernels(settings.kernels, file)),
      remembered: indexedMeasurements(),
    });
  const first = opened();
  await ask(false, first);
  await ask(false, opened());
  await ask(true, first);
  return answers;
}

/** How often a pass with a hook and an intervention read from WebGL, before its one `read` and after. */
async function countReads(bundle: string, tokens: number[][]): Promise<[number, number]> {
  let reads = 0;
  let before = 0;
  const { readPixels } = WebGL2RenderingContext.prototype;
  WebGL2RenderingContext.prototype.readPixels = function (this: WebGL2RenderingContext, ...given: unknown[]) {
    reads++;
    return Reflect.apply(readPixels, this, given);
  } as typeof readPixels;
  const mailbox: Mailbox = {
    post: (message, attachments) => {
      if (message.kind === "forward") reads = 0; // opening a backend checks and times it
      if (message.kind === "read") before = reads;
      engine.handle(message, attachments);
    },
    onMessage: () => undefined,
  };
  const engine = createEngine({
    post: (message, attachments) => queueMicrotask(() => mailbox.onMessage(message, attachments)),
    fetchBytes: fetchOverHttp,
  });
  const zero = { hook: "blocks.0.attn.hook_z", action: "zero", at: { head: 0 } } as const;
  const pass = { tokens, capture: [], interventions: [zero], addAtHooks: { hook_embed: 1 } };
  await runJob(mailbox, { bundle, backend: "webgl", passes: [pass] });
  WebGL2RenderingContext.prototype.readPixels = readPixels;
  return [before, reads];
}

/** What loading for WebGL answers on a GPU that renders to no float textures. */
async function withoutFloatTargets(bundle: string): Promise<unknown> {
  const { getExtension } = WebGL2RenderingContext.prototype;
  WebGL2RenderingContext.prototype.getExtension = () => null;
  const mailbox: Mailbox = {
    post: (message, attachments) => engine.handle(message, attachments),
    onMessage: () => undefined,
  };
  const engine = createEngine({
    post: (message, attachments) => queueMicrotask(() => mailbox.onMessage(message, attachments)),
    fetchBytes: fetchOverHttp,
  });
  const refused = await runJob(mailbox, { bundle, backend: "webgl", passes: [] }).catch((error: unknown) => error);
  WebGL2RenderingContext.prototype.getExtension = getExtension;
  return refused;
}

/** 9 rows by 21 columns, from shaders for so many draw buffers. */
function productsWith(buffers: number): number[] {
  const backend = new WebglBackend(new WebglContext(() => undefined), { drawBuffers: buffers });
  const wave = (count: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i));
  const x = backend.upload(wave(9 * 7), [9, 7]);
  const bias = backend.upload(wave(21), [21]);
  const layout = { inputs: 7, outputs: 21, transposed: false, scales: null };
  return [...backend.read(backend.product(x, laidOut(backend, wave(7 * 21), layout), bias))];
}

Object.assign(globalThis, { runJobs, chosenBackends, countReads, withoutFloatTargets, productsWith });
