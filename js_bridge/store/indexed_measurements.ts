// What was measured on this machine, kept in IndexedDB: small data by key, in a database of its own, so that emptying
// the store of weights does not slow down the next start. It is a cache: what it can't do is measured again.

import { type IDBPDatabase, openDB } from "idb";
import type { Remembered } from "../engine/backends/remembered.ts";

const DATABASE = "neuroscope-measurements";
const STORE = "measurements";

export function indexedMeasurements(): Remembered | null {
  if (globalThis.indexedDB === undefined) return null;
  const during = async <T>(action: (database: IDBPDatabase) => Promise<T>): Promise<T | undefined> => {
    try {
      const database = await openDB(DATABASE, 1, { upgrade: (fresh) => void fresh.createObjectStore(STORE) });
      try {
        return await action(database);
      } finally {
        database.close();
      }
    } catch {
      return undefined; // forbidden or full
    }
  };
  return {
    recall: (key) => during((database) => database.get(STORE, key)),
    remember: async (key, value) => void (await during((database) => database.put(STORE, value, key))),
  };
}
