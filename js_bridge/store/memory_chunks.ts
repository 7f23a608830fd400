// A store that lasts as long as its process: for Node, and for tests.

import { BudgetedStore, type ChunkStore, type Entry, type Kept, type Shelves } from "./chunk_store.ts";
import { ALONE } from "./tabs.ts";

export function openMemoryChunks(budget = Number.MAX_SAFE_INTEGER): ChunkStore {
  return new BudgetedStore(new MemoryShelves(budget), ALONE, () => undefined);
}

class MemoryShelves implements Shelves {
  readonly #kept = new Map<string, Kept>();
  readonly #entries = new Map<string, Entry>();
  readonly #lastUsed = new Map<string, number>();
  /** Counts instead of the clock, which stands still within a millisecond. */
  #uses = 0;
  #budget: number;

  constructor(budget: number) {
    this.#budget = budget;
  }

  get = async (key: string) => this.#kept.get(key);
  entries = async () => [...this.#entries.values()];
  lastUsed = async () => new Map(this.#lastUsed);
  budget = async () => this.#budget;
  quota = async () => null;

  async add(bundle: string, key: string, kept: Kept): Promise<void> {
    const bundles = new Set(this.#entries.get(key)?.bundles).add(bundle);
    this.#kept.set(key, { ...kept, bytes: kept.bytes.slice() });
    this.#entries.set(key, { key, bytes: kept.bytes.length, bundles: [...bundles] });
  }

  async delete(key: string): Promise<void> {
    this.#kept.delete(key);
    this.#entries.delete(key);
  }

  async touch(bundle: string): Promise<void> {
    this.#lastUsed.set(bundle, ++this.#uses);
  }

  async remove(bundle: string): Promise<void> {
    this.#lastUsed.delete(bundle);
    for (const entry of [...this.#entries.values()].filter((each) => each.bundles.includes(bundle))) {
      const bundles = entry.bundles.filter((each) => each !== bundle);
      if (bundles.length === 0) await this.delete(entry.key);
      else this.#entries.set(entry.key, { ...entry, bundles });
    }
  }

  async setBudget(bytes: number): Promise<void> {
    this.#budget = bytes;
  }
}
