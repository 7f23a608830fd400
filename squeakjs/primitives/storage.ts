/**
 * Reading, writing, making and copying single objects: at:, instVarAt:, basicNew, shallowCopy, replaceFrom:to:with:startingAt:
 * and their like. Weak slots are read and written through object.ts; the slots of a running context are brought up to date first.
 */
import { namedSlotCount, instanceFormat, literalCountOf } from "../header.ts";
import { fromBigInt, toBigInt } from "../integers.ts";
import type { Interpreter } from "../interpreter.ts";
import { format, indexedPointer, isClassShaped, isMethod, type Oop, SqueakObject } from "../object.ts";
import type { PrimitiveRow } from "../primitive_table.ts";
import { contextSlots, specialObjects } from "../special_objects.ts";

const errorNoMemory = 9; // index of "insufficient object memory" in the primitive error table

/** Number of named slots before the indexable ones; for objects without pointers 0. */
function firstIndexed(vm: Interpreter, object: SqueakObject): number {
  return object.format === format.indexable ? 0 : vm.memory.namedSlots(object);
}

function isContext(vm: Interpreter, object: SqueakObject): boolean {
  const sqClass = object.sqClass;
  const specials = vm.memory.specials;
  return sqClass === specials[specialObjects.classContext] || sqClass === specials[specialObjects.classBlockContext];
}

/** Before a context is looked at as an object, what is in registers is stored. */
function settle(vm: Interpreter, object: SqueakObject): void {
  if (object === vm.activeContext) vm.exposeContext();
}

/** Number of indexable elements; -1 when there are none by nature. */
function indexableSize(vm: Interpreter, object: SqueakObject): number {
  const kind = object.format;
  if (kind >= format.indexable && kind <= format.weak) {
    if (isContext(vm, object)) {
      settle(vm, object);
      return object.pointers[contextSlots.stackp] as number;
    }
    return object.pointers.length - firstIndexed(vm, object);
  }
  if (object.float !== undefined) return 2;
  if (kind >= format.method) return object.pointers.length * 4 + object.bytes.length;
  if (kind >= format.bytes) return object.bytes.length;
  if (kind >= format.shorts) return object.bytes.length >> 1;
  if (kind === format.words) return object.words.length;
  if (kind === format.longs) return object.words.length >> 1;
  return -1;
}

function elementAt(vm: Interpreter, object: SqueakObject, index: number): Oop | null {
  if (index < 1 || index > indexableSize(vm, object)) return null;
  const kind = object.format;
  if (kind <= format.ephemeron) return indexedPointer(object, firstIndexed(vm, object) + index - 1, vm.nil);
  if (object.float !== undefined) return null;
  if (kind >= format.method) {
    const offset = object.pointers.length * 4;
    return index > offset ? object.bytes[index - 1 - offset] : null;
  }
  if (kind >= format.bytes) return object.bytes[index - 1];
  if (kind >= format.shorts) return object.bytes[2 * index - 2] + object.bytes[2 * index - 1] * 256;
  if (kind === format.words) return vm.memory.integer(object.words[index - 1]);
  return fromBigInt(vm.memory, BigInt(object.words[2 * index - 2]) + (BigInt(object.words[2 * index - 1]) << 32n));
}

function storeElement(vm: Interpreter, object: SqueakObject, index: number, value: Oop): boolean {
  if (index < 1 || index > indexableSize(vm, object)) return false;
  const kind = object.format;
  if (kind <= format.ephemeron) {
    vm.memory.store(object, firstIndexed(vm, object) + index - 1, value);
    return true;
  }
  if (object.float !== undefined) return false;
  if (kind >= format.shorts) {
    if (typeof value !== "number" || value < 0) return false;
    if (kind < format.bytes) {
      if (value > 0xffff) return false;
      object.bytes[2 * index - 2] = value & 255;
      object.bytes[2 * index - 1] = value >> 8;
      return true;
    }
    const offset = kind >= format.method ? object.pointers.length * 4 : 0;
    if (value > 255 || index <= offset) return false;
    object.bytes[index - 1 - offset] = value;
    return true;
  }
  if (kind === format.words) {
    const word = vm.memory.safeIntegerValue(value);
    if (!(word >= 0 && word <= 0xffffffff)) return false;
    object.words[index - 1] = word;
    return true;
  }
  const long = toBigInt(vm.memory, value);
  if (long === null || long < 0n || long >= 1n << 64n) return false;
  object.words[2 * index - 2] = Number(long & 0xffffffffn);
  object.words[2 * index - 1] = Number(long >> 32n);
  return true;
}

/** A receiver below which an index is on the stack, with the index; undefined when they are of another kind. */
function indexed(vm: Interpreter, depth: number): { object: SqueakObject; index: number } | undefined {
  const object = vm.stackValue(depth + 1);
  const index = vm.stackValue(depth);
  return typeof object === "number" || typeof index !== "number" ? undefined : { object, index };
}

function at(vm: Interpreter, argCount: number): boolean {
  if (argCount !== 1) return false;
  const frame = vm.frame;
  const index = frame[vm.sp];
  const object = frame[vm.sp - 1];
  if (typeof index !== "number" || typeof object === "number") return false;
  if (object.format === format.indexable) {
    if (index < 1 || index > object.pointers.length) return false;
    frame[--vm.sp] = object.pointers[index - 1];
    return true;
  }
  if (object.format === format.bytes) {
    if (index < 1 || index > object.bytes.length) return false;
    frame[--vm.sp] = object.bytes[index - 1];
    return true;
  }
  const value = elementAt(vm, object, index);
  return value === null ? false : vm.answer(1, value);
}

function atPut(vm: Interpreter, argCount: number): boolean {
  if (argCount !== 2) return false;
  const place = indexed(vm, 1);
  if (place === undefined) return false;
  const value = vm.stackValue(0);
  if (place.object.format === format.indexable) {
    if (place.index < 1 || place.index > place.object.pointers.length) return false;
    place.object.pointers[place.index - 1] = value;
    return vm.answer(2, value);
  }
  return storeElement(vm, place.object, place.index, value) && vm.answer(2, value);
}

function size(vm: Interpreter): boolean {
  const object = vm.stackValue(0);
  if (typeof object === "number") return false;
  const count = indexableSize(vm, object);
  return count < 0 ? false : vm.answer(0, count);
}

function stringAt(vm: Interpreter): boolean {
  const place = indexed(vm, 0);
  if (place === undefined) return false;
  const code = elementAt(vm, place.object, place.index);
  if (typeof code !== "number" || place.object.format < format.words || code < 0 || code > 0x10ffff) return false;
  return vm.answer(1, vm.memory.character(code));
}

function stringAtPut(vm: Interpreter): boolean {
  const place = indexed(vm, 1);
  const code = vm.memory.codePoint(vm.stackValue(0));
  if (place === undefined || code < 0 || place.object.format < format.words) return false;
  return storeElement(vm, place.object, place.index, code) && vm.answer(2, vm.stackValue(0));
}

/** A method's header and literals, one-based. */
function objectAt(vm: Interpreter): boolean {
  const place = indexed(vm, 0);
  if (place === undefined || !isMethod(place.object)) return false;
  if (place.index < 1 || place.index > place.object.pointers.length) return false;
  return vm.answer(1, place.object.pointers[place.index - 1]);
}

function objectAtPut(vm: Interpreter): boolean {
  const place = indexed(vm, 1);
  if (place === undefined || !isMethod(place.object)) return false;
  if (place.index < 1 || place.index > place.object.pointers.length) return false;
  if (place.index === 1 && typeof vm.stackValue(0) !== "number") return false;
  place.object.pointers[place.index - 1] = vm.stackValue(0);
  // what is cached of a method comes from its header and, for a named primitive, from its first literal
  if (place.index <= 2) vm.cache.flushMethod(place.object);
  return vm.answer(2, vm.stackValue(0));
}

function basicNew(vm: Interpreter, argCount: number): boolean {
  const aClass = vm.stackValue(argCount);
  if (typeof aClass === "number") return false;
  const instance = vm.memory.instantiate(aClass, 0);
  return instance === null ? false : vm.answer(argCount, instance);
}

function basicNewSized(vm: Interpreter): boolean {
  const aClass = vm.stackValue(1);
  const count = vm.stackValue(0);
  if (!isClassShaped(aClass) || typeof count !== "number" || count < 0) return false;
  if (instanceFormat(aClass, vm.memory.spur) <= format.fixed && count > 0) return false;
  const instance = vm.memory.instantiate(aClass, count);
  if (instance !== null) return vm.answer(1, instance);
  vm.primitiveErrorCode = errorNoMemory;
  return false;
}

/** Slot `index` of an object as instVarAt: counts: the named ones, then the indexable. */
function slotAt(vm: Interpreter, object: SqueakObject, index: number): Oop | null {
  if (object.format <= format.ephemeron) {
    settle(vm, object);
    if (index < 1 || index > object.pointers.length) return null;
    return indexedPointer(object, index - 1, vm.nil);
  }
  return elementAt(vm, object, index);
}

function storeSlot(vm: Interpreter, object: SqueakObject, index: number, value: Oop): boolean {
  if (object.format > format.ephemeron) return storeElement(vm, object, index, value);
  if (index < 1 || index > object.pointers.length) return false;
  if (isContext(vm, object)) {
    // the running context's own pc and stack would move under this very primitive
    if (object === vm.activeContext) return false;
    vm.recyclable = 0;
  }
  vm.memory.store(object, index - 1, value);
  return true;
}

function instVarAt(vm: Interpreter, argCount: number): boolean {
  const place = indexed(vm, 0);
  if (place === undefined) return false;
  const value = slotAt(vm, place.object, place.index);
  return value === null ? false : vm.answer(argCount, value);
}

function instVarAtPut(vm: Interpreter, argCount: number): boolean {
  const place = indexed(vm, 1);
  if (place === undefined) return false;
  const value = vm.stackValue(0);
  return storeSlot(vm, place.object, place.index, value) && vm.answer(argCount, value);
}

function newMethod(vm: Interpreter): boolean {
  const header = vm.stackValue(0);
  const byteCount = vm.stackValue(1);
  const aClass = vm.stackValue(2);
  if (typeof header !== "number" || typeof byteCount !== "number" || byteCount < 0 || !isClassShaped(aClass)) return false;
  const method = new SqueakObject(aClass, format.method, 0);
  method.pointers = vm.memory.nilSlots(literalCountOf(header, vm.memory.spur) + 1);
  method.pointers[0] = header;
  method.bytes = new Uint8Array(byteCount);
  return vm.answer(2, method);
}

function shallowCopy(vm: Interpreter, argCount: number): boolean {
  const object = vm.stackValue(argCount);
  if (typeof object === "number" || object.format === format.immediate) return vm.answer(argCount, object);
  settle(vm, object);
  const copy = vm.memory.shallowCopy(object);
  return vm.answer(argCount, copy);
}

/** Copies all slots or elements from another object of the same class and size. */
function copyFrom(vm: Interpreter): boolean {
  const target = vm.stackValue(1);
  const source = vm.stackValue(0);
  if (typeof target === "number" || typeof source === "number") return false;
  if (target.sqClass !== source.sqClass || target.format !== source.format || target === vm.activeContext) return false;
  if (target.pointersSize() !== source.pointersSize()) return false;
  if (target.bytesSize() !== source.bytesSize() || target.wordsSize() !== source.wordsSize()) return false;
  settle(vm, source);
  if (source.pointers !== null) for (let i = 0; i < source.pointers.length; i++) target.pointers[i] = source.pointers[i];
  if (source.bytes !== null) target.bytes.set(source.bytes);
  if (source.words !== null) target.words.set(source.words);
  if (source.float !== undefined) target.float = source.float;
  return vm.answer(1, target);
}

/** replaceFrom: start to: stop with: source startingAt: sourceStart; also within one object, where the parts overlap. */
function replace(vm: Interpreter, argCount: number): boolean {
  if (argCount !== 4) return false;
  const [target, start, stop, source, sourceStart] = [4, 3, 2, 1, 0].map((depth) => vm.stackValue(depth));
  if (typeof target === "number" || typeof source === "number") return false;
  if (typeof start !== "number" || typeof stop !== "number" || typeof sourceStart !== "number") return false;
  const count = stop - start + 1;
  if (count <= 0) return start >= 1 ? vm.answer(4, target) : false;
  if (start < 1 || sourceStart < 1) return false;
  if (stop > indexableSize(vm, target) || sourceStart + count - 1 > indexableSize(vm, source)) return false;
  if (target.float !== undefined || source.float !== undefined || isMethod(target) || isMethod(source)) return false;
  if (target.format <= format.ephemeron) {
    if (source.format > format.ephemeron || isContext(vm, target)) return false;
    const to = firstIndexed(vm, target) + start - 1;
    const from = firstIndexed(vm, source) + sourceStart - 1;
    if (target.format === format.weak || source.format === format.weak) {
      const values = Array.from({ length: count }, (_, i) => indexedPointer(source, from + i, vm.nil));
      values.forEach((value, i) => vm.memory.store(target, to + i, value));
    } else if (source === target) {
      target.pointers.copyWithin(to, from, from + count);
    } else {
      for (let i = 0; i < count; i++) target.pointers[to + i] = source.pointers[from + i];
    }
    return vm.answer(4, target);
  }
  if (target.format !== source.format) return false;
  const width = target.format === format.longs || target.format === format.shorts ? 2 : 1;
  const from = (sourceStart - 1) * width;
  const to = (start - 1) * width;
  if (target.words !== null) target.words.set(source.words.subarray(from, from + count * width), to);
  else target.bytes.set(source.bytes.subarray(from, from + count * width), to);
  return vm.answer(4, target);
}

/** Signed 16-bit elements of a byte or word object (two to a word, the low half first). */
function shortAt(vm: Interpreter): boolean {
  const place = indexed(vm, 0);
  const view = place && viewOf(place.object);
  if (!view || place.index < 1 || place.index * 2 > view.byteLength) return false;
  return vm.answer(1, view.getInt16(place.index * 2 - 2, true));
}

function shortAtPut(vm: Interpreter): boolean {
  const place = indexed(vm, 1);
  const view = place && viewOf(place.object);
  const value = vm.stackValue(0);
  if (!view || place.index < 1 || place.index * 2 > view.byteLength) return false;
  if (typeof value !== "number" || value < -32768 || value > 32767) return false;
  view.setInt16(place.index * 2 - 2, value, true);
  return vm.answer(2, value);
}

function integerAt(vm: Interpreter): boolean {
  const place = indexed(vm, 0);
  if (place === undefined || place.object.words === null || place.index < 1 || place.index > place.object.words.length) return false;
  return vm.answer(1, vm.memory.integer(place.object.words[place.index - 1] | 0));
}

function integerAtPut(vm: Interpreter): boolean {
  const place = indexed(vm, 1);
  if (place === undefined || place.object.words === null || place.index < 1 || place.index > place.object.words.length) return false;
  const value = vm.memory.safeIntegerValue(vm.stackValue(0));
  if (!(value >= -0x80000000 && value <= 0x7fffffff)) return false;
  place.object.words[place.index - 1] = value;
  return vm.answer(2, vm.stackValue(0));
}

function viewOf(object: SqueakObject): DataView | undefined {
  const body = object.words ?? (isMethod(object) ? null : object.bytes);
  return body === null ? undefined : new DataView(body.buffer, body.byteOffset, body.byteLength);
}

/** Fills every element with one byte or word. */
function fill(vm: Interpreter): boolean {
  const object = vm.stackValue(1);
  const value = vm.memory.safeIntegerValue(vm.stackValue(0));
  if (typeof object === "number" || isMethod(object) || !(value >= 0)) return false;
  if (object.words !== null && object.format === format.words && value <= 0xffffffff) object.words.fill(value);
  else if (object.bytes !== null && object.format === format.bytes && value <= 255) object.bytes.fill(value);
  else return false;
  return vm.answer(1, object);
}

function asCharacter(vm: Interpreter, argCount: number): boolean {
  const code = vm.stackValue(0);
  if (typeof code !== "number" || code < 0 || code > 0x3fffffff) return false;
  if (!vm.memory.spur && code > 255) return false;
  return vm.answer(argCount, vm.memory.character(code));
}

function characterValue(vm: Interpreter): boolean {
  const code = vm.memory.codePoint(vm.stackValue(0));
  return code < 0 ? false : vm.answer(0, code);
}

function identityHash(vm: Interpreter): boolean {
  const object = vm.stackValue(0);
  if (typeof object === "number") return false;
  return vm.answer(0, vm.memory.identityHash(object));
}

/** The identity hash of a class: its index in the class table, assigned on the first request. */
function classHash(vm: Interpreter): boolean {
  const object = vm.stackValue(0);
  if (!isClassShaped(object)) return false;
  return vm.answer(0, vm.memory.spur ? vm.memory.classIndex(object) : vm.memory.identityHash(object));
}

function setIdentityHash(vm: Interpreter, argCount: number): boolean {
  const object = vm.stackValue(argCount);
  const hash = vm.stackValue(argCount - 1);
  if (typeof object === "number" || typeof hash !== "number" || object.format === format.immediate || vm.memory.isIndexedClass(object)) return false;
  const old = vm.memory.identityHash(object);
  object.hash = hash & 0x3fffff;
  vm.cache.flush();
  return vm.answer(argCount, old);
}

/** Changes an object's class to another of the same kind and shape. */
function becomeInstanceOf(vm: Interpreter, object: Oop, aClass: Oop): boolean {
  if (typeof object === "number" || !isClassShaped(aClass) || object.format === format.immediate) return false;
  const kind = instanceFormat(aClass, vm.memory.spur);
  const wanted = kind >= format.method ? format.method : kind;
  const isPointers = object.format <= format.ephemeron;
  if (isPointers) {
    if (wanted > format.ephemeron) return false;
    const named = namedSlotCount(aClass, vm.memory.spur);
    const variable = wanted >= format.indexable;
    if (variable ? object.pointers.length < named : object.pointers.length !== named) return false;
    if ((object.format === format.weak) !== (wanted === format.weak)) return false;
    object.format = wanted;
  } else {
    if (wanted !== object.format) return false;
    const floatClass = vm.memory.specials[specialObjects.classFloat];
    if ((object.sqClass === floatClass) !== (aClass === floatClass)) return false;
  }
  object.sqClass = aClass;
  return true;
}

function changeClassTo(vm: Interpreter): boolean {
  const receiver = vm.stackValue(1);
  const argument = vm.stackValue(0);
  const aClass = typeof argument === "number" ? vm.classSmallInteger : argument.sqClass;
  return becomeInstanceOf(vm, receiver, aClass) && vm.answer(1, receiver);
}

function adoptInstance(vm: Interpreter): boolean {
  const aClass = vm.stackValue(1);
  return becomeInstanceOf(vm, vm.stackValue(0), aClass) && vm.answer(1, aClass);
}

function identical(vm: Interpreter, argCount: number): boolean {
  if (argCount > 2) return false;
  return vm.answer(argCount, vm.stackValue(0) === vm.stackValue(1) ? vm.true : vm.false);
}

function notIdentical(vm: Interpreter): boolean {
  return vm.answer(1, vm.stackValue(0) === vm.stackValue(1) ? vm.false : vm.true);
}

/** The class of the receiver, or of the argument of a mirror message. */
function classOf(vm: Interpreter, argCount: number): boolean {
  return vm.answer(argCount, vm.memory.classOf(vm.stackValue(0)));
}

function pointsTo(vm: Interpreter): boolean {
  const object = vm.stackValue(1);
  const thing = vm.stackValue(0);
  if (typeof object === "number") return false;
  settle(vm, object);
  const found = object.sqClass === thing || (object.pointers?.some((_, i) => indexedPointer(object, i, vm.nil) === thing) ?? false);
  return vm.answer(1, found ? vm.true : vm.false);
}

export const storagePrimitives: readonly PrimitiveRow[] = [
  [60, "primitiveAt", at],
  [61, "primitiveAtPut", atPut],
  [62, "primitiveSize", size],
  [63, "primitiveStringAt", stringAt],
  [64, "primitiveStringAtPut", stringAtPut],
  [65, "primitiveNext", null],
  [66, "primitiveNextPut", null],
  [67, "primitiveAtEnd", null],
  [68, "primitiveObjectAt", objectAt],
  [69, "primitiveObjectAtPut", objectAtPut],
  [70, "primitiveNew", basicNew],
  [71, "primitiveNewWithArg", basicNewSized],
  [73, "primitiveInstVarAt", instVarAt],
  [74, "primitiveInstVarAtPut", instVarAtPut],
  [75, "primitiveIdentityHash", identityHash],
  [79, "primitiveNewMethod", newMethod],
  [105, "primitiveReplaceFromToWithStartingAt", replace],
  [110, "primitiveIdentical", identical],
  [111, "primitiveClass", classOf],
  [115, "primitiveChangeClass", changeClassTo],
  [132, "primitiveObjectPointsTo", pointsTo],
  [143, "primitiveShortAt", shortAt],
  [144, "primitiveShortAtPut", shortAtPut],
  [145, "primitiveConstantFill", fill],
  [148, "primitiveClone", shallowCopy],
  [160, "primitiveAdoptInstance", adoptInstance],
  [161, "primitiveSetIdentityHash", setIdentityHash],
  [165, "primitiveIntegerAt", integerAt],
  [166, "primitiveIntegerAtPut", integerAtPut],
  [168, "primitiveCopyObject", copyFrom],
  [169, "primitiveNotIdentical", notIdentical],
  [170, "primitiveAsCharacter", asCharacter],
  [171, "primitiveCharacterValue", characterValue],
  [173, "primitiveSlotAt", instVarAt],
  [174, "primitiveSlotAtPut", instVarAtPut],
  [175, "primitiveBehaviorHash", classHash],
  [176, "primitiveMaxIdentityHash", (vm) => vm.answer(0, 0x3fffff)],
];
