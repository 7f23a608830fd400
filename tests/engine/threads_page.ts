// A page whose worker runs a few kernels with whatever threads it gets; `runKernels` for Playwright to call.
// The same file is the page and its worker.

import { laidOut } from "../../js_bridge/engine/backend.ts";
import { besideKernels, webThreads } from "../../js_bridge/kernels/threads.ts";
import { openWasmBackend } from "../../js_bridge/kernels/wasm.ts";
import { fetchOverHttp } from "../../js_bridge/store/fetch.ts";

interface Ran {
  readonly isolated: boolean;
  readonly threads: number;
  readonly helped: boolean;
  readonly numbers: number[];
  readonly told: string[];
}

async function run(kernels: string): Promise<Ran> {
  const told: string[] = [];
  const backend = await openWasmBackend({
    fetchKernels: (file) => fetchOverHttp(besideKernels(kernels, file)),
    threads: webThreads(kernels),
    log: (text) => told.push(text),
    portion: 1,
  });
  const wave = (count: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i));
  const [rows, inputs, outputs] = [7, 61, 203];
  const matrix = laidOut(backend, wave(inputs * outputs), { inputs, outputs, transposed: true, scales: null });
  const x = backend.upload(wave(rows * inputs), [1, rows, inputs]);
  let numbers: number[] = [];
  // On a busy machine a helper may come too late for one job.
  for (let i = 0; i < 1000 && (i === 0 || (backend.threads > 1 && backend.helped === 0)); i++) {
    const product = backend.product(x, matrix, null);
    const result = backend.softmax(product, null);
    numbers = [...backend.read(result)];
    backend.release(product);
    backend.release(result);
  }
  return { isolated: crossOriginIsolated, threads: backend.threads, helped: backend.helped > 0, numbers, told };
}

if ("WorkerGlobalScope" in globalThis) {
  globalThis.onmessage = async ({ data }: MessageEvent<string>) => globalThis.postMessage(await run(data));
} else {
  const runKernels = (script: string, kernels: string) =>
    new Promise<Ran>((resolve, reject) => {
      const worker = new Worker(script, { type: "module" });
      worker.onmessage = ({ data }: MessageEvent<Ran>) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage(kernels);
    });
  Object.assign(globalThis, { runKernels });
}
