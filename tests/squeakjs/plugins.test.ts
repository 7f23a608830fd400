/** Named primitives: how modules are found and guarded, JavaScriptPlugin, and the number crunchers of Squeak's images. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type ExternalModule, type Oop, SqueakObject, VirtualMachine } from "../../squeakjs/index.ts";
import { plain, TinyImage } from "./tiny_image.ts";

type Run = (module: string, name: string, ...values: Oop[]) => Oop | undefined;

function machine(options: ConstructorParameters<typeof VirtualMachine>[1] = {}): { tiny: TinyImage; vm: VirtualMachine; run: Run } {
  const tiny = new TinyImage();
  const { vm } = tiny.start({ bytes: [0x78], large: true }, options);
  const run: Run = (module, name, ...values) => {
    const names = tiny.array([tiny.string(module), tiny.string(name), 0, 0]);
    const method = tiny.code("Object", "test", { bytes: [0x78], literals: [names], args: values.length - 1, primitive: 117 });
    const base = vm.sp;
    for (const value of values) vm.push(value);
    const succeeded = vm.namedPrimitive(method)?.(vm, values.length - 1) ?? false;
    const answer = succeeded ? vm.pop() : undefined;
    if (!succeeded) vm.sp -= values.length;
    assert.equal(vm.sp, base, `${module}.${name} left the stack unbalanced`);
    return answer;
  };
  return { tiny, vm, run };
}

const plugin = "JavaScriptPlugin";

/** A proxy for a JavaScript value. */
function proxy(tiny: TinyImage, value: unknown): SqueakObject {
  const made = tiny.object("Proxy");
  made.aux = value;
  return made;
}

function message(tiny: TinyImage, selector: string, ...args: Oop[]): SqueakObject {
  return tiny.object("Message", [tiny.symbol(selector), tiny.array(args), tiny.nil]);
}

test("a module that is registered late is found, and its missing primitives are told once", () => {
  const lines: string[] = [];
  const { tiny, vm, run } = machine({ console: (text) => lines.push(text) });
  assert.equal(run("Late", "primitiveSeven", tiny.nil), undefined);
  assert.equal(run("Late", "primitiveSeven", tiny.nil), undefined);
  assert.deepEqual(lines, ["missing primitive: Late.primitiveSeven in #test"]);
  vm.registerExternalModule("Late", { primitiveSeven: (argCount: number) => vm.proxy.popthenPush(argCount + 1, 7) } as ExternalModule);
  assert.equal(run("Late", "primitiveSeven", tiny.nil), 7);
});

test("an exception in a module fails the primitive and is told", () => {
  const lines: string[] = [];
  const { tiny, vm, run } = machine({ console: (text) => lines.push(text) });
  vm.registerExternalModule("Bad", { primitiveBad: () => { vm.push(1); throw new Error("no such tensor"); } } as ExternalModule);
  assert.equal(run("Bad", "primitiveBad", tiny.nil), undefined);
  assert.match(lines[0], /Bad\.primitiveBad failed: .*no such tensor/);
});

test("a function that answers nothing fails when the proxy was told so", () => {
  const { tiny, vm, run } = machine();
  vm.registerExternalModule("Odd", {
    primitiveInteger: () => {
      const value = vm.proxy.stackIntegerValue(0);
      if (!vm.proxy.failed()) vm.proxy.popthenPush(2, value + 1);
    },
  } as ExternalModule);
  assert.equal(run("Odd", "primitiveInteger", tiny.nil, 4), 5);
  assert.equal(run("Odd", "primitiveInteger", tiny.nil, tiny.float(4)), undefined);
});

test("failPrimitives refuses a module, or one function of it", () => {
  assert.equal(machine({ failPrimitives: new Set(["MiscPrimitivePlugin"]) }).run("MiscPrimitivePlugin", "primitiveStringHash", 0, 0, 0), undefined);
  const { tiny, run } = machine({ failPrimitives: new Set(["MiscPrimitivePlugin.primitiveStringHash"]) });
  assert.equal(run("MiscPrimitivePlugin", "primitiveStringHash", tiny.nil, tiny.string("a"), 0), undefined);
  assert.equal(run("MiscPrimitivePlugin", "primitiveIndexOfAsciiInString", tiny.nil, 0x62, tiny.string("abc"), 1), 2);
});

test("a message to a proxy gets, sets, calls or constructs", () => {
  const { tiny, vm, run } = machine();
  const target = { width: 3, add(a: number, b: number) { return this.width + a + b; } };
  const wrapped = proxy(tiny, target);
  assert.equal(run(plugin, "primitiveDoUnderstand", wrapped, message(tiny, "width")), 3);
  assert.equal(run(plugin, "primitiveDoUnderstand", wrapped, message(tiny, "width:", 10)), 10);
  assert.equal(target.width, 10);
  assert.equal(run(plugin, "primitiveDoUnderstand", wrapped, message(tiny, "add:and:", 1, 2)), 13);
  assert.equal(run(plugin, "primitiveDoUnderstand", wrapped, message(tiny, "depth")), undefined);
  assert.equal(plain(vm, run(plugin, "primitiveGetError", tiny.object("Proxy")) as Oop), "Property not found: depth");
  assert.equal(run(plugin, "primitiveGetError", tiny.object("Proxy")), undefined, "an error is told once");
  const map = run(plugin, "primitiveDoUnderstand", proxy(tiny, Map), message(tiny, "new")) as SqueakObject;
  assert.ok(map.aux instanceof Map);
  assert.equal(map.sqClass, tiny.class("Proxy"));
});

test("a proxy without a value is the global object", () => {
  const { tiny, run } = machine();
  const math = run(plugin, "primitiveDoUnderstand", tiny.object("Proxy"), message(tiny, "Math")) as SqueakObject;
  assert.equal(math.aux, Math);
  assert.equal(run(plugin, "primitiveDoUnderstand", math, message(tiny, "max:with:", 3, 4)), 4);
});

test("values cross both ways without loss", () => {
  const { tiny, vm, run } = machine();
  const echo = { value: null as unknown, echo(value: unknown) { this.value = value; return value; } };
  const send = (oop: Oop): unknown => plain(vm, run(plugin, "primitiveDoUnderstand", proxy(tiny, echo), message(tiny, "echo:", oop)) as Oop);
  assert.equal(send(5), 5);
  assert.deepEqual(send(tiny.float(2.5)), { float: 2.5 });
  assert.deepEqual(send(tiny.float(-0)), { float: -0 });
  assert.equal(send(vm.memory.integer(2 ** 40)), BigInt(2 ** 40));
  assert.equal(send(vm.memory.integer(-(2 ** 31))), -BigInt(2 ** 31));
  assert.equal(send(tiny.nil), null);
  assert.equal(send(vm.true), true);
  send(tiny.string("Grüße".normalize()));
  send(tiny.bytes("ByteArray", Uint8Array.of(1, 2)));
  assert.deepEqual(echo.value, Uint8Array.of(1, 2));
  send(tiny.array([1, tiny.array([tiny.nil])]));
  assert.deepEqual(echo.value, [1, [null]]);
  send(tiny.array([tiny.object("Association", [tiny.string("a"), 1]), tiny.object("Association", [tiny.string("b"), vm.false])]));
  assert.deepEqual(echo.value, { a: 1, b: false });
  assert.equal(run(plugin, "primitiveDoUnderstand", proxy(tiny, echo), message(tiny, "echo:", tiny.object("Pair", [1, 2]))), undefined);
  assert.equal(plain(vm, run(plugin, "primitiveGetError", tiny.nil) as Oop), "asJSArgument needed for a Pair");
});

test("text beyond Latin-1 becomes a WideString", () => {
  const { tiny, run } = machine();
  const text = run(plugin, "primitiveAsString", proxy(tiny, "a→😀")) as SqueakObject;
  assert.equal(text.sqClass, tiny.class("WideString"));
  assert.deepEqual([...text.words], [0x61, 0x2192, 0x1f600]);
  assert.equal((run(plugin, "primitiveAsString", proxy(tiny, "é")) as SqueakObject).bytesAsString(), "é");
});

test("primitiveAt and primitiveAtPut index by name and by number", () => {
  const { tiny, run } = machine();
  const list = ["x", "y"];
  assert.equal((run(plugin, "primitiveAt", proxy(tiny, list), 1) as SqueakObject).aux, "y");
  run(plugin, "primitiveAtPut", proxy(tiny, list), tiny.string("name"), 4);
  assert.equal((list as unknown as { name: number }).name, 4);
  assert.equal((run(plugin, "primitiveTypeof", proxy(tiny, list)) as SqueakObject).bytesAsString(), "object");
});

test("a block becomes an asynchronous function, whose answer may be falsy", async () => {
  const { tiny, vm, run } = machine();
  const holder = { call: (null as unknown) as (...args: unknown[]) => Promise<unknown> };
  const block = tiny.object("BlockClosure", [tiny.nil, 0, 2]);
  const set = (): Oop | undefined => run(plugin, "primitiveDoUnderstand", proxy(tiny, holder), message(tiny, "call:", block));
  const jsClass = tiny.class("Proxy");
  // the holder's value is null, which is no function: the message sets it
  assert.equal(set(), undefined);
  assert.equal(plain(vm, run(plugin, "primitiveGetError", jsClass) as Oop), "CallbackSemaphore not set");
  const semaphore = tiny.object("Semaphore", [tiny.nil, tiny.nil, 0]);
  (vm.memory.special(38).pointers as Oop[])[0] = semaphore;
  assert.equal(run(plugin, "primitiveInitCallbacks", jsClass, 1), jsClass);
  set();
  const answers = [holder.call(1, "two", "ignored"), holder.call(3, 4)];
  vm.scheduler.deliver(0);
  assert.equal(semaphore.pointers[2], 1, "one call at a time");
  assert.equal(run(plugin, "primitiveGetActiveCallbackBlock", jsClass), block);
  const args = run(plugin, "primitiveGetActiveCallbackArgs", jsClass) as SqueakObject;
  assert.equal(args.pointers.length, 2);
  assert.equal((args.pointers[1] as SqueakObject).aux, "two");
  run(plugin, "primitiveReturnFromCallback", jsClass, 0);
  vm.scheduler.deliver(0);
  assert.equal(semaphore.pointers[2], 2, "the next is told when the first has its answer");
  run(plugin, "primitiveReturnFromCallback", jsClass, vm.false);
  assert.deepEqual(await Promise.all(answers), [0, false]);
  assert.equal(run(plugin, "primitiveReturnFromCallback", jsClass, 1), undefined);
});

test("digit primitives work on magnitudes and keep signs as Squeak's do", () => {
  const { vm, run, tiny } = machine();
  const digits = (name: string, ...values: (number | Oop)[]): unknown => {
    const result = run("LargeIntegers", name, ...values.map((each) => (typeof each === "number" ? vm.memory.integer(each) : each)));
    return result === undefined ? undefined : plain(vm, result);
  };
  assert.equal(digits("primDigitAdd", -(2 ** 40), 5), BigInt(-(2 ** 40) - 5));
  assert.equal(digits("primDigitSubtract", 2 ** 40, -5), BigInt(2 ** 40 - 5));
  assert.equal(digits("primDigitSubtract", 5, 2 ** 40), BigInt(5 - 2 ** 40));
  assert.equal(digits("primDigitCompare", -(2 ** 40), 5), 1);
  assert.equal(digits("primDigitMultiplyNegative", 2 ** 20, 2 ** 30, vm.true), -BigInt(2 ** 50));
  assert.deepEqual(digits("primDigitDivNegative", -(2 ** 40) - 3, 2 ** 20, vm.true), [-(2 ** 20), -3]);
  assert.equal(digits("primDigitDivNegative", 5, 0, vm.false), undefined);
  assert.equal(digits("primDigitBitShiftMagnitude", -5, -1), -2);
  const padded = tiny.bytes("LargePositiveInteger", Uint8Array.of(7, 0, 0, 0, 0));
  assert.equal(digits("primNormalizePositive", padded), 7);
});

test("string primitives agree with their definitions", () => {
  const { tiny, run } = machine();
  const misc = (name: string, ...values: Oop[]): Oop | undefined => run("MiscPrimitivePlugin", name, tiny.nil, ...values);
  const order = tiny.bytes("ByteArray", Uint8Array.from({ length: 256 }, (_, i) => i));
  assert.equal(misc("primitiveCompareString", tiny.string("ab"), tiny.string("abc"), order), 1);
  assert.equal(misc("primitiveCompareString", tiny.string("abc"), tiny.string("abc"), order), 2);
  assert.equal(misc("primitiveCompareString", tiny.string("b"), tiny.string("abc"), order), 3);
  assert.equal(misc("primitiveFindSubstring", tiny.string("na"), tiny.string("banana"), 4, order), 5);
  assert.equal(misc("primitiveFindSubstring", tiny.string("nx"), tiny.string("banana"), 1, order), 0);
  const vowels = new Uint8Array(256);
  for (const each of "aeiou") vowels[each.charCodeAt(0)] = 1;
  assert.equal(misc("primitiveFindFirstInString", tiny.string("xyzzie"), tiny.bytes("ByteArray", vowels), 1), 5);
  const shouted = tiny.string("abc");
  misc("primitiveTranslateStringWithTable", shouted, 1, 2, tiny.bytes("ByteArray", Uint8Array.from({ length: 256 }, (_, i) => (i >= 97 && i <= 122 ? i - 32 : i))));
  assert.equal(shouted.bytesAsString(), "ABc");
});

test("float arrays are added in place, rounded to 32 bits", () => {
  const { tiny, run } = machine();
  const floats = (...values: number[]): SqueakObject => {
    const object = new SqueakObject(tiny.class("Bitmap"), 10, 0);
    object.words = new Uint32Array(Float32Array.from(values).buffer);
    return object;
  };
  const a = floats(1, 2, 0.1);
  assert.equal(run("FloatArrayPlugin", "primitiveAddFloatArray", a, floats(1, 1, 0.2)), a);
  assert.deepEqual([...new Float32Array(a.words.buffer)], [2, 3, Math.fround(Math.fround(0.1) + Math.fround(0.2))]);
  assert.equal(run("FloatArrayPlugin", "primitiveAddFloatArray", a, floats(1)), undefined);
  assert.equal((run("FloatArrayPlugin", "primitiveAt", a, 2) as SqueakObject).float, 3);
});
