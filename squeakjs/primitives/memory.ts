/** Primitives over all objects: enumeration, become:, collection, sizes. They trace from the roots (heap_walk.ts). */
import { collectWeakSlots, forwardReferences, mayBecome, reachableObjects, swapContents } from "../heap_walk.ts";
import { instanceFormat, namedSlotCount } from "../header.ts";
import type { Interpreter } from "../interpreter.ts";
import { format, isClassShaped, type Oop, type SqueakObject } from "../object.ts";
import type { PrimitiveRow } from "../primitive_table.ts";

// JavaScript does not tell how much memory is left; images only compare this with a small threshold.
const bytesLeft = 500_000_000;

/** The trace that someObject or someInstance began and nextObject or nextInstance goes on with. */
const enumerations = new WeakMap<Interpreter, { objects: SqueakObject[]; position: number }>();

function startEnumeration(vm: Interpreter, accepts: (object: SqueakObject) => boolean): SqueakObject | null {
  const objects = reachableObjects(vm);
  const position = objects.findIndex(accepts);
  enumerations.set(vm, { objects, position });
  return position < 0 ? null : objects[position];
}

function continueEnumeration(vm: Interpreter, after: SqueakObject, accepts: (object: SqueakObject) => boolean): SqueakObject | null {
  let state = enumerations.get(vm);
  if (state === undefined || state.objects[state.position] !== after) {
    const objects = reachableObjects(vm);
    state = { objects, position: objects.indexOf(after) };
    enumerations.set(vm, state);
    if (state.position < 0) return null;
  }
  for (let i = state.position + 1; i < state.objects.length; i++) {
    if (accepts(state.objects[i])) {
      state.position = i;
      return state.objects[i];
    }
  }
  enumerations.delete(vm);
  return null;
}

function someInstance(vm: Interpreter): boolean {
  const aClass = vm.stackValue(0);
  const found = startEnumeration(vm, (each) => each.sqClass === aClass);
  return found === null ? false : vm.answer(0, found);
}

function nextInstance(vm: Interpreter): boolean {
  const object = vm.stackValue(0);
  if (typeof object === "number") return false;
  const found = continueEnumeration(vm, object, (each) => each.sqClass === object.sqClass);
  return found === null ? false : vm.answer(0, found);
}

function someObject(vm: Interpreter): boolean {
  const found = startEnumeration(vm, () => true);
  return found === null ? false : vm.answer(0, found);
}

/** Answers the SmallInteger 0 after the last object. */
function nextObject(vm: Interpreter): boolean {
  const object = vm.stackValue(0);
  if (typeof object === "number") return false;
  return vm.answer(0, continueEnumeration(vm, object, () => true) ?? 0);
}

function allInstances(vm: Interpreter): boolean {
  const aClass = vm.stackValue(0);
  const instances = reachableObjects(vm).filter((each) => each.sqClass === aClass);
  return vm.answer(0, vm.memory.array(instances));
}

/** The pairs of two Arrays of the same size; null when an element may not take part. */
function pairs(vm: Interpreter, from: Oop, to: Oop, bothWays: boolean): [SqueakObject, Oop][] | null {
  if (typeof from === "number" || typeof to === "number") return null;
  if (from.format !== format.indexable || to.format !== format.indexable) return null;
  if (from.pointers.length !== to.pointers.length) return null;
  const found: [SqueakObject, Oop][] = [];
  for (let i = 0; i < from.pointers.length; i++) {
    const a = from.pointers[i];
    const b = to.pointers[i];
    if (!mayBecome(vm, a) || (bothWays && !mayBecome(vm, b))) return null;
    found.push([a, b]);
  }
  return found;
}

/** elementsExchangeIdentityWith: swaps in both directions. */
function becomeBothWays(vm: Interpreter): boolean {
  const exchanged = pairs(vm, vm.stackValue(1), vm.stackValue(0), true);
  if (exchanged === null) return false;
  vm.exposeContext();
  for (const [a, b] of exchanged) swapContents(vm, a, b as SqueakObject);
  vm.objectsChanged();
  // the receiver stays on the stack as the answer
  return popped(vm, 1);
}

function becomeOneWay(copyHash: boolean | null): (vm: Interpreter, argCount: number) => boolean {
  return (vm, argCount) => {
    const from = vm.stackValue(argCount);
    const forward = pairs(vm, from, vm.stackValue(argCount - 1), false);
    if (forward === null) return false;
    const copies = copyHash ?? (argCount === 2 && vm.stackValue(0) === vm.true);
    forwardReferences(vm, new Map(forward), copies);
    return popped(vm, argCount);
  };
}

function popped(vm: Interpreter, argCount: number): true {
  vm.sp -= argCount;
  return true;
}

function fullCollection(vm: Interpreter, argCount: number): boolean {
  vm.scheduler.noteFinalizations(collectWeakSlots(vm));
  enumerations.delete(vm);
  return vm.answer(argCount, bytesLeft);
}

/** Bytes that an object takes in an image file. */
function bytesOf(object: SqueakObject): number {
  if (object.format === format.immediate) return 0;
  let body = object.pointersSize() * 4 + object.wordsSize() * 4 + object.bytesSize();
  if (object.float !== undefined) body = 8;
  const header = body >= 255 * 4 ? 16 : 8;
  return header + Math.max(8, Math.ceil(body / 8) * 8);
}

function sizeInBytes(vm: Interpreter): boolean {
  const object = vm.stackValue(0);
  return typeof object === "number" ? false : vm.answer(0, bytesOf(object));
}

function sizeInBytesOfInstance(vm: Interpreter, argCount: number): boolean {
  const aClass = vm.stackValue(argCount);
  const count = argCount === 0 ? 0 : vm.stackValue(0);
  if (!isClassShaped(aClass) || typeof count !== "number" || count < 0) return false;
  const kind = instanceFormat(aClass, vm.memory.spur);
  const width = kind >= format.bytes ? 1 : kind >= format.shorts ? 2 : kind === format.longs ? 8 : 4;
  const body = namedSlotCount(aClass, vm.memory.spur) * 4 + count * width;
  return vm.answer(argCount, (body >= 255 * 4 ? 16 : 8) + Math.max(8, Math.ceil(body / 8) * 8));
}

export const memoryPrimitives: readonly PrimitiveRow[] = [
  [72, "primitiveArrayBecomeOneWay", becomeOneWay(true)],
  [77, "primitiveSomeInstance", someInstance],
  [78, "primitiveNextInstance", nextInstance],
  [112, "primitiveBytesLeft", (vm, argCount) => vm.answer(argCount, bytesLeft)],
  [128, "primitiveArrayBecome", becomeBothWays],
  [129, "primitiveSpecialObjectsOop", (vm) => vm.answer(0, vm.memory.specialObjectsArray)],
  [130, "primitiveFullGC", fullCollection],
  [131, "primitiveIncrementalGC", fullCollection],
  [138, "primitiveSomeObject", someObject],
  [139, "primitiveNextObject", nextObject],
  [172, "primitiveFetchNextMourner", null],
  [177, "primitiveAllInstances", allInstances],
  [178, "primitiveAllObjects", null],
  [181, "primitiveSizeInBytesOfInstance", sizeInBytesOfInstance],
  [182, "primitiveSizeInBytes", sizeInBytes],
  [183, "primitiveIsPinned", (vm) => vm.answer(0, vm.false)],
  [184, "primitivePin", (vm) => vm.answer(1, vm.false)],
  [248, "primitiveArrayBecomeOneWayNoCopyHash", becomeOneWay(false)],
  [249, "primitiveArrayBecomeOneWayCopyHash", becomeOneWay(null)],
];
