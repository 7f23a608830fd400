// Where fetched bytes stay between visits: pieces of files by key, each with its checksum and with the bundles that it
// belongs to. A bundle's chunk has its SHA-256 as its key, so that two bundles share equal chunks and a changed bundle
// fetches only what changed. It was compared when the chunk came; from then on the checksum, written with the bytes in
// one transaction, tells whether the disk gives back what it got. The store compares nothing: whoever reads does. It is
// a cache: whatever it can't do costs a download, never a result, so nothing here throws but what its caller asked for.
//
// Beyond its budget the bundle that was used least recently goes, whole: one that lacks a chunk is no use offline.
// What a running load needs stays.

import { EngineError } from "../engine/errors.ts";
import type { Buffers } from "./buffers.ts";
import type { Tabs } from "./tabs.ts";
import { xxh32 } from "./xxh32.ts";

/** SHA-256 in lower-case hexadecimal. */
export type Digest = (bytes: Uint8Array) => Promise<string>;

export interface Kept {
  readonly bytes: Uint8Array;
  /** XXH32 of the bytes as they were put. */
  readonly checksum: number;
}

export interface ChunkStore {
  /** The bytes lie in one of the buffers, where the store can read into one. */
  get(key: string, buffers?: Buffers): Promise<Kept | undefined>;
  /** Keeps bytes for a bundle; false, and a warning, where there is no room for them. They may change afterwards. */
  put(bundle: string, key: string, kept: Kept): Promise<boolean>;
  delete(key: string): Promise<void>;
  /** Marks a bundle as used now; until the answer is called it is not evicted. */
  use(bundle: string): () => void;
  /**
   * Waits until nobody else fetches this key, in no other tab either; the answer lets the next one in. Where the
   * browser has no locks nobody waits. Fails: the signal's reason.
   */
  claim(key: string, signal?: AbortSignal): Promise<() => void>;
  usage(): Promise<StoreUsage>;
  /** Fails: BadParameter for what is no number of bytes. */
  setBudget(bytes: number): Promise<void>;
  evict(bundle: string): Promise<void>;
  /** Told that there is no room, once as long as a bundle is in use. */
  onFull: (shortage: Shortage) => void;
}

export interface StoreUsage {
  readonly bytes: number;
  readonly budget: number;
  /** What the browser allows; null where it does not tell. */
  readonly quota: number | null;
  readonly bundles: readonly { readonly name: string; readonly bytes: number; readonly lastUsed: number }[];
}

export interface Shortage {
  readonly bundle: string;
  /** that found no room */
  readonly bytes: number;
  readonly budget: number;
  readonly quota: number | null;
}

/** What is kept under a key, if it is undamaged; else it is deleted, and the answer is null. */
export async function readKept(store: ChunkStore | null, key: string, buffers?: Buffers): Promise<Uint8Array | null> {
  const kept = await store?.get(key, buffers);
  if (kept === undefined) return null;
  if (xxh32(kept.bytes) === kept.checksum) return kept.bytes;
  buffers?.give(kept.bytes);
  await store?.delete(key);
  return null;
}

/** Keeps bytes with their checksum. */
export async function keep(store: ChunkStore | null, bundle: string, key: string, bytes: Uint8Array): Promise<void> {
  await store?.put(bundle, key, { bytes, checksum: xxh32(bytes) });
}

/** What a store knows of a key without its bytes. */
export interface Entry {
  readonly key: string;
  readonly bytes: number;
  readonly bundles: readonly string[];
}

/** Bytes by bundle, the least recently used first; what two share counts for each. */
export function usageOf(
  entries: readonly Entry[],
  lastUsed: ReadonlyMap<string, number>,
): { name: string; bytes: number; lastUsed: number }[] {
  const bytes = new Map<string, number>();
  for (const entry of entries)
    for (const bundle of entry.bundles) bytes.set(bundle, (bytes.get(bundle) ?? 0) + entry.bytes);
  return [...bytes]
    .map(([name, count]) => ({ name, bytes: count, lastUsed: lastUsed.get(name) ?? 0 }))
    .sort((a, b) => a.lastUsed - b.lastUsed);
}

/** The bundles to evict so that so many bytes fit in; null where that can't be reached. */
export function toEvict(
  entries: readonly Entry[],
  lastUsed: ReadonlyMap<string, number>,
  needed: number,
  budget: number,
  isInUse: (bundle: string) => boolean,
): string[] | null {
  let left = [...entries];
  const total = () => left.reduce((sum, entry) => sum + entry.bytes, 0);
  const chosen: string[] = [];
  for (const { name } of usageOf(entries, lastUsed)) {
    if (total() + needed <= budget) return chosen;
    if (isInUse(name)) continue;
    chosen.push(name);
    left = left
      .map((entry) => ({ ...entry, bundles: entry.bundles.filter((each) => each !== name) }))
      .filter((entry) => entry.bundles.length > 0);
  }
  return total() + needed <= budget ? chosen : null;
}

/** Where the bytes lie: memory or IndexedDB. What fails is thrown. */
export interface Shelves {
  get(key: string, buffers?: Buffers): Promise<Kept | undefined>;
  /** All or nothing. Fails: QuotaExceededError. */
  add(bundle: string, key: string, kept: Kept): Promise<void>;
  delete(key: string): Promise<void>;
  entries(): Promise<Entry[]>;
  lastUsed(): Promise<Map<string, number>>;
  touch(bundle: string, time: number): Promise<void>;
  /** A bundle, and what belongs to no other. */
  remove(bundle: string): Promise<void>;
  budget(): Promise<number | undefined>;
  setBudget(bytes: number): Promise<void>;
  quota(): Promise<number | null>;
}

/** Of what the browser allows the site, when the reader has set no budget; the rest is for the site itself. */
const SHARE_OF_QUOTA = 0.8;

/** The budget where the browser tells no quota. */
const DEFAULT_BUDGET = 2 * 2 ** 30;

/** Shelves with a budget. */
export class BudgetedStore implements ChunkStore {
  onFull: (shortage: Shortage) => void = () => undefined;
  readonly #shelves: Shelves;
  readonly #tabs: Tabs;
  readonly #log: (text: string) => void;
  readonly #uses = new Map<string, number>();
  /** Bundles that found no room while in use. */
  readonly #refused = new Set<string>();
  #putting: Promise<unknown> = Promise.resolve();

  constructor(shelves: Shelves, tabs: Tabs, log: (text: string) => void) {
    this.#shelves = shelves;
    this.#tabs = tabs;
    this.#log = log;
  }

  async get(key: string, buffers?: Buffers): Promise<Kept | undefined> {
    return this.#attempt("read", () => this.#shelves.get(key, buffers), undefined);
  }

  /** One after another: each decides about room by what the one before has left. */
  put(bundle: string, key: string, kept: Kept): Promise<boolean> {
    const putting = this.#putting.then(() => this.#attempt("keep", () => this.#put(bundle, key, kept), false));
    this.#putting = putting;
    return putting;
  }

  async delete(key: string): Promise<void> {
    await this.#attempt("delete", () => this.#shelves.delete(key), undefined);
  }

  use(bundle: string): () => void {
    this.#uses.set(bundle, (this.#uses.get(bundle) ?? 0) + 1);
    this.#touch(bundle);
    const withdraw = this.#tabs.announce(bundle);
    let isUsed = true;
    return () => {
      if (!isUsed) return;
      isUsed = false;
      const left = (this.#uses.get(bundle) ?? 1) - 1;
      if (left > 0) this.#uses.set(bundle, left);
      else {
        this.#uses.delete(bundle);
        this.#refused.delete(bundle);
      }
      this.#touch(bundle);
      withdraw();
    };
  }

  claim(key: string, signal?: AbortSignal): Promise<() => void> {
    return this.#tabs.claim(key, signal);
  }

  async usage(): Promise<StoreUsage> {
    const empty = { bytes: 0, budget: 0, quota: null, bundles: [] };
    return this.#attempt("describe", () => this.#usage(), empty);
  }

  async setBudget(bytes: number): Promise<void> {
    if (!Number.isSafeInteger(bytes) || bytes < 0)
      throw new EngineError("BadParameter", `A budget of ${bytes} bytes: it must be a whole number, at least 0`);
    this.#refused.clear();
    await this.#attempt("set the budget of", () => this.#shelves.setBudget(bytes), undefined);
    await this.#attempt("evict from", () => this.#makeRoom(0), false);
  }

  async evict(bundle: string): Promise<void> {
    await this.#attempt("evict from", () => this.#shelves.remove(bundle), undefined);
  }

  async #put(bundle: string, key: string, kept: Kept): Promise<boolean> {
    if (this.#refused.has(bundle)) return false;
    const { length } = kept.bytes;
    while (await this.#makeRoom(length)) {
      try {
        await this.#shelves.add(bundle, key, kept);
        return true;
      } catch (error) {
        if ((error as Error).name !== "QuotaExceededError") throw error;
        // The disk is fuller than the budget knows.
        const victim = await this.#leastUsed();
        if (victim === undefined) break;
        await this.#shelves.remove(victim);
      }
    }
    this.#refused.add(bundle);
    const { budget, quota } = await this.#usage();
    this.onFull({ bundle, bytes: length, budget, quota });
    return false;
  }

  async #makeRoom(bytes: number): Promise<boolean> {
    const [entries, lastUsed] = await Promise.all([this.#shelves.entries(), this.#shelves.lastUsed()]);
    const isInUse = await this.#isInUse(lastUsed);
    const victims = toEvict(entries, lastUsed, bytes, await this.#budget(), isInUse);
    for (const victim of victims ?? []) await this.#shelves.remove(victim);
    return victims !== null;
  }

  async #leastUsed(): Promise<string | undefined> {
    const [entries, lastUsed] = await Promise.all([this.#shelves.entries(), this.#shelves.lastUsed()]);
    const isInUse = await this.#isInUse(lastUsed);
    return usageOf(entries, lastUsed).find(({ name }) => !isInUse(name))?.name;
  }

  async #isInUse(lastUsed: ReadonlyMap<string, number>): Promise<(bundle: string) => boolean> {
    const elsewhere = await this.#tabs.inUse(lastUsed);
    return (bundle) => this.#uses.has(bundle) || elsewhere.has(bundle);
  }

  async #budget(): Promise<number> {
    const chosen = await this.#shelves.budget();
    if (chosen !== undefined) return chosen;
    const quota = await this.#shelves.quota();
    return quota === null ? DEFAULT_BUDGET : Math.floor(SHARE_OF_QUOTA * quota);
  }

  async #usage(): Promise<StoreUsage> {
    const [entries, lastUsed] = await Promise.all([this.#shelves.entries(), this.#shelves.lastUsed()]);
    return {
      bytes: entries.reduce((sum, entry) => sum + entry.bytes, 0),
      budget: await this.#budget(),
      quota: await this.#shelves.quota(),
      bundles: usageOf(entries, lastUsed).reverse(),
    };
  }

  #touch(bundle: string): void {
    void this.#attempt("write to", () => this.#shelves.touch(bundle, Date.now()), undefined);
  }

  async #attempt<T>(verb: string, action: () => Promise<T>, otherwise: T): Promise<T> {
    try {
      return await action();
    } catch (error) {
      this.#log(`The store could not be used (${verb}: ${String(error)}): what it lacks is fetched anew`);
      return otherwise;
    }
  }
}
