// Helper threads of the WebAssembly backend: who starts them, and how many there should be. A helper runs
// kernels.thread.js, which serves the board of assembly/jobs.ts on the same memory; it knows no tensors and no messages
// but the first. Where there is no shared memory, or a helper does not come in time, the engine goes on with fewer.

/** A started helper, whatever the host calls its workers. */
export interface Helper {
  /** Begins to serve. Calls back once: ready, or not coming any more, now or later. */
  start(task: HelperTask, onReady: () => void, onDeath: (reason: string) => void): void;
  stop(): void;
}

/** What a host offers. */
export interface ThreadHost {
  /** Threads that a kernel should use, the engine's own included. */
  readonly count: number;
  open(): Helper;
}

/** The one message to a helper. */
export interface HelperTask {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly board: number;
  /** Which of the threads it is; the engine's own is 0. */
  readonly index: number;
}

export const THREAD_SCRIPT = "kernels.thread.js";

/** The path or address of a file that lies beside kernels.wasm. */
export function besideKernels(kernels: string, file: string): string {
  return kernels.replace(/[^/\\]*$/, file);
}

/** More threads than these gain little, and each keeps scratch of its own. */
const MOST = 16;

/**
 * One thread for each core. Where the machine tells more than two, two of them may share a core, and a second thread on
 * a core that already multiplies at its full rate makes both slower: so half of what it tells.
 */
export function threadsFor(concurrency: number): number {
  return Math.max(1, Math.min(MOST, concurrency <= 2 ? concurrency : Math.ceil(concurrency / 2)));
}

/** Module workers of a page or of a worker; null where memory may not be shared. `kernels` is kernels.wasm's address. */
export function webThreads(kernels: string): ThreadHost | null {
  if (typeof Worker !== "function" || globalThis.crossOriginIsolated !== true) return null;
  const script = besideKernels(kernels, THREAD_SCRIPT);
  return {
    count: threadsFor(navigator.hardwareConcurrency),
    open: () => {
      const worker = new Worker(script, { type: "module" });
      return {
        start(task, onReady, onDeath) {
          worker.onmessage = onReady;
          worker.onerror = (event) => onDeath(event.message || `${script} could not be loaded`);
          worker.postMessage(task);
        },
        stop: () => worker.terminate(),
      };
    },
  };
}
