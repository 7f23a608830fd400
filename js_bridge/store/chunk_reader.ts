// Reads chunks: from the store where it has them, else over the line, several at once, checked, and kept for the next
// visit. Whoever reads in the order of the files finds the next chunks on their way; what lies behind ends as soon as
// nobody borrows it, so that memory holds a window of the files, never a file.

import { EngineError } from "../engine/errors.ts";
import { Buffers } from "./buffers.ts";
import { type ChunkStore, type Digest, keep, readKept } from "./chunk_store.ts";
import type { ChunkedFile, ChunkPlace } from "./chunked_file.ts";
import { asFetchFailed, type FetchBytes } from "./fetch.ts";

export interface ReaderOptions {
  readonly fetchBytes: FetchBytes;
  readonly store: ChunkStore | null;
  readonly digest: Digest;
  readonly signal: AbortSignal;
  /** That the store keeps the chunks for. */
  readonly bundle: string;
  /** Whether a file's chunks are put into the store; those that are there are read. */
  keeps(file: ChunkedFile): boolean;
  missing(file: ChunkedFile): Promise<EngineError>;
  onBytes(file: ChunkedFile, count: number, isCached: boolean): void;
}

/** Read ahead: so many bytes beyond the chunk that was asked for, and so many chunks where they are small. */
const BYTES_AHEAD = 48 * 2 ** 20;
const CHUNKS_AHEAD = 8;

/** From the store the next chunk comes while one is worked on; more would only take memory. */
const KEPT_AHEAD = 16 * 2 ** 20;

/** Requests at once, for which browsers open no more than six connections to a host. */
const LANES = 4;

interface Held {
  readonly file: ChunkedFile;
  readonly index: number;
  readonly bytes: Promise<Uint8Array>;
  loans: number;
}

/** Bytes that are there until they are given back, and must not be changed. */
export interface Borrowed {
  readonly bytes: Uint8Array;
  /** Once. */
  giveBack(): void;
}

export class ChunkReader {
  readonly #options: ReaderOptions;
  readonly #lanes = new Lanes(LANES);
  readonly #buffers = new Buffers();
  readonly #storing = new Map<Uint8Array, Promise<unknown>>();
  /** Files whose host is being asked for the first time. */
  readonly #asking = new Map<ChunkedFile, Promise<void>>();
  /** All chunks that are in memory or on their way, but those that are read once. */
  readonly #all = new Set<Held>();
  /** The chunk that was read last, and those that follow it. */
  #window: Held[] = [];
  /** One that was read out of order. */
  #aside: Held | null = null;
  /** Whether the chunk that came last was in the store. */
  #isKept = false;
  /** The file after each, in the order in which they will be read. */
  #next = new Map<ChunkedFile, ChunkedFile>();

  constructor(options: ReaderOptions) {
    this.#options = options;
  }

  /** The order in which files will be read. */
  plan(files: readonly ChunkedFile[]): void {
    this.#next = new Map(files.slice(1).map((file, i) => [files[i], file]));
  }

  /** Begins to fetch a chunk and those that follow it; what fails is told when they are read. */
  begin(file: ChunkedFile, index: number): void {
    if (file.chunk(index) === null) return;
    const first = this.#held(file, index) ?? this.#request(file, index);
    this.#window = [first, ...this.#ahead(first)];
    this.#sweep();
  }

  /**
   * A chunk; those that follow it are fetched ahead, those before it are let go. A glance aside (at the scales of codes,
   * at another file's header) leaves the window where it is, until a second one follows on the first.
   *
   * Fails: FetchFailed, ChunkMismatch; the signal's reason, also where the chunk is at hand.
   */
  async borrow(file: ChunkedFile, index: number): Promise<Borrowed> {
    this.#options.signal.throwIfAborted();
    const wanted = this.#held(file, index) ?? this.#request(file, index);
    wanted.loans++;
    const at = this.#window.indexOf(wanted);
    const next = this.#aside === null ? null : this.#after(this.#aside);
    const isNext = next?.file === file && next.index === index;
    if (this.#window.length === 0 || at === 0 || at === 1 || isNext) this.#window = [wanted, ...this.#ahead(wanted)];
    else this.#aside = wanted;
    this.#sweep();
    const giveBack = (): void => {
      wanted.loans--;
      this.#sweep();
    };
    try {
      return { bytes: await wanted.bytes, giveBack };
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  /** A chunk that nobody else will ask for, a copy of its own. Fails: FetchFailed, ChunkMismatch. */
  async readOnce(file: ChunkedFile, index: number): Promise<Uint8Array> {
    const bytes = await this.#load(file, file.chunk(index) as ChunkPlace);
    const copy = bytes.slice();
    await this.#end(bytes);
    return copy;
  }

  /** The first bytes of a file, whatever its chunks are: not kept, and not counted. Fails: FetchFailed. */
  async readStart(file: ChunkedFile, bytes: number): Promise<Uint8Array> {
    const place = { index: 0, offset: 0, bytes: Math.min(bytes, file.bytes ?? bytes), sha256: null, key: null };
    return this.#download(file, place, () => undefined);
  }

  forget(file: ChunkedFile): void {
    this.#window = this.#window.filter((each) => each.file !== file);
    if (this.#aside?.file === file) this.#aside = null;
    file.whole = null;
    this.#sweep();
  }

  /** Resolves when everything that was fetched has been kept, or refused; from then on no memory waits for more. */
  async close(): Promise<void> {
    await Promise.all(this.#storing.values());
    this.#buffers.close();
  }

  /** Ends the chunks that are neither borrowed nor expected. */
  #sweep(): void {
    for (const held of this.#all) {
      if (held.loans > 0 || held === this.#aside || this.#window.includes(held)) continue;
      this.#all.delete(held);
      held.bytes.then(
        (bytes) => this.#end(bytes),
        () => undefined,
      );
    }
  }

  async #end(bytes: Uint8Array): Promise<void> {
    await this.#storing.get(bytes);
    this.#buffers.give(bytes);
  }

  #held(file: ChunkedFile, index: number): Held | undefined {
    const isWanted = (each: Held | null) => each?.file === file && each.index === index;
    return this.#window.find(isWanted) ?? (isWanted(this.#aside) ? (this.#aside as Held) : undefined);
  }

  #request(file: ChunkedFile, index: number): Held {
    const bytes = this.#load(file, file.chunk(index) as ChunkPlace);
    bytes.catch(() => undefined); // its reader is told
    const held = { file, index, bytes, loans: 0 };
    this.#all.add(held);
    return held;
  }

  /** The place that follows, in the next file after the end; null where nobody knows whether there is one. */
  #after({ file, index }: { file: ChunkedFile; index: number }): { file: ChunkedFile; index: number } | null {
    if (file.bytes === null) return null;
    if (file.chunk(index + 1) !== null) return { file, index: index + 1 };
    const next = this.#next.get(file);
    if (next === undefined || next.bytes === null) return null;
    return next.chunk(0) === null ? this.#after({ file: next, index: 0 }) : { file: next, index: 0 };
  }

  #ahead(from: Held): Held[] {
    const ahead: Held[] = [];
    let bytes = 0;
    let place = this.#after(from);
    while (place !== null && ahead.length < CHUNKS_AHEAD) {
      const { file, index } = place;
      const held = this.#held(file, index);
      bytes += (file.chunk(index) as ChunkPlace).bytes;
      // What has come is not sent away, though less would be asked for now.
      if (held === undefined && bytes > (this.#isKept ? KEPT_AHEAD : BYTES_AHEAD)) break;
      ahead.push(held ?? this.#request(file, index));
      place = this.#after(place);
    }
    return ahead;
  }

  async #load(file: ChunkedFile, place: ChunkPlace): Promise<Uint8Array> {
    const { store, signal } = this.#options;
    signal.throwIfAborted();
    const stored = await this.#stored(file, place);
    this.#isKept = stored !== null;
    if (stored !== null) return stored;
    const leave = await this.#lanes.enter();
    let letGo = (): void => undefined;
    let storing: Promise<unknown> | undefined;
    try {
      if (store !== null && place.key !== null) {
        letGo = await store.claim(place.key, signal);
        // Whoever had it before may have kept it.
        const kept = await this.#stored(file, place);
        if (kept !== null) return kept;
      }
      signal.throwIfAborted();
      const bytes = await this.#fetch(file, place);
      storing = this.#keep(file, place, bytes);
      return bytes;
    } finally {
      // The lane stays taken until the bytes are kept: a slow disk slows the line, and memory stays bounded.
      void (storing ?? Promise.resolve()).then(() => {
        letGo();
        leave();
      });
    }
  }

  /** From the store, if it has the chunk undamaged. */
  async #stored(file: ChunkedFile, place: ChunkPlace): Promise<Uint8Array | null> {
    if (place.key === null) return null;
    const bytes = await readKept(this.#options.store, place.key, this.#buffers);
    if (bytes === null) return null;
    if (bytes.length < place.bytes) file.learnSize(place.offset + bytes.length);
    this.#options.onBytes(file, bytes.length, true);
    return bytes;
  }

  /** The bytes stay in memory until that is done. */
  async #keep(file: ChunkedFile, { key }: ChunkPlace, bytes: Uint8Array): Promise<void> {
    const { store, bundle } = this.#options;
    if (store === null || key === null || !this.#options.keeps(file)) return;
    const keeping = keep(store, bundle, key, bytes);
    this.#storing.set(bytes, keeping);
    await keeping.finally(() => this.#storing.delete(bytes));
  }

  /** Over the line, once more where it comes damaged. */
  async #fetch(file: ChunkedFile, place: ChunkPlace): Promise<Uint8Array> {
    const { digest, onBytes } = this.#options;
    let found = "";
    for (let attempt = 0; attempt < 2; attempt++) {
      let counted = 0;
      const download = (count: number): void => {
        counted += count;
        onBytes(file, count, false);
      };
      const bytes = await this.#download(file, place, download, this.#buffers);
      onBytes(file, bytes.length - counted, false);
      found = place.sha256 === null ? "" : await digest(bytes);
      if (place.sha256 === null || found === place.sha256) return bytes;
      file.whole = null;
      this.#buffers.give(bytes);
      onBytes(file, -bytes.length, false);
    }
    throw new EngineError(
      "ChunkMismatch",
      `${file.name}: the chunk at ${place.offset} (${place.bytes} bytes) has SHA-256 ${found}, fetched twice; bundle.json says ${place.sha256}; export or upload the bundle again`,
      { file: file.name, offset: place.offset },
    );
  }

  /** A host that ignores ranges sends the whole file: the other chunks are then cut from it too. */
  async #download(
    file: ChunkedFile,
    place: ChunkPlace,
    onBytes: (count: number) => void,
    buffers?: Buffers,
  ): Promise<Uint8Array> {
    const known = file.cuts === null ? await this.#first(file, place, onBytes, buffers) : null;
    if (known !== null) return known;
    if (file.whole !== null) {
      const whole = await file.whole;
      if (whole !== null) return cutFrom(whole, place, buffers);
    }
    return this.#ask(file, place, onBytes, buffers);
  }

  /** Only one asks a file's host until it is known whether it cuts: four whole files at once would be three too many. */
  async #first(
    file: ChunkedFile,
    place: ChunkPlace,
    onBytes: (count: number) => void,
    buffers: Buffers | undefined,
  ): Promise<Uint8Array | null> {
    const asking = this.#asking.get(file);
    if (asking !== undefined) {
      await asking;
      return null;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#asking.set(file, promise);
    try {
      return await this.#ask(file, place, onBytes, buffers, resolve);
    } finally {
      resolve();
      this.#asking.delete(file);
    }
  }

  async #ask(
    file: ChunkedFile,
    place: ChunkPlace,
    onBytes: (count: number) => void,
    buffers: Buffers | undefined,
    onAnswer: () => void = () => undefined,
  ): Promise<Uint8Array> {
    const { fetchBytes, signal } = this.#options;
    const isAll = place.offset === 0 && place.bytes === file.bytes;
    let isWhole = isAll;
    const range = isAll ? undefined : { offset: place.offset, bytes: place.bytes };
    const fetching = fetchBytes(file.url, range, {
      signal,
      onBytes,
      ...(buffers === undefined ? {} : { buffers }),
      onHead: (head) => {
        if (head.status < 300) {
          file.learn(head);
          file.cuts = !head.isWhole;
          isWhole ||= head.isWhole;
          if (head.isWhole) file.whole = fetching;
        }
        onAnswer();
      },
    });
    const bytes = await asFetchFailed(file.url, () => fetching);
    if (bytes === null) throw await this.#options.missing(file);
    // A host without heads (a function of the tests, say) shows by the length that it can't cut.
    if (!isWhole && bytes.length > place.bytes) {
      isWhole = true;
      file.cuts = false;
      file.whole = Promise.resolve(bytes);
    }
    if (isWhole && !isAll) {
      file.learnSize(bytes.length);
      return cutFrom(bytes, place, buffers);
    }
    if (bytes.length < place.bytes) {
      // Of a file whose size nobody told, that is its end; a chunk of bundle.json is judged by its SHA-256.
      file.learnSize(place.offset + bytes.length);
      if (place.sha256 === null) file.check(0, Math.min(place.offset + place.bytes, file.bytes as number));
    }
    return bytes;
  }
}

/** A copy: the rest of the file must not stay for it. */
function cutFrom(whole: Uint8Array, { offset, bytes }: ChunkPlace, buffers: Buffers | undefined): Uint8Array {
  const part = whole.subarray(offset, offset + bytes);
  if (buffers === undefined) return part.slice();
  const copy = buffers.take(part.length);
  copy.set(part);
  return copy;
}

/** Lets so many in at once, the others in the order in which they came. */
class Lanes {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async enter(): Promise<() => void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let isIn = true;
    return () => {
      if (!isIn) return;
      isIn = false;
      const next = this.#waiting.shift();
      if (next !== undefined) next();
      else this.#free++;
    };
  }
}
