// The engine in a worker, seen from the page: messages go there and come back, attachments are moved, not copied. When
// the worker dies, every request that waits is answered `failed` with EngineRestarted, the image is told by the event
// `restarted`, and the next request starts a fresh engine, which knows nothing of the models and tensors of the old one.

import type { FromWorker, ToWorker } from "../engine/worker.ts";
import type { ErrorDescription, Request } from "../protocol.ts";
import { BundleList } from "./bundle_list.ts";
import { EarlyLoad } from "./early_load.ts";
import type { Attachment, HostMessage } from "./neuroscope_host.ts";
import { Outstanding } from "./outstanding.ts";
import { whenDead } from "./worker_life.ts";

export interface EngineWorkerOptions {
  /** Of the worker's script, relative to the page. */
  readonly url: string;
  readonly kernels: string;
  /** Bundle id to folder URL. */
  readonly bundles: Record<string, string>;
  /** Where a model that is none of the bundles is looked for; null: nowhere, the public Hub where it is left out. */
  readonly hub?: string | null;
  /** What `auto` means here. */
  readonly backend: string;
  /** Features that are to be done without, as ?without= names them. */
  readonly without: readonly string[];
  receive(message: HostMessage, attachments: Attachment[]): void;
  log(text: string): void;
}

/** Messages about what an engine has: a fresh one has none of it. */
const ABOUT_THE_OLD: ReadonlySet<string> = new Set(["release", "releaseCache", "hookAnswer", "cancel", "cancelLoad"]);

export class EngineWorker {
  readonly #options: EngineWorkerOptions;
  readonly #bundles: BundleList;
  #worker: Worker | null = null;
  #outstanding = new Outstanding();
  #early: EarlyLoad | null = null;

  constructor(options: EngineWorkerOptions) {
    const addresses = Object.entries(options.bundles).map(([id, url]) => [id, absolute(url)]);
    this.#options = options;
    this.#bundles = new BundleList(Object.fromEntries(addresses), options.backend, options.hub !== null);
    this.#started();
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
    if (this.#worker === null && ABOUT_THE_OLD.has(message.kind)) return;
    this.#outstanding.sent(message);
    if (this.#early?.takeOver(message, (answer) => this.#deliver(answer, []))) return;
    const aimed = this.#bundles.aim(this.#early?.address(message) ?? message);
    if ("refusal" in aimed) this.#answer(aimed.refusal, []);
    // The image's messages follow the protocol, or the engine answers BadMessage.
    else this.#send({ message: aimed.request as unknown as Request, attachments }, attachments);
  }

  /** Whether an answer is still to come from the engine by itself. */
  isBusy(): boolean {
    return this.#outstanding.isBusy();
  }

  #started(): Worker {
    const { url, kernels, hub, without, log } = this.#options;
    const worker = new Worker(absolute(url), { type: "module" });
    this.#worker = worker;
    worker.onmessage = (event: MessageEvent<FromWorker>) => {
      if (worker !== this.#worker) return; // a dead one's last words: its waits have ended
      if ("log" in event.data) log(event.data.log);
      else if ("message" in event.data) this.#answer(event.data.message as unknown as HostMessage, event.data.attachments);
    };
    const life = whenDead(worker, (reason) => {
      if (worker === this.#worker) this.#died(worker, reason);
    });
    const settings = { kernels: absolute(kernels), bundles: absolute("bundles/"), without, life, hub: hub ?? undefined };
    worker.postMessage({ settings } satisfies ToWorker);
    return worker;
  }

  /** An error that nobody caught leaves an engine in a state that nobody knows: it is ended as well. */
  #died(worker: Worker, reason: string): void {
    worker.terminate();
    this.#worker = null;
    this.#early = null;
    const error: ErrorDescription = {
      name: "EngineRestarted",
      message: `The engine's worker stopped (${reason}), and with it what was asked of it; a fresh one starts with the next request: load the model again`,
      isRetriable: true,
      reason,
    };
    const abandoned = this.#outstanding.requests();
    this.#outstanding = new Outstanding();
    for (const request of abandoned) this.#options.receive({ kind: "failed", ...request, error }, []);
    this.#options.receive({ kind: "restarted", reason }, []);
  }

  #answer(message: HostMessage, attachments: Attachment[]): void {
    const explained = this.#bundles.explained(message);
    const readdressed = this.#early ? this.#early.readdress(explained) : explained;
    if (readdressed) this.#deliver(readdressed, attachments);
  }

  #deliver(message: HostMessage, attachments: Attachment[]): void {
    this.#outstanding.received(message);
    this.#options.receive(message, attachments);
  }

  #send(data: ToWorker, attachments: readonly Attachment[]): void {
    const worker = this.#worker ?? this.#started();
    worker.postMessage(data, attachments.map((each) => each.buffer as ArrayBuffer));
  }
}

function absolute(url: string): string {
  return new URL(url, document.baseURI).href;
}
