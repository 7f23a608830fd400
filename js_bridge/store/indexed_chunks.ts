// The browser's store: IndexedDB. Bytes lie there as Blobs, which are written three times as fast as ArrayBuffers and
// read twice as fast; what is known of them lies beside them, so that choosing what to evict reads no bytes.

import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import { BudgetedStore, type ChunkStore, type Entry, type Kept, type Shelves } from "./chunk_store.ts";
import { tabsOf } from "./tabs.ts";

interface Schema extends DBSchema {
  chunks: { key: string; value: { sha256: string; blob: Blob } };
  entries: { key: string; value: Entry & { bundles: string[] }; indexes: { bundles: string } };
  bundles: { key: string; value: { name: string; lastUsed: number } };
  settings: { key: "budget"; value: number };
}

const DATABASE = "neuroscope";
const VERSION = 2;
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

  async get(key: string): Promise<Kept | undefined> {
    const found = await (await this.open()).get("chunks", key);
    return found && { bytes: new Uint8Array(await found.blob.arrayBuffer()), sha256: found.sha256 };
  }

  async add(bundle: string, key: string, { bytes, sha256 }: Kept): Promise<void> {
    const blob = new Blob([bytes as Uint8Array<ArrayBuffer>]);
    const change = (await this.open()).transaction(["chunks", "entries", "bundles"], "readwrite", RELAXED);
    // A request that fails aborts the transaction, whose own promise tells why.
    const ignore = () => undefined;
    const entries = change.objectStore("entries");
    const former = await entries.get(key);
    const bundles = [...new Set(former?.bundles).add(bundle)];
    change.objectStore("chunks").put({ sha256, blob }, key).catch(ignore);
    entries.put({ key, sha256, bytes: bytes.length, bundles }).catch(ignore);
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
