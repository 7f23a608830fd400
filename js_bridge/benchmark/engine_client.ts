// The engine's worker, asked from a page: requests with their answers as promises. For measuring; the image has its mailbox.

import type { FromWorker, WorkerSettings } from "../engine/worker.ts";
import type { Answer, Attachment, Request } from "../protocol.ts";

type WithId = Extract<Request, { id: number }>;
/** A request without its id, each kind by itself. */
export type Question = WithId extends infer R ? (R extends WithId ? Omit<R, "id"> : never) : never;

export interface Reply {
  readonly message: Answer;
  readonly attachments: readonly Attachment[];
}

interface Waiting {
  readonly onEvent: (answer: Answer) => void;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

const EVENTS: readonly string[] = ["progress", "token", "hook"];

export class EngineClient {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;

  constructor(script: string, settings: WorkerSettings) {
    this.#worker = new Worker(script, { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if ("message" in data) this.#receive(data);
    };
    this.#worker.postMessage({ settings });
  }

  /** Fails with the engine's own sentence. */
  ask(question: Question, onEvent: (answer: Answer) => void = () => undefined): Promise<Reply> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { onEvent, resolve, reject });
      this.tell({ ...question, id } as Request);
    });
  }

  tell(message: Request): void {
    this.#worker.postMessage({ message, attachments: [] });
  }

  close(): void {
    this.#worker.terminate();
  }

  #receive(reply: Reply): void {
    const { message } = reply;
    const id = "id" in message ? message.id : undefined;
    const waiting = id === undefined ? undefined : this.#waiting.get(id);
    if (id === undefined || waiting === undefined) return;
    if (EVENTS.includes(message.kind)) return waiting.onEvent(message);
    this.#waiting.delete(id);
    if (message.kind === "failed") waiting.reject(new Error(`${message.error.name}: ${message.error.message}`));
    else waiting.resolve(reply);
  }
}
