// Drives an engine by its messages and reads every hook point of a pass out of it: the engine's side of
// `neuroscope verify`. Node and the browser each have an entry of their own, which only moves the numbers.

import { createEngine, type Engine, type EngineOptions } from "../engine/engine.ts"
import type { Answer, Attachment, BackendName, ModelId, Request, Shape } from "../protocol.ts"

export interface HookValue {
  readonly hook: string
  readonly shape: Shape
  readonly numbers: Float32Array
}

interface Reply {
  readonly message: Answer
  readonly attachments: Attachment[]
}

/** A request before it gets its number. */
type Unnumbered<R> = R extends { id: number } ? Omit<R, "id"> : never

export class Probe {
  readonly #engine: Engine
  readonly #waiting = new Map<number, (reply: Reply) => void>()
  #model: ModelId = 0
  #lastId = 0

  private constructor(host: Omit<EngineOptions, "post">) {
    this.#engine = createEngine({
      ...host,
      post: (message, attachments) => {
        if (!("id" in message) || message.id === undefined || message.kind === "progress") return
        const resolve = this.#waiting.get(message.id)
        this.#waiting.delete(message.id)
        resolve?.({ message, attachments })
      },
    })
  }

  /** Loads the bundle at an address. Fails: whatever the engine answers, as an Error with its text. */
  static async open(host: Omit<EngineOptions, "post">, bundle: string, backend: BackendName | "auto"): Promise<{ probe: Probe; backend: BackendName }> {
    const probe = new Probe(host)
    const { message } = await probe.#ask({ kind: "load", bundle, backend })
    if (message.kind !== "loaded") throw new Error(`the engine answered ${message.kind} to load`)
    probe.#model = message.model
    return { probe, backend: message.backend as BackendName }
  }

  /** The values at `hooks` of one pass over a row of tokens, in that order. */
  async activations(tokens: readonly number[], hooks: readonly string[]): Promise<HookValue[]> {
    const capture = hooks.map((name, index) => ({ name, tensor: index + 1 }))
    await this.#ask({ kind: "forward", model: this.#model, pass: 1, tokens: [tokens], capture })
    const values: HookValue[] = []
    for (const { name, tensor } of capture) {
      const { message, attachments } = await this.#ask({ kind: "read", tensor })
      if (message.kind !== "numbers") throw new Error(`the engine answered ${message.kind} to read`)
      values.push({ hook: name, shape: message.shape, numbers: attachments[0] as Float32Array })
    }
    this.#engine.handle({ kind: "release", tensors: capture.map(({ tensor }) => tensor) })
    return values
  }

  #ask(request: Unnumbered<Request>): Promise<Reply> {
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, (reply) => {
        if (reply.message.kind === "failed") reject(new Error(reply.message.error.message))
        else resolve(reply)
      })
      this.#engine.handle({ ...request, id } as Request)
    })
  }
}
