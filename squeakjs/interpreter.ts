/**
 * The interpreter's registers and what the bytecode loops ask of them: sends, activations, returns, contexts.
 * Contexts are ordinary objects, always complete when another context is active; the loops
 * (v3_loop.ts, sista_loop.ts) keep pc and stack pointer in JavaScript locals and store them here before a call.
 * Source: the Blue Book's chapters 27-29, with closures as Squeak's machines have them.
 *
 * A context is recycled on return only while nothing but its callee can know it. `recyclable` counts the
 * contexts, from the active one down, for which that holds; whatever exposes a context sets it to zero.
 */
import {
  argumentCount,
  firstBytecode,
  needsLargeFrame,
  pcBase,
  primitiveNumber,
  storesErrorCode,
  temporaryCount,
  usesSista,
} from "./header.ts";
import { ObjectMemory, type Image } from "./memory.ts";
import { type CacheEntry, MethodCache } from "./method_cache.ts";
import { format, isMethod, isSmallInteger, type Oop, SqueakObject } from "./object.ts";
import { type Primitive, primitiveFunction } from "./primitive_table.ts";
import { type Pause, pause, Scheduler } from "./scheduler.ts";
import {
  associationSlots,
  blockContextSlots,
  classSlots,
  closureSlots,
  contextSlots,
  fullClosureSlots,
  largeContextSize,
  messageSlots,
  methodDictionarySlots,
  smallContextSize,
  specialObjects,
} from "./special_objects.ts";

const mostSendsBetweenChecks = 2000;
const contextsBetweenDepthChecks = 20_000;
/** Contexts that the handler of a depth error may use before it is told again. */
const depthHeadroom = 50_000;
const externalCall = 117;
const specialAt = 16; // at: among the special selectors; at:put: follows
const unwindPrimitive = 198;

export type InterpreterOptions = {
  /** Where ConsolePlugin's lines and the machine's own remarks go. */
  readonly console?: (text: string, level: string) => void;
  /** Milliseconds since 1970, with a fraction; must never go back. */
  readonly now?: () => number;
  /** Primitives that shall fail as if they did not exist: numbers, "Module.name", or "Module". */
  readonly failPrimitives?: ReadonlySet<number | string>;
  /** Contexts that a process may pile up before it gets an error; see `checkDepth`. */
  readonly maxDepth?: number;
};

export abstract class Interpreter {
  readonly memory: ObjectMemory;
  readonly scheduler: Scheduler;
  readonly cache = new MethodCache();
  readonly nil: SqueakObject;
  readonly true: SqueakObject;
  readonly false: SqueakObject;
  classSmallInteger: SqueakObject;
  readonly console: (text: string, level: string) => void;
  readonly now: () => number;
  readonly failPrimitives: ReadonlySet<number | string>;
  readonly maxDepth: number;

  // Registers
  activeContext: SqueakObject;
  /** The active context's slots. */
  frame: Oop[] = [];
  /** The slots that hold the temporaries: the frame's, but for a BlockContext its home's. */
  home: Oop[] = [];
  method: SqueakObject;
  receiver: Oop;
  pc = 0;
  /** Index in `frame` of the top of the stack. */
  sp = 0;
  recyclable = 0;
  pause: Pause = pause.none;
  /** Sends until the next look at clock, signals and slice. */
  sendsLeft = 0;
  private sendsBetweenChecks = 250;

  /** Set by a primitive that fails for a reason it can name (an index of the primitive error table); 0 otherwise. */
  primitiveErrorCode = 0;
  /** Number of arguments of the primitive that is running. */
  primitiveArgumentCount = 0;
  /** The method whose primitive is running. */
  primitiveMethod: SqueakObject;

  private freeSmall: SqueakObject | null = null;
  private freeLarge: SqueakObject | null = null;
  private readonly smallFrame: Oop[];
  private readonly largeFrame: Oop[];
  private contextsLeft = contextsBetweenDepthChecks;
  private depthCheckDue = false;
  private reportedDepth = 0;
  private depthProcess: SqueakObject | null = null;
  private specialSelectors: Oop[];

  constructor(image: Image, options: InterpreterOptions = {}) {
    this.memory = new ObjectMemory(image);
    this.nil = this.memory.nil;
    this.true = this.memory.true;
    this.false = this.memory.false;
    this.classSmallInteger = this.memory.classSmallInteger;
    this.console = options.console ?? ((text, level) => (level === "error" ? console.error(text) : console.log(text)));
    this.now = options.now ?? (() => performance.timeOrigin + performance.now());
    this.failPrimitives = options.failPrimitives ?? new Set();
    this.maxDepth = options.maxDepth ?? 200_000;
    this.smallFrame = this.memory.nilSlots(smallContextSize);
    this.largeFrame = this.memory.nilSlots(largeContextSize);
    this.specialSelectors = this.memory.special(specialObjects.specialSelectors).pointers;
    this.scheduler = new Scheduler(this);
    const context = this.scheduler.firstContext();
    this.activeContext = context;
    this.method = context;
    this.primitiveMethod = context;
    this.receiver = this.nil;
    this.loadContext(context);
  }

  abstract checkForInterrupts(): void;
  abstract reportOnce(key: string, text: string): void;
  abstract namedPrimitive(method: SqueakObject): Primitive | null;
  /** The idle process has nothing to do. */
  abstract relinquish(): void;
  abstract quit(): true;
  abstract snapshotPrimitive(argCount: number): boolean;
  abstract imageName: string;
  abstract moduleNames(): string[];
  abstract unloadModule(name: string): boolean;

  /** Objects that JavaScript holds on behalf of the image: roots, beside the special objects and the active context. */
  readonly heldObjects = new Set<SqueakObject>();

  /** Renews what is derived from objects, after become: has changed some. */
  objectsChanged(): void {
    this.classSmallInteger = this.memory.classSmallInteger;
    this.specialSelectors = this.memory.special(specialObjects.specialSelectors).pointers;
    this.cache.flush();
    this.dropRecycledContexts();
    this.loadContext(this.activeContext);
    if (this.pause === pause.none) this.pause = pause.restart;
  }

  // Stack, for primitives

  push(value: Oop): void {
    this.frame[++this.sp] = value;
  }

  pop(): Oop {
    return this.frame[this.sp--];
  }

  /** The object `depth` below the top of the stack. */
  stackValue(depth: number): Oop {
    return this.frame[this.sp - depth];
  }

  /** Ends a primitive: replaces receiver and arguments by the answer. */
  answer(argCount: number, value: Oop): true {
    this.sp -= argCount;
    this.frame[this.sp] = value;
    return true;
  }

  // Contexts

  /** Makes the registers those of a context; the active one must have been stored. */
  loadContext(context: SqueakObject): void {
    const frame = context.pointers;
    this.activeContext = context;
    this.frame = frame;
    let home = frame;
    if (typeof frame[contextSlots.method] === "number") {
      home = (frame[blockContextSlots.home] as SqueakObject).pointers;
    }
    this.home = home;
    const method = home[contextSlots.method] as SqueakObject;
    this.method = method;
    this.receiver = home[contextSlots.receiver];
    this.pc = (frame[contextSlots.pc] as number) - pcBase(method);
    this.sp = (frame[contextSlots.stackp] as number) + contextSlots.firstTemp - 1;
  }

  /** Stores pc and stack pointer into the active context, for whoever looks at it as an object. */
  storeContext(): void {
    this.frame[contextSlots.pc] = this.pc + pcBase(this.method);
    this.frame[contextSlots.stackp] = this.sp - contextSlots.firstTemp + 1;
  }

  /** Stores and answers the active context; from here on it and its senders may be known to anyone. */
  exposeContext(): SqueakObject {
    this.storeContext();
    this.recyclable = 0;
    return this.activeContext;
  }

  private allocateContext(large: boolean): SqueakObject {
    const free = large ? this.freeLarge : this.freeSmall;
    if (free !== null) {
      const next = free.pointers[0];
      if (large) this.freeLarge = next as SqueakObject | null;
      else this.freeSmall = next as SqueakObject | null;
      return free;
    }
    if (--this.contextsLeft <= 0) {
      this.contextsLeft = contextsBetweenDepthChecks;
      this.depthCheckDue = true;
      this.sendsLeft = 0;
    }
    const context = new SqueakObject(this.memory.special(specialObjects.classContext), format.fixedIndexable, 0);
    context.pointers = large ? this.largeFrame.slice() : this.smallFrame.slice();
    return context;
  }

  private recycle(context: SqueakObject): void {
    const frame = context.pointers;
    // An identity hash was asked for: somebody knew it.
    if (context.hash !== 0) return;
    if (frame.length === smallContextSize) {
      frame[0] = this.freeSmall as SqueakObject;
      this.freeSmall = context;
    } else if (frame.length === largeContextSize) {
      frame[0] = this.freeLarge as SqueakObject;
      this.freeLarge = context;
    }
  }

  /** Forgets the recycled contexts, before anything enumerates or changes objects. */
  dropRecycledContexts(): void {
    this.freeSmall = null;
    this.freeLarge = null;
    this.recyclable = 0;
  }

  // Lookup

  /** Finds what a send of `selector` to an instance of `sqClass` activates; null when it is not understood. */
  lookup(selector: SqueakObject, sqClass: SqueakObject): CacheEntry | null {
    const cached = this.cache.probe(selector, sqClass);
    if (cached !== null) return cached;
    const method = this.findMethod(selector, sqClass);
    if (method === null) return null;
    const entry = this.makeEntry(selector, sqClass, method);
    this.cache.add(entry);
    return entry;
  }

  /** The method, or the object in a method's place, of a class or the nearest superclass that has one. */
  findMethod(selector: SqueakObject, sqClass: SqueakObject): SqueakObject | null {
    const nil = this.nil;
    for (let each: Oop = sqClass; each !== nil; each = (each as SqueakObject).pointers[classSlots.superclass]) {
      const dictionary = (each as SqueakObject).pointers[classSlots.methodDictionary] as SqueakObject;
      if (dictionary === nil) throw new CannotInterpret(each as SqueakObject);
      const slots = dictionary.pointers;
      const mask = slots.length - methodDictionarySlots.firstKey - 1;
      let index = selector.hash & mask;
      for (let probes = 0; probes <= mask; probes++) {
        const key = slots[index + methodDictionarySlots.firstKey];
        if (key === selector) return (slots[methodDictionarySlots.values] as SqueakObject).pointers[index] as SqueakObject;
        if (key === nil) break;
        index = (index + 1) & mask;
      }
    }
    return null;
  }

  makeEntry(selector: SqueakObject, sqClass: SqueakObject, method: SqueakObject): CacheEntry {
    if (!isMethod(method)) {
      const run = (_vm: Interpreter, argCount: number): boolean => this.runObjectAsMethod(method, selector, argCount);
      return {
        selector, sqClass, method, run,
        primitive: 0, argumentCount: -1, temporaryCount: 0, large: false, startPc: 0, pcBase: 0,
      };
    }
    const primitive = primitiveNumber(method, this.memory.spur);
    return {
      selector,
      sqClass,
      method,
      primitive,
      run: this.primitiveOf(method, primitive),
      argumentCount: argumentCount(method),
      temporaryCount: temporaryCount(method),
      large: needsLargeFrame(method),
      startPc: firstBytecode(method, this.memory.spur),
      pcBase: pcBase(method),
    };
  }

  private primitiveOf(method: SqueakObject, number: number): Primitive | null {
    if (number === 0 || isQuickPrimitive(number)) return null;
    return number === externalCall ? this.namedPrimitive(method) : this.numberedPrimitive(number, method);
  }

  /** The function of a numbered primitive; null when it always fails. One that is missing is reported once. */
  numberedPrimitive(number: number, method: SqueakObject | null): Primitive | null {
    if (this.failPrimitives.has(number)) return null;
    const run = primitiveFunction(number);
    if (run !== undefined) return run;
    const where = method === null ? "" : ` in #${this.selectorOf(method)}`;
    this.reportOnce(`primitive ${number}`, `missing primitive: ${number}${where}`);
    return null;
  }

  selectorOf(method: SqueakObject): string {
    const selector = method.pointers[method.pointers.length - 2];
    if (typeof selector !== "number" && selector?.bytes) return selector.bytesAsString();
    if (typeof selector !== "number" && selector?.pointers) {
      // an AdditionalMethodState: method, selector, pragmas
      const inner = selector.pointers[1];
      if (typeof inner !== "number" && inner?.bytes) return inner.bytesAsString();
    }
    return "?";
  }

  // Sends

  send(selector: SqueakObject, argCount: number): void {
    const receiver = this.frame[this.sp - argCount];
    this.sendTo(selector, argCount, typeof receiver === "number" ? this.classSmallInteger : receiver.sqClass);
  }

  /** Sends to super: lookup starts above the class that the running method belongs to. */
  sendSuper(selector: SqueakObject, argCount: number): void {
    let code = this.method;
    // a CompiledBlock's last literal is the code it is in; the outermost is the method
    for (;;) {
      const last = code.pointers[code.pointers.length - 1] as SqueakObject;
      if (!isMethod(last)) {
        const methodClass = last.pointers[associationSlots.value] as SqueakObject;
        this.sendTo(selector, argCount, methodClass.pointers[classSlots.superclass] as SqueakObject);
        return;
      }
      code = last;
    }
  }

  /** Sista's directed super: the class whose superclass is meant is on top of the stack. */
  sendDirectedSuper(selector: SqueakObject, argCount: number): void {
    const methodClass = this.pop() as SqueakObject;
    this.sendTo(selector, argCount, methodClass.pointers[classSlots.superclass] as SqueakObject);
  }

  sendTo(selector: SqueakObject, argCount: number, lookupClass: SqueakObject): void {
    let entry = this.cache.probe(selector, lookupClass);
    if (entry === null) {
      entry = this.lookupOrComplain(selector, argCount, lookupClass);
      if (entry === null) return;
    }
    this.execute(entry, argCount);
  }

  /** On a miss: looks up, or sends #doesNotUnderstand: or #cannotInterpret: instead and answers null. */
  private lookupOrComplain(selector: SqueakObject, argCount: number, lookupClass: SqueakObject): CacheEntry | null {
    let complaint: number = specialObjects.selectorDoesNotUnderstand;
    let startClass = lookupClass;
    try {
      const entry = this.lookup(selector, lookupClass);
      if (entry !== null) return entry;
    } catch (error) {
      if (!(error instanceof CannotInterpret)) throw error;
      complaint = specialObjects.selectorCannotInterpret;
      startClass = error.sqClass.pointers[classSlots.superclass] as SqueakObject;
    }
    const complaintSelector = this.memory.special(complaint);
    if (selector === complaintSelector) {
      throw new Error(
        `${this.memory.className(lookupClass)} does not understand #${selector.bytesAsString()}; the image must define it in every root class`,
      );
    }
    const firstArgument = this.sp - argCount + 1;
    const message = this.createMessage(selector, this.frame.slice(firstArgument, this.sp + 1), lookupClass);
    this.sp = firstArgument;
    this.frame[this.sp] = message;
    this.sendTo(complaintSelector, 1, startClass);
    return null;
  }

  createMessage(selector: SqueakObject, args: Oop[], lookupClass: SqueakObject): SqueakObject {
    const message = this.memory.instantiate(this.memory.special(specialObjects.classMessage), 0) as SqueakObject;
    message.pointers[messageSlots.selector] = selector;
    message.pointers[messageSlots.arguments] = this.memory.array(args);
    if (message.pointers.length > messageSlots.lookupClass) message.pointers[messageSlots.lookupClass] = lookupClass;
    return message;
  }

  execute(entry: CacheEntry, argCount: number): void {
    const run = entry.run;
    if (run !== null) {
      this.primitiveMethod = entry.method;
      this.primitiveErrorCode = 0;
      if (run(this, argCount)) return;
    } else if (isQuickPrimitive(entry.primitive) && this.runQuickPrimitive(entry.primitive, argCount)) {
      return;
    }
    this.activate(entry, argCount);
  }

  private runQuickPrimitive(number: number, argCount: number): boolean {
    const receiver = this.frame[this.sp - argCount];
    let value: Oop;
    switch (number) {
      case 256: value = receiver; break;
      case 257: value = this.true; break;
      case 258: value = this.false; break;
      case 259: value = this.nil; break;
      case 260: case 261: case 262: case 263: value = number - 261; break;
      default:
        if (typeof receiver === "number") return false;
        if (receiver === this.activeContext) this.storeContext(); // its slots are stale while it runs
        value = receiver.pointers[number - 264];
    }
    this.sp -= argCount;
    this.frame[this.sp] = value;
    return true;
  }

  /** Enters a method: its receiver and arguments are on the stack. */
  activate(entry: CacheEntry, argCount: number): void {
    if (this.depthCheckDue && this.checkDepth(argCount)) return;
    const caller = this.frame;
    const firstArgument = this.sp - argCount + 1;
    const context = this.allocateContext(entry.large);
    const frame = context.pointers;
    const method = entry.method;
    const receiver = caller[firstArgument - 1];
    frame[contextSlots.sender] = this.activeContext;
    frame[contextSlots.method] = method;
    frame[contextSlots.closure] = this.nil;
    frame[contextSlots.receiver] = receiver;
    let slot: number = contextSlots.firstTemp;
    for (let i = firstArgument; i <= this.sp; i++) frame[slot++] = caller[i];
    const end = contextSlots.firstTemp + entry.temporaryCount;
    const nil = this.nil;
    while (slot < end) frame[slot++] = nil;
    caller[contextSlots.pc] = this.pc + this.method.pointers.length * 4 + 1;
    caller[contextSlots.stackp] = firstArgument - 1 - contextSlots.firstTemp; // receiver and arguments are gone
    this.recyclable++;
    this.activeContext = context;
    this.frame = frame;
    this.home = frame;
    this.method = method;
    this.receiver = receiver;
    this.pc = entry.startPc;
    this.sp = end - 1;
    if (entry.startPc !== 0 && this.primitiveErrorCode !== 0) this.storeErrorCode();
    if (--this.sendsLeft <= 0) this.checkForInterrupts();
  }

  /** `<primitive: n error: e>`: the last temporary, which is on top of the new stack, gets the error. */
  private storeErrorCode(): void {
    if (storesErrorCode(this.method)) {
      const table = this.memory.specials[specialObjects.primitiveErrorTable] as SqueakObject | undefined;
      const code = this.primitiveErrorCode;
      this.frame[this.sp] = table?.pointers?.[code - 1] ?? code;
    }
    this.primitiveErrorCode = 0;
  }

  /** Activates a method that no lookup found (withArgs:executeMethod:). */
  executeMethod(method: SqueakObject, argCount: number): void {
    this.execute(this.makeEntry(method, this.memory.classOf(this.stackValue(argCount)), method), argCount);
  }

  private runObjectAsMethod(object: SqueakObject, selector: SqueakObject, argCount: number): boolean {
    const args = this.memory.array(this.frame.slice(this.sp - argCount + 1, this.sp + 1));
    const receiver = this.frame[this.sp - argCount];
    this.sp -= argCount;
    this.frame[this.sp] = object;
    this.push(selector);
    this.push(args);
    this.push(receiver);
    this.send(this.memory.special(specialObjects.selectorRunWithIn), 3);
    return true;
  }

  /** Sends one of the 32 selectors that have a bytecode of their own. */
  sendSpecial(index: number): void {
    if (index === specialAt && !this.cache.plainArrayAccess) this.checkArrayAccess();
    this.send(this.specialSelectors[index * 2] as SqueakObject, this.specialSelectors[index * 2 + 1] as number);
  }

  /** One of the first ten special selectors, with SmallIntegers tried already: Floats in place, or a send. */
  sendArithmetic(index: number): void {
    if (!this.floatArithmetic(index)) this.sendSpecial(index);
  }

  private checkArrayAccess(): void {
    const isPrimitive = (index: number, number: number): boolean => {
      const entry = this.lookup(this.specialSelectors[index * 2] as SqueakObject, this.memory.classArray);
      return entry !== null && entry.primitive === number && entry.run !== null;
    };
    this.cache.plainArrayAccess = isPrimitive(specialAt, 60) && isPrimitive(specialAt + 1, 61);
  }

  // Closures

  /** Activates a BlockClosure whose bytecodes are part of its home's method. Receiver and arguments are on the stack. */
  activateClosure(closure: SqueakObject, argCount: number, maySwitch = true): boolean {
    const slots = closure.pointers;
    if (slots[closureSlots.numArgs] !== argCount) return false;
    const outer = slots[closureSlots.outerContext] as SqueakObject;
    const method = outer.pointers?.[contextSlots.method];
    if (method === undefined || !isMethod(method)) return false;
    const receiver = outer.pointers[contextSlots.receiver];
    const startPc = (slots[closureSlots.startpc] as number) - pcBase(method);
    this.enterBlock(closure, method, receiver, startPc, closureSlots.firstCopied, argCount, -1, maySwitch);
    return true;
  }

  /** Activates a FullBlockClosure, which has a CompiledBlock of its own. */
  activateFullClosure(closure: SqueakObject, argCount: number, maySwitch = true): boolean {
    const slots = closure.pointers;
    if (slots[fullClosureSlots.numArgs] !== argCount) return false;
    const block = slots[fullClosureSlots.block];
    if (!isMethod(block) || argumentCount(block) !== argCount) return false;
    const temporaries = temporaryCount(block);
    this.enterBlock(closure, block, slots[fullClosureSlots.receiver], 0, fullClosureSlots.firstCopied, argCount, temporaries, maySwitch);
    return true;
  }

  private enterBlock(
    closure: SqueakObject, method: SqueakObject, receiver: Oop, startPc: number, firstCopied: number, argCount: number, temporaries: number,
    maySwitch: boolean,
  ): void {
    if (this.depthCheckDue && this.checkDepth(argCount)) return;
    const caller = this.frame;
    const firstArgument = this.sp - argCount + 1;
    const context = this.allocateContext(needsLargeFrame(method));
    const frame = context.pointers;
    frame[contextSlots.sender] = this.activeContext;
    frame[contextSlots.method] = method;
    frame[contextSlots.closure] = closure;
    frame[contextSlots.receiver] = receiver;
    let slot: number = contextSlots.firstTemp;
    for (let i = firstArgument; i <= this.sp; i++) frame[slot++] = caller[i];
    const slots = closure.pointers;
    for (let i = firstCopied; i < slots.length; i++) frame[slot++] = slots[i];
    const end = contextSlots.firstTemp + temporaries;
    while (slot < end) frame[slot++] = this.nil;
    caller[contextSlots.pc] = this.pc + this.method.pointers.length * 4 + 1;
    caller[contextSlots.stackp] = firstArgument - 1 - contextSlots.firstTemp;
    this.recyclable++;
    this.activeContext = context;
    this.frame = frame;
    this.home = frame;
    this.method = method;
    this.receiver = receiver;
    this.pc = startPc;
    this.sp = slot - 1;
    if (--this.sendsLeft <= 0 && maySwitch) this.checkForInterrupts();
  }

  /** Makes the closure of an inline block; the copied values are taken off the stack. */
  makeClosure(argCount: number, copied: number, startPc: number): SqueakObject {
    const closure = new SqueakObject(this.memory.special(specialObjects.classBlockClosure), format.fixedIndexable, 0);
    const slots: Oop[] = [this.exposeContext(), startPc + pcBase(this.method), argCount];
    for (let i = this.sp - copied + 1; i <= this.sp; i++) slots.push(this.frame[i]);
    this.sp -= copied;
    closure.pointers = slots;
    return closure;
  }

  /** Makes a FullBlockClosure; a receiver on the stack lies below the copied values. */
  makeFullClosure(block: SqueakObject, copied: number, ignoresOuter: boolean, receiverOnStack: boolean): SqueakObject {
    const closureClass = this.memory.special(specialObjects.classFullBlockClosure);
    const found = closureClass === this.nil ? this.memory.classAtIndex(38) : closureClass;
    if (found === undefined) throw new Error("the image has no FullBlockClosure class (special object 37), but a method makes full blocks");
    const closure = new SqueakObject(found, format.fixedIndexable, 0);
    const outer = ignoresOuter ? this.nil : this.exposeContext();
    const slots: Oop[] = [outer, block, argumentCount(block), this.receiver];
    for (let i = this.sp - copied + 1; i <= this.sp; i++) slots.push(this.frame[i]);
    this.sp -= copied;
    if (receiverOnStack) slots[fullClosureSlots.receiver] = this.pop();
    closure.pointers = slots;
    return closure;
  }

  /** Makes the older BlockContext on behalf of bytecode or primitive 80; false when the image has none. */
  blockCopy(): boolean {
    const blockContextClass = this.memory.special(specialObjects.classBlockContext);
    const argCount = this.frame[this.sp];
    const home = this.frame[this.sp - 1];
    if (blockContextClass === this.nil || typeof argCount !== "number" || typeof home === "number") return false;
    if (home.pointers === null || home.pointers.length < smallContextSize) return false;
    const isBlock = typeof home.pointers[contextSlots.method] === "number";
    const method = this.method;
    const block = new SqueakObject(blockContextClass, format.fixedIndexable, 0);
    block.pointers = this.memory.nilSlots(home.pointers.length);
    // behind the bytecode for blockCopy: comes a long jump over the block's code
    const initialPc = this.pc + pcBase(method) + 2;
    this.recyclable = 0;
    block.pointers[blockContextSlots.initialPc] = initialPc;
    block.pointers[contextSlots.pc] = initialPc;
    block.pointers[contextSlots.stackp] = 0;
    block.pointers[blockContextSlots.argumentCount] = argCount;
    block.pointers[blockContextSlots.home] = isBlock ? home.pointers[blockContextSlots.home] : home;
    this.sp--;
    this.frame[this.sp] = block;
    return true;
  }

  /** Activates a BlockContext; its arguments are on the stack. */
  activateBlockContext(block: SqueakObject, argCount: number): boolean {
    const slots = block.pointers;
    if (slots[blockContextSlots.argumentCount] !== argCount || slots[contextSlots.sender] !== this.nil) return false;
    let slot: number = contextSlots.firstTemp;
    for (let i = this.sp - argCount + 1; i <= this.sp; i++) slots[slot++] = this.frame[i];
    this.sp -= argCount + 1; // the block itself goes, too; its answer takes its place
    slots[contextSlots.pc] = slots[blockContextSlots.initialPc];
    slots[contextSlots.stackp] = argCount;
    slots[contextSlots.sender] = this.exposeContext();
    this.loadContext(block);
    if (--this.sendsLeft <= 0) this.checkForInterrupts();
    return true;
  }

  // Returns

  /** `^ value`: from a method to its sender, from a block through its home to the home's sender. */
  returnFromMethod(value: Oop): void {
    const frame = this.frame;
    if (this.home === frame && frame[contextSlots.closure] === this.nil) this.returnToSender(value);
    else this.returnFromHome(value);
  }

  /** Returns to the context that activated the active one: the end of a block, and a method's plain return. */
  returnToSender(value: Oop): void {
    const frame = this.frame;
    const sender = frame[contextSlots.sender] as SqueakObject;
    const senderFrame = sender.pointers;
    if (sender === this.nil || typeof senderFrame[contextSlots.pc] !== "number") {
      this.sendCannotReturn(value);
      return;
    }
    if (this.recyclable > 0) {
      this.recyclable--;
      this.recycle(this.activeContext);
    } else {
      frame[contextSlots.sender] = this.nil;
      frame[contextSlots.pc] = this.nil;
    }
    let home = senderFrame;
    if (typeof senderFrame[contextSlots.method] === "number") {
      home = (senderFrame[blockContextSlots.home] as SqueakObject).pointers;
    }
    const method = home[contextSlots.method] as SqueakObject;
    this.activeContext = sender;
    this.frame = senderFrame;
    this.home = home;
    this.method = method;
    this.receiver = home[contextSlots.receiver];
    this.pc = (senderFrame[contextSlots.pc] as number) - method.pointers.length * 4 - 1;
    const sp = (senderFrame[contextSlots.stackp] as number) + contextSlots.firstTemp;
    this.sp = sp;
    senderFrame[sp] = value;
  }

  /** `^` inside a block: unwinds to the sender of the home, asking the image when an unwind block is on the way. */
  private returnFromHome(value: Oop): void {
    const home = this.homeContext();
    const target = home === null ? this.nil : (home.pointers[contextSlots.sender] as SqueakObject);
    if (target === this.nil || typeof target.pointers[contextSlots.pc] !== "number") {
      this.sendCannotReturn(value);
      return;
    }
    let unwind: SqueakObject | null = null;
    let each = this.activeContext.pointers[contextSlots.sender] as SqueakObject;
    while (each !== target && each !== this.nil) {
      if (unwind === null && this.isUnwindMarked(each)) unwind = each;
      each = each.pointers[contextSlots.sender] as SqueakObject;
    }
    if (each === this.nil) {
      this.sendCannotReturn(value); // the home is on no way from here: another process's, or returned from already
      return;
    }
    if (unwind !== null) {
      const context = this.exposeContext();
      this.push(context);
      this.push(value);
      this.push(unwind);
      this.send(this.memory.special(specialObjects.selectorAboutToReturn), 2);
      return;
    }
    this.recyclable = 0;
    each = this.activeContext;
    while (each !== target) {
      const sender = each.pointers[contextSlots.sender] as SqueakObject;
      each.pointers[contextSlots.sender] = this.nil;
      each.pointers[contextSlots.pc] = this.nil;
      each = sender;
    }
    this.loadContext(target);
    this.push(value);
  }

  /** The context of the method activation that the running block was written in; null for a clean block. */
  private homeContext(): SqueakObject | null {
    if (this.home !== this.frame) return this.frame[blockContextSlots.home] as SqueakObject;
    let context = this.activeContext;
    for (;;) {
      const closure = context.pointers[contextSlots.closure] as SqueakObject;
      if (closure === this.nil) return context;
      const outer = closure.pointers[closureSlots.outerContext] as SqueakObject;
      if (outer === this.nil) return null;
      context = outer;
    }
  }

  isUnwindMarked(context: SqueakObject): boolean {
    const method = context.pointers[contextSlots.method];
    return isMethod(method) && context.pointers[contextSlots.closure] === this.nil && primitiveNumber(method, this.memory.spur) === unwindPrimitive;
  }

  sendCannotReturn(value: Oop): void {
    const context = this.exposeContext();
    this.push(context);
    this.push(value);
    this.send(this.memory.special(specialObjects.selectorCannotReturn), 1);
  }

  /** A conditional jump met something else than a Boolean, which is on the stack. */
  sendMustBeBoolean(): void {
    this.send(this.memory.special(specialObjects.selectorMustBeBoolean), 0);
  }

  // Depth

  /**
   * Turns endless recursion into an error of its process, long before memory ends. Instead of the message whose
   * activation was about to begin, its receiver gets #error:, so that a handler can answer in its place. An image with
   * a low space semaphore gets that signalled instead, as Squeak's machine does. Called once in many new contexts.
   */
  private checkDepth(argCount: number): boolean {
    this.depthCheckDue = false;
    let depth = 1;
    let each = this.frame[contextSlots.sender];
    while (each !== this.nil) {
      depth++;
      each = (each as SqueakObject).pointers[contextSlots.sender];
    }
    const process = this.scheduler.activeProcess;
    if (depth < this.maxDepth) {
      if (this.depthProcess === process) this.depthProcess = null;
      return false;
    }
    // The handler of the first error needs room; what grows on in spite of it is told again, at most every so often.
    if (this.depthProcess === process && depth < this.reportedDepth + depthHeadroom) return false;
    this.depthProcess = process;
    this.reportedDepth = depth;
    const semaphore = this.memory.special(specialObjects.lowSpaceSemaphore);
    if (semaphore !== this.nil) {
      this.memory.specials[specialObjects.processSignalingLowSpace] = process;
      this.scheduler.signalLater(semaphore);
      return false;
    }
    const receiver = this.frame[this.sp - argCount];
    const selector = this.memory.selectorNamed(this.memory.classOf(receiver), "error:");
    if (selector === null) {
      throw new Error(`a process is ${depth} contexts deep (at most ${this.maxDepth}), and its receiver understands no #error: to be told so`);
    }
    this.sp -= argCount;
    this.push(this.memory.string(`the stack is ${depth} contexts deep, at most ${this.maxDepth} are allowed: endless recursion?`));
    this.send(selector, 1);
    return true;
  }

  /** Counts down anew to the next look at the clock, faster or slower so that about a quarter millisecond lies between two. */
  restartCountdown(elapsed: number): void {
    if (elapsed > 0.5) this.sendsBetweenChecks = Math.max(20, Math.floor((this.sendsBetweenChecks * 0.25) / elapsed));
    else if (elapsed < 0.15) this.sendsBetweenChecks = Math.min(mostSendsBetweenChecks, this.sendsBetweenChecks * 2);
    this.sendsLeft = this.sendsBetweenChecks;
  }

  // Arithmetic that the loops share

  /** Float and mixed arithmetic of the special selectors 0 to 9 (+ - < > <= >= = ~= * /), in place; false: send. */
  private floatArithmetic(index: number): boolean {
    const frame = this.frame;
    const sp = this.sp;
    const a = frame[sp - 1];
    const b = frame[sp];
    if (typeof a === "number" && typeof b === "number") return false;
    const x = typeof a === "number" ? a : a.float;
    const y = typeof b === "number" ? b : b.float;
    if (x === undefined || y === undefined) return false;
    let result: Oop;
    switch (index) {
      case 0: result = this.memory.float(x + y); break;
      case 1: result = this.memory.float(x - y); break;
      case 2: result = x < y ? this.true : this.false; break;
      case 3: result = x > y ? this.true : this.false; break;
      case 4: result = x <= y ? this.true : this.false; break;
      case 5: result = x >= y ? this.true : this.false; break;
      case 6: result = x === y ? this.true : this.false; break;
      case 7: result = x !== y ? this.true : this.false; break;
      case 8: result = this.memory.float(x * y); break;
      case 9:
        if (y === 0) return false;
        result = this.memory.float(x / y);
        break;
      default: return false;
    }
    frame[sp - 1] = result;
    this.sp = sp - 1;
    return true;
  }

  /** The shift of a SmallInteger by a SmallInteger; NaN where the answer is none. */
  static shift(value: number, by: number): number {
    if (by < 0) return by > -31 ? value >> -by : value < 0 ? -1 : 0;
    if (by > 30) return value === 0 ? 0 : NaN;
    const result = value * 2 ** by;
    return isSmallInteger(result) ? result : NaN;
  }

  /** The error of a bytecode that no compiler emits; pc is behind the opcode. */
  illegalBytecode(opcode: number, pc: number): Error {
    const set = usesSista(this.method) ? "Sista" : "V3";
    return new Error(
      `${set} bytecode 0x${opcode.toString(16)} at ${pc} of #${this.selectorOf(this.method)} is not one this machine executes; recompile the method`,
    );
  }
}

/** Methods that only answer self, a constant (256 to 263) or an instance variable (264 and on) have these numbers. */
function isQuickPrimitive(number: number): boolean {
  return number >= 256 && number < 520;
}

/** A class without a method dictionary was met while looking up. */
class CannotInterpret extends Error {
  readonly sqClass: SqueakObject;

  constructor(sqClass: SqueakObject) {
    super("cannot interpret");
    this.sqClass = sqClass;
  }
}
