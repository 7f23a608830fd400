// The bundles that a host knows by name, and the backend that `auto` means there. A `load` request goes out with the
// bundle's address in place of its name; a name that is not known is answered here, with the names that are.

import type { HostMessage } from "./neuroscope_host.ts";

export class BundleList {
  #addresses: ReadonlyMap<string, string>;
  #backend: string;

  constructor(addresses: Record<string, string>, backend: string) {
    this.#addresses = new Map(Object.entries(addresses));
    this.#backend = backend;
  }

  /** The message for the engine, or the answer that refuses it. */
  aim(message: HostMessage): { readonly request: HostMessage } | { readonly refusal: HostMessage } {
    if (message.kind !== "load") return { request: message };
    const name = String(message["bundle"]);
    const address = this.#addresses.get(name);
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
