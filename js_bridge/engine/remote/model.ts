// A model of a lab as the engine's messages describe one: its hooks with their shapes, its tokenizer's questions. Its
// weights are elsewhere; its passes are remote/pass.ts's.

import type { Answer, ForecastRequest, HookDescription, LoadedAnswer, ModelId, Request } from "../../protocol.ts";
import { EngineError, nearMisses } from "../errors.ts";
import { type Ask, Lab, parseLabAddress } from "./lab.ts";

export interface RemoteModel {
  readonly id: ModelId;
  readonly name: string;
  readonly lab: Lab;
  readonly hooks: ReadonlyMap<string, HookDescription>;
  readonly dimensions: Readonly<Record<string, number>>;
  readonly eos: number | null;
  readonly hasTokenizer: boolean;
  /** Answers the `load` that asked for it. */
  loaded(id: number): LoadedAnswer;
}

/** GET /v1/models/NAME/description */
interface Description {
  readonly id: string;
  readonly engine: string;
  readonly device: string;
  readonly architecture: string;
  readonly dtype: string;
  readonly parameters: number;
  readonly hooks: readonly { readonly name: string; readonly shape: string | null }[];
  readonly aliases: Record<string, string>;
  readonly dimensions: Record<string, number>;
  readonly tokenizer: { size: number; bos: number | null; eos: number | null } | null;
}

/** Has the lab load the model, and learns what it is. Fails: FetchFailed, LabRefused, BundleRefused. */
export async function openRemoteModel(
  id: ModelId,
  address: string,
  own: string | null,
  ask: Ask,
): Promise<RemoteModel> {
  const { base, name } = parseLabAddress(address, own);
  const lab = new Lab(base, ask);
  const path = name.split("/").map(encodeURIComponent).join("/");
  const told = (await lab.json("GET", `/v1/models/${path}/description`)) as unknown as Description;
  const hooks = told.hooks
    .filter((hook) => hook.shape !== null)
    .map((hook): HookDescription => ({ name: hook.name, shape: hook.shape as string, on: true }));
  return {
    id,
    name: told.id,
    lab,
    hooks: new Map(hooks.map((hook) => [hook.name, hook])),
    dimensions: told.dimensions,
    eos: told.tokenizer?.eos ?? null,
    hasTokenizer: told.tokenizer !== null,
    loaded: (request) => ({
      kind: "loaded",
      id: request,
      model: id,
      name: told.id,
      architecture: told.architecture,
      config: { ...told, hooks: undefined, aliases: undefined, lab: lab.base },
      dimensions: told.dimensions,
      hooks,
      aliases: told.aliases,
      dtype: told.dtype,
      backend: "lab",
      basis: { model: told.id, revision: null, weights: "raw", dtype: told.dtype, backend: "lab" },
      parameters: told.parameters,
      bytes: 0,
      tokenizer: told.tokenizer,
      probe: {},
      threads: 1,
      refused: [],
      source: `${lab.base} (${told.engine} on ${told.device})`,
      revision: null,
    }),
  };
}

/** Fails: UnknownHook. */
export function hookOf(model: RemoteModel, name: string): HookDescription {
  const hook = model.hooks.get(name);
  if (hook !== undefined) return hook;
  const near = nearMisses(name, model.hooks.keys());
  throw new EngineError("UnknownHook", `${model.name} has no hook ${JSON.stringify(name)}; near it are ${near.join(", ")}`, {
    hook: name,
    nearMisses: near,
  });
}

/** What is asked of a model without a pass. Fails: LabRefused for what a lab does not offer. */
export async function answerRemote(model: RemoteModel, message: Request): Promise<Answer | null> {
  switch (message.kind) {
    case "encode": {
      const { ids } = await model.lab.json("POST", "/v1/tokenize", { model: model.name, text: message.text });
      return { kind: "encoded", id: message.id, ids: ids as number[] };
    }
    case "decode": {
      const told = await model.lab.json("POST", "/v1/detokenize", { model: model.name, ids: message.ids });
      return { kind: "decoded", id: message.id, text: told["text"] as string, tokens: told["tokens"] as string[] };
    }
    case "chat": {
      const { messages, addGenerationPrompt } = message;
      const body = { model: model.name, messages, add_generation_prompt: addGenerationPrompt };
      const { text, ids } = await model.lab.json("POST", "/v1/tokenize", body);
      return { kind: "chatted", id: message.id, text: text as string, ids: ids as number[] };
    }
    case "createCache":
      return null; // a pass that names it is refused
    default:
      throw new EngineError(
        "LabRefused",
        `A lab answers no ${message.kind} of ${model.name}; load the model into the page for that, if it is small enough`,
        { status: null, code: null },
      );
  }
}

/** Bytes of a capture. [letters: "B T H 64", "B*T 32"] */
export function bytesOf(model: RemoteModel, name: string, batch: number, positions: number): number {
  const extents: Record<string, number> = { ...model.dimensions, B: batch, T: positions };
  const factors = hookOf(model, name).shape.split(/[ *]/);
  return factors.reduce((product, letter) => product * (extents[letter] ?? Number(letter)), 4);
}

export function forecastRemote(model: RemoteModel, message: ForecastRequest, live: number, budget: number): Answer {
  const hooks = message.names.map((name) => ({
    name,
    bytes: bytesOf(model, name, message.batch, message.positions),
  }));
  const bytes = hooks.reduce((sum, each) => sum + each.bytes, 0);
  return { kind: "forecast", id: message.id, bytes, live, budget, fits: live + bytes <= budget, hooks };
}
