// How much memory reading a model takes, counted from outside: every buffer that anybody allocates or receives counts
// until it is detached. A chunk that somebody forgets to give back is found here.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import { BufferWatch } from "../../js_bridge/benchmark/buffer_watch.ts";
import { Bundle } from "../../js_bridge/store/bundle.ts";
import type { ChunkStore, Kept } from "../../js_bridge/store/chunk_store.ts";
import { httpFetch } from "../../js_bridge/store/fetch.ts";
import { openMemoryChunks } from "../../js_bridge/store/memory_chunks.ts";
import { end } from "../../js_bridge/store/buffers.ts";
import { xxh32 } from "../../js_bridge/store/xxh32.ts";

const MEBIBYTE = 2 ** 20;
const CHUNK = 4 * MEBIBYTE;
const CHUNKS = 40;
const WEIGHTS = "model.safetensors";

/** The chunks are alike, so that the test holds one of them. */
const chunk = Uint8Array.from({ length: CHUNK }, (_, i) => i >>> 7);
const sha256 = createHash("sha256").update(chunk).digest("hex");
const manifest = JSON.stringify({
  format: 1, id: "large", source: "large", revision: null, dtype: "float32", license: null, architecture: "gpt2",
  files: [{
    name: WEIGHTS, bytes: CHUNKS * CHUNK, sha256,
    chunks: Array.from({ length: CHUNKS }, (_, i) => ({ offset: i * CHUNK, bytes: CHUNK, sha256 })),
  }],
}); // prettier-ignore

/** A host that sends pieces of 64 KiB, each in a buffer of its own. */
const host: typeof fetch = async (url, { headers } = {}) => {
  if (String(url).endsWith("bundle.json")) return new Response(manifest);
  const [first, last] = String(new Headers(headers).get("Range")).slice(6).split("-").map(Number);
  let at = first;
  const body = new ReadableStream({
    type: "bytes",
    pull(controller) {
      controller.enqueue(chunk.slice(at % CHUNK, Math.min((at % CHUNK) + 2 ** 16, CHUNK)));
      at += 2 ** 16;
      if (at > last) controller.close();
    },
  });
  return new Response(body, { status: 206, headers: { "Content-Range": `bytes ${first}-${last}/${CHUNKS * CHUNK}` } });
};

/** As the browser's store, whose bytes are not in this process's memory until they are read. */
function storeOfBlobs(log: string[] = []): ChunkStore {
  const kept: Kept = { bytes: chunk, checksum: xxh32(chunk) };
  const blob = new Blob([chunk]);
  return Object.assign(openMemoryChunks(), {
    get: async (key: string, buffers?: Parameters<ChunkStore["get"]>[1]) => {
      if (key !== sha256) return undefined;
      log.push(key);
      const bytes = new Uint8Array(await blob.arrayBuffer());
      return { ...kept, bytes: buffers?.adopt(bytes) ?? bytes };
    },
  });
}

/** Reads the weights as the loader does; the most that was live meanwhile, and what was left, in chunks. */
async function watched(store: ChunkStore | null, use: (bundle: Bundle) => Promise<void>): Promise<[number, number]> {
  const watch = new BufferWatch();
  try {
    const before = watch.report().buffers;
    const fetchBytes = httpFetch({ fetch: host });
    const bundle = await Bundle.open("http://host/large", { fetchBytes, store, onProgress: () => undefined });
    bundle.expect([WEIGHTS]);
    await use(bundle);
    await bundle.close();
    const { buffers, peak } = watch.report();
    return [(peak - before) / CHUNK, (buffers - before) / CHUNK];
  } finally {
    watch.end();
  }
}

/** A third of a chunk at a time, so that some pieces lie in two chunks. */
async function borrowAll(bundle: Bundle): Promise<void> {
  const step = Math.floor(CHUNK / 12) * 4;
  for (let at = 0; at < CHUNKS * CHUNK; at += step) {
    const { bytes, giveBack } = await bundle.borrow(WEIGHTS, at, Math.min(at + step, CHUNKS * CHUNK));
    assert.equal(bytes[5], chunk[(at + 5) % CHUNK]);
    giveBack();
  }
}

describe("reading a file of 40 chunks", () => {
  test("over the line takes the memory of those that are on their way", async () => {
    const [peak, left] = await watched(null, borrowAll);
    // The chunk that is read, eight ahead of it, and a piece that lies in two.
    assert.ok(peak < 9.7, `${peak} chunks`);
    assert.ok(left < 0.1, `${left} chunks are left`);
  });

  test("from the store takes the memory of the few that are read ahead", async () => {
    const [peak, left] = await watched(storeOfBlobs(), borrowAll);
    assert.ok(peak < 9.7, `${peak} chunks`);
    assert.ok(left < 0.1, `${left} chunks are left`);
  });

  test("from the store reads each chunk once, also those that were begun before anybody knew that they are kept", async () => {
    const log: string[] = [];
    await watched(storeOfBlobs(log), async (bundle) => {
      bundle.fetchAhead(WEIGHTS);
      await new Promise((resolve) => setTimeout(resolve, 20));
      await borrowAll(bundle);
    });
    assert.equal(log.length, CHUNKS);
  });

  test("piece by piece takes no more", async () => {
    const [peak, left] = await watched(storeOfBlobs(), async (bundle) => {
      for await (const piece of bundle.pieces(WEIGHTS, 0, CHUNKS * CHUNK)) assert.equal(piece[200], chunk[200]);
    });
    assert.ok(peak < 9.7, `${peak} chunks`);
    assert.ok(left < 0.1, `${left} chunks are left`);
  });

  test("and never giving back is found", async () => {
    const [peak, left] = await watched(storeOfBlobs(), async (bundle) => {
      for (let at = 0; at < CHUNKS * CHUNK; at += CHUNK) await bundle.borrow(WEIGHTS, at, at + CHUNK);
    });
    assert.ok(peak >= CHUNKS && left >= CHUNKS, `${peak} chunks, ${left} left`);
  });
});

test("the watch counts whatever brings bytes forth, until it is detached", async () => {
  const sources: Record<string, () => unknown> = {
    "new ArrayBuffer": () => new ArrayBuffer(1000),
    "new Float32Array": () => new Float32Array(250),
    "an array of numbers": () => new Uint8Array(Array.from({ length: 1000 }, () => 1)),
    "Uint8Array.from": () => Uint8Array.from({ length: 1000 }, () => 1),
    slice: () => chunk.slice(0, 1000),
    map: () => chunk.subarray(0, 1000).map((byte) => byte + 1),
    "ArrayBuffer.slice": () => chunk.buffer.slice(0, 1000),
    transfer: () => chunk.buffer.slice(0, 1000).transfer(),
    structuredClone: () => structuredClone(chunk.slice(0, 1000)),
    "Blob.arrayBuffer": () => new Blob([chunk.subarray(0, 1000)]).arrayBuffer(),
    "Response.arrayBuffer": () => new Response("x".repeat(1000)).arrayBuffer(),
    "a reader": () => new Blob([chunk.subarray(0, 1000)]).stream().getReader().read().then(({ value }) => value),
    "a reader into memory": () => readInto(new Blob([chunk.subarray(0, 1000)])),
  }; // prettier-ignore
  for (const [name, source] of Object.entries(sources)) {
    const watch = new BufferWatch();
    try {
      const made = await source();
      const before = watch.report().buffers;
      assert.ok(before >= 1000, `${name}: ${before} bytes are counted`);
      end((ArrayBuffer.isView(made) ? made.buffer : made) as ArrayBuffer);
      assert.equal(watch.report().buffers, before - 1000, name);
    } finally {
      watch.end();
    }
  }
  const watch = new BufferWatch();
  const memory = new WebAssembly.Memory({ initial: 1 });
  memory.grow(2);
  assert.deepEqual(watch.report(), { buffers: 0, memories: 3 * 65536, peak: 3 * 65536 });
  watch.end();
});

async function readInto(blob: Blob): Promise<unknown> {
  const reader = new Response(blob).body?.getReader({ mode: "byob" });
  return (await reader?.read(new Uint8Array(1000)))?.value;
}
