/** Evaluation of blocks: of BlockClosures (201-206, 221, 222), of FullBlockClosures (207-209), of the older BlockContexts (80-82). */
import type { Interpreter } from "../interpreter.ts";
import { format, type Oop, type SqueakObject } from "../object.ts";
import type { PrimitiveRow } from "../primitive_table.ts";
import { blockContextSlots, specialObjects } from "../special_objects.ts";

function isBlock(oop: Oop): oop is SqueakObject {
  return typeof oop === "object" && oop.format === format.fixedIndexable;
}

function value(vm: Interpreter, argCount: number): boolean {
  const closure = vm.stackValue(argCount);
  return isBlock(closure) && vm.activateClosure(closure, argCount);
}

function fullValue(vm: Interpreter, argCount: number): boolean {
  const closure = vm.stackValue(argCount);
  return isBlock(closure) && vm.activateFullClosure(closure, argCount);
}

/**
 * The same with no other process let in on the way. ensure: relies on it: a process that is stopped between the entry of
 * `[ semaphore wait. … ] ensure: [ semaphore signal ]` and its wait would signal for a wait that never was.
 */
function valueWithoutSwitch(vm: Interpreter, argCount: number): boolean {
  const closure = vm.stackValue(argCount);
  return isBlock(closure) && vm.activateClosure(closure, argCount, false);
}

function fullValueWithoutSwitch(vm: Interpreter, argCount: number): boolean {
  const closure = vm.stackValue(argCount);
  return isBlock(closure) && vm.activateFullClosure(closure, argCount, false);
}

/** The block's arguments are the elements of an Array. */
function spread(vm: Interpreter, evaluate: (vm: Interpreter, argCount: number) => boolean, numArgs: number): boolean {
  const block = vm.stackValue(1);
  const args = vm.stackValue(0);
  if (!isBlock(block) || typeof args === "number" || args.format !== format.indexable) return false;
  if (block.pointers[numArgs] !== args.pointers.length) return false;
  vm.sp--;
  for (const each of args.pointers) vm.push(each);
  if (evaluate(vm, args.pointers.length)) return true;
  vm.sp -= args.pointers.length;
  vm.push(args);
  return false;
}

function blockContextValue(vm: Interpreter, argCount: number): boolean {
  const block = vm.stackValue(argCount);
  if (typeof block === "number" || block.sqClass !== vm.memory.special(specialObjects.classBlockContext)) return false;
  return vm.activateBlockContext(block, argCount);
}

export const blockPrimitives: readonly PrimitiveRow[] = [
  [80, "primitiveBlockCopy", (vm) => vm.blockCopy()],
  [81, "primitiveBlockContextValue", blockContextValue],
  [82, "primitiveBlockContextValueWithArgs", (vm) => spread(vm, blockContextValue, blockContextSlots.argumentCount)],
  [200, "primitiveClosureCopyWithCopiedValues", null],
  [201, "primitiveClosureValue", value],
  [202, "primitiveClosureValue1", value],
  [203, "primitiveClosureValue2", value],
  [204, "primitiveClosureValue3", value],
  [205, "primitiveClosureValue4", value],
  [206, "primitiveClosureValueWithArgs", (vm) => spread(vm, value, 2)],
  [207, "primitiveFullClosureValue", fullValue],
  [208, "primitiveFullClosureValueWithArgs", (vm) => spread(vm, fullValue, 2)],
  [209, "primitiveFullClosureValueNoContextSwitch", fullValueWithoutSwitch],
  [221, "primitiveClosureValueNoContextSwitch", valueWithoutSwitch],
  [222, "primitiveClosureValue1NoContextSwitch", valueWithoutSwitch],
];
