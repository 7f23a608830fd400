// A model's files, from wherever they are: a bundle, whose bundle.json cuts them into chunks that are checked by their
// SHA-256; a repository of the Hub at one commit; or a plain Hugging Face folder, of which nothing is kept. Files are
// read range by range, from the store where it has them. What a file means is not known here.

import { EngineError } from "../engine/errors.ts";
import { ChunkedFile } from "./chunked_file.ts";
import { type Borrowed, ChunkReader } from "./chunk_reader.ts";
import { type ChunkStore, type Digest, keep, readKept } from "./chunk_store.ts";
import { end as endBuffer } from "./buffers.ts";
import { asFetchFailed, type FetchBytes } from "./fetch.ts";
import { Repository } from "./hub.ts";
import { HUB_SCHEME } from "./hub_name.ts";
import { type Manifest, parseJson, readManifest } from "./manifest.ts";
import { PreparedTensors } from "./prepared_tensors.ts";
import { sha256 } from "./sha256.ts";
import { joined } from "./pieces.ts";

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
  /** crypto.subtle's where it is left out. */
  readonly digest?: Digest;
  /** Where `hub:owner/name` is looked for; the public Hub where it is left out. */
  readonly hub?: string;
  readonly log?: (text: string) => void;
  onProgress(progress: BundleProgress): void;
}

export interface BundleRequest {
  /** Of a repository: a branch, tag or commit. */
  readonly revision?: string;
  /** What stays in the store: the weight files' chunks, or only what is prepared of them. */
  readonly keep?: "files" | "prepared";
  /** Ends every read; its reason is what they fail with. */
  readonly signal?: AbortSignal;
}

/** Where the bytes come from, and what is known of them before any is read. */
interface Source {
  readonly id: string;
  /** Ends with a slash. */
  readonly base: string;
  readonly manifest: Manifest | null;
  readonly revision: string | null;
  /** Begins the keys of what is kept of this version; null: nothing is, but a bundle's chunks. */
  readonly keys: string | null;
  readonly repository: Repository | null;
}

/** Enough for the headers of most safetensors files. */
const START = 2 ** 18;

const EMPTY = new Uint8Array(0);

export class Bundle {
  readonly #source: Source;
  readonly #host: BundleHost;
  readonly #digest: Digest;
  readonly #request: BundleRequest;
  readonly #reader: ChunkReader;
  readonly #files = new Map<string, ChunkedFile>();
  readonly #whole = new Map<string, Promise<Uint8Array | null>>();
  readonly #expected = new Set<ChunkedFile>();
  readonly #release: () => void;
  /** Tensors that are kept as an engine made them; null where nothing can be kept of this source. */
  readonly prepared: PreparedTensors | null;
  #loaded = 0;
  #cached = 0;

  private constructor(source: Source, host: BundleHost, request: BundleRequest) {
    this.#source = source;
    this.#host = host;
    this.#request = request;
    this.#digest = host.digest ?? sha256;
    const { store } = host;
    this.#release = store?.use(source.id) ?? (() => undefined);
    this.prepared =
      store === null || source.keys === null ? null : new PreparedTensors(store, source.id, source.keys);
    this.#reader = new ChunkReader({
      fetchBytes: source.repository?.fetchBytes ?? host.fetchBytes,
      store,
      digest: this.#digest,
      signal: request.signal ?? new AbortController().signal,
      bundle: source.id,
      keeps: (file) => request.keep !== "prepared" || !this.#expected.has(file) || !isWeights(file.name),
      missing: (file) => this.#missing(file.name),
      onBytes: (file, count, isCached) => this.#advance(file.name, count, isCached),
    });
  }

  /**
   * Opens a folder's URL or path, or `hub:owner/name`.
   *
   * Fails: FetchFailed, GatedRepository, RateLimited; BundleRefused for a bundle.json that does not follow its schema.
   */
  static async open(address: string, host: BundleHost, request: BundleRequest = {}): Promise<Bundle> {
    if (!address.startsWith(HUB_SCHEME)) return new Bundle(await openFolder(address, host, request), host, request);
    const name = address.slice(HUB_SCHEME.length);
    const repository = await Repository.open(name, host, request);
    const { id, base, commit, keys } = repository;
    const bundle = new Bundle({ id, base, manifest: null, revision: commit, keys, repository }, host, request);
    // What told the commit is not fetched twice.
    if (repository.config !== null) bundle.#keepWhole("config.json", repository.config);
    return bundle;
  }

  /** The name it is found by: bundle.json's, the repository's, or the folder's. */
  get id(): string {
    return this.#source.id;
  }

  /** Its folder, a URL or path. */
  get source(): string {
    return this.#source.base;
  }

  /** The commit it was made of; null where nobody knows. */
  get revision(): string | null {
    return this.#source.revision;
  }

  get manifest(): Manifest | null {
    return this.#source.manifest;
  }

  /** The files that will be read, in this order: what progress counts against, and what is fetched ahead. */
  expect(names: readonly string[]): void {
    for (const name of names) if (this.#isThere(name)) this.#expected.add(this.#file(name));
    this.#reader.plan([...this.#expected].filter((file) => isWeights(file.name)));
  }

  /** Whether bundle.json lists the file; any other source has to be asked for it. Fails: FetchFailed. */
  async has(name: string): Promise<boolean> {
    if (this.manifest !== null) return this.#isThere(name);
    return (await this.#wholeOf(name)) !== null;
  }

  /** Fails: FetchFailed, ChunkMismatch. */
  async readAll(name: string): Promise<Uint8Array> {
    if (!this.#isThere(name)) throw await this.#missing(name);
    if (this.manifest === null) {
      const whole = await this.#wholeOf(name);
      this.#whole.delete(name);
      if (whole === null) throw await this.#missing(name);
      return whole;
    }
    const file = this.#file(name);
    const pieces: Promise<Uint8Array>[] = [];
    for (let index = 0; file.chunk(index) !== null; index++) pieces.push(this.#reader.readOnce(file, index));
    return joined(await Promise.all(pieces), file.bytes ?? 0);
  }

  async readJson(name: string): Promise<Record<string, unknown>> {
    return parseJson(name, await this.readAll(name));
  }

  /**
   * The bytes from `begin` up to `end`, a copy of its own.
   *
   * Fails: FetchFailed, ChunkMismatch, BundleRefused beyond the file's end.
   */
  async read(name: string, begin: number, end: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(end - begin);
    let at = 0;
    for await (const piece of this.pieces(name, begin, end)) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  /** As read, without a copy where the bytes lie in one chunk: they are gone when they are given back. */
  async borrow(name: string, begin: number, end: number): Promise<Borrowed> {
    const file = await this.#readable(name, begin, end);
    if (begin < end) {
      const { index, offset, bytes: length } = file.at(begin);
      if (end <= offset + length) {
        const { bytes, giveBack } = await this.#reader.borrow(file, index);
        const part = bytes.subarray(begin - offset, end - offset);
        if (part.length === end - begin) return { bytes: part, giveBack };
        giveBack(); // the file is shorter than it was thought to be
      }
    }
    const bytes = await this.read(name, begin, end);
    return { bytes, giveBack: () => endBuffer(bytes.buffer as ArrayBuffer) };
  }

  /**
   * The bytes from `begin` up to `end` piece by piece, as they lie in the file and in chunks (16 MiB at most), while the
   * next ones are on their way. Read in the order of the files, and memory holds a few chunks at a time. Pieces are
   * views that must not be changed, and are gone when the next one is asked for.
   *
   * Fails: as read.
   */
  async *pieces(name: string, begin: number, end: number): AsyncGenerator<Uint8Array, void, undefined> {
    const file = await this.#readable(name, begin, end);
    for (let at = begin; at < end; ) {
      const { index, offset } = file.at(at);
      const { bytes, giveBack } = await this.#reader.borrow(file, index);
      try {
        file.check(at, Math.min(end, offset + Math.max(bytes.length, 1)));
        const piece = bytes.subarray(at - offset, end - offset);
        at += piece.length;
        yield piece;
      } finally {
        giveBack();
      }
    }
  }

  async #readable(name: string, begin: number, end: number): Promise<ChunkedFile> {
    if (!this.#isThere(name)) throw await this.#missing(name);
    const file = this.#file(name);
    file.check(begin, end);
    return file;
  }

  /** The start of a file: as many bytes as `enough` finds in the first eight of them. */
  async readStart(name: string, enough: (first: Uint8Array) => number): Promise<Uint8Array> {
    if (!this.#isThere(name)) throw await this.#missing(name);
    const file = this.#file(name);
    const { keys } = this.#source;
    if (this.manifest !== null && this.#request.keep !== "prepared")
      return this.read(name, 0, enough(await this.read(name, 0, 8)));
    const key = keys === null ? null : `${keys}/${name}#start`;
    const kept = await this.#kept(key);
    if (kept !== null) return kept;
    let start: Uint8Array;
    if (this.manifest !== null) start = await this.read(name, 0, enough(await this.read(name, 0, 8)));
    else {
      start = await this.#reader.readStart(file, START);
      file.check(0, Math.min(8, Math.max(start.length, 8)));
      const length = enough(start);
      if (length > start.length) start = await this.#reader.readStart(file, length);
      file.check(0, length);
      start = start.slice(0, length);
    }
    await this.#keep(key, start);
    return start;
  }

  /** Tells a size that a file's own header gives. Fails: BundleRefused where the file is shorter. */
  learnSize(name: string, bytes: number): void {
    this.#file(name).learnSize(bytes);
  }

  /** Begins to fetch a file's first chunks, if they will be read. What fails is told when they are. */
  fetchAhead(name: string): void {
    if (this.manifest !== null && this.#isThere(name) && this.#request.keep !== "prepared")
      this.#reader.begin(this.#file(name), 0);
  }

  /** Lets go of a file's bytes in memory. */
  forget(name: string): void {
    this.#whole.delete(name);
    const file = this.#files.get(name);
    if (file !== undefined) this.#reader.forget(file);
  }

  /** Ends a load, done or failed: waits until what was fetched is kept, lets go of it in memory and allows eviction. */
  async close(): Promise<void> {
    for (const file of this.#files.values()) this.#reader.forget(file);
    await this.#reader.close();
    this.#release();
  }

  #file(name: string): ChunkedFile {
    const known = this.#files.get(name);
    if (known !== undefined) return known;
    const { base, manifest, keys } = this.#source;
    const listed = manifest?.files.find((each) => each.name === name) ?? null;
    const file = new ChunkedFile(name, base + name, listed, manifest === null ? keys : null);
    this.#files.set(name, file);
    return file;
  }

  /** Whether the file may be asked for. */
  #isThere(name: string): boolean {
    return this.manifest === null || this.manifest.files.some((file) => file.name === name);
  }

  async #missing(name: string): Promise<EngineError> {
    const explained = await this.#source.repository?.missing(name);
    return (
      explained ??
      new EngineError(
        "FetchFailed",
        `${this.#source.base}${name} is not there; export the bundle again, or check its address`,
        { file: name },
      )
    );
  }

  /** A small file of a source without bundle.json, at once; null where there is none, which is kept as well. */
  #wholeOf(name: string): Promise<Uint8Array | null> {
    const known = this.#whole.get(name);
    if (known !== undefined) return known;
    const reading = this.#readWhole(name);
    this.#whole.set(name, reading);
    reading.catch(() => this.#whole.delete(name));
    return reading;
  }

  async #readWhole(name: string): Promise<Uint8Array | null> {
    const { keys, base, repository } = this.#source;
    const key = keys === null ? null : `${keys}/${name}`;
    const kept = await this.#kept(key);
    if (kept !== null) {
      this.#learnWhole(name, kept.length);
      this.#advance(name, kept.length, true);
      return kept;
    }
    if (key !== null && (await this.#kept(`${key}#absent`)) !== null) return null;
    const fetchBytes = repository?.fetchBytes ?? this.#host.fetchBytes;
    const bytes = await asFetchFailed(base + name, () =>
      fetchBytes(base + name, undefined, {
        onBytes: (count) => this.#advance(name, count, false),
        signal: this.#request.signal,
      }),
    );
    if (bytes === null) await this.#keep(key === null ? null : `${key}#absent`, EMPTY);
    else {
      this.#learnWhole(name, bytes.length);
      await this.#keep(key, bytes);
    }
    return bytes;
  }

  #learnWhole(name: string, bytes: number): void {
    const file = this.#file(name);
    if (file.bytes === null) file.learnSize(bytes);
  }

  #keepWhole(name: string, bytes: Uint8Array): void {
    const { keys } = this.#source;
    this.#whole.set(name, Promise.resolve(bytes));
    this.#learnWhole(name, bytes.length);
    this.#advance(name, bytes.length, false);
    void this.#keep(keys === null ? null : `${keys}/${name}`, bytes);
  }

  async #kept(key: string | null): Promise<Uint8Array | null> {
    return key === null ? null : readKept(this.#host.store, key);
  }

  async #keep(key: string | null, bytes: Uint8Array): Promise<void> {
    if (key !== null) await keep(this.#host.store, this.#source.id, key, bytes);
  }

  #advance(file: string, count: number, isCached: boolean): void {
    if (count === 0) return;
    this.#loaded += count;
    if (isCached) this.#cached += count;
    let expected = 0;
    for (const each of this.#expected) expected += each.bytes ?? 0;
    this.#host.onProgress({
      file,
      bytesLoaded: this.#loaded,
      bytesTotal: Math.max(expected, this.#loaded),
      cached: this.#cached,
    });
  }
}

async function openFolder(address: string, host: BundleHost, request: BundleRequest): Promise<Source> {
  const base = address.endsWith("/") ? address : `${address}/`;
  const url = `${base}bundle.json`;
  const digest = host.digest ?? sha256;
  const kept = await readKept(host.store, url);
  const bytes = await asFetchFailed(url, () =>
    host.fetchBytes(url, undefined, { signal: request.signal, ...(kept === null ? {} : { attempts: 1 }) }),
  ).catch((error: unknown) => {
    if (kept === null || !(error instanceof EngineError)) throw error;
    host.log?.(`${error.message} (bundle.json as it was kept is used)`);
    return kept;
  });
  const folder = address.replace(/\/+$/, "").split("/").pop() || address;
  if (bytes === null)
    return { id: folder, base, manifest: null, revision: null, keys: null, repository: null };
  const manifest = readManifest(bytes);
  const version = await digest(bytes);
  if (kept === null || version !== (await digest(kept))) await keep(host.store, manifest.id, url, bytes);
  const keys = `bundle ${manifest.id} ${version}`;
  return { id: manifest.id, base, manifest, revision: manifest.revision, keys, repository: null };
}

function isWeights(name: string): boolean {
  return name.endsWith(".safetensors");
}
