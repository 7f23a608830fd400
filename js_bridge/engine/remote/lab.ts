// A lab (`neuroscope serve`) seen over HTTP: requests in JSON, tensors as safetensors blocks both ways, refusals as the
// engine's errors. It knows no passes and no tensors of the image; remote/pass.ts does.
// Source: the safetensors format; python_tools/neuroscope/lab/routes_passes.py for the metadata `neuroscope`.

import type { ErrorName, Shape } from "../../protocol.ts";
import { EngineError } from "../errors.ts";
import { elementsOf } from "../tensors/shape.ts";

/** What a host hands the engine so that it can ask a lab; fails as fetch does. */
export type Ask = (
  url: string,
  request: { method: string; headers: Record<string, string>; body: Uint8Array | null },
  signal?: AbortSignal,
) => Promise<{ status: number; bytes: Uint8Array }>;

/** Over the network. */
export const askOverHttp: Ask = async (url, { method, headers, body }, signal) => {
  const response = await fetch(url, { method, headers, body: body as Uint8Array<ArrayBuffer> | null, signal });
  return { status: response.status, bytes: new Uint8Array(await response.arrayBuffer()) };
};

export const LAB_SCHEME = "lab:";

export interface RemoteTensor {
  readonly shape: Shape;
  readonly numbers: Float32Array;
}

/** One binary answer, or one binary reply. */
export interface Block {
  /** The JSON of its metadata. */
  readonly head: Record<string, unknown>;
  readonly tensors: ReadonlyMap<string, RemoteTensor>;
}

/** lab:NAME is a model of the host's own lab, lab:http://host:port/NAME of another one. Fails: FetchFailed. */
export function parseLabAddress(address: string, own: string | null): { base: string; name: string } {
  const rest = address.slice(LAB_SCHEME.length);
  const there = /^(https?:\/\/[^/]+)\/*(.*)$/.exec(rest);
  const base = there === null ? own : there[1];
  const name = there === null ? rest : there[2];
  if (base === null || name === "")
    throw new EngineError(
      "FetchFailed",
      `${address} names no model of a lab; write lab:http://127.0.0.1:8080/NAME, or lab:NAME in a page that a lab serves`,
      { file: address },
    );
  return { base, name };
}

export class Lab {
  /** Without the token. */
  readonly base: string;
  readonly #ask: Ask;
  readonly #headers: Record<string, string>;

  /** A token may stand in the address, as in https://TOKEN@host:port. */
  constructor(base: string, ask: Ask) {
    const url = URL.parse(base);
    if (url === null || !/^https?:$/.test(url.protocol))
      throw new EngineError("FetchFailed", `${base} is no address of a lab; write one like http://127.0.0.1:8080`, {
        file: base,
      });
    const token = decodeURIComponent(url.password || url.username);
    url.username = url.password = "";
    this.base = url.href.replace(/\/$/, "");
    this.#ask = ask;
    this.#headers = token === "" ? {} : { Authorization: `Bearer ${token}` };
  }

  /** Fails: FetchFailed, and what the lab refused. */
  async json(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
    const bytes = await this.#answered(method, path, textOf(body), "application/json", "application/json");
    return JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
  }

  async block(path: string, body: unknown, signal?: AbortSignal): Promise<Block> {
    return readBlock(await this.#answered("POST", path, textOf(body), "application/json", BINARY, signal));
  }

  /** Answers a hook: null leaves its value. */
  async reply(path: string, value: RemoteTensor | null, signal?: AbortSignal): Promise<Block> {
    const body = value === null ? new Uint8Array(0) : writeBlock("value", value);
    return readBlock(await this.#answered("POST", path, body, BINARY, BINARY, signal));
  }

  /** The status and the bytes, whatever they are. */
  async raw(
    method: string,
    path: string,
    body: Uint8Array | null,
    accept: string,
  ): Promise<{ status: number; bytes: Uint8Array }> {
    return this.#asked(method, path, body, "application/json", accept);
  }

  async #answered(
    method: string,
    path: string,
    body: Uint8Array | null,
    type: string,
    accept: string,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const { status, bytes } = await this.#asked(method, path, body, type, accept, signal);
    if (status >= 200 && status < 300) return bytes;
    throw refusal(`${this.base}${path}`, status, bytes);
  }

  async #asked(
    method: string,
    path: string,
    body: Uint8Array | null,
    type: string,
    accept: string,
    signal?: AbortSignal,
  ): Promise<{ status: number; bytes: Uint8Array }> {
    const url = `${this.base}${path}`;
    const headers: Record<string, string> = { ...this.#headers, Accept: accept };
    if (body !== null) headers["Content-Type"] = type;
    try {
      return await this.#ask(url, { method, headers, body }, signal);
    } catch (error) {
      if (signal?.aborted === true) throw signal.reason;
      const why = reasonOf(error);
      throw new EngineError(
        "FetchFailed",
        `No lab answers at ${this.base} (${why}); start one with \`neuroscope serve\`, or, where it serves another origin than this page, with --origin naming the page's`,
        { file: url },
      );
    }
  }
}

/** Node says in the cause what went wrong; a browser says it to nobody. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

const BINARY = "application/vnd.safetensors";

function textOf(body: unknown): Uint8Array | null {
  return body === undefined ? null : new TextEncoder().encode(JSON.stringify(body));
}

/** The engine's names for what a lab refuses; LabRefused for the rest. */
const NAMES: Record<string, ErrorName> = {
  unknown_hook: "UnknownHook",
  token_out_of_vocabulary: "TokenOutOfVocabulary",
  context_length_exceeded: "TooManyTokens",
  ragged_batch: "RaggedBatch",
  shape_mismatch: "ShapeMismatch",
  bad_region: "BadParameter",
  bad_intervention: "BadParameter",
  model_not_found: "BundleRefused",
  no_tokenizer: "NoTokenizer",
  no_chat_template: "BadMessage",
  chat_template_refused: "BadMessage",
  rate_limit_exceeded: "RateLimited",
};

export function refusal(url: string, status: number, bytes: Uint8Array): EngineError {
  try {
    const { error } = JSON.parse(new TextDecoder().decode(bytes)) as { error: { message: string; code: string | null } };
    return new EngineError(NAMES[error.code ?? ""] ?? "LabRefused", error.message, { status, code: error.code });
  } catch {
    return new EngineError("LabRefused", `${url} answered ${status}, and not as a lab does; check its address`, {
      status,
      code: null,
    });
  }
}

interface HeaderEntry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: readonly [number, number];
}

/** Fails: LabRefused for what is no block of float32 tensors. */
export function readBlock(bytes: Uint8Array): Block {
  try {
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Record<string, HeaderEntry>;
    const { __metadata__: metadata, ...entries } = header as unknown as Record<string, HeaderEntry> & {
      __metadata__?: { neuroscope?: string };
    };
    const tensors = new Map<string, RemoteTensor>();
    for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(entries)) {
      if (dtype !== "F32") throw new Error(`tensor ${name} has dtype ${dtype}, not F32`);
      // A copy: the numbers of a block need not begin at a multiple of four.
      const numbers = new Float32Array(bytes.slice(8 + length + begin, 8 + length + end).buffer);
      if (numbers.length !== elementsOf(shape)) throw new Error(`tensor ${name} has ${numbers.length} numbers`);
      tensors.set(name, { shape, numbers });
    }
    return { head: JSON.parse(metadata?.neuroscope ?? "{}") as Record<string, unknown>, tensors };
  } catch (error) {
    throw new EngineError("LabRefused", `A lab answered with what is no safetensors block (${String(error)})`);
  }
}

export function writeBlock(name: string, { shape, numbers }: RemoteTensor): Uint8Array {
  const entry = { dtype: "F32", shape, data_offsets: [0, numbers.byteLength] };
  const text = JSON.stringify({ [name]: entry });
  const header = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const block = new Uint8Array(8 + header.length + numbers.byteLength);
  new DataView(block.buffer).setBigUint64(0, BigInt(header.length), true);
  block.set(header, 8);
  block.set(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength), 8 + header.length);
  return block;
}

/** As the JSON of an intervention holds it. */
export function asBase64({ shape, numbers }: RemoteTensor): { shape: Shape; base64: string } {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return { shape, base64: btoa(text) };
}
