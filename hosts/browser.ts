// Runs an image in a bare page for the command line: `eval --in chromium` and `image test --in chromium`. Output and
// exit status go to functions that the driver has put into the window. It is not the page that a person opens.

import type { HostMessage } from "../js_bridge/host/neuroscope_host.ts";
import { EngineWorker } from "../js_bridge/host/engine_worker.ts";
import { Machine } from "./machine.ts";

interface BrowserRun {
  readonly image: string;
  readonly engine: string;
  readonly kernels: string;
  readonly start: HostMessage;
  readonly bundles: Record<string, string>;
  readonly backend: string;
  readonly timeoutSeconds: number | null;
  readonly failPrimitives: (number | string)[];
}

declare global {
  interface Window {
    neuroscopeRun(run: BrowserRun): Promise<void>;
    neuroscopeWrite(file: number, base64: string): Promise<void>;
    neuroscopeQuit(status: number): Promise<void>;
  }
}

window.neuroscopeRun = async (run) => {
  // Calls to the driver arrive in the order in which they are made only if each waits for the one before.
  let told: Promise<unknown> = Promise.resolve();
  const write = (text: Uint8Array, file: number): void => {
    const base64 = btoa(Array.from(text, (byte) => String.fromCharCode(byte)).join(""));
    told = told.then(() => window.neuroscopeWrite(file, base64));
  };
  const response = await fetch(run.image);
  if (!response.ok) throw new Error(`The image ${run.image} could not be fetched: status ${response.status}.`);
  const engine = new EngineWorker({
    url: run.engine,
    kernels: run.kernels,
    bundles: run.bundles,
    backend: run.backend,
    without: [],
    log: (text) => write(new TextEncoder().encode(`${text}\n`), 2),
    receive: (message, attachments) => machine.post(message, attachments),
  });
  const machine = new Machine({
    image: await response.arrayBuffer(),
    imageName: run.image,
    start: run.start,
    failPrimitives: new Set(run.failPrimitives),
    write,
    receive: (message, attachments) => engine.post(message, attachments),
    stalled: () => {
      if (!engine.isBusy()) machine.post({ kind: "stalled" });
    },
    quit: (status) => {
      told = told.then(() => window.neuroscopeQuit(status));
    },
    log: (text) => write(new TextEncoder().encode(`${text}\n`), 2),
  });
  if (run.timeoutSeconds) {
    setTimeout(() => machine.post({ kind: "timeout", seconds: run.timeoutSeconds }), run.timeoutSeconds * 1000);
  }
  machine.run();
};
