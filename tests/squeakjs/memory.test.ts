/** Objects as a whole: storage primitives, identity, become:, enumeration, weak slots, snapshots. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Oop, primitiveTable, readImage, SqueakObject, VirtualMachine } from "../../squeakjs/index.ts";
import { collectWeakSlots, reachableObjects } from "../../squeakjs/heap_walk.ts";
import { plain, TinyImage } from "./tiny_image.ts";

function machine(): { tiny: TinyImage; vm: VirtualMachine; run: (number: number, ...values: Oop[]) => Oop | undefined } {
  const tiny = new TinyImage();
  const { vm } = tiny.start({ bytes: [0x78], large: true });
  const run = (number: number, ...values: Oop[]): Oop | undefined => {
    const base = vm.sp;
    for (const value of values) vm.push(value);
    const entry = primitiveTable.get(number);
    assert.ok(entry?.run);
    const succeeded = entry.run(vm, values.length - 1);
    const answer = succeeded ? vm.pop() : undefined;
    if (!succeeded) vm.sp -= values.length;
    assert.equal(vm.sp, base, `primitive ${number} left the stack unbalanced`);
    return answer;
  };
  return { tiny, vm, run };
}

test("at: and at:put: check bounds and values for every kind of element", () => {
  const { tiny, vm, run } = machine();
  const large = vm.memory.integer(2 ** 32 - 1);
  for (const [name, good, bad] of [
    ["Array", [1, tiny.nil], []],
    ["ByteArray", [0, 255], [256, -1, tiny.nil]],
    ["Bitmap", [0, large], [-1, vm.memory.integer(2 ** 32), tiny.nil]],
    ["DoubleByteArray", [0, 65535], [65536, -1]],
    ["DoubleWordArray", [0, large], [-1, tiny.nil]],
  ] as const) {
    const object = run(71, tiny.class(name), 3) as SqueakObject;
    assert.equal(run(62, object), 3, name);
    for (const value of good) {
      assert.equal(run(61, object, 2, value), value, name);
      assert.deepEqual(plain(vm, run(60, object, 2) as Oop), plain(vm, value), name);
    }
    for (const value of bad) assert.equal(run(61, object, 2, value), undefined, `${name} at:put: ${plain(vm, value)}`);
    for (const index of [0, 4, -1]) {
      assert.equal(run(60, object, index), undefined, name);
      assert.equal(run(61, object, index, 0), undefined, name);
    }
  }
});

test("strings hold characters, which are identical when equal", () => {
  const { tiny, vm, run } = machine();
  const string = tiny.string("abc");
  assert.equal(run(63, string, 1), run(170, 97));
  assert.equal(run(64, string, 2, vm.memory.character(0x7a)), vm.memory.character(122));
  assert.equal(string.bytesAsString(), "azc");
  assert.equal(run(64, string, 1, vm.memory.character(0x4e00)), undefined);
  const wide = run(71, tiny.class("WideString"), 1) as SqueakObject;
  run(64, wide, 1, vm.memory.character(0x1f600));
  assert.equal(run(171, run(63, wide, 1) as Oop), 0x1f600);
});

test("replaceFrom:to:with:startingAt: copies overlapping parts rightly, and refuses other kinds", () => {
  const { tiny, run } = machine();
  const array = tiny.array([1, 2, 3, 4, 5]);
  assert.equal(run(105, array, 2, 5, array, 1), array);
  assert.deepEqual(array.pointers, [1, 1, 2, 3, 4]);
  const bytes = tiny.string("abcde");
  run(105, bytes, 1, 4, bytes, 2);
  assert.equal(bytes.bytesAsString(), "bcdee");
  assert.equal(run(105, array, 1, 2, bytes, 1), undefined);
  assert.equal(run(105, array, 1, 6, array, 1), undefined);
  assert.equal(run(105, array, 0, 1, array, 1), undefined);
  assert.equal(run(105, array, 3, 2, array, 1), array, "nothing to copy");
});

test("become: swaps identities in both directions", () => {
  const { tiny, run } = machine();
  const [a, b] = [tiny.object("Pair", [1, 2]), tiny.array([3, 4, 5])];
  const holder = tiny.array([a, b]);
  const [hashOfA, hashOfB] = [run(75, a), run(75, b)];
  run(128, tiny.array([a]), tiny.array([b]));
  assert.deepEqual((holder.pointers[0] as SqueakObject).pointers, [3, 4, 5]);
  assert.deepEqual((holder.pointers[1] as SqueakObject).pointers, [1, 2]);
  assert.equal(run(75, holder.pointers[0]), hashOfB);
  assert.equal(run(75, holder.pointers[1]), hashOfA);
  assert.equal(run(128, tiny.array([a]), tiny.array([3])), undefined);
  assert.equal(run(128, tiny.array([tiny.nil]), tiny.array([b])), undefined);
});

test("one-way become: replaces every reference, also in classes and in the running context", () => {
  const { tiny, vm, run } = machine();
  const [from, to] = [tiny.object("Pair", [1, 2]), tiny.object("Pair", [3, 4])];
  const holder = tiny.array([from, tiny.array([from])]);
  vm.push(holder);
  const hash = run(75, from);
  assert.ok(run(72, tiny.array([from]), tiny.array([to])));
  assert.equal(holder.pointers[0], to);
  assert.equal((holder.pointers[1] as SqueakObject).pointers[0], to);
  assert.equal(run(75, to), hash, "the hash goes with the references");
  // a class: its instances get the new one, which takes its place in the class table
  const [old, fresh] = [tiny.class("Pair"), vm.memory.shallowCopy(tiny.class("Pair"))];
  vm.push(to);
  run(72, tiny.array([old]), tiny.array([fresh]));
  assert.equal(to.sqClass, fresh);
  assert.equal(run(175, fresh), old.hash);
});

test("allInstances finds what is reachable, and nothing else", () => {
  const { tiny, vm, run } = machine();
  const live = tiny.object("Pair", [1, 2]);
  tiny.object("Pair", [3, 4]);
  vm.push(tiny.array([live]));
  const found = run(177, tiny.class("Pair")) as SqueakObject;
  assert.deepEqual(found.pointers, [live]);
});

test("someInstance and nextInstance visit each instance once", () => {
  const { tiny, vm, run } = machine();
  const pairs = [1, 2, 3].map((each) => tiny.object("Pair", [each, each]));
  vm.push(tiny.array(pairs));
  const visited: Oop[] = [];
  for (let each = run(77, tiny.class("Pair")); each !== undefined; each = run(78, each)) visited.push(each);
  assert.deepEqual(new Set(visited), new Set(pairs));
  assert.equal(visited.length, 3);
});

test("objects left behind above the stack of a context are dead", () => {
  const { tiny, vm } = machine();
  const pair = tiny.object("Pair", [1, 2]);
  vm.push(pair);
  assert.ok(reachableObjects(vm).includes(pair));
  vm.pop();
  assert.ok(!reachableObjects(vm).includes(pair));
});

test("a full collection clears the weak slots of the dead, and tells the finalization semaphore", () => {
  const { tiny, vm, run } = machine();
  const live = tiny.object("Pair", [1, 2]);
  const weak = run(71, tiny.class("WeakArray"), 3) as SqueakObject;
  const semaphore = tiny.object("Semaphore", [tiny.nil, tiny.nil, 0]);
  vm.memory.specials[41] = semaphore;
  run(61, weak, 1, live);
  run(61, weak, 2, tiny.object("Pair", [3, 4]));
  run(61, weak, 3, 7);
  vm.push(tiny.array([live, weak]));
  assert.equal(run(60, weak, 1), live);
  run(130, tiny.nil);
  assert.equal(run(60, weak, 1), live);
  assert.equal(run(60, weak, 2), tiny.nil);
  assert.equal(run(60, weak, 3), 7);
  vm.scheduler.deliver(0);
  assert.equal(semaphore.pointers[2], 1);
  assert.equal(collectWeakSlots(vm), 0);
});

test("a class's identity hash is its index, and a new class gets a free one", () => {
  const { tiny, vm, run } = machine();
  assert.equal(run(175, tiny.class("Array")), 51);
  const fresh = vm.memory.shallowCopy(tiny.class("Pair"));
  const index = run(175, fresh) as number;
  assert.ok(index >= 1024);
  assert.equal(run(175, fresh), index);
});

test("an object only changes to a class of its shape", () => {
  const { tiny, run } = machine();
  const pair = tiny.object("Pair", [1, 2]);
  assert.ok(run(160, tiny.class("Point"), pair));
  assert.equal(pair.sqClass, tiny.class("Point"));
  assert.equal(run(160, tiny.class("Array"), tiny.string("x")), undefined);
  assert.equal(run(160, tiny.class("Message"), pair), undefined);
  assert.equal(run(160, tiny.class("Bitmap"), tiny.float(1)), undefined);
});

test("a snapshot read again is the same image, and goes on with true", () => {
  const tiny = new TinyImage();
  tiny.method("Object", "snapshot", { bytes: [0x73, 0x7c], primitive: 97 });
  const files: ArrayBuffer[] = [];
  // self report: self snapshot. self report: a literal of every kind
  const literals = [
    "#report:", "#quit", "#snapshot",
    tiny.array([-1, 3.25, -0, "'text'", 2 ** 30 - 1, -(2 ** 30)].map((each) => (typeof each === "string" ? tiny.string("text") : Number.isInteger(each) && !Object.is(each, -0) ? each : tiny.float(each)))),
  ];
  const bytes = [0x70, 0x70, 0xd2, 0xe0, 0x87, 0x70, 0x23, 0xe0, 0x87, 0x70, 0xd1, 0x78];
  const { vm, reported } = tiny.start({ bytes, literals }, { saveImage: (file) => files.push(file) });
  const words = new SqueakObject(tiny.class("DoubleByteArray"), 12, 0);
  words.bytes = Uint8Array.of(1, 0, 2, 0, 3, 0);
  const big = tiny.array(Array.from({ length: 300 }, (_, i) => i));
  vm.memory.specials[30] = tiny.array([words, vm.memory.character(0x4e00), tiny.bytes("ByteArray", Uint8Array.of(1, 2, 3, 4, 5)), big]);
  assert.equal(vm.step(1000).kind, "quit");
  assert.deepEqual(reported.map((each) => plain(vm, each)), [false, [-1, { float: 3.25 }, { float: -0 }, "text", 2 ** 30 - 1, -(2 ** 30)]]);
  assert.equal(files.length, 1);

  const again: Oop[] = [];
  const copies: ArrayBuffer[] = [];
  const second = new VirtualMachine(readImage(files[0], "again.image"), { saveImage: (file) => copies.push(file) });
  second.registerExternalModule("Test", { report: () => { again.push(second.stackValue(0)); second.proxy.pop(1); return true; } } as object);
  const kept = second.memory.special(30).pointers as SqueakObject[];
  assert.deepEqual([...kept[0].bytes], [1, 0, 2, 0, 3, 0]);
  assert.equal(kept[1], second.memory.character(0x4e00));
  assert.deepEqual([...kept[2].bytes], [1, 2, 3, 4, 5]);
  assert.equal(kept[3].pointers[299], 299);
  assert.equal(Buffer.from(second.snapshot()).equals(Buffer.from(files[0])), true, "writing it again changes nothing");
  assert.equal(second.step(1000).kind, "quit");
  assert.deepEqual(again.map((each) => plain(second, each)), [true, [-1, { float: 3.25 }, { float: -0 }, "text", 2 ** 30 - 1, -(2 ** 30)]]);
});

test("a damaged or foreign file is refused by name", () => {
  assert.throws(() => readImage(new ArrayBuffer(200), "zero.image"), /zero\.image: the first word, 0, is no version/);
  const tiny = new TinyImage();
  const file = tiny.start({ bytes: [0x78] }).vm.snapshot();
  assert.throws(() => readImage(file.slice(0, file.byteLength / 2), "half.image"), /half\.image: .*damaged or incomplete/);
});
