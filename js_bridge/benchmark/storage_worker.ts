// The `get` loop that a warm start can't beat: everything that the page's database keeps, read and thrown away.

import { answerCalls } from "./answer_calls.ts";

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

answerCalls({
  /** Of all stores of the database; the kept bytes are the largest by far. */
  async readAll(name: string) {
    const database = await settled(indexedDB.open(name));
    const began = performance.now();
    let bytes = 0;
    for (const store of database.objectStoreNames) {
      const keys = await settled(database.transaction(store).objectStore(store).getAllKeys());
      for (const key of keys) {
        const value: unknown = await settled(database.transaction(store).objectStore(store).get(key));
        // a Blob is only a name for bytes until they are read
        const parts = typeof value === "object" && value !== null ? Object.values(value) : [];
        for (const part of parts) if (part instanceof Blob) bytes += (await part.arrayBuffer()).byteLength;
      }
    }
    const milliseconds = performance.now() - began;
    database.close();
    return { milliseconds, bytes };
  },
});
