// The engine in a worker, seen from the page: messages go there and come back, attachments are moved, not copied. A
// worker that dies is told to the image as `engineDied`, which ends every wait.

import type { Attachment, HostMessage } from "./neuroscope_host.ts";
import { Outstanding } from "./outstanding.ts";

export interface EngineWorkerOptions {
  /** Of the worker's script, relative to the page. */
  readonly url: string;
  readonly kernels: string;
  /** Bundle id to folder URL. */
  readonly bundles: Record<string, string>;
  /** What `auto` means here. */
  readonly backend: string;
  /** Features that are to be done without, as ?without= names them. */
  readonly without: readonly string[];
  receive(message: HostMessage, attachments: Attachment[]): void;
}

/** What crosses to and from the worker; the first message to it is `configure`. */
export interface EngineEnvelope {
  readonly message: HostMessage;
  readonly attachments: Attachment[];
}

export class EngineWorker {
  #worker: Worker;
  #outstanding = new Outstanding();

  constructor(options: EngineWorkerOptions) {
    const absolute = (url: string): string => new URL(url, document.baseURI).href;
    this.#worker = new Worker(absolute(options.url), { type: "module" });
    this.#worker.onmessage = (event: MessageEvent<EngineEnvelope>) => {
      this.#outstanding.received(event.data.message);
      options.receive(event.data.message, event.data.attachments);
    };
    this.#worker.onerror = (event) => {
      this.#outstanding = new Outstanding();
      const reason = event.message || "its script could not be loaded";
      options.receive({ kind: "engineDied", message: `The engine's worker stopped: ${reason}. Reload the page.` }, []);
    };
    this.post({
      kind: "configure",
      kernels: absolute(options.kernels),
      bundles: Object.fromEntries(Object.entries(options.bundles).map(([id, url]) => [id, absolute(url)])),
      backend: options.backend,
      without: options.without,
    });
  }

  post(message: HostMessage, attachments: Attachment[] = []): void {
    this.#outstanding.sent(message);
    this.#worker.postMessage({ message, attachments } satisfies EngineEnvelope, attachments.map((each) => each.buffer as ArrayBuffer));
  }

  /** Whether an answer is still to come from the engine by itself. */
  isBusy(): boolean {
    return this.#outstanding.isBusy();
  }
}
