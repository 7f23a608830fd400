// The page of the store's browser tests: reads a model's files as a load would, without an engine, and says what came.

import { EngineError } from "../../js_bridge/engine/errors.ts";
import { Bundle, type BundleHost } from "../../js_bridge/store/bundle.ts";
import { httpFetch, type HttpOptions } from "../../js_bridge/store/fetch.ts";
import { openIndexedChunks } from "../../js_bridge/store/indexed_chunks.ts";
import { readHeader } from "../../js_bridge/store/safetensors.ts";
import { sha256 } from "../../js_bridge/store/sha256.ts";
import { describeShortage } from "../../js_bridge/store/storage.ts";

interface Wanted {
  address: string;
  hub?: string;
  revision?: string;
  keep?: "files" | "prepared";
  store?: boolean;
  line?: HttpOptions;
  /** Cancels when so many pieces were read. */
  cancelAfter?: number;
  /** Milliseconds between pieces, as of a slow engine. */
  pause?: number;
}

const logs: string[] = [];

/** Reads config.json, whether there is a tokenizer, and every weight file from end to end. */
async function load(wanted: Wanted): Promise<object> {
  logs.length = 0;
  const store = wanted.store === false ? null : await openIndexedChunks((text) => logs.push(text));
  const warnings: object[] = [];
  if (store !== null) store.onFull = (shortage) => warnings.push(describeShortage(shortage));
  const cancel = new AbortController();
  let progress = { bytesLoaded: 0, bytesTotal: 0, cached: 0 };
  const host: BundleHost = {
    fetchBytes: httpFetch({ delays: [20, 40, 80, 160], ...wanted.line }),
    store,
    hub: wanted.hub,
    log: (text) => logs.push(text),
    onProgress: (now) => {
      progress = now;
    },
  };
  let bundle: Bundle | null = null;
  try {
    bundle = await Bundle.open(wanted.address, host, {
      revision: wanted.revision,
      keep: wanted.keep,
      signal: cancel.signal,
    });
    const sharded = await bundle.has("model.safetensors.index.json");
    const index = sharded ? await bundle.readJson("model.safetensors.index.json") : { weight_map: {} };
    const shards = [...new Set(Object.values(index["weight_map"] as Record<string, string>))].sort();
    const files = sharded ? shards : ["model.safetensors"];
    bundle.expect(["config.json", ...files]);
    const config = await bundle.readJson("config.json");
    const hasTokenizer = await bundle.has("tokenizer.json");
    const digests: Record<string, string> = {};
    let pieces = 0;
    for (const file of files) for (const [name, entry] of await readHeader(bundle, file)) {
      const bytes = new Uint8Array(entry.end - entry.begin);
      let at = 0;
      for await (const piece of bundle.pieces(file, entry.begin, entry.end)) {
        bytes.set(piece, at);
        at += piece.length;
        if (++pieces === wanted.cancelAfter) cancel.abort(new EngineError("LoadCancelled", "cancelled"));
        if (wanted.pause !== undefined) await new Promise((resolve) => setTimeout(resolve, wanted.pause));
      }
      digests[name] = await sha256(bytes);
    }
    const { id, revision, source } = bundle;
    return { id, revision, source, config, hasTokenizer, digests, progress, logs, warnings };
  } catch (error) {
    if (error instanceof EngineError) return { error: { name: error.name, message: error.message, ...error.details }, progress, warnings };
    throw error;
  } finally {
    await bundle?.close();
  }
}

async function usage(): Promise<unknown> {
  return (await openIndexedChunks(() => undefined))?.usage();
}

async function setBudget(bytes: number): Promise<void> {
  await (await openIndexedChunks(() => undefined))?.setBudget(bytes);
}

async function evict(bundle: string): Promise<void> {
  await (await openIndexedChunks(() => undefined))?.evict(bundle);
}

/** Forgets everything. */
function clear(): Promise<void> {
  const deleting = indexedDB.deleteDatabase("neuroscope");
  return new Promise((resolve) => (deleting.onsuccess = () => resolve()));
}

/** Flips a byte of the largest thing that is kept, and leaves its SHA-256. */
async function damage(): Promise<void> {
  const opening = indexedDB.open("neuroscope");
  const database = await new Promise<IDBDatabase>((resolve) => (opening.onsuccess = () => resolve(opening.result)));
  const done = <T>(request: IDBRequest<T>) => new Promise<T>((resolve) => (request.onsuccess = () => resolve(request.result)));
  const chunks = () => database.transaction("chunks", "readwrite").objectStore("chunks");
  const keys = await done(chunks().getAllKeys());
  const kept = await Promise.all(keys.map((key) => done(chunks().get(key))));
  const largest = kept.reduce((best, each, i) => (each.blob.size > kept[best].blob.size ? i : best), 0);
  const bytes = new Uint8Array(await kept[largest].blob.arrayBuffer());
  bytes[bytes.length >> 1] ^= 1;
  await done(chunks().put({ ...kept[largest], blob: new Blob([bytes]) }, keys[largest]));
  database.close();
}

Object.assign(globalThis, { store: { load, usage, setBudget, evict, clear, damage } });
