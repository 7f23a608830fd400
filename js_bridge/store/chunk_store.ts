// Where fetched chunks stay between visits: keyed by their SHA-256, so that two bundles share equal chunks and a
// changed bundle fetches only what changed. The content is checked by whoever reads it.

import { openDB } from "idb";

export interface ChunkStore {
  get(sha256: string): Promise<Uint8Array | undefined>;
  put(sha256: string, bytes: Uint8Array): Promise<void>;
  delete(sha256: string): Promise<void>;
}

const DATABASE = "neuroscope";
const CHUNKS = "chunks";

/** The browser's store; null where IndexedDB is missing or forbidden. */
export async function openIndexedChunks(log: (text: string) => void): Promise<ChunkStore | null> {
  if (globalThis.indexedDB === undefined) {
    log("IndexedDB is missing here: weights are fetched anew on every visit");
    return null;
  }
  try {
    const database = await openDB(DATABASE, 1, { upgrade: (upgraded) => void upgraded.createObjectStore(CHUNKS) });
    return {
      get: (sha256) => database.get(CHUNKS, sha256),
      put: async (sha256, bytes) => {
        try {
          await database.put(CHUNKS, bytes, sha256);
        } catch (error) {
          log(
            `A chunk of ${bytes.length} bytes could not be kept (${String(error)}): it is fetched anew on the next visit`,
          );
        }
      },
      delete: (sha256) => database.delete(CHUNKS, sha256),
    };
  } catch (error) {
    log(`IndexedDB could not be opened (${String(error)}): weights are fetched anew on every visit`);
    return null;
  }
}

/** A store that lasts as long as its process. */
export function openMemoryChunks(): ChunkStore {
  const chunks = new Map<string, Uint8Array>();
  return {
    get: async (sha256) => chunks.get(sha256),
    put: async (sha256, bytes) => void chunks.set(sha256, bytes),
    delete: async (sha256) => void chunks.delete(sha256),
  };
}
