// A bundle's files, read range by range. With bundle.json each range comes in chunks that are checked against their
// SHA-256 and kept in the store; a plain Hugging Face folder, which has none, is fetched file by file and not kept.

import { EngineError } from "../engine/errors.ts";
import type { ChunkStore } from "./chunk_store.ts";
import type { FetchBytes } from "./fetch.ts";
import { sha256 } from "./sha256.ts";

export interface Chunk {
  readonly offset: number;
  readonly bytes: number;
  readonly sha256: string;
}

export interface BundleFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly chunks: readonly Chunk[];
}

/** bundle.json; its schema is schemas/bundle.schema.json. */
export interface Manifest {
  readonly format: number;
  readonly id: string;
  readonly source: string;
  readonly revision: string | null;
  readonly dtype: string;
  readonly license: string | null;
  readonly architecture: string;
  readonly files: readonly BundleFile[];
}

export interface BundleProgress {
  readonly file: string;
  readonly bytesLoaded: number;
  readonly bytesTotal: number;
  readonly cached: number;
}

/** What a bundle needs of its host. */
export interface BundleHost {
  readonly fetchBytes: FetchBytes;
  readonly store: ChunkStore | null;
  /** SHA-256 in lower-case hexadecimal; crypto.subtle's where it is left out. */
  readonly digest?: (bytes: Uint8Array) => Promise<string>;
  onProgress(progress: BundleProgress): void;
}

/** Chunks held in memory, the newest: a tensor may straddle two, and the next one is fetched ahead. */
const HELD = 3;

export class Bundle {
  readonly manifest: Manifest | null;
  readonly #base: string;
  readonly #host: BundleHost;
  readonly #digest: (bytes: Uint8Array) => Promise<string>;
  readonly #held = new Map<string, Promise<Uint8Array>>();
  readonly #whole = new Map<string, Uint8Array>();
  #expected = 0;
  #loaded = 0;
  #cached = 0;

  private constructor(base: string, manifest: Manifest | null, host: BundleHost) {
    this.#base = base;
    this.manifest = manifest;
    this.#host = host;
    this.#digest = host.digest ?? sha256;
  }

  /** Fails: BundleRefused for a bundle.json that does not follow its schema. */
  static async open(base: string, host: BundleHost): Promise<Bundle> {
    const folder = base.endsWith("/") ? base : `${base}/`;
    const bytes = await fetched(host.fetchBytes, `${folder}bundle.json`);
    const manifest = bytes === null ? null : checkManifest(parseJson("bundle.json", bytes));
    return new Bundle(folder, manifest, host);
  }

  /** The sizes of the files that will be read: what progress counts against. */
  expect(names: readonly string[]): void {
    const files = this.manifest?.files.filter((file) => names.includes(file.name)) ?? [];
    this.#expected += files.reduce((sum, file) => sum + file.bytes, 0);
  }

  /** Whether bundle.json lists the file; a plain folder has to be asked for it. */
  async has(name: string): Promise<boolean> {
    if (this.manifest !== null) return this.#file(name) !== undefined;
    return (await this.#wholeOf(name)) !== null;
  }

  /** Fails: FetchFailed, ChunkMismatch. */
  async readAll(name: string): Promise<Uint8Array> {
    if (this.manifest === null) return this.#present(name, await this.#wholeOf(name));
    const file = this.#present(name, this.#file(name));
    return this.read(name, 0, file.bytes);
  }

  async readJson(name: string): Promise<Record<string, unknown>> {
    return parseJson(name, await this.readAll(name));
  }

  /** The bytes from `begin` up to `end`. Fails: FetchFailed, ChunkMismatch, BundleRefused beyond the file's end. */
  async read(name: string, begin: number, end: number): Promise<Uint8Array> {
    const size =
      this.manifest === null
        ? this.#present(name, await this.#wholeOf(name)).length
        : this.#present(name, this.#file(name)).bytes;
    if (begin < 0 || end > size || begin > end) {
      throw new EngineError("BundleRefused", `${name}: bytes ${begin} to ${end} were asked for; it has ${size}`, {
        file: name,
      });
    }
    if (this.manifest === null) return (this.#whole.get(name) as Uint8Array).subarray(begin, end);
    const { chunks } = this.#file(name) as BundleFile;
    const result = new Uint8Array(end - begin);
    for (const [index, chunk] of chunks.entries()) {
      const from = Math.max(begin, chunk.offset);
      const to = Math.min(end, chunk.offset + chunk.bytes);
      if (from >= to) continue;
      const bytes = await this.#hold(name, index);
      result.set(bytes.subarray(from - chunk.offset, to - chunk.offset), from - begin);
    }
    return result;
  }

  /** Begins to fetch a file's first chunk; a plain folder is left alone. What fails is told when the file is read. */
  fetchAhead(name: string): void {
    if (this.#file(name) !== undefined) this.#request(name, 0).catch(() => undefined);
  }

  /** Lets go of a file's bytes in memory. */
  forget(name: string): void {
    this.#whole.delete(name);
    for (const key of this.#held.keys()) if (key.startsWith(`${name}#`)) this.#held.delete(key);
  }

  #file(name: string): BundleFile | undefined {
    return this.manifest?.files.find((file) => file.name === name);
  }

  #present<T>(name: string, found: T | null | undefined): T {
    if (found === null || found === undefined)
      throw new EngineError(
        "FetchFailed",
        `${this.#base}${name} is not there; export the bundle again, or check its address`,
        { file: name },
      );
    return found;
  }

  async #wholeOf(name: string): Promise<Uint8Array | null> {
    const known = this.#whole.get(name);
    if (known !== undefined) return known;
    const bytes = await fetched(this.#host.fetchBytes, this.#base + name, undefined, (count) =>
      this.#advance(name, count, false),
    );
    if (bytes !== null) this.#whole.set(name, bytes);
    return bytes;
  }

  /** A chunk, held for the reads to come; the one after it is fetched ahead. */
  async #hold(name: string, index: number): Promise<Uint8Array> {
    const { chunks } = this.#file(name) as BundleFile;
    const bytes = this.#request(name, index);
    if (index + 1 < chunks.length) this.#request(name, index + 1).catch(() => undefined); // its own read reports it
    return bytes;
  }

  #request(name: string, index: number): Promise<Uint8Array> {
    const key = `${name}#${index}`;
    const known = this.#held.get(key);
    if (known !== undefined) return known;
    const chunk = this.#chunk(this.#file(name) as BundleFile, index);
    this.#held.set(key, chunk);
    for (const old of [...this.#held.keys()].slice(0, -HELD)) this.#held.delete(old);
    return chunk;
  }

  async #chunk(file: BundleFile, index: number): Promise<Uint8Array> {
    const chunk = file.chunks[index];
    const stored = await this.#host.store?.get(chunk.sha256);
    if (stored !== undefined) {
      if ((await this.#digest(stored)) === chunk.sha256) {
        this.#advance(file.name, chunk.bytes, true);
        return stored;
      }
      await this.#host.store?.delete(chunk.sha256);
    }
    let found = "";
    for (let attempt = 0; attempt < 2; attempt++) {
      let counted = 0;
      const bytes = await this.#download(file, chunk, (count) => {
        counted += count;
        this.#advance(file.name, count, false);
      });
      found = await this.#digest(bytes);
      if (found === chunk.sha256) {
        this.#advance(file.name, chunk.bytes - counted, false);
        await this.#host.store?.put(chunk.sha256, bytes);
        return bytes;
      }
      this.#whole.delete(file.name);
      this.#advance(file.name, -counted, false);
    }
    throw new EngineError(
      "ChunkMismatch",
      `${file.name}: the chunk at ${chunk.offset} (${chunk.bytes} bytes) has SHA-256 ${found}, fetched twice; bundle.json says ${chunk.sha256}; export or upload the bundle again`,
      { file: file.name, offset: chunk.offset },
    );
  }

  /** A host that ignores ranges sends the whole file: the other chunks are then cut from it too. */
  async #download(file: BundleFile, chunk: Chunk, onBytes: (count: number) => void): Promise<Uint8Array> {
    const known = this.#whole.get(file.name);
    const whole = file.chunks.length === 1;
    const bytes =
      known ??
      this.#present(
        file.name,
        await fetched(
          this.#host.fetchBytes,
          this.#base + file.name,
          whole ? undefined : { offset: chunk.offset, bytes: chunk.bytes },
          onBytes,
        ),
      );
    if (bytes.length !== file.bytes || bytes.length === chunk.bytes) return bytes;
    this.#whole.set(file.name, bytes);
    return bytes.slice(chunk.offset, chunk.offset + chunk.bytes);
  }

  #advance(file: string, count: number, isCached: boolean): void {
    this.#loaded += count;
    if (isCached) this.#cached += count;
    this.#host.onProgress({
      file,
      bytesLoaded: this.#loaded,
      bytesTotal: Math.max(this.#expected, this.#loaded),
      cached: this.#cached,
    });
  }
}

async function fetched(
  fetchBytes: FetchBytes,
  url: string,
  range?: { offset: number; bytes: number },
  onBytes?: (count: number) => void,
): Promise<Uint8Array | null> {
  try {
    return await fetchBytes(url, range, onBytes);
  } catch (error) {
    throw new EngineError(
      "FetchFailed",
      `${url} could not be fetched (${error instanceof Error ? error.message : String(error)}); check the address and the connection`,
      { file: url },
    );
  }
}

function parseJson(name: string, bytes: Uint8Array): Record<string, unknown> {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as Record<string, unknown>;
  } catch (error) {
    throw new EngineError("BundleRefused", `${name} is no JSON: ${(error as Error).message}`, { file: name });
  }
}

function checkManifest(json: Record<string, unknown>): Manifest {
  const manifest = json as unknown as Manifest;
  const refuse = (text: string) =>
    new EngineError("BundleRefused", `bundle.json: ${text}; export the bundle again`, { file: "bundle.json" });
  if (manifest.format !== 1) throw refuse(`format ${JSON.stringify(manifest.format)} is unknown, this engine reads 1`);
  if (!Array.isArray(manifest.files) || typeof manifest.id !== "string") throw refuse("it lacks id or files");
  for (const file of manifest.files) {
    let end = 0;
    for (const chunk of file.chunks) {
      if (chunk.offset !== end || !/^[0-9a-f]{64}$/.test(chunk.sha256))
        throw refuse(`the chunks of ${file.name} leave a gap or overlap at ${end}, or lack a SHA-256`);
      end += chunk.bytes;
    }
    if (end !== file.bytes) throw refuse(`the chunks of ${file.name} end at ${end}, the file has ${file.bytes} bytes`);
  }
  return manifest;
}
