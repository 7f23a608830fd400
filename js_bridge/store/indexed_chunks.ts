// The browser's store: IndexedDB. Bytes lie there as Blobs, which are written three times as fast as ArrayBuffers and
// read twice as fast, as streams into memory that is there already faster still; what is known of them lies beside
// them, so that choosing what to evict reads no bytes.

import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import type { Buffers } from "./buffers.ts";
import { BudgetedStore, type ChunkStore, type Entry, type Kept, type Shelves } from "./chunk_store.ts";
import { tabsOf } from "./tabs.ts";

interface Schema extends DBSchema {
  chunks: { key: string; value: { checksum: number; blob: Blob } };
  entries: { key: string; value: Entry & { bundles: string[] }; indexes: { bundles: string } };
  bundles: { key: string; value: { name: string; lastUsed: number } };
  settings: { key: "budget"; value: number };
}

const DATABASE = "neuroscope";
const VERSION = 3;
const RELAXED = { durability: "relaxed" } as const;

/** Null, and a line of log, where IndexedDB is missing or forbidden. */
export async function openIndexedChunks(log: (text: string) => void): Promise<ChunkStore | null> {
  if (globalThis.indexedDB === undefined) {
    log("IndexedDB is missing here: weights are fetched anew on every visit");
    return null;
  }
  const shelves = new IndexedShelves();
  try {
    await shelves.open();
  } catch (error) {
    log(`IndexedDB could not be opened (${String(error)}): weights are fetched anew on every visit`);
    return null;
  }
  return new BudgetedStore(shelves, tabsOf(globalThis.navigator?.locks), log);
}

class IndexedShelves implements Shelves {
  #database: Promise<IDBPDatabase<Schema>> | null = null;

  /** Again, after the browser has closed it: it does when the reader clears the site's data. */
  open(): Promise<IDBPDatabase<Schema>> {
    this.#database ??= openDB<Schema>(DATABASE, VERSION, {
      upgrade(database) {
        // What an older site kept was a cache as well.
        for (const name of [...database.objectStoreNames]) database.deleteObjectStore(name);
        database.createObjectStore("chunks");
        database.createObjectStore("entries", { keyPath: "key" }).createIndex("bundles", "bundles", { multiEntry: true });
        database.createObjectStore("bundles", { keyPath: "name" });
        database.createObjectStore("settings");
      },
      // A newer site in another tab waits until this one lets go.
      blocking: (_current, _blocked, event) => {
        (event.target as IDBDatabase).close();
        this.#database = null;
      },
      terminated: () => {
        this.#database = null;
      },
    });
    this.#database.catch(() => {
      this.#database = null;
    });
    return this.#database;
  }

  async get(key: string, buffers?: Buffers): Promise<Kept | undefined> {
    const found = await (await this.open()).get("chunks", key);
    if (found === undefined) return undefined;
    const { blob, checksum } = found;
    const bytes = buffers === undefined ? new Uint8Array(await blob.arrayBuffer()) : await readInto(blob, buffers);
    return { bytes, checksum };
  }

  async add(bundle: string, key: string, { bytes, checksum }: Kept): Promise<void> {
    const blob = new Blob([bytes as Uint8Array<ArrayBuffer>]);
    const change = (await this.open()).transaction(["chunks", "entries", "bundles"], "readwrite", RELAXED);
    // A request that fails aborts the transaction, whose own promise tells why.
    const ignore = () => undefined;
    const entries = change.objectStore("entries");
    const former = await entries.get(key);
    const bundles = [...new Set(former?.bundles).add(bundle)];
    change.objectStore("chunks").put({ checksum, blob }, key).catch(ignore);
    entries.put({ key, bytes: bytes.length, bundles }).catch(ignore);
    change.objectStore("bundles").put({ name: bundle, lastUsed: Date.now() }).catch(ignore);
    await change.done;
  }

  async delete(key: string): Promise<void> {
    const change = (await this.open()).transaction(["chunks", "entries"], "readwrite", RELAXED);
    await Promise.all([change.objectStore("chunks").delete(key), change.objectStore("entries").delete(key), change.done]);
  }

  async entries(): Promise<Entry[]> {
    return (await this.open()).getAll("entries");
  }

  async lastUsed(): Promise<Map<string, number>> {
    const bundles = await (await this.open()).getAll("bundles");
    return new Map(bundles.map(({ name, lastUsed }) => [name, lastUsed]));
  }

  async touch(name: string, lastUsed: number): Promise<void> {
    await (await this.open()).put("bundles", { name, lastUsed });
  }

  async remove(bundle: string): Promise<void> {
    const change = (await this.open()).transaction(["chunks", "entries", "bundles"], "readwrite", RELAXED);
    const [chunks, entries] = [change.objectStore("chunks"), change.objectStore("entries")];
    await change.objectStore("bundles").delete(bundle);
    for (const entry of await entries.index("bundles").getAll(bundle)) {
      const bundles = entry.bundles.filter((each) => each !== bundle);
      if (bundles.length > 0) await entries.put({ ...entry, bundles });
      else await Promise.all([entries.delete(entry.key), chunks.delete(entry.key)]);
    }
    await change.done;
  }

  async budget(): Promise<number | undefined> {
    return (await this.open()).get("settings", "budget");
  }

  async setBudget(bytes: number): Promise<void> {
    await (await this.open()).put("settings", bytes, "budget");
  }

  async quota(): Promise<number | null> {
    return (await globalThis.navigator?.storage?.estimate?.())?.quota ?? null;
  }
}

/**
 * Readers at work. Chromium collects a blob's stream that only its own pending read refers to, and the read never ends;
 * what is in here is not collected.
 */
const atWork = new Set<ReadableStreamBYOBReader>();

/** All bytes of a blob, in a buffer that is lent. */
async function readInto(blob: Blob, buffers: Buffers): Promise<Uint8Array> {
  const reader = byteReader(blob);
  if (reader === null) return buffers.adopt(new Uint8Array(await blob.arrayBuffer()));
  atWork.add(reader);
  try {
    return await filled(buffers.take(blob.size), reader, buffers);
  } finally {
    atWork.delete(reader);
  }
}

async function filled(
  bytes: Uint8Array<ArrayBuffer>,
  reader: ReadableStreamBYOBReader,
  buffers: Buffers,
): Promise<Uint8Array> {
  const { length } = bytes;
  for (let at = 0; at < length; ) {
    const { buffer } = bytes;
    let read: ReadableStreamReadResult<Uint8Array<ArrayBuffer>>;
    try {
      read = await reader.read(bytes.subarray(at));
    } catch (error) {
      buffers.moved(buffer, null);
      throw error;
    }
    buffers.moved(buffer, read.value?.buffer ?? null);
    if (read.value === undefined || read.done) throw new Error(`a blob of ${length} bytes ended after ${at}`);
    at += read.value.length;
    bytes = new Uint8Array(read.value.buffer, 0, length);
  }
  return bytes;
}

/** Null where a browser's blobs can't be read into given memory. */
function byteReader(blob: Blob): ReadableStreamBYOBReader | null {
  try {
    return blob.stream().getReader({ mode: "byob" });
  } catch {
    return null;
  }
}
