// A `load` that a page sends before its image asks for it, so that weights come over the line while the image boots.
// The image's own request for the same bundle then takes over the answers. It changes when bytes are fetched, and
// nothing that the image sees.

import type { HostMessage } from "./neuroscope_host.ts";

/** No request of an image has this id: those count from 1. */
const earlyId = 0;

export class EarlyLoad {
  readonly request: HostMessage;
  #imageId: unknown = null;
  #progress: HostMessage | null = null;
  #answer: HostMessage | null = null;

  constructor(bundle: string) {
    this.request = { kind: "load", id: earlyId, bundle, backend: "auto" };
  }

  /** Whether the image's message asks for what is on its way; what came so far is delivered at once. */
  takeOver(message: HostMessage, deliver: (answer: HostMessage) => void): boolean {
    const asked = { ...this.request, id: message["id"] };
    const keys = new Set([...Object.keys(asked), ...Object.keys(message)]);
    const isSame = [...keys].every((key) => message[key] === asked[key as keyof typeof asked]);
    if (!isSame || this.#imageId !== null) return false;
    this.#imageId = message["id"];
    if (this.#progress) deliver({ ...this.#progress, id: this.#imageId });
    if (this.#answer) deliver({ ...this.#answer, id: this.#imageId });
    return true;
  }

  /** The image's message as the engine is to see it: to cancel the load names the number that it was sent with. */
  address(message: HostMessage): HostMessage {
    const isAboutIt = message.kind === "cancelLoad" && this.#imageId !== null && message["load"] === this.#imageId;
    return isAboutIt ? { ...message, load: earlyId } : message;
  }

  /** The engine's message as the image is to see it; null for one that waits until the image has asked. */
  readdress(message: HostMessage): HostMessage | null {
    if (message["id"] !== earlyId) return message;
    if (this.#imageId !== null) return { ...message, id: this.#imageId };
    if (message.kind === "progress") this.#progress = message;
    else this.#answer = message;
    return null;
  }
}
