// The engine in a worker of the page. The wire is protocol.ts's messages as {message, attachments}, the attachments
// transferred; the first message is {settings}, what only the page knows.

import { live } from "../host/worker_life.ts";
import { besideKernels, webThreads } from "../kernels/threads.ts";
import type { Answer, Attachment, Request } from "../protocol.ts";
import { fetchOverHttp } from "../store/fetch.ts";
import { openIndexedChunks } from "../store/indexed_chunks.ts";
import { indexedMeasurements } from "../store/indexed_measurements.ts";
import { plainSha256 } from "../store/sha256.ts";
import { createEngine, type Engine } from "./engine.ts";
import { EngineError } from "./errors.ts";
import { askOverHttp } from "./remote/lab.ts";

export interface WorkerSettings {
  /** Address of kernels.wasm; its other builds and the helper threads' script lie beside it. */
  readonly kernels: string;
  /** Folder of bundles that are named, not addressed. */
  readonly bundles: string;
  readonly budget?: number;
  /** Where repositories are looked for. */
  readonly hub?: string;
  /** The lock to hold as long as the worker lives; see host/worker_life.ts. */
  readonly life?: string;
  /** Gaps to force, as of a page without them. */
  readonly without?: readonly string[];
}

export type ToWorker = { settings: WorkerSettings } | { message: Request; attachments: Attachment[] };
export type FromWorker = { message: Answer; attachments: Attachment[] } | { log: string } | { alive: true };

const scope = globalThis as unknown as {
  postMessage(data: FromWorker, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
};

const log = (text: string) => scope.postMessage({ log: text }, []);

/** A macrotask without the clamp of timers: messages that already wait come first. */
const channel = new MessageChannel();
const deferred: (() => void)[] = [];
channel.port1.onmessage = () => deferred.shift()?.();

async function start({ kernels, bundles, budget, hub, without = [] }: WorkerSettings): Promise<Engine> {
  const store = without.includes("indexeddb") ? null : await openIndexedChunks(log);
  return createEngine({
    post: (message, attachments) =>
      scope.postMessage(
        { message, attachments },
        attachments.map((each) => each.buffer as ArrayBuffer),
      ),
    fetchBytes: fetchOverHttp,
    fetchKernels: (file) => fetchOverHttp(besideKernels(kernels, file)),
    threads: without.includes("threads") ? null : webThreads(kernels),
    store,
    // What was measured without something says nothing of a visit with it.
    remembered: without.length > 0 ? null : indexedMeasurements(),
    log,
    budget,
    hub,
    ask: askOverHttp,
    lab: new URL(bundles, location.href).origin,
    resolveBundle: (name) => (/^[a-z]+:|\//.test(name) ? name : `${bundles.replace(/\/$/, "")}/${name}`),
    defer: (action) => {
      deferred.push(action);
      channel.port2.postMessage(null);
    },
    digest: without.includes("subtle") ? async (bytes) => plainSha256(bytes) : undefined,
    openers: {
      ...(without.includes("webgl") ? { webgl: switchedOff("webgl") } : {}),
      ...(without.includes("simd") ? { wasm: switchedOff("wasm") } : {}),
    },
  });
}

function switchedOff(name: string): () => Promise<never> {
  return () =>
    Promise.reject(
      new EngineError("BackendUnavailable", `Backend ${name} is switched off for this page; take it out of "without"`, {
        backend: name,
      }),
    );
}

let engine: Promise<Engine> | null = null;

scope.onmessage = ({ data }) => {
  if ("settings" in data) {
    if (data.settings.life !== undefined) live(data.settings.life, () => scope.postMessage({ alive: true }, []));
    engine = start(data.settings);
  } else if (engine === null) log("a message came before the settings, and was dropped");
  else void engine.then((ready) => ready.handle(data.message, data.attachments));
};
