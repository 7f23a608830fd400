// The engine in Node's own process, over the folders of bundles that it is told: for the command line and for upstream.

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { createEngine } from "../js_bridge/engine/engine.ts";
import { askOverHttp } from "../js_bridge/engine/remote/lab.ts";
import { BundleList } from "../js_bridge/host/bundle_list.ts";
import type { Attachment, HostMessage } from "../js_bridge/host/neuroscope_host.ts";
import { Outstanding } from "../js_bridge/host/outstanding.ts";
import { besideKernels, THREAD_SCRIPT, type ThreadHost, threadsFor } from "../js_bridge/kernels/threads.ts";
import type { Request } from "../js_bridge/protocol.ts";
import { readFiles } from "../js_bridge/store/files.ts";

export interface NodeEngineOptions {
  /** Bundle id to folder. */
  readonly bundles: Record<string, string>;
  /** What `auto` means here. */
  readonly backend: string;
  /** The path of kernels.wasm, the others beside it; null where no bundle is given, so that nothing can be computed. */
  readonly kernels: string | null;
}

export interface NodeEngine {
  handle(message: HostMessage, attachments: Attachment[]): void;
  /** Whether an answer is still to come from the engine by itself. */
  isBusy(): boolean;
}

export function connectEngine(
  options: NodeEngineOptions,
  post: (message: HostMessage, attachments: Attachment[]) => void,
): NodeEngine {
  const outstanding = new Outstanding();
  const { kernels } = options;
  // Without kernels a repository could be fetched, and not run.
  const bundles = new BundleList(options.bundles, options.backend, kernels !== null);
  const answer = (message: HostMessage, attachments: Attachment[]): void => {
    outstanding.received(message);
    post(bundles.explained(message), attachments);
  };
  const engine = createEngine({
    post: (message, attachments) => answer(message as unknown as HostMessage, attachments),
    fetchBytes: readFiles,
    fetchKernels: async (file) => (kernels === null ? null : readFiles(besideKernels(kernels, file))),
    threads: kernels === null ? null : nodeThreads(kernels),
    ask: askOverHttp,
    lab: process.env["NEUROSCOPE_LAB"] ?? "http://127.0.0.1:8080",
    defer: (action) => void setImmediate(action),
    log: (text) => process.stderr.write(`${text}\n`),
  });
  return {
    handle(message, attachments) {
      const aimed = bundles.aim(message);
      outstanding.sent(message);
      if ("refusal" in aimed) answer(aimed.refusal, []);
      // The image's messages follow the protocol, or the engine answers BadMessage.
      else engine.handle(aimed.request as unknown as Request, attachments);
    },
    isBusy: () => outstanding.isBusy(),
  };
}

/** Helper threads as Node's workers, which never keep the process alive. */
export function nodeThreads(kernels: string, count = threadsFor(availableParallelism())): ThreadHost {
  return {
    count,
    open: () => {
      const worker = new Worker(besideKernels(kernels, THREAD_SCRIPT), { execArgv: [] });
      return {
        start(task, onReady, onDeath) {
          worker.once("message", () => {
            worker.unref();
            onReady();
          });
          worker.on("error", (error) => onDeath((error as Error).message));
          worker.on("exit", (status) => onDeath(`it ended with status ${status}`));
          worker.postMessage(task);
        },
        stop: () => {
          worker.unref();
          void worker.terminate();
        },
      };
    },
  };
}
