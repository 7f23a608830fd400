/**
 * A Smalltalk of thirty classes, assembled in memory: enough for the machine to run hand-written bytecodes.
 * Methods are bytes and literals; `evaluate` runs some as a do-it and answers the object on top of the stack.
 * No compiler, no file: those have tests of their own.
 */
import { format, type Image, type Oop, specialObjects, SqueakObject, VirtualMachine, type VirtualMachineOptions } from "../../squeakjs/index.ts";

export type Code = {
  readonly bytes: readonly number[];
  readonly literals?: readonly Literal[];
  readonly args?: number;
  /** Temporaries, arguments included; as many as arguments unless told. */
  readonly temps?: number;
  readonly primitive?: number;
  readonly sista?: boolean;
  readonly large?: boolean;
};

/** "#foo:" is a symbol, "'foo'" a string, "Foo" a class's binding; numbers that are not whole are Floats. */
export type Literal = string | number | SqueakObject;

const classes: readonly (readonly [name: string, superclass: string | null, slots: number, format: number, index?: number])[] = [
  ["Object", null, 0, format.empty],
  ["UndefinedObject", "Object", 0, format.empty],
  ["True", "Object", 0, format.empty],
  ["False", "Object", 0, format.empty],
  ["Class", "Object", 8, format.fixed],
  ["SmallInteger", "Object", 0, format.immediate, 1],
  ["Character", "Object", 0, format.immediate, 2],
  ["Float", "Object", 0, format.words, 34],
  ["LargePositiveInteger", "Object", 0, format.bytes, 33],
  ["LargeNegativeInteger", "LargePositiveInteger", 0, format.bytes, 32],
  ["Context", "Object", 6, format.fixedIndexable, 36],
  ["BlockClosure", "Object", 3, format.fixedIndexable, 37],
  ["FullBlockClosure", "BlockClosure", 4, format.fixedIndexable, 38],
  ["Array", "Object", 0, format.indexable, 51],
  ["ByteString", "Object", 0, format.bytes, 52],
  ["ByteArray", "Object", 0, format.bytes, 50],
  ["Bitmap", "Object", 0, format.words, 53],
  ["Point", "Object", 2, format.fixed, 54],
  ["Symbol", "ByteString", 0, format.bytes],
  ["Message", "Object", 3, format.fixed],
  ["CompiledMethod", "Object", 0, format.method],
  ["CompiledBlock", "CompiledMethod", 0, format.method],
  ["MethodDictionary", "Object", 2, format.fixedIndexable],
  ["LookupKey", "Object", 1, format.fixed],
  ["Association", "LookupKey", 2, format.fixed],
  ["LinkedList", "Object", 2, format.fixed],
  ["Semaphore", "LinkedList", 3, format.fixed],
  ["Process", "Object", 4, format.fixed],
  ["ProcessorScheduler", "Object", 2, format.fixed],
  ["WeakArray", "Array", 0, format.weak],
  ["WideString", "Object", 0, format.words],
  ["DoubleByteArray", "Object", 0, format.shorts],
  ["DoubleWordArray", "Object", 0, format.longs],
  ["Proxy", "Object", 0, format.fixed],
  ["Pair", "Object", 2, format.fixed],
];

const selectors = [
  "+", "-", "<", ">", "<=", ">=", "=", "~=", "*", "/", "\\\\", "@", "bitShift:", "//", "bitAnd:", "bitOr:",
  "at:", "at:put:", "size", "next", "nextPut:", "atEnd", "==", "class", "blockCopy:", "value", "value:", "do:", "new", "new:", "x", "y",
];

export class TinyImage {
  readonly nil: SqueakObject;
  readonly specials: SqueakObject;
  readonly scheduler: SqueakObject;
  private readonly classes = new Map<string, SqueakObject>();
  private readonly symbols = new Map<string, SqueakObject>();
  private readonly bindings = new Map<string, SqueakObject>();
  private readonly methods = new Map<string, Map<string, SqueakObject>>();
  private readonly report: SqueakObject;
  private nextHash = 1;

  constructor() {
    const classClass = new SqueakObject(null as unknown as SqueakObject, format.fixed, 64);
    this.nil = new SqueakObject(null as unknown as SqueakObject, format.empty, 0);
    this.nil.pointers = [];
    for (const [i, [name, superclass, slots, kind, index]] of classes.entries()) {
      const made = name === "Class" ? classClass : new SqueakObject(classClass, format.fixed, 0);
      made.hash = index ?? 60 + i;
      made.sqClass = classClass;
      made.pointers = [superclass === null ? this.nil : this.class(superclass), this.nil, slots | (kind << 16), this.nil, this.nil, this.nil, this.nil, this.nil];
      this.classes.set(name, made);
    }
    this.nil.sqClass = this.class("UndefinedObject");
    for (const [name, made] of this.classes) made.pointers[6] = this.string(name);
    const yes = this.object("True");
    const no = this.object("False");
    this.nil.aux = "nil";
    yes.aux = "true";
    no.aux = "false";
    const queues = Array.from({ length: 80 }, () => this.object("LinkedList", [this.nil, this.nil]));
    this.scheduler = this.object("ProcessorScheduler", [this.array(queues), this.nil]);
    const special: Oop[] = Array.from({ length: 60 }, () => this.nil);
    const set = (index: number, value: Oop): void => {
      special[index] = value;
    };
    set(specialObjects.false, no);
    set(specialObjects.true, yes);
    set(specialObjects.processorAssociation, this.object("Association", [this.symbol("Processor"), this.scheduler]));
    for (const [index, name] of [
      [specialObjects.classBitmap, "Bitmap"], [specialObjects.classSmallInteger, "SmallInteger"], [specialObjects.classString, "ByteString"],
      [specialObjects.classArray, "Array"], [specialObjects.classFloat, "Float"], [specialObjects.classContext, "Context"],
      [specialObjects.classPoint, "Point"], [specialObjects.classLargePositiveInteger, "LargePositiveInteger"],
      [specialObjects.classMessage, "Message"], [specialObjects.classCompiledMethod, "CompiledMethod"],
      [specialObjects.classSemaphore, "Semaphore"], [specialObjects.classCharacter, "Character"], [specialObjects.classByteArray, "ByteArray"],
      [specialObjects.classProcess, "Process"], [specialObjects.classBlockClosure, "BlockClosure"],
      [specialObjects.classFullBlockClosure, "FullBlockClosure"], [specialObjects.classLargeNegativeInteger, "LargeNegativeInteger"],
    ] as const) set(index, this.class(name));
    for (const [index, selector] of [
      [specialObjects.selectorDoesNotUnderstand, "doesNotUnderstand:"], [specialObjects.selectorCannotReturn, "cannotReturn:"],
      [specialObjects.selectorMustBeBoolean, "mustBeBoolean"], [specialObjects.selectorCannotInterpret, "cannotInterpret:"],
      [specialObjects.selectorAboutToReturn, "aboutToReturn:through:"], [specialObjects.selectorRunWithIn, "run:with:in:"],
    ] as const) set(index, this.symbol(selector));
    set(specialObjects.specialSelectors, this.array(selectors.flatMap((each) => [this.symbol(each), argumentsOf(each)])));
    set(specialObjects.externalObjects, this.array(Array.from({ length: 8 }, () => this.nil)));
    set(specialObjects.compactClasses, this.array([]));
    this.specials = this.array(special);
    special[0] = this.nil;
    this.report = this.array([this.string("Test"), this.string("report"), 0, 0]);
    this.method("Object", "report:", { bytes: [0x78], literals: [this.report], args: 1, primitive: 117 });
    this.method("Object", "quit", { bytes: [0x78], primitive: 113 });
    this.method("Object", "idle", { bytes: [0x78], primitive: 230 });
    // an error ends the run with what it was about
    this.method("Object", "doesNotUnderstand:", { bytes: [0x70, 0x10, 0xe0, 0x87, 0x70, 0xd1, 0x7c], literals: ["#report:", "#quit"], args: 1 });
    this.method("Object", "error:", { bytes: [0x70, 0x10, 0xe0, 0x87, 0x70, 0xd1, 0x7c], literals: ["#report:", "#quit"], args: 1 });
    for (const [name, primitive] of [
      ["+", 1], ["-", 2], ["<", 3], [">", 4], ["<=", 5], [">=", 6], ["=", 7], ["~=", 8], ["*", 9], ["/", 10], ["\\\\", 11],
      ["//", 12], ["quo:", 13], ["bitAnd:", 14], ["bitOr:", 15], ["bitXor:", 16], ["bitShift:", 17], ["@", 18],
    ] as const) this.method("SmallInteger", name, { bytes: [0x7b], args: 1, primitive });
  }

  class(name: string): SqueakObject {
    const found = this.classes.get(name);
    if (found === undefined) throw new Error(`the tiny image has no class ${name}; add it to its table`);
    return found;
  }

  object(className: string, slots: Oop[] = []): SqueakObject {
    const aClass = this.class(className);
    const object = new SqueakObject(aClass, ((aClass.pointers[2] as number) >> 16) & 31, 0);
    object.pointers = slots;
    return object;
  }

  array(elements: Oop[]): SqueakObject {
    return this.object("Array", elements);
  }

  string(text: string): SqueakObject {
    return this.bytes("ByteString", new TextEncoder().encode(text));
  }

  bytes(className: string, bytes: Uint8Array): SqueakObject {
    const object = new SqueakObject(this.class(className), format.bytes, 0);
    object.bytes = bytes;
    return object;
  }

  float(value: number): SqueakObject {
    const object = new SqueakObject(this.class("Float"), format.words, 0);
    object.float = value;
    return object;
  }

  symbol(text: string): SqueakObject {
    let found = this.symbols.get(text);
    if (found === undefined) {
      found = this.bytes("Symbol", new TextEncoder().encode(text));
      found.hash = this.nextHash++;
      this.symbols.set(text, found);
    }
    return found;
  }

  binding(className: string): SqueakObject {
    let found = this.bindings.get(className);
    if (found === undefined) {
      found = this.object("Association", [this.symbol(className), this.class(className)]);
      this.bindings.set(className, found);
    }
    return found;
  }

  private literal(value: Literal): Oop {
    if (typeof value === "number") return Number.isInteger(value) ? value : this.float(value);
    if (typeof value !== "string") return value;
    if (value.startsWith("#")) return this.symbol(value.slice(1));
    if (value.startsWith("'")) return this.string(value.slice(1, -1));
    return this.binding(value);
  }

  /** Makes a method, or a CompiledBlock where `outer` is given, without putting it anywhere. */
  code(owner: string, selector: string, code: Code, outer?: SqueakObject): SqueakObject {
    const { args = 0, temps = args, primitive = 0, sista = false, large = false } = code;
    const method = new SqueakObject(this.class(outer === undefined ? "CompiledMethod" : "CompiledBlock"), format.method, 0);
    const literals = (code.literals ?? []).map((each) => this.literal(each));
    if (outer === undefined) literals.push(this.symbol(selector), this.binding(owner));
    else literals.push(outer);
    const header = literals.length | (primitive === 0 ? 0 : 0x10000) | (large ? 0x20000 : 0) | (temps << 18) | (args << 24);
    method.pointers = [sista ? header - 0x40000000 : header, ...literals];
    const call = primitive === 0 ? [] : [sista ? 0xf8 : 0x8b, primitive & 255, primitive >> 8];
    method.bytes = Uint8Array.from([...call, ...code.bytes]);
    return method;
  }

  method(owner: string, selector: string, code: Code): SqueakObject {
    const method = this.code(owner, selector, code);
    let own = this.methods.get(owner);
    if (own === undefined) {
      own = new Map();
      this.methods.set(owner, own);
    }
    own.set(selector, method);
    return method;
  }

  process(priority: number, code: Code, receiver: Oop = this.nil): SqueakObject {
    const method = this.code("Object", "process", code);
    const frame = Array.from({ length: 16 }, () => this.nil);
    const context = this.object("Context", [this.nil, method.pointers.length * 4 + 1, code.temps ?? 0, method, this.nil, receiver, ...frame]);
    return this.object("Process", [this.nil, context, priority, this.nil]);
  }

  image(first: SqueakObject): Image {
    for (const [name, made] of this.classes) made.pointers[1] = this.dictionary(this.methods.get(name) ?? new Map());
    this.scheduler.pointers[1] = first;
    const classTable: SqueakObject[] = [];
    for (const made of this.classes.values()) classTable[made.hash] = made;
    return { name: "tiny.image", version: 6521, spur: true, specialObjectsArray: this.specials, classTable, characters: new Map(), windowSize: 0, flags: 0 };
  }

  private dictionary(methods: Map<string, SqueakObject>): SqueakObject {
    let capacity = 4;
    while (capacity * 3 < methods.size * 4) capacity *= 2;
    const keys: Oop[] = Array.from({ length: capacity }, () => this.nil);
    const values = keys.slice();
    for (const [selector, method] of methods) {
      let index = this.symbol(selector).hash & (capacity - 1);
      while (keys[index] !== this.nil) index = (index + 1) & (capacity - 1);
      keys[index] = this.symbol(selector);
      values[index] = method;
    }
    return this.object("MethodDictionary", [methods.size, this.array(values), ...keys]);
  }

  /** A machine whose first process runs `code` at priority 40 and collects what `report:` is given. */
  start(code: Code, options: VirtualMachineOptions = {}): { vm: VirtualMachine; reported: Oop[] } {
    const reported: Oop[] = [];
    const vm = new VirtualMachine(this.image(this.process(40, code)), options);
    vm.registerExternalModule("Test", {
      report: (argCount: number) => {
        reported.push(vm.stackValue(0));
        vm.proxy.pop(argCount);
        return true;
      },
    } as object);
    return { vm, reported };
  }

  /**
   * Runs bytecodes that leave one object on the stack, until the image quits; answers that object.
   * The literals 0 and 1 are the do-it's own: the given ones start at 2.
   */
  evaluate(code: Code, options: VirtualMachineOptions = {}): Oop {
    const { vm, reported } = this.start(this.reporting(code), options);
    const state = vm.step(2000);
    if (state.kind !== "quit") throw new Error(`the do-it did not end but is ${state.kind}`);
    return reported[0];
  }

  /** V3 or Sista code whose last value is reported before the machine quits. */
  reporting(code: Code): Code {
    const sista = code.sista ?? false;
    // the value lies on the stack: `value report: value` needs it twice, so the report is sent to it with itself
    const end = sista ? [0x53, 0x90, 0xd8, 0x4c, 0x81, 0x58] : [0x88, 0xe0, 0x87, 0x70, 0xd1, 0x78];
    return { ...code, literals: ["#report:", "#quit", ...(code.literals ?? [])], bytes: [...code.bytes, ...end] };
  }
}

function argumentsOf(selector: string): number {
  return /^[a-zA-Z]/.test(selector) ? selector.split(":").length - 1 : 1;
}

/** What an object is, as a JavaScript value that a test can compare. */
export function plain(vm: { memory: VirtualMachine["memory"] }, oop: Oop): unknown {
  if (typeof oop === "number") return oop;
  if (oop.isNil) return null;
  if (oop.isTrue) return true;
  if (oop.isFalse) return false;
  if (oop.float !== undefined) return { float: oop.float };
  if (vm.memory.isLargeInteger(oop)) {
    const digits = [...oop.bytes].reverse().map((byte) => byte.toString(16).padStart(2, "0"));
    const magnitude = BigInt(`0x${digits.join("")}`);
    return oop.sqClass === vm.memory.largeIntegerClass(true) ? -magnitude : magnitude;
  }
  if (oop.format === format.indexable) return oop.pointers.map((each) => plain(vm, each));
  if (oop.format === format.bytes) return oop.bytesAsString();
  return oop;
}
