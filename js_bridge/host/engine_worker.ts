// The engine in a worker, seen from the page: messages go there and come back, attachments are moved, not copied. A
// worker that dies is told to the image as `engineDied`, which ends every wait.

import type { FromWorker, ToWorker } from "../engine/worker.ts";
import type { Request } from "../protocol.ts";
import { BundleList } from "./bundle_list.ts";
import { EarlyLoad } from "./early_load.ts";
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
  log(text: string): void;
}

export class EngineWorker {
  #worker: Worker;
  #bundles: BundleList;
  #outstanding = new Outstanding();
  #options: EngineWorkerOptions;
  #early: EarlyLoad | null = null;

  constructor(options: EngineWorkerOptions) {
    const absolute = (url: string): string => new URL(url, document.baseURI).href;
    const addresses = Object.entries(options.bundles).map(([id, url]) => [id, absolute(url)]);
    this.#options = options;
    this.#bundles = new BundleList(Object.fromEntries(addresses), options.backend);
    this.#worker = new Worker(absolute(options.url), { type: "module" });
    this.#worker.onmessage = (event: MessageEvent<FromWorker>) => {
      if ("log" in event.data) options.log(event.data.log);
      else this.#answer(event.data.message as unknown as HostMessage, event.data.attachments);
    };
    this.#worker.onerror = (event) => {
      this.#outstanding = new Outstanding();
      const reason = event.message || "its script could not be loaded";
      options.receive({ kind: "engineDied", message: `The engine's worker stopped: ${reason}. Reload the page.` }, []);
    };
    this.#send({ settings: { kernels: absolute(options.kernels), bundles: absolute("bundles/"), without: options.without } }, []);
  }

  /** Begins to load a bundle that the image will ask for. */
  loadEarly(bundle: string): void {
    const early = new EarlyLoad(bundle);
    const aimed = this.#bundles.aim(early.request);
    if ("refusal" in aimed) return; // the image is told when it asks
    this.#early = early;
    this.#send({ message: aimed.request as unknown as Request, attachments: [] }, []);
  }

  post(message: HostMessage, attachments: Attachment[] = []): void {
    this.#outstanding.sent(message);
    if (this.#early?.takeOver(message, (answer) => this.#deliver(answer, []))) return;
    const aimed = this.#bundles.aim(message);
    if ("refusal" in aimed) this.#answer(aimed.refusal, []);
    // The image's messages follow the protocol, or the engine answers BadMessage.
    else this.#send({ message: aimed.request as unknown as Request, attachments }, attachments);
  }

  /** Whether an answer is still to come from the engine by itself. */
  isBusy(): boolean {
    return this.#outstanding.isBusy();
  }

  #answer(message: HostMessage, attachments: Attachment[]): void {
    const readdressed = this.#early ? this.#early.readdress(message) : message;
    if (readdressed) this.#deliver(readdressed, attachments);
  }

  #deliver(message: HostMessage, attachments: Attachment[]): void {
    this.#outstanding.received(message);
    this.#options.receive(message, attachments);
  }

  #send(data: ToWorker, attachments: readonly Attachment[]): void {
    this.#worker.postMessage(data, attachments.map((each) => each.buffer as ArrayBuffer));
  }
}
