/**
 * Named primitives: modules by name, and the functions in them. A module is a plain object in upstream's shape, so the
 * same file serves both machines: `name(argCount)` reads arguments from the interpreter proxy, leaves its answer
 * there, and answers true, false, or nothing, which means "unless the proxy was told of a failure".
 */
import type { Primitive } from "./primitive_table.ts";
import { ownFunction } from "./own_functions.ts";
import type { InterpreterProxy } from "./proxy.ts";
import type { SqueakObject } from "./object.ts";
import type { VirtualMachine } from "./virtual_machine.ts";

export type ModuleFunction = (argCount: number) => boolean | undefined | void;

export interface ExternalModule {
  getModuleName?(): string;
  setInterpreter?(proxy: InterpreterProxy): boolean | void;
  initialiseModule?(): boolean | void;
  unloadModule?(): boolean | void;
}

export class Modules {
  private readonly vm: VirtualMachine;
  private readonly proxy: InterpreterProxy;
  private readonly registered = new Map<string, ExternalModule>();
  private readonly loaded = new Set<ExternalModule>();

  constructor(vm: VirtualMachine, proxy: InterpreterProxy) {
    this.vm = vm;
    this.proxy = proxy;
  }

  register(name: string, module: ExternalModule): void {
    this.registered.set(name, module);
  }

  get names(): string[] {
    return [...this.registered.keys()];
  }

  /** The functions that a module offers, also those that its class defines. */
  functionsOf(name: string): string[] {
    const found = new Set<string>();
    for (let each: object | null = this.registered.get(name) ?? null; each !== null && each !== Object.prototype; each = Object.getPrototypeOf(each)) {
      for (const key of Object.getOwnPropertyNames(each)) found.add(key);
    }
    return [...found].filter((key) => key.startsWith("prim"));
  }

  unload(name: string): boolean {
    const module = this.registered.get(name);
    if (module === undefined || !this.loaded.delete(module)) return false;
    module.unloadModule?.();
    return true;
  }

  /** The function that a method's `<primitive: 'name' module: 'Module'>` means; null when it is missing or refused. */
  resolve(method: SqueakObject): Primitive | null {
    const literal = method.pointers[1];
    const names = typeof literal === "number" ? null : literal.pointers;
    if (!names || names.length < 2) return null;
    const [moduleName, functionName] = names.map((each) => (typeof each !== "number" && each.bytes ? each.bytesAsString() : ""));
    const refused = this.vm.failPrimitives;
    if (refused.has(moduleName) || refused.has(`${moduleName}.${functionName}`)) return null;
    if (moduleName === "") {
      const own = ownFunction(functionName);
      if (own === null) this.reportMissing(functionName, method);
      return own;
    }
    const module = this.load(moduleName);
    const found = module === null ? undefined : (module as unknown as Record<string, ModuleFunction | undefined>)[functionName];
    if (module === null || typeof found !== "function") {
      this.reportMissing(`${moduleName}.${functionName}`, method);
      return null;
    }
    return this.guarded(`${moduleName}.${functionName}`, module, found, method);
  }

  private reportMissing(name: string, method: SqueakObject): void {
    this.vm.reportOnce(name, `missing primitive: ${name} in #${this.vm.selectorOf(method)}`);
  }

  private load(name: string): ExternalModule | null {
    const module = this.registered.get(name);
    if (module === undefined) return null;
    if (!this.loaded.has(module)) {
      if (module.setInterpreter?.(this.proxy) === false || module.initialiseModule?.() === false) return null;
      this.loaded.add(module);
    }
    return module;
  }

  /** A function of a module as a primitive: an exception fails it, and the stack is put right afterwards. */
  private guarded(name: string, module: ExternalModule, run: ModuleFunction, method: SqueakObject): Primitive {
    const proxy = this.proxy;
    return (vm, argCount) => {
      const context = vm.activeContext;
      const sp = vm.sp;
      proxy.begin(argCount, method);
      let succeeded: boolean;
      try {
        succeeded = run.call(module, argCount) ?? !proxy.failed();
      } catch (error) {
        vm.reportOnce(`exception in ${name}`, `${name} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
        succeeded = false;
      }
      if (vm.activeContext !== context) return succeeded;
      if (!succeeded) {
        vm.sp = sp;
        return false;
      }
      if (vm.sp !== sp - argCount) {
        vm.reportOnce(`stack ${name}`, `${name} left the stack at ${vm.sp - sp + argCount} instead of 0; it must pop its ${argCount} arguments`);
        vm.sp = sp - argCount;
      }
      return true;
    };
  }
}
