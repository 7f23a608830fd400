// Reading a model's files from Node: what is asked of the line, in which order, what is kept, and what happens when the
// line or the disk fails. The files are made here; the line is a function that counts and can be made to fail.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import { EngineError } from "../../js_bridge/engine/errors.ts";
import { Bundle, type BundleHost, type BundleRequest } from "../../js_bridge/store/bundle.ts";
import { GRID } from "../../js_bridge/store/chunked_file.ts";
import type { ChunkStore } from "../../js_bridge/store/chunk_store.ts";
import type { FetchBytes } from "../../js_bridge/store/fetch.ts";
import { openMemoryChunks } from "../../js_bridge/store/memory_chunks.ts";
import { readHeader } from "../../js_bridge/store/safetensors.ts";

const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Bytes that differ from place to place. */
function pattern(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 2654435761 + seed * 40503) >>> 13);
}

function manifestOf(files: Record<string, Uint8Array>, chunk: number, id = "tiny"): Uint8Array {
  const listed = Object.entries(files).map(([name, bytes]) => {
    const chunks = [];
    for (let offset = 0; offset < bytes.length; offset += chunk) {
      const piece = bytes.subarray(offset, offset + chunk);
      chunks.push({ offset, bytes: piece.length, sha256: digest(piece) });
    }
    return { name, bytes: bytes.length, sha256: digest(bytes), chunks };
  });
  const about = { source: id, revision: null, dtype: "float32", license: null, architecture: "gpt2" };
  return new TextEncoder().encode(JSON.stringify({ format: 1, id, ...about, files: listed }));
}

interface Line {
  readonly fetchBytes: FetchBytes;
  /** Names with the offset asked for, or without a range. */
  readonly log: string[];
  /** The most requests that were under way at once. */
  most: number;
}

/** A host that cuts, or one that can't; each answer takes a turn of the event loop. */
function lineOf(files: Record<string, Uint8Array>, { cuts = true, folder = "/host/" } = {}): Line {
  let open = 0;
  const line: Line = {
    log: [],
    most: 0,
    fetchBytes: async (url, range, watch = {}) => {
      const name = url.slice(folder.length);
      line.log.push(range === undefined ? name : `${name} ${range.offset}`);
      line.most = Math.max(line.most, ++open);
      await new Promise((resolve) => setTimeout(resolve, 1));
      open--;
      watch.signal?.throwIfAborted();
      const bytes = files[name];
      if (bytes === undefined) return null;
      const isWhole = range !== undefined && !cuts;
      watch.onHead?.({ status: isWhole ? 200 : 206, isWhole, total: bytes.length, version: null, commit: null, code: null });
      const part = range === undefined || isWhole ? bytes : bytes.slice(range.offset, range.offset + range.bytes);
      watch.onBytes?.(part.length);
      return part;
    },
  };
  return line;
}

function open(line: Line, store: ChunkStore | null = null, request: BundleRequest = {}, more: Partial<BundleHost> = {}) {
  return Bundle.open("/host", { fetchBytes: line.fetchBytes, store, onProgress: () => undefined, ...more }, request);
}

const WEIGHTS = "model.safetensors";

describe("pieces", () => {
  const weights = pattern(10_500);
  const files = { [WEIGHTS]: weights, "bundle.json": manifestOf({ [WEIGHTS]: weights }, 1000) };

  test("are the file's bytes in order, at any cut", async () => {
    const bundle = await open(lineOf(files));
    for (const [begin, end] of [[0, 10_500], [999, 1001], [1000, 2000], [10_499, 10_500], [37, 37], [5, 9876]]) {
      const found: number[] = [];
      for await (const piece of bundle.pieces(WEIGHTS, begin, end)) found.push(...piece);
      assert.deepEqual(found, [...weights.subarray(begin, end)]);
    }
  });

  test("come while the next ones are on their way, four requests at once, none twice", async () => {
    const line = lineOf(files);
    const bundle = await open(line);
    for await (const _ of bundle.pieces(WEIGHTS, 0, weights.length));
    assert.equal(line.most, 4);
    const asked = line.log.filter((each) => each.startsWith(WEIGHTS));
    assert.equal(asked.length, 11);
    assert.equal(new Set(asked).size, 11);
  });

  test("wait for their reader: a window of the file is asked for, not the file", async () => {
    const long = pattern(40_000);
    const line = lineOf({ [WEIGHTS]: long, "bundle.json": manifestOf({ [WEIGHTS]: long }, 1000) });
    const bundle = await open(line);
    await bundle.pieces(WEIGHTS, 0, long.length).next();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(line.log.length, 1 + 1 + 8, "bundle.json, the chunk, eight ahead");
  });

  test("of the next shard are on their way before the first shard ends", async () => {
    const shards = { "a.safetensors": pattern(3000, 1), "b.safetensors": pattern(3000, 2) };
    const line = lineOf({ ...shards, "bundle.json": manifestOf(shards, 1000) });
    const bundle = await open(line);
    bundle.expect(Object.keys(shards));
    await bundle.read("a.safetensors", 0, 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.ok(line.log.includes("b.safetensors 2000"), line.log.join(", "));
  });

  test("in order survive glances back, at the scales of codes say, that cost one chunk more and no window", async () => {
    const line = lineOf(files);
    const bundle = await open(line);
    for (let at = 1000; at < 10_000; at += 500) {
      await bundle.read(WEIGHTS, 10, 20);
      assert.deepEqual(await bundle.read(WEIGHTS, at, at + 500), weights.subarray(at, at + 500));
    }
    const asked = line.log.filter((each) => each.startsWith(WEIGHTS));
    assert.equal(asked.length, 12, asked.join(", "));
    assert.equal(new Set(asked).size, 11);
  });

  test("beyond the end are refused", async () => {
    const bundle = await open(lineOf(files));
    await assert.rejects(bundle.read(WEIGHTS, 10_000, 10_501), { name: "BundleRefused", message: /it has 10500/ });
  });

  test("from a host that can't cut are cut here, from one download", async () => {
    const line = lineOf(files, { cuts: false });
    const bundle = await open(line);
    assert.deepEqual(await bundle.read(WEIGHTS, 0, 10_500), weights);
    assert.equal(line.log.filter((each) => each.startsWith(WEIGHTS)).length, 1);
  });
});

describe("a plain folder", () => {
  const weights = pattern(GRID + 1000);
  test("is read along a grid, and nothing of it is kept", async () => {
    const line = lineOf({ [WEIGHTS]: weights, "config.json": new TextEncoder().encode("{}") });
    const store = openMemoryChunks();
    const bundle = await open(line, store);
    assert.deepEqual(await bundle.readJson("config.json"), {});
    assert.equal(await bundle.has("tokenizer.json"), false);
    assert.deepEqual(await bundle.read(WEIGHTS, GRID - 10, GRID + 10), weights.subarray(GRID - 10, GRID + 10));
    await bundle.close();
    assert.equal((await store.usage()).bytes, 0);
    assert.equal(bundle.prepared, null);
  });

  test("whose header announces more than the file has is refused as truncated", async () => {
    const header = JSON.stringify({ w: { dtype: "F32", shape: [100], data_offsets: [0, 400] } });
    const bytes = new Uint8Array(8 + header.length + 399);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
    bytes.set(new TextEncoder().encode(header), 8);
    const bundle = await open(lineOf({ [WEIGHTS]: bytes }));
    await assert.rejects(readHeader(bundle, WEIGHTS), { name: "BundleRefused", message: /it has 4/ });
  });
});

describe("a load", () => {
  const weights = pattern(9000);
  const files = { [WEIGHTS]: weights, "bundle.json": manifestOf({ [WEIGHTS]: weights }, 1000) };

  test("that is cancelled ends at once, and what it has fetched is kept", async () => {
    const line = lineOf(files);
    const store = openMemoryChunks();
    const cancel = new AbortController();
    const bundle = await open(line, store, { signal: cancel.signal });
    const pieces = bundle.pieces(WEIGHTS, 0, weights.length);
    await pieces.next();
    cancel.abort(new EngineError("LoadCancelled", "cancelled"));
    await assert.rejects(async () => {
      for await (const _ of pieces);
    }, { name: "LoadCancelled" });
    await bundle.close();
    assert.ok((await store.usage()).bytes > 1000);
  });

  test("of what is kept works offline, bundle.json included", async () => {
    const store = openMemoryChunks();
    const first = await open(lineOf(files), store);
    await first.read(WEIGHTS, 0, 9000);
    await first.close();
    const said: string[] = [];
    const offline: Line = { log: [], most: 0, fetchBytes: () => Promise.reject(new TypeError("Failed to fetch")) };
    const bundle = await open(offline, store, {}, { log: (text) => said.push(text) });
    assert.deepEqual(await bundle.read(WEIGHTS, 0, 9000), weights);
    assert.match(said.join(), /bundle.json as it was kept/);
  });

  test("that was cut fetches only what is missing", async () => {
    const store = openMemoryChunks();
    const line = lineOf(files);
    let left = 4;
    const cut: Line = {
      ...line,
      fetchBytes: (url, range, watch) =>
        range !== undefined && left-- <= 0 ? Promise.reject(new Error("cut")) : line.fetchBytes(url, range, watch),
    };
    const first = await open(cut, store);
    await assert.rejects(first.read(WEIGHTS, 0, 9000), { name: "FetchFailed" });
    await first.close();
    line.log.length = 0;
    const second = await open(line, store);
    assert.deepEqual(await second.read(WEIGHTS, 0, 9000), weights);
    assert.equal(line.log.length, 1 + 5, line.log.join(", "));
  });
});

describe("prepared tensors", () => {
  const weights = pattern(9000);
  const files = { [WEIGHTS]: weights, "bundle.json": manifestOf({ [WEIGHTS]: weights }, 1000) };

  test("are kept in place of the file's bytes, and found by the next visit of the same version", async () => {
    const store = openMemoryChunks();
    const line = lineOf(files);
    const bundle = await open(line, store, { keep: "prepared" });
    bundle.expect([WEIGHTS]);
    await bundle.read(WEIGHTS, 0, 9000);
    assert.equal(await bundle.prepared?.get("w", "int8"), null);
    await bundle.prepared?.put("w", "int8", pattern(2250, 7));
    await bundle.close();
    const manifest = files["bundle.json"].length;
    assert.equal((await store.usage()).bytes, 2250 + manifest, "no chunk is kept");
    const again = await open(line, store, { keep: "prepared" });
    assert.deepEqual(await again.prepared?.get("w", "int8"), pattern(2250, 7));
    assert.equal(await again.prepared?.get("w", "other"), null);
    const changed = { [WEIGHTS]: pattern(9000, 1) };
    const other = await open(lineOf({ ...changed, "bundle.json": manifestOf(changed, 1000) }), store);
    assert.equal(await other.prepared?.get("w", "int8"), null);
  });

  test("that are damaged are not used", async () => {
    const store = openMemoryChunks();
    const bundle = await open(lineOf(files), store);
    await bundle.prepared?.put("w", "int8", pattern(100));
    const bytes = (await bundle.prepared?.get("w", "int8")) as Uint8Array;
    bytes[3] ^= 1; // memory answers the array that it keeps
    assert.equal(await bundle.prepared?.get("w", "int8"), null);
  });
});
