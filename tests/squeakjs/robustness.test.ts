/**
 * Every primitive on receivers and arguments of every kind: it may fail, it may succeed, it never throws, and it leaves
 * the stack as it found it or with one answer. A wrong receiver must be the image's error, not the machine's.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Oop, primitiveTable, SqueakObject } from "../../squeakjs/index.ts";
import { TinyImage } from "./tiny_image.ts";

/** The same numbers on every run. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test("no primitive throws, whatever it is given", () => {
  const next = random(1);
  for (const { number, name, run } of primitiveTable.values()) {
    if (run === null) continue;
    for (let round = 0; round < 60; round++) {
      const tiny = new TinyImage();
      const { vm } = tiny.start({ bytes: [0x78], large: true });
      const block = tiny.object("BlockClosure", [vm.activeContext, 41, 0]);
      const pool: Oop[] = [
        0, 1, -1, 2, 5, 2 ** 30 - 1, -(2 ** 30), tiny.nil, vm.true, vm.false, tiny.float(0), tiny.float(NaN), tiny.float(1e300),
        tiny.array([]), tiny.array([1, tiny.nil, 3]), tiny.string("abc"), tiny.symbol("foo"), tiny.class("Array"), tiny.class("Pair"),
        tiny.class("SmallInteger"), tiny.class("CompiledMethod"), tiny.object("Pair", [1, 2]), tiny.object("Semaphore", [tiny.nil, tiny.nil, 0]),
        vm.memory.integer(2 ** 40), vm.memory.integer(-(2 ** 40)), vm.memory.character(97), vm.activeContext, block, vm.method,
        tiny.bytes("ByteArray", Uint8Array.of(1, 2, 3)), vm.scheduler.activeProcess, tiny.object("Process", [tiny.nil, tiny.nil, 40, tiny.nil]),
        vm.memory.instantiate(tiny.class("WeakArray"), 2) as SqueakObject, vm.memory.instantiate(tiny.class("Bitmap"), 2) as SqueakObject,
        vm.memory.instantiate(tiny.class("DoubleWordArray"), 2) as SqueakObject,
      ];
      const argCount = Math.floor(next() * 5);
      const values = Array.from({ length: argCount + 1 }, () => pool[Math.floor(next() * pool.length)]);
      const base = vm.sp;
      const context = vm.activeContext;
      for (const each of values) vm.push(each);
      const what = `primitive ${number} ${name} on ${values.map((each) => (typeof each === "number" ? each : vm.memory.className(each.sqClass)))}`;
      let succeeded: boolean;
      try {
        succeeded = run(vm, argCount);
      } catch (error) {
        assert.fail(`${what}: ${error instanceof Error ? error.stack : error}`);
      }
      assert.equal(typeof succeeded, "boolean", what);
      if (succeeded || vm.activeContext !== context) continue;
      assert.equal(vm.sp, base + argCount + 1, `${what} failed and left another stack`);
      values.forEach((each, i) => assert.equal(vm.frame[base + 1 + i], each, `${what} failed and changed the stack`));
    }
  }
});
