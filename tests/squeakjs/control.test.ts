/** Sends, returns, unwinding, and what happens when they go wrong. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { SqueakObject } from "../../squeakjs/index.ts";
import { type Code, plain, TinyImage } from "./tiny_image.ts";

/** A tiny image with blocks, ensure: and what the machine sends when something goes wrong. */
function image(): TinyImage {
  const tiny = new TinyImage();
  tiny.method("BlockClosure", "value", { bytes: [0x7b], primitive: 201 });
  tiny.method("BlockClosure", "value:", { bytes: [0x7b], args: 1, primitive: 202 });
  tiny.method("BlockClosure", "valueWithArguments:", { bytes: [0x7b], args: 1, primitive: 206 });
  // ensure: aBlock  | result |  result := self value. aBlock value. ^ result
  tiny.method("BlockClosure", "ensure:", { bytes: [0x70, 0xc9, 0x69, 0x10, 0xc9, 0x87, 0x11, 0x7c], args: 1, temps: 2, primitive: 198 });
  return tiny;
}

function evaluate(tiny: TinyImage, code: Code, options = {}): unknown {
  const { vm, reported } = tiny.start(tiny.reporting(code), options);
  assert.deepEqual(vm.step(5000), { kind: "quit" });
  return plain(vm, reported[0]);
}

test("^ in a block returns from its home method", () => {
  const tiny = image();
  // leave: [ ^ 7 ] value. ^ 8
  tiny.method("Object", "leave", { bytes: [0x8f, 0, 0, 2, 0x20, 0x7c, 0xc9, 0x87, 0x21, 0x7c], literals: [7, 8] });
  assert.equal(evaluate(tiny, { bytes: [0x70, 0xd2], literals: ["#leave"] }), 7);
});

test("^ through ensure: asks the image, with the context to unwind", () => {
  const tiny = image();
  // aboutToReturn: value through: context  ^ report the value, then end
  tiny.method("Object", "aboutToReturn:through:", { bytes: [0x70, 0x10, 0xe0, 0x87, 0x70, 0x11, 0xe0, 0x87, 0x70, 0xd1, 0x7c], literals: ["#report:", "#quit"], args: 2 });
  // leave: [ [ ^ 7 ] ensure: [] ]
  tiny.method("Object", "leave", { bytes: [0x8f, 0, 0, 2, 0x20, 0x7c, 0x8f, 0, 0, 2, 0x73, 0x7d, 0xe1, 0x87, 0x78], literals: [7, "#ensure:"] });
  const { vm, reported } = tiny.start(tiny.reporting({ bytes: [0x70, 0xd2], literals: ["#leave"] }));
  vm.step(1000);
  assert.equal(reported[0], 7);
  const unwind = reported[1] as SqueakObject;
  assert.equal(unwind.sqClass, tiny.class("Context"));
  assert.equal((unwind.pointers[3] as SqueakObject).bytes[1], 198);
});

test("^ in a block whose home has returned sends #cannotReturn:", () => {
  const tiny = image();
  tiny.method("Object", "block", { bytes: [0x8f, 0, 0, 2, 0x20, 0x7c, 0x7c], literals: [7] });
  tiny.method("Object", "cannotReturn:", { bytes: [0x70, 0x10, 0xe0, 0x87, 0x70, 0xd1, 0x7c], literals: ["#report:", "#quit"], args: 1 });
  assert.equal(evaluate(tiny, { bytes: [0x70, 0xd2, 0xc9], literals: ["#block"] }), 7);
});

test("a message that is not understood arrives as a Message", () => {
  const tiny = image();
  const message = evaluate(tiny, { bytes: [0x22, 0x76, 0x77, 0xf3], literals: [5, "#foo:bar:"] }) as SqueakObject;
  assert.equal(message.sqClass, tiny.class("Message"));
  assert.equal((message.pointers[0] as SqueakObject).bytesAsString(), "foo:bar:");
  assert.deepEqual((message.pointers[1] as SqueakObject).pointers, [1, 2]);
  assert.equal(message.pointers[2], tiny.class("SmallInteger"));
});

test("a class without a method dictionary answers #cannotInterpret: of its superclass", () => {
  const tiny = image();
  tiny.method("Object", "cannotInterpret:", { bytes: [0x20, 0x7c], literals: [99], args: 1 });
  const { vm, reported } = tiny.start(tiny.reporting({ bytes: [0x22, 0xd3], literals: [tiny.object("Pair", [1, 2]), "#anything"] }));
  tiny.class("Pair").pointers[1] = tiny.nil;
  vm.step(1000);
  assert.equal(reported[0], 99);
});

test("an object in a method's place is asked to run:with:in:", () => {
  const tiny = image();
  tiny.method("Pair", "run:with:in:", { bytes: [0x70, 0x10, 0x11, 0x12, 0x8a, 0x84, 0x7c], args: 3 });
  const { vm, reported } = tiny.start(tiny.reporting({ bytes: [0x22, 0x76, 0xe3], literals: [5, "#+"] }));
  const pair = tiny.object("Pair", [1, 2]);
  const dictionary = tiny.class("SmallInteger").pointers[1] as SqueakObject;
  const index = dictionary.pointers.indexOf(tiny.symbol("+"));
  (dictionary.pointers[1] as SqueakObject).pointers[index - 2] = pair;
  vm.step(1000);
  const [receiver, selector, args, original] = (reported[0] as SqueakObject).pointers;
  assert.equal(receiver, pair);
  assert.equal(selector, tiny.symbol("+"));
  assert.deepEqual((args as SqueakObject).pointers, [1]);
  assert.equal(original, 5);
});

test("a condition that is no Boolean is sent #mustBeBoolean", () => {
  const tiny = image();
  tiny.method("Object", "mustBeBoolean", { bytes: [0x70, 0x70, 0xe0, 0x87, 0x70, 0xd1, 0x7c], literals: ["#report:", "#quit"] });
  assert.equal(evaluate(tiny, { bytes: [0x22, 0x98, 0x73, 0x73], literals: [42] }), 42);
});

test("perform: takes any selector, and only with its number of arguments", () => {
  const tiny = image();
  tiny.method("Object", "perform:with:", { bytes: [0x20, 0x7c], literals: ["'failed'"], args: 2, primitive: 83 });
  tiny.method("Object", "perform:", { bytes: [0x20, 0x7c], literals: ["'failed'"], args: 1, primitive: 83 });
  tiny.method("Object", "perform:withArguments:", { bytes: [0x20, 0x7c], literals: ["'failed'"], args: 2, primitive: 84 });
  assert.equal(evaluate(tiny, { bytes: [0x22, 0x23, 0x77, 0xf4], literals: [5, "#+", "#perform:with:"] }), 7);
  assert.equal(evaluate(tiny, { bytes: [0x22, 0x23, 0xe4], literals: [5, "#+", "#perform:"] }), "failed");
  assert.equal(evaluate(tiny, { bytes: [0x22, 0x23, 0x77, 0x8a, 0x81, 0xf4], literals: [5, "#+", "#perform:withArguments:"] }), 7);
});

test("valueWithArguments: spreads the array, and fails when its size is wrong", () => {
  const tiny = image();
  const block = [0x8f, 1, 0, 4, 0x10, 0x76, 0xb0, 0x7d];
  assert.equal(evaluate(tiny, { bytes: [...block, 0x77, 0x8a, 0x81, 0xe2], literals: ["#valueWithArguments:"] }), 3);
  assert.equal(evaluate(tiny, { bytes: [...block, 0x76, 0x77, 0x8a, 0x82, 0xe2], literals: ["#valueWithArguments:"] }), null);
});

test("endless recursion becomes an error of its receiver, and the process can go on", () => {
  const tiny = image();
  tiny.method("Object", "forever", { bytes: [0x70, 0xd0, 0x7c], literals: ["#forever"] });
  const text = evaluate(tiny, { bytes: [0x70, 0xd2], literals: ["#forever"] }, { maxDepth: 120_000 });
  assert.match(String(text), /^the stack is \d+ contexts deep, at most 120000 are allowed: endless recursion\?$/);
});

test("a deep but finite recursion runs to its end", () => {
  const tiny = image();
  // sum  ^ self = 0 ifTrue: [ 0 ] ifFalse: [ (self - 1) sum + 1 ]
  tiny.method("SmallInteger", "sum", { bytes: [0x70, 0x75, 0xb6, 0x99, 0x75, 0x7c, 0x70, 0x76, 0xb1, 0xd0, 0x76, 0xb0, 0x7c], literals: ["#sum"] });
  assert.equal(evaluate(tiny, { bytes: [0x22, 0xd3], literals: [150_000, "#sum"] }), 150_000);
});

test("a method that is in no table is reported once, with its selector", () => {
  const tiny = image();
  tiny.method("Object", "odd", { bytes: [0x77, 0x7c], primitive: 9999 });
  tiny.method("Pair", "odd", { bytes: [0x77, 0x7c], primitive: 9999 });
  const lines: string[] = [];
  const pair = tiny.object("Pair", [1, 2]);
  assert.equal(evaluate(tiny, { bytes: [0x70, 0xd2, 0x87, 0x23, 0xd2], literals: ["#odd", pair] }, { console: (text: string) => lines.push(text) }), 2);
  assert.deepEqual(lines, ["missing primitive: 9999 in #odd"]);
});

test("failPrimitives forces the Smalltalk behind a primitive", () => {
  const tiny = image();
  tiny.method("SmallInteger", "twice", { bytes: [0x70, 0x77, 0xe0, 0x7c], literals: ["#+"] });
  tiny.method("SmallInteger", "+", { bytes: [0x20, 0x7c], literals: ["'in Smalltalk'"], args: 1, primitive: 1 });
  const code = { bytes: [0x22, 0xd3], literals: [5, "#twice"] };
  assert.equal(evaluate(tiny, code), 7);
  assert.equal(evaluate(tiny, code, { failPrimitives: new Set([1]) }), "in Smalltalk");
});

test("the failure code of a primitive gets the error in its last temporary", () => {
  const tiny = image();
  const table = tiny.array(Array.from({ length: 9 }, (_, i) => tiny.symbol(`error ${i + 1}`)));
  tiny.specials.pointers[51] = table;
  // new: size  <primitive: 71 error: code>  ^ code
  tiny.method("Class", "new:", { bytes: [0x81, 0x41, 0x87, 0x11, 0x7c], args: 1, temps: 2, primitive: 71 });
  assert.equal(evaluate(tiny, { bytes: [0x22, 0x23, 0xe4], literals: [tiny.class("Array"), 0x3fffffff, "#new:"] }), "error 9");
});

test("a context that is asked for its stack is never reused for another activation", () => {
  const tiny = image();
  // here  ^ thisContext    twice: the two must differ
  tiny.method("Object", "here", { bytes: [0x89, 0x7c] });
  assert.equal(evaluate(tiny, { bytes: [0x70, 0xd2, 0x70, 0xd2, 0xc6], literals: ["#here"] }), false);
});
