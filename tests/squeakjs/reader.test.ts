/** Images that others made: upstream's three, and an image of 64 bits put together here. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readImage, SqueakObject, VirtualMachine } from "../../squeakjs/index.ts";
import { pcBase } from "../../squeakjs/header.ts";
import { writeSpur64 } from "./spur64_writer.ts";
import { plain, TinyImage } from "./tiny_image.ts";

const upstream = process.env["SQUEAKJS_HOME"];

function imageOf(path: string): { skip: string | false; bytes: () => Buffer } {
  const file = upstream === undefined ? "" : join(upstream, path);
  const skip = upstream === undefined ? "SQUEAKJS_HOME names no folder of upstream SqueakJS" : existsSync(file) ? false : `${file} is missing`;
  return { skip, bytes: () => readFileSync(file) };
}

const headless = imageOf("headless/headless.image");
test("upstream's headless image (Spur, 6521) prints what it prints there, and quits", { skip: headless.skip }, () => {
  const lines: string[] = [];
  const vm = new VirtualMachine(readImage(headless.bytes(), "headless.image"), { console: (text) => lines.push(text) });
  assert.equal(vm.step(5000).kind, "quit");
  assert.deepEqual(lines, ["Smalltalk image fired up!", "Fixing the world", "3 + 4 = 7"]);
});

for (const [path, what] of [["benchmark/benchmark.image", "little-endian"], ["demo/squeakjs.image", "big-endian"]]) {
  const file = imageOf(path);
  test(`an image from before Spur, ${what}, computes: ${path}`, { skip: file.skip }, () => {
    const vm = new VirtualMachine(readImage(file.bytes(), path), { console: () => {} });
    // | result |  result := 20 benchFib printString.  [ true ] whileTrue
    const [fib, print] = ["benchFib", "printString"].map((each) => vm.memory.selectorNamed(vm.classSmallInteger, each));
    assert.ok(fib && print);
    const method = new SqueakObject(vm.method.sqClass, 24, 0);
    method.pointers = [(3 << 9) | (1 << 18), 20, fib, print];
    method.bytes = Uint8Array.of(0x20, 0xd1, 0xd2, 0x68, 0xa3, 0xfe, 0x7b);
    const context = new SqueakObject(vm.memory.special(10), 3, 0);
    context.pointers = [vm.nil, pcBase(method), 1, method, vm.nil, vm.nil, ...vm.memory.nilSlots(16)];
    vm.loadContext(context);
    for (let i = 0; i < 200 && context.pointers[6] === vm.nil; i++) vm.step(10);
    assert.equal((context.pointers[6] as SqueakObject).bytesAsString(), "21891");
  });
}

test("an image of 64 bits runs, and its wide integers and immediate floats are those of 32 bits", () => {
  for (const sista of [false, true]) {
    const tiny = new TinyImage();
    const values = tiny.array([1, -1, 2.5, -0.125, 0, -0, 1e300, 5e-324, NaN].map((each) => (Number.isInteger(each) && !Object.is(each, -0) && Math.abs(each) < 2 ** 30 ? each : tiny.float(each))));
    const odd = new SqueakObject(tiny.class("Bitmap"), 10, 0);
    odd.words = Uint32Array.of(1, 2, 3);
    const shorts = new SqueakObject(tiny.class("DoubleByteArray"), 12, 0);
    shorts.bytes = Uint8Array.of(1, 0, 2, 0, 3, 0);
    const written = tiny.start(tiny.reporting({ bytes: [0x22], literals: [tiny.array([values, tiny.string("abcde"), odd, shorts])], sista })).vm;
    const vm = new VirtualMachine(readImage(writeSpur64(written), "wide.image"));
    const reported: unknown[] = [];
    vm.registerExternalModule("Test", { report: () => { reported.push(vm.stackValue(0)); vm.proxy.pop(1); return true; } } as object);
    assert.equal(vm.step(1000).kind, "quit");
    const [numbers, text, words, pairs] = (reported[0] as SqueakObject).pointers as SqueakObject[];
    assert.deepEqual(plain(vm, numbers), plain(written, values));
    assert.equal(text.bytesAsString(), "abcde");
    assert.deepEqual([...words.words], [1, 2, 3]);
    assert.deepEqual([...pairs.bytes], [1, 0, 2, 0, 3, 0]);
  }
});

test("integers of 61 bits in a file become LargeIntegers", () => {
  const tiny = new TinyImage();
  const holder = tiny.array([7, 7]);
  const written = tiny.start({ bytes: [0x78], literals: [holder] }).vm;
  const file = writeSpur64(written);
  const data = new DataView(file);
  // the only two words in a row that are 7: patch them
  for (let at = 128; at + 16 <= file.byteLength; at += 8) {
    if (data.getBigUint64(at, true) === 57n && data.getBigUint64(at + 8, true) === 57n) {
      data.setBigInt64(at, ((2n ** 60n - 1n) << 3n) | 1n, true);
      data.setBigInt64(at + 8, (-(2n ** 60n) << 3n) | 1n, true);
    }
  }
  const vm = new VirtualMachine(readImage(file, "wide.image"));
  const literals = vm.method.pointers;
  assert.deepEqual(plain(vm, literals[1]), [2n ** 60n - 1n, -(2n ** 60n)]);
});
