// What the parity tests ask of an engine, as data: the same jobs run in Node's process and in a page's worker.

import type {
  Answer,
  Attachment,
  ForwardRequest,
  Intervention,
  LoadedAnswer,
  LoadRequest,
  Request,
} from "../../js_bridge/protocol.ts";

/** A tensor on its way through JSON: its numbers as base64 of little-endian float32. */
export interface Packed {
  shape: readonly number[];
  base64: string;
}

export interface Job {
  bundle: string;
  backend: string;
  /** More of the load message: dtype, processing. */
  load?: Pick<LoadRequest, "dtype" | "processing">;
  passes: {
    tokens: number[][];
    /** names, or "on" for all that are on by default */
    capture: string[] | "on";
    enable?: string[];
    interventions?: (Omit<Intervention, "tensor"> & { tensor?: Packed })[];
    /** Wait at these hooks, and answer each with its own value plus this number. */
    addAtHooks?: Record<string, number>;
  }[];
  operations?: Operation[];
  /** Messages as they are, after the passes. */
  script?: ScriptStep[];
  /** Called before each pass. */
  onPass?: (index: number) => Promise<void>;
}

/** Tensor operations alone, on the backend of the job's bundle. */
export interface Operation {
  op: string;
  inputs: Packed[];
  parameters?: object;
}

/** A message without its id; `model` is filled in where it is null. Its tensors are named by whoever wrote the script. */
export interface ScriptStep {
  message: Record<string, unknown>;
  attachments?: Packed[];
  /** Of a forward: what each hook's value is replaced by, an operation on it. */
  atHooks?: Record<string, { op: string; parameters: object }>;
}

/** The answer to a step; null where its kind has none. */
export type ScriptAnswer =
  | { message: unknown; attachments: Packed[]; tokens: Extract<Answer, { kind: "token" }>[] }
  | { error: unknown }
  | null;

const UNANSWERED = ["operate", "create", "gradient", "release", "cancel", "createCache", "releaseCache"];

export interface JobResult {
  loaded: LoadedAnswer;
  progress: { bytesLoaded: number; bytesTotal: number; cached: number } | null;
  passes: (Record<string, Packed> | { error: unknown })[];
  operations: (Packed | { error: unknown })[];
  script: ScriptAnswer[];
}

export interface Mailbox {
  post(message: Request, attachments?: Attachment[]): void;
  onMessage: (message: Answer, attachments: Attachment[]) => void;
}

export async function runJob(mailbox: Mailbox, job: Job): Promise<JobResult> {
  let next = 1;
  let tensor = 1;
  let progress: JobResult["progress"] = null;
  let generated: Extract<Answer, { kind: "token" }>[] = [];
  const waiting = new Map<
    number,
    { resolve: (value: { message: Answer; attachments: Attachment[] }) => void; reject: (error: unknown) => void }
  >();
  let onHook: (event: Extract<Answer, { kind: "hook" }>) => void = () => undefined;
  mailbox.onMessage = (message, attachments) => {
    if (message.kind === "progress") progress = message;
    else if (message.kind === "token") generated.push(message); // an event, though it has an id
    else if (message.kind === "hook") onHook(message);
    else if ("id" in message && message.id !== undefined) {
      const asked = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.kind === "failed") asked?.reject(message.error);
      else asked?.resolve({ message, attachments });
    }
  };
  const ask = (request: object) =>
    new Promise<{ message: Answer; attachments: Attachment[] }>((resolve, reject) => {
      const id = next++;
      waiting.set(id, { resolve, reject });
      mailbox.post({ ...request, id } as Request);
    });
  const { bundle, backend, load } = job;
  const loaded = (await ask({ kind: "load", bundle, backend, ...load })).message as LoadedAnswer;
  const create = ({ shape, base64 }: Packed): number => {
    mailbox.post({ kind: "create", tensor, shape }, [unpack(base64)]);
    return tensor++;
  };
  const read = async (id: number): Promise<Packed> => {
    const { message, attachments } = await ask({ kind: "read", tensor: id });
    return {
      shape: (message as Extract<Answer, { kind: "numbers" }>).shape,
      base64: pack(attachments[0] as Float32Array),
    };
  };
  const passes: JobResult["passes"] = [];
  for (const [pass, wanted] of job.passes.entries()) {
    await job.onPass?.(pass);
    const names =
      wanted.capture === "on" ? loaded.hooks.filter((hook) => hook.on).map((hook) => hook.name) : wanted.capture;
    const capture = names.map((name) => ({ name, tensor: tensor++ }));
    const interventions = wanted.interventions?.map((each) =>
      each.tensor === undefined ? each : { ...each, tensor: create(each.tensor) },
    ) as Intervention[] | undefined;
    const logits = tensor++;
    onHook = ({ pass: at, name, tensor: value }) => {
      const replacement = tensor++;
      mailbox.post({
        kind: "operate",
        op: "add",
        inputs: [value],
        parameters: { scalar: wanted.addAtHooks?.[name] },
        result: replacement,
      });
      mailbox.post({ kind: "hookAnswer", pass: at, replacement });
      mailbox.post({ kind: "release", tensors: [value, replacement] });
    };
    const request: Omit<ForwardRequest, "id"> = {
      kind: "forward",
      model: loaded.model,
      pass: pass + 1,
      tokens: wanted.tokens,
      capture,
      enable: wanted.enable,
      interventions,
      hooks: Object.keys(wanted.addAtHooks ?? {}),
      logits,
    };
    try {
      await ask(request);
      const result: Record<string, Packed> = {};
      for (const { name, tensor: id } of [...capture, { name: "logits", tensor: logits }]) {
        result[name] = await read(id);
      }
      passes.push(result);
    } catch (error) {
      passes.push({ error: error instanceof Error ? String(error.stack) : error });
    }
    mailbox.post({ kind: "release", tensors: [...capture.map((each) => each.tensor), logits] });
  }
  const operations: JobResult["operations"] = [];
  for (const { op, inputs, parameters } of job.operations ?? []) {
    const names = inputs.map(create);
    const result = tensor++;
    mailbox.post({ kind: "operate", op, inputs: names, parameters, result } as Request);
    try {
      operations.push(await read(result));
    } catch (error) {
      operations.push({ error });
    }
    mailbox.post({ kind: "release", tensors: [...names, result] });
  }
  const script: ScriptAnswer[] = [];
  for (const { message, attachments = [], atHooks } of job.script ?? []) {
    const request = "model" in message ? { ...message, model: loaded.model } : message;
    const numbers = attachments.map(({ base64 }) => unpack(base64));
    onHook = ({ pass, name, tensor: value }) => {
      const replacement = -1000 * value + 1_000_000; // no script has so many names
      const operation = { ...atHooks?.[name], inputs: [value], result: replacement };
      mailbox.post({ kind: "operate", ...operation } as Request);
      mailbox.post({ kind: "hookAnswer", pass, replacement });
      mailbox.post({ kind: "release", tensors: [value, replacement] });
    };
    if (UNANSWERED.includes(String(message["kind"]))) {
      mailbox.post(request as unknown as Request, numbers);
      script.push(null);
      continue;
    }
    try {
      const answer = await ask(request);
      const packed = answer.attachments.map((each) => ({ shape: [each.length], base64: pack(each as Float32Array) }));
      script.push({ message: answer.message, attachments: packed, tokens: generated });
      generated = [];
    } catch (error) {
      script.push({ error });
    }
  }
  await ask({ kind: "unload", model: loaded.model });
  return { loaded, progress, passes, operations, script };
}

function pack(numbers: Float32Array): string {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  let binary = "";
  for (let i = 0; i < bytes.length; i += 4096) binary += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return btoa(binary);
}

function unpack(base64: string): Float32Array {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
