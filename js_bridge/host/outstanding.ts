// Counts what the engine still owes an answer to, from the messages that go by. A pass that waits at a hook owes
// nothing: the image does. So a host can tell an image that waits for the engine from one that waits for nothing.

import type { HostMessage } from "./neuroscope_host.ts";

export class Outstanding {
  #requests = new Set<number>();
  #requestOfPass = new Map<number, number>();
  #atHook = new Set<number>();

  /** A message went from the image to the engine. */
  sent(message: HostMessage): void {
    const pass = message["pass"];
    if (typeof message["id"] === "number") {
      this.#requests.add(message["id"]);
      if (typeof pass === "number") this.#requestOfPass.set(pass, message["id"]);
    }
    if (message.kind === "hookAnswer" && typeof pass === "number") this.#atHook.delete(pass);
  }

  /** A message went from the engine to the image. */
  received(message: HostMessage): void {
    const pass = message["pass"];
    if (message.kind === "hook" && typeof pass === "number") this.#atHook.add(pass);
    if (message.kind === "progress" || message.kind === "token" || typeof message["id"] !== "number") return;
    this.#requests.delete(message["id"]);
    if (typeof pass === "number") {
      this.#requestOfPass.delete(pass);
      this.#atHook.delete(pass);
    }
  }

  /** The requests without an answer, each with its pass where it has one. */
  requests(): { readonly id: number; readonly pass?: number }[] {
    const passOf = new Map([...this.#requestOfPass].map(([pass, id]) => [id, pass]));
    return [...this.#requests].map((id) => ({ id, ...(passOf.has(id) ? { pass: passOf.get(id) } : {}) }));
  }

  isBusy(): boolean {
    let waiting = 0;
    for (const pass of this.#atHook) if (this.#requests.has(this.#requestOfPass.get(pass) ?? -1)) waiting++;
    return this.#requests.size > waiting;
  }
}
