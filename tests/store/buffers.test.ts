// The memory that chunks are read into: lent, given back, lent again, and empty for whoever still looks at it.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Buffers, end } from "../../js_bridge/store/buffers.ts";
import { xxh32 } from "../../js_bridge/store/xxh32.ts";

const MEBIBYTE = 2 ** 20;

describe("a buffer", () => {
  test("that is given back is lent again, and nobody sees it by its old view", () => {
    const buffers = new Buffers();
    const first = buffers.take(2 * MEBIBYTE).fill(7);
    buffers.give(first);
    assert.equal(first.length, 0);
    const again = buffers.take(2 * MEBIBYTE - 5);
    assert.equal(again.length, 2 * MEBIBYTE - 5);
    assert.equal(again[0], 7, "it is the same memory, as it was left");
    assert.equal(buffers.bytes, 2 * MEBIBYTE);
  });

  test("is not lent where half of it would lie idle", () => {
    const buffers = new Buffers();
    buffers.give(buffers.take(8 * MEBIBYTE));
    assert.equal(buffers.take(3 * MEBIBYTE).buffer.byteLength, 3 * MEBIBYTE);
  });

  test("that another has made stays its own, unless it was adopted", () => {
    const buffers = new Buffers();
    const [foreign, adopted] = [new Uint8Array(10), new Uint8Array(10)];
    buffers.adopt(adopted);
    buffers.give(foreign);
    buffers.give(adopted);
    assert.deepEqual([foreign.length, adopted.length], [10, 0]);
  });

  test("that a reader moves is followed", () => {
    const buffers = new Buffers();
    const before = buffers.take(2 * MEBIBYTE);
    const after = structuredClone(before.buffer, { transfer: [before.buffer] });
    buffers.moved(before.buffer, after);
    assert.equal(buffers.bytes, 2 * MEBIBYTE);
    buffers.moved(after, null);
    assert.equal(buffers.bytes, 0);
  });

  test("waits in small number, and not at all once all is read", () => {
    const buffers = new Buffers();
    const lent = Array.from({ length: 5 }, () => buffers.take(MEBIBYTE));
    for (const each of lent.slice(1)) buffers.give(each);
    assert.equal(buffers.bytes, 3 * MEBIBYTE, "one lent, two that wait");
    buffers.close();
    buffers.give(lent[0]);
    assert.equal(buffers.bytes, 0);
  });

  test("ends at once", () => {
    const bytes = new Uint8Array(10);
    end(bytes.buffer);
    assert.equal(bytes.length, 0);
  });
});

test("the checksum is XXH32: the specification's numbers, and the reference implementation's at every length", () => {
  const ofText = (text: string) => xxh32(new TextEncoder().encode(text));
  assert.deepEqual(["", "abc", "Nobody inspects the spammish repetition"].map(ofText), [0x02cc5d05, 0x32d153ff, 0xe2293b2f]);
  // python: xxhash.xxh32(bytes((7 * i) % 256 for i in range(length))).intdigest()
  const expected: Record<number, number> = { 1: 3479547966, 3: 343163253, 4: 3371569093, 15: 2282215090, 16: 3046866451, 17: 551372073, 31: 3696981059, 32: 3623292741, 63: 3351385654, 1000: 2128176254 };
  for (const [length, hash] of Object.entries(expected)) {
    const bytes = Uint8Array.from({ length: Number(length) }, (_, i) => 7 * i);
    assert.equal(xxh32(bytes), hash, `${length} bytes`);
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    assert.equal(xxh32(shifted.subarray(1)), hash, `${length} bytes at an odd place`);
  }
});
