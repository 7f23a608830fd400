// The store's budget: what is evicted, what stays, and what a full one does.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ChunkStore, Shortage } from "../../js_bridge/store/chunk_store.ts";
import { openMemoryChunks } from "../../js_bridge/store/memory_chunks.ts";

/** Puts pieces of 10 bytes for each bundle named, in this order: "a1 a2 b1" are two of a, one of b. */
async function fill(store: ChunkStore, names: string): Promise<void> {
  for (const name of names.split(" ")) {
    const letGo = store.use(name[0]);
    await store.put(name[0], name, { bytes: new Uint8Array(10), checksum: 0 });
    letGo();
  }
}

async function held(store: ChunkStore): Promise<string> {
  const { bundles } = await store.usage();
  return bundles.map(({ name, bytes }) => `${name}${bytes}`).join(" ");
}

describe("a budget", () => {
  test("lets the bundle used least recently go, whole", async () => {
    const store = openMemoryChunks(50);
    await fill(store, "a1 a2 b1 b2 c1");
    store.use("a")();
    await fill(store, "d1");
    assert.equal(await held(store), "d10 a20 c10");
    assert.equal(await store.get("b1"), undefined);
  });

  test("that is set lower evicts at once, and what is no number of bytes is refused", async () => {
    const store = openMemoryChunks(50);
    await fill(store, "a1 b1 c1");
    await store.setBudget(15);
    assert.equal(await held(store), "c10");
    await assert.rejects(store.setBudget(-1), { name: "BadParameter", message: /-1 bytes/ });
    await assert.rejects(store.setBudget(NaN), { name: "BadParameter" });
  });

  test("never takes what a running load needs: what finds no room is told once, and not kept", async () => {
    const store = openMemoryChunks(30);
    const told: Shortage[] = [];
    store.onFull = (shortage) => told.push(shortage);
    const [letA, letB] = [store.use("a"), store.use("b")];
    const put = (bundle: string, key: string) => store.put(bundle, key, { bytes: new Uint8Array(10), checksum: 0 });
    assert.deepEqual(await Promise.all([put("a", "a1"), put("a", "a2"), put("b", "b1")]), [true, true, true]);
    assert.deepEqual([await put("b", "b2"), await put("b", "b3")], [false, false]);
    assert.equal(await held(store), "b10 a20");
    assert.deepEqual(told.map(({ bundle, bytes, budget }) => [bundle, bytes, budget]), [["b", 10, 30]]);
    letA();
    letB();
    await fill(store, "c1 c2");
    assert.equal(await held(store), "c20 b10");
  });
});

test("a chunk that two bundles share goes with the last of them", async () => {
  const store = openMemoryChunks();
  for (const bundle of ["a", "b"]) await store.put(bundle, "same", { bytes: new Uint8Array(10), checksum: 0 });
  assert.equal((await store.usage()).bytes, 10);
  await store.evict("a");
  assert.ok(await store.get("same"));
  await store.evict("b");
  assert.equal(await store.get("same"), undefined);
});

test("a store that fails costs a download, never an error", async () => {
  const store = openMemoryChunks();
  const said: string[] = [];
  const failing = new Proxy({}, { get: () => () => Promise.reject(new Error("disk gone")) });
  const { BudgetedStore } = await import("../../js_bridge/store/chunk_store.ts");
  const { ALONE } = await import("../../js_bridge/store/tabs.ts");
  const broken = new BudgetedStore(failing as never, ALONE, (text) => said.push(text));
  assert.equal(await broken.get("x"), undefined);
  assert.equal(await broken.put("a", "x", { bytes: new Uint8Array(1), checksum: 0 }), false);
  assert.equal((await broken.usage()).bytes, 0);
  await broken.evict("a");
  assert.match(said[0], /disk gone/);
  assert.equal((await store.usage()).bytes, 0);
});
