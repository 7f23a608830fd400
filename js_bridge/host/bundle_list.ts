// The bundles that a host knows by name, and the backend that `auto` means there. A `load` request goes out with the
// bundle's address in place of its name. Any other name is a repository's, where the host may ask the Hub; where it may
// not, it is answered here, with the names that are known. What a lab computes has no bundle, and passes through.

import { LAB_SCHEME } from "../engine/remote/lab.ts";
import { HUB_SCHEME, isRepositoryName } from "../store/hub_name.ts";
import type { HostMessage } from "./neuroscope_host.ts";

export class BundleList {
  #addresses: ReadonlyMap<string, string>;
  #backend: string;

  #asksHub: boolean;

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
    const isRepository = this.#asksHub && isRepositoryName(name);
    const address = this.#addresses.get(name) ?? (isRepository ? HUB_SCHEME + name : undefined);
    if (address === undefined) return { refusal: this.#refuse(message, name) };
    const backend = message["backend"] === "auto" ? this.#backend : message["backend"];
    return { request: { ...message, bundle: address, backend } };
  }

  #refuse(message: HostMessage, name: string): HostMessage {
    const known = [...this.#addresses.keys()];
    const allowed = known.length > 0 ? `it has ${known.join(", ")}` : "it has none";
    return {
      kind: "failed",
      id: message["id"],
      error: {
        name: "FetchFailed",
        message: `There is no bundle named ${name} here; ${allowed}. \`neuroscope export\` makes one of a checkpoint.`,
      },
    };
  }
}
