// The bundles that a host knows by name, and the backend that `auto` means there. A `load` request goes out with the
// bundle's address in place of its name. Any other name is a repository's, where the host may ask the Hub; where it may
// not, it is answered here, with the names that are known. What a lab computes has no bundle, and passes through.

import { LAB_SCHEME } from "../engine/remote/lab.ts";
import { HUB_SCHEME, isRepositoryName } from "../store/hub_name.ts";
import type { HostMessage } from "./neuroscope_host.ts";

export class BundleList {
  #addresses: ReadonlyMap<string, string>;
  #backend: string;

  readonly #asksHub: boolean;
  /** Names that the Hub is asked for, by request. */
  readonly #asked = new Map<unknown, string>();

  constructor(addresses: Record<string, string>, backend: string, asksHub = false) {
    this.#addresses = new Map(Object.entries(addresses));
    this.#backend = backend;
    this.#asksHub = asksHub;
  }

  /** The message for the engine, or the answer that refuses it. */
  aim(message: HostMessage): { readonly request: HostMessage } | { readonly refusal: HostMessage } {
    if (message.kind !== "load") return { request: message };
    const name = String(message["bundle"]);
    if (name.startsWith(LAB_SCHEME)) return { request: message };
    const known = this.#addresses.get(name);
    const isRepository = known === undefined && this.#asksHub && isRepositoryName(name);
    const address = isRepository ? HUB_SCHEME + name : known;
    if (address === undefined) return { refusal: this.#refuse(message, name) };
    if (isRepository) this.#asked.set(message["id"], name);
    const backend = message["backend"] === "auto" ? this.#backend : message["backend"];
    return { request: { ...message, bundle: address, backend } };
  }

  /** An answer; one that no such repository was found also tells what is known here, for the name may be mistyped. */
  explained(answer: HostMessage): HostMessage {
    if (answer.kind !== "failed" && answer.kind !== "loaded") return answer;
    const name = this.#asked.get(answer["id"]);
    this.#asked.delete(answer["id"]);
    const error = answer["error"] as { readonly name: string; readonly message: string } | undefined;
    if (name === undefined || error?.name !== "FetchFailed") return answer;
    const message = `There is no bundle named ${name} here; ${this.#known}. So the Hub was asked: ${error.message}`;
    return { ...answer, error: { ...error, message } };
  }

  get #known(): string {
    const names = [...this.#addresses.keys()];
    return names.length > 0 ? `it has ${names.join(", ")}` : "it has none";
  }

  #refuse(message: HostMessage, name: string): HostMessage {
    return {
      kind: "failed",
      id: message["id"],
      error: {
        name: "FetchFailed",
        message: `There is no bundle named ${name} here; ${this.#known}. \`neuroscope export\` makes one of a checkpoint.`,
      },
    };
  }
}
