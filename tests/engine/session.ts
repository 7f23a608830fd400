// An engine in this process and a mailbox that remembers: what the engine's tests talk through.

import { fileURLToPath } from "node:url";
import { createEngine, type Engine, type EngineOptions } from "../../js_bridge/engine/engine.ts";
import { besideKernels } from "../../js_bridge/kernels/threads.ts";
import type { Answer, Attachment, HookEvent, LoadedAnswer, LoadRequest, Request } from "../../js_bridge/protocol.ts";
import { readFiles } from "../../js_bridge/store/files.ts";

export const KERNELS = fileURLToPath(new URL("../../build/kernels.wasm", import.meta.url));

export interface Received {
  message: Answer;
  attachments: Attachment[];
}

type Kind<K extends Answer["kind"]> = Extract<Answer, { kind: K }>;
/** A request without its id: the session numbers them. */
type Unnumbered<R> = R extends { id: number } ? Omit<R, "id"> : never;

export class Session {
  readonly engine: Engine;
  readonly events: Answer[] = [];
  /** Answers hook events; by default every value is left as it is. */
  onHook: (event: HookEvent) => void = (event) =>
    this.post({ kind: "hookAnswer", pass: event.pass, replacement: null });
  readonly #waiting = new Map<number, { resolve: (received: Received) => void; reject: (error: Error) => void }>();
  #next = 1;
  #tensor = 1;

  constructor(options: Partial<EngineOptions> = {}) {
    this.engine = createEngine({
      fetchBytes: readFiles,
      fetchKernels: (file) => readFiles(besideKernels(KERNELS, file)),
      ...options,
      post: (message, attachments) => this.#receive(message, attachments),
    });
  }

  /** A fresh name for a tensor, or for a pass. */
  name(): number {
    return this.#tensor++;
  }

  post(message: Request, attachments: Attachment[] = []): void {
    this.engine.handle(message, attachments);
  }

  /** Resolves with the answer; a `failed` one rejects, with the error's name, text and details. */
  ask(request: Unnumbered<Request>): Promise<Received> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.engine.handle({ ...request, id } as Request);
    });
  }

  async load(bundle: string, backend: LoadRequest["backend"] = "reference"): Promise<LoadedAnswer> {
    return (await this.ask({ kind: "load", bundle, backend })).message as LoadedAnswer;
  }

  create(numbers: readonly number[], shape: readonly number[]): number {
    const tensor = this.name();
    this.post({ kind: "create", tensor, shape }, [Float32Array.from(numbers)]);
    return tensor;
  }

  async read(tensor: number): Promise<{ shape: readonly number[]; numbers: Float32Array }> {
    const { message, attachments } = await this.ask({ kind: "read", tensor });
    return { shape: (message as Kind<"numbers">).shape, numbers: attachments[0] as Float32Array };
  }

  #receive(message: Answer, attachments: Attachment[]): void {
    if (message.kind === "hook") {
      queueMicrotask(() => this.onHook(message));
      return;
    }
    const id = "id" in message ? message.id : undefined;
    const waiting = id === undefined || message.kind === "progress" || message.kind === "token" ? undefined : this.#waiting.get(id);
    if (waiting === undefined) {
      this.events.push(message);
      return;
    }
    this.#waiting.delete(id as number);
    if (message.kind === "failed") waiting.reject(Object.assign(new Error(message.error.message), message.error));
    else waiting.resolve({ message, attachments });
  }
}
