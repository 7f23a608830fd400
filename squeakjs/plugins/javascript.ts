/**
 * JavaScriptPlugin: Smalltalk talks to JavaScript through proxies. A proxy is an object of the class that asked, with a
 * JavaScript value behind it; one without a value stands for the global object.
 * Names and meaning are upstream's. Different: whole numbers are exact both ways, text may hold any character, byte arrays
 * pass as Uint8Arrays, and a callback's answer may be falsy and may take as long as it likes.
 */
import { toBigInt } from "../integers.ts";
import type { ExternalModule } from "../modules.ts";
import { format, isMethod, type Oop, SqueakObject } from "../object.ts";
import type { InterpreterProxy } from "../proxy.ts";
import { associationSlots, blockContextSlots, classSlots, closureSlots, specialObjects } from "../special_objects.ts";
import type { VirtualMachine } from "../virtual_machine.ts";

type Callback = {
  readonly block: SqueakObject;
  readonly args: readonly unknown[];
  readonly resolve: (value: unknown) => void;
};

/** Any JavaScript value can be behind a proxy. */
type AnyObject = Record<PropertyKey, unknown>;

export function javaScriptPlugin(vm: VirtualMachine): ExternalModule {
  return new JavaScriptPlugin(vm).asModule();
}

class JavaScriptPlugin {
  private readonly vm: VirtualMachine;
  private proxy!: InterpreterProxy;
  private error: unknown = null;
  private callbackSemaphore = 0;
  /** The first is the active one, which the image has been told of. */
  private readonly callbacks: Callback[] = [];
  private readonly releases: FinalizationRegistry<SqueakObject>;

  constructor(vm: VirtualMachine) {
    this.vm = vm;
    this.releases = new FinalizationRegistry((held) => vm.heldObjects.delete(held));
  }

  asModule(): ExternalModule {
    const primitive = (run: (argCount: number) => Oop) => (argCount: number): boolean => {
      try {
        const answer = run(argCount);
        this.proxy.popthenPush(argCount + 1, answer);
        return true;
      } catch (error) {
        if (error instanceof NoAnswer) return false;
        this.error = error;
        return false;
      }
    };
    return {
      getModuleName: () => "JavaScriptPlugin",
      setInterpreter: (proxy: InterpreterProxy) => {
        this.proxy = proxy;
        return true;
      },
      primitiveDoUnderstand: primitive(() => this.doUnderstand()),
      primitiveAsString: primitive(() => this.string(String(this.valueOf(0)))),
      primitiveTypeof: primitive(() => this.string(typeof this.valueOf(0))),
      primitiveAt: primitive(() => this.wrapped(Reflect.get(Object(this.valueOf(1)), this.key(0)), 1)),
      primitiveAtPut: primitive(() => this.atPut()),
      primitiveSqueakAsJSObject: primitive(() => this.wrapSmalltalk()),
      primitiveInitCallbacks: primitive(() => this.initCallbacks()),
      primitiveGetActiveCallbackBlock: primitive(() => this.activeCallback().block),
      primitiveGetActiveCallbackArgs: primitive(() => this.activeArguments()),
      primitiveReturnFromCallback: primitive((argCount) => this.returnFromCallback(argCount)),
      primitiveGetError: primitive(() => this.string(describe(this.takeError()))),
      primitiveGetErrorObject: primitive(() => this.wrapped(this.takeError(), 0)),
    } as ExternalModule;
  }

  // Values behind proxies

  private valueOf(depth: number): unknown {
    const receiver = this.vm.stackValue(depth);
    if (typeof receiver === "number") return receiver;
    return receiver.aux === undefined ? globalThis : receiver.aux;
  }

  /** A JavaScript value as a Smalltalk object; what is no number, boolean or nil is behind a proxy of the receiver's class. */
  private wrapped(value: unknown, receiverDepth: number): Oop {
    const receiver = this.vm.stackValue(receiverDepth);
    const proxyClass = typeof receiver === "number" ? this.vm.nil : isClass(receiver) ? receiver : receiver.sqClass;
    return this.vm.primHandler.makeStObject(value, proxyClass);
  }

  private string(text: string): SqueakObject {
    return this.vm.memory.text(text);
  }

  private key(depth: number): PropertyKey {
    const key = this.asJavaScript(this.vm.stackValue(depth));
    return typeof key === "symbol" || typeof key === "number" ? key : String(key);
  }

  private doUnderstand(): Oop {
    const message = this.vm.stackValue(0) as SqueakObject;
    const selector = (message.pointers[0] as SqueakObject).bytesAsString();
    const args = (message.pointers[1] as SqueakObject).pointers.map((each) => this.asJavaScript(each));
    const property = selector.split(":", 1)[0];
    const receiver = this.valueOf(1);
    const isGlobal = receiver === globalThis;
    if (property === "new" && !isGlobal) {
      if (typeof receiver !== "function") throw new TypeError(`${describe(receiver)} is no constructor, so it cannot answer #${selector}`);
      return this.wrapped(Reflect.construct(receiver, args), 1);
    }
    const target = Object(receiver) as AnyObject;
    const value = target[property];
    if (typeof value === "function" && !(isGlobal && args.length === 0)) {
      return this.wrapped(Reflect.apply(value, receiver, args), 1);
    }
    if (args.length === 0) {
      if (!(property in target)) throw new ReferenceError(`Property not found: ${property}`);
      return this.wrapped(value, 1);
    }
    if (args.length > 1) throw new TypeError(`Property ${property} is no function, so it takes no ${args.length} arguments`);
    target[property] = args[0];
    return this.wrapped(args[0], 1);
  }

  private atPut(): Oop {
    const value = this.vm.stackValue(0);
    Reflect.set(Object(this.valueOf(2)), this.key(1), this.asJavaScript(value));
    return value;
  }

  private wrapSmalltalk(): Oop {
    const receiver = this.vm.stackValue(1) as SqueakObject;
    const proxy = this.vm.memory.instantiate(isClass(receiver) ? receiver : receiver.sqClass, 0);
    if (proxy === null) throw new NoAnswer();
    proxy.aux = this.vm.stackValue(0);
    return proxy;
  }

  private takeError(): unknown {
    const error = this.error;
    if (error === null) throw new NoAnswer();
    this.error = null;
    return error;
  }

  // Smalltalk to JavaScript

  private asJavaScript(oop: Oop): unknown {
    const vm = this.vm;
    if (typeof oop === "number") return oop;
    if (oop === vm.nil) return null;
    if (oop === vm.true) return true;
    if (oop === vm.false) return false;
    if (oop.aux !== undefined) return oop.aux;
    if (oop.float !== undefined) return oop.float;
    if (vm.memory.isLargeInteger(oop)) {
      const value = vm.memory.safeIntegerValue(oop);
      return Number.isNaN(value) ? toBigInt(vm.memory, oop) : value;
    }
    const sqClass = oop.sqClass;
    const specials = vm.memory.specials;
    if (sqClass === specials[specialObjects.classByteArray]) return oop.bytes.slice();
    if (oop.bytes !== null && !isMethod(oop)) return oop.bytesAsString();
    if (oop.words !== null && vm.memory.className(sqClass).startsWith("Wide")) return codePointsAsString(oop.words);
    if (sqClass === specials[specialObjects.classArray]) return this.arrayAsJavaScript(oop);
    if (sqClass === specials[specialObjects.classBlockClosure] || sqClass === specials[specialObjects.classFullBlockClosure]) {
      return this.blockAsFunction(oop, oop.pointers[closureSlots.numArgs] as number);
    }
    if (sqClass === specials[specialObjects.classBlockContext] && sqClass !== vm.nil) {
      return this.blockAsFunction(oop, oop.pointers[blockContextSlots.argumentCount] as number);
    }
    throw new TypeError(`asJSArgument needed for ${article(vm.memory.className(sqClass))}`);
  }

  /** An Array of Associations is a plain object, any other an array. */
  private arrayAsJavaScript(array: SqueakObject): unknown {
    const elements = array.pointers;
    if (elements.length === 0 || !elements.every((each) => this.isAssociation(each))) return elements.map((each) => this.asJavaScript(each));
    return Object.fromEntries(
      elements.map((each) => {
        const [key, value] = (each as SqueakObject).pointers;
        return [String(this.asJavaScript(key)), this.asJavaScript(value)];
      }),
    );
  }

  /** Associations inherit from LookupKey, which is known as the superclass of the class of Processor's binding. */
  private isAssociation(oop: Oop): boolean {
    if (typeof oop === "number" || oop.pointers === null || oop.pointers.length <= associationSlots.value) return false;
    const binding = this.vm.memory.special(specialObjects.processorAssociation).sqClass;
    const root = binding.pointers[classSlots.superclass];
    for (let each: Oop = oop.sqClass; typeof each !== "number" && each !== this.vm.nil; each = each.pointers[classSlots.superclass]) {
      if (each === binding) return true;
      if (each === root) return false;
    }
    return false;
  }

  // Callbacks

  /** A block as an asynchronous function: the image evaluates it in a process of its own, the promise is settled by its answer. */
  private blockAsFunction(block: SqueakObject, argCount: number): unknown {
    if (this.callbackSemaphore === 0) throw new Error("CallbackSemaphore not set");
    const held = this.vm.memory.array([block]);
    this.vm.heldObjects.add(held);
    const callback = (...args: unknown[]): Promise<unknown> =>
      new Promise((resolve) => this.enqueue({ block: held.pointers[0] as SqueakObject, args: args.slice(0, argCount), resolve }));
    this.releases.register(callback, held);
    return callback;
  }

  private enqueue(callback: Callback): void {
    this.callbacks.push(callback);
    if (this.callbacks.length === 1) this.vm.signalSemaphoreWithIndex(this.callbackSemaphore);
  }

  private initCallbacks(): Oop {
    const index = this.vm.stackValue(0);
    if (typeof index !== "number") throw new NoAnswer();
    this.callbackSemaphore = index;
    return this.vm.stackValue(1);
  }

  private activeCallback(): Callback {
    if (this.callbacks.length === 0) throw new NoAnswer();
    return this.callbacks[0];
  }

  private activeArguments(): Oop {
    const receiver = this.vm.stackValue(0) as SqueakObject;
    const args = this.activeCallback().args;
    return this.vm.primHandler.makeStArray(args, isClass(receiver) ? receiver : receiver.sqClass);
  }

  private returnFromCallback(argCount: number): Oop {
    const callback = this.activeCallback();
    const result = this.vm.stackValue(0);
    let value: unknown;
    try {
      value = this.asJavaScript(result);
    } catch {
      value = article(this.vm.memory.className(this.vm.memory.classOf(result)));
    }
    this.callbacks.shift();
    callback.resolve(value);
    if (this.callbacks.length > 0) this.vm.signalSemaphoreWithIndex(this.callbackSemaphore);
    return this.vm.stackValue(argCount);
  }
}

/** The primitive fails without an error to tell. */
class NoAnswer extends Error {}

function isClass(object: SqueakObject): boolean {
  return object.format === format.fixed && object.pointers.length > classSlots.name && typeof object.pointers[classSlots.format] === "number";
}

function describe(value: unknown): string {
  return value instanceof Error ? value.message : String(value);
}

function article(name: string): string {
  return `${/^[AEIOU]/.test(name) ? "an" : "a"} ${name}`;
}

function codePointsAsString(words: Uint32Array): string {
  return Array.from(words, (code) => String.fromCodePoint(code)).join("");
}
