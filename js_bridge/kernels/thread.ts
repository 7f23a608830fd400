// What a helper thread runs, in a page's worker and in one of Node's: it gets module, memory and board, says that it is
// ready, and then serves jobs inside WebAssembly until it is stopped. Nothing is imported but Node's own port.

import type { HelperTask } from "./threads.ts";

interface Port {
  onmessage: ((event: { data: HelperTask }) => void) | null;
  postMessage(message: "ready"): void;
}

function serveOn(port: Port): void {
  port.onmessage = ({ data: { module, memory, board, index } }) => {
    const abort = () => {
      throw new Error("a kernel was given what it can't compute");
    };
    const { exports } = new WebAssembly.Instance(module, { env: { memory, abort } });
    const kernels = exports as { attach(board: number, index: number): void; serve(): void };
    kernels.attach(board, index);
    port.postMessage("ready");
    kernels.serve();
  };
}

if ("WorkerGlobalScope" in globalThis) serveOn(globalThis as unknown as Port);
else void import("node:worker_threads").then(({ parentPort }) => serveOn(parentPort as unknown as Port));
