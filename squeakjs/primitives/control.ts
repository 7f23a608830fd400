/** Sends in disguise (perform:, withArgs:executeMethod:, tryPrimitive:), contexts as objects, and the marks of exception handling. */
import { argumentCount } from "../header.ts";
import type { Interpreter } from "../interpreter.ts";
import { format, isMethod, type Oop, type SqueakObject } from "../object.ts";
import type { PrimitiveRow } from "../primitive_table.ts";
import { classSlots, contextSlots } from "../special_objects.ts";

function isSelector(oop: Oop): oop is SqueakObject {
  return typeof oop !== "number";
}

/** Sends a selector to what is on the stack below its arguments; false when the method found takes another number of them. */
function accepts(vm: Interpreter, selector: SqueakObject, lookupClass: SqueakObject, argCount: number): boolean {
  const entry = vm.lookup(selector, lookupClass);
  return entry === null || entry.argumentCount < 0 || entry.argumentCount === argCount;
}

function perform(vm: Interpreter, argCount: number): boolean {
  const frame = vm.frame;
  const at = vm.sp - argCount;
  const selector = frame[at + 1];
  if (argCount < 1 || !isSelector(selector)) return false;
  if (!accepts(vm, selector, vm.memory.classOf(frame[at]), argCount - 1)) return false;
  frame.copyWithin(at + 1, at + 2, vm.sp + 1);
  vm.sp--;
  vm.send(selector, argCount - 1);
  return true;
}

function performWithArguments(vm: Interpreter, selector: Oop, args: Oop, lookupClass: SqueakObject, argCount: number): boolean {
  if (!isSelector(selector) || typeof args === "number" || args.format !== format.indexable) return false;
  if (!accepts(vm, selector, lookupClass, args.pointers.length)) return false;
  vm.sp -= argCount;
  for (const each of args.pointers) vm.push(each);
  vm.sendTo(selector, args.pointers.length, lookupClass);
  return true;
}

/** perform: selector withArguments: anArray. With four arguments it is the mirror's form: object perform:in: stays with Smalltalk. */
function performWith(vm: Interpreter, argCount: number): boolean {
  if (argCount !== 2) return false;
  const lookupClass = vm.memory.classOf(vm.stackValue(2));
  return performWithArguments(vm, vm.stackValue(1), vm.stackValue(0), lookupClass, 2);
}

function performInSuperclass(vm: Interpreter, argCount: number): boolean {
  if (argCount !== 3) return false;
  const lookupClass = vm.stackValue(0);
  if (typeof lookupClass === "number") return false;
  let each: Oop = vm.memory.classOf(vm.stackValue(3));
  while (each !== lookupClass) {
    if (each === vm.nil) return false;
    each = (each as SqueakObject).pointers[classSlots.superclass];
  }
  return performWithArguments(vm, vm.stackValue(2), vm.stackValue(1), lookupClass, 3);
}

/** receiver withArgs: anArray executeMethod: aMethod; with three arguments the receiver is the first of them. */
function executeMethod(vm: Interpreter, argCount: number): boolean {
  if (argCount !== 2 && argCount !== 3) return false;
  const method = vm.stackValue(0);
  const args = vm.stackValue(1);
  const receiver = vm.stackValue(2);
  if (!isMethod(method) || typeof args === "number" || args.format !== format.indexable) return false;
  if (argumentCount(method) !== args.pointers.length) return false;
  vm.sp -= argCount;
  vm.frame[vm.sp] = receiver;
  for (const each of args.pointers) vm.push(each);
  vm.executeMethod(method, args.pointers.length);
  return true;
}

/** Runs a primitive by number on the receiver and an Array of arguments, as a debugger does; fails where it fails. */
function tryPrimitive(vm: Interpreter): boolean {
  const args = vm.stackValue(0);
  const number = vm.stackValue(1);
  if (typeof number !== "number" || typeof args === "number" || args.format !== format.indexable) return false;
  const run = number >= 256 && number < 520 ? null : vm.numberedPrimitive(number, null);
  return run !== null && runOn(vm, run, 2, vm.stackValue(2), args.pointers);
}

/** tryNamedPrimitiveIn: aMethod for: receiver withArgs: anArray. */
function tryNamedPrimitive(vm: Interpreter, argCount: number): boolean {
  if (argCount !== 3) return false;
  const args = vm.stackValue(0);
  const method = vm.stackValue(2);
  if (!isMethod(method) || typeof args === "number" || args.format !== format.indexable) return false;
  const run = vm.namedPrimitive(method);
  return run !== null && runOn(vm, run, 3, vm.stackValue(1), args.pointers);
}

function runOn(vm: Interpreter, run: (vm: Interpreter, argCount: number) => boolean, argCount: number, receiver: Oop, args: Oop[]): boolean {
  const context = vm.activeContext;
  const sp = vm.sp;
  const saved = vm.frame.slice(sp - argCount, sp + 1);
  vm.sp -= argCount;
  vm.frame[vm.sp] = receiver;
  for (const each of args) vm.push(each);
  if (run(vm, args.length)) return true;
  if (vm.activeContext === context) {
    vm.sp = sp;
    saved.forEach((each, i) => {
      vm.frame[sp - argCount + i] = each;
    });
  }
  return false;
}

// Contexts as objects

function isContext(oop: Oop): oop is SqueakObject {
  return typeof oop === "object" && oop.format === format.fixedIndexable && typeof oop.pointers[contextSlots.stackp] === "number";
}

function contextAt(vm: Interpreter): boolean {
  const context = vm.stackValue(1);
  const index = vm.stackValue(0);
  if (!isContext(context) || typeof index !== "number") return false;
  if (context === vm.activeContext) vm.storeContext();
  if (index < 1 || index > (context.pointers[contextSlots.stackp] as number)) return false;
  return vm.answer(1, context.pointers[contextSlots.firstTemp + index - 1]);
}

function contextAtPut(vm: Interpreter): boolean {
  const context = vm.stackValue(2);
  const index = vm.stackValue(1);
  if (!isContext(context) || typeof index !== "number" || context === vm.activeContext) return false;
  if (index < 1 || index > (context.pointers[contextSlots.stackp] as number)) return false;
  context.pointers[contextSlots.firstTemp + index - 1] = vm.stackValue(0);
  return vm.answer(2, vm.stackValue(0));
}

function contextSize(vm: Interpreter): boolean {
  const context = vm.stackValue(0);
  if (!isContext(context)) return false;
  if (context === vm.activeContext) vm.exposeContext();
  return vm.answer(0, context.pointers[contextSlots.stackp]);
}

/** Changes a context's stack pointer; new slots become nil. */
function storeStackp(vm: Interpreter): boolean {
  const context = vm.stackValue(1);
  const stackp = vm.stackValue(0);
  if (!isContext(context) || typeof stackp !== "number" || context === vm.activeContext) return false;
  if (stackp < 0 || stackp > context.pointers.length - contextSlots.firstTemp) return false;
  const old = context.pointers[contextSlots.stackp] as number;
  for (let i = old; i < stackp; i++) context.pointers[contextSlots.firstTemp + i] = vm.nil;
  context.pointers[contextSlots.stackp] = stackp;
  return vm.answer(1, context);
}

// The method cache

function flushAll(vm: Interpreter): boolean {
  vm.cache.flush();
  return true;
}

/** The receiver is the method that changed; it stays on the stack as the answer. */
function flushMethod(vm: Interpreter): boolean {
  const method = vm.stackValue(0);
  if (typeof method !== "number") vm.cache.flushMethod(method);
  return true;
}

function flushSelector(vm: Interpreter): boolean {
  const selector = vm.stackValue(0);
  if (typeof selector !== "number") vm.cache.flushSelector(selector);
  return true;
}

export const controlPrimitives: readonly PrimitiveRow[] = [
  [19, "primitiveFail", null],
  [76, "primitiveStoreStackp", storeStackp],
  [83, "primitivePerform", perform],
  [84, "primitivePerformWithArgs", performWith],
  [89, "primitiveFlushCache", flushAll],
  [100, "primitivePerformInSuperclass", performInSuperclass],
  [116, "primitiveFlushCacheByMethod", flushMethod],
  [117, "primitiveExternalCall", null], // resolved by name, see modules.ts
  [118, "primitiveDoPrimitiveWithArgs", tryPrimitive],
  [119, "primitiveFlushCacheBySelector", flushSelector],
  [188, "primitiveExecuteMethodArgsArray", executeMethod],
  [189, "primitiveExecuteMethod", null],
  [195, "primitiveFindNextUnwindContext", null],
  [196, "primitiveTerminateTo", null],
  [197, "primitiveFindHandlerContext", null],
  [198, "primitiveMarkUnwindMethod", null], // the mark of ensure: and ifCurtailed:
  [199, "primitiveMarkHandlerMethod", null], // the mark of on:do:
  [210, "primitiveContextAt", contextAt],
  [211, "primitiveContextAtPut", contextAtPut],
  [212, "primitiveContextSize", contextSize],
  [218, "primitiveDoNamedPrimitiveWithArgs", tryNamedPrimitive],
];
