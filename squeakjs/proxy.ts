/**
 * The interpreter as modules see it, under the names that plugins for Squeak's machines use: stack access with checks that
 * note a failure, conversions, object access. `PrimitiveHandler` is what
 * upstream's modules find as `vm.primHandler`.
 */
import { fromBigInt } from "./integers.ts";
import { format, type Oop, SqueakObject } from "./object.ts";
import { specialObjects } from "./special_objects.ts";
import type { Primitive } from "./primitive_table.ts";
import type { VirtualMachine } from "./virtual_machine.ts";
import { ownFunction } from "./own_functions.ts";

export class InterpreterProxy {
  readonly vm: VirtualMachine;
  private ok = true;
  private argCount = 0;
  private method: SqueakObject | null = null;

  constructor(vm: VirtualMachine) {
    this.vm = vm;
  }

  /** Called before each function of a module. */
  begin(argCount: number, method: SqueakObject): void {
    this.ok = true;
    this.argCount = argCount;
    this.method = method;
  }

  majorVersion(): number {
    return 1;
  }

  minorVersion(): number {
    return 17;
  }

  failed(): boolean {
    return !this.ok;
  }

  primitiveFail(): void {
    this.ok = false;
  }

  primitiveFailFor(reasonCode: number): void {
    this.ok = false;
    this.vm.primitiveErrorCode = reasonCode;
  }

  success(condition: boolean): void {
    if (!condition) this.ok = false;
  }

  methodArgumentCount(): number {
    return this.argCount;
  }

  primitiveMethod(): SqueakObject | null {
    return this.method;
  }

  // Stack

  pop(count: number): void {
    this.vm.sp -= count;
  }

  popthenPush(count: number, oop: Oop): void {
    this.vm.sp -= count;
    this.vm.push(oop);
  }

  push(oop: Oop): void {
    this.vm.push(oop);
  }

  pushBool(value: boolean): void {
    this.vm.push(this.vm.memory.boolean(value));
  }

  pushInteger(value: number): void {
    this.vm.push(this.vm.memory.integer(value));
  }

  pushFloat(value: number): void {
    this.vm.push(this.vm.memory.float(value));
  }

  stackValue(depth: number): Oop {
    return this.vm.stackValue(depth);
  }

  stackIntegerValue(depth: number): number {
    return this.checked(this.vm.stackValue(depth), (oop) => (typeof oop === "number" ? oop : undefined), 0);
  }

  stackFloatValue(depth: number): number {
    return this.floatValueOf(this.vm.stackValue(depth));
  }

  stackObjectValue(depth: number): SqueakObject {
    return this.checked(this.vm.stackValue(depth), (oop) => (typeof oop === "number" ? undefined : oop), this.vm.nil);
  }

  stackBytes(depth: number): Uint8Array {
    return this.fetchBytesofObjectOrFail(this.vm.stackValue(depth));
  }

  stackWords(depth: number): Uint32Array {
    return this.wordsOrFail(this.vm.stackValue(depth));
  }

  stackInt32Array(depth: number): Int32Array {
    const words = this.wordsOrFail(this.vm.stackValue(depth));
    return new Int32Array(words.buffer, words.byteOffset, words.length);
  }

  stackInt16Array(depth: number): Int16Array {
    const words = this.wordsOrFail(this.vm.stackValue(depth));
    return new Int16Array(words.buffer, words.byteOffset, words.length * 2);
  }

  stackUint16Array(depth: number): Uint16Array {
    const words = this.wordsOrFail(this.vm.stackValue(depth));
    return new Uint16Array(words.buffer, words.byteOffset, words.length * 2);
  }

  private checked<T>(oop: Oop, convert: (oop: Oop) => T | undefined, otherwise: T): T {
    const value = convert(oop);
    if (value !== undefined) return value;
    this.ok = false;
    return otherwise;
  }

  private fetchBytesofObjectOrFail(oop: Oop): Uint8Array {
    return this.checked(oop, (each) => (typeof each === "number" ? undefined : (each.bytes ?? undefined)), new Uint8Array(0));
  }

  private wordsOrFail(oop: Oop): Uint32Array {
    return this.checked(oop, (each) => (typeof each === "number" ? undefined : (each.words ?? undefined)), new Uint32Array(0));
  }

  // Kinds

  isBytes(oop: Oop): boolean {
    return typeof oop !== "number" && oop.format >= format.bytes && oop.format < format.method;
  }

  isWords(oop: Oop): boolean {
    return typeof oop !== "number" && oop.format === format.words;
  }

  isWordsOrBytes(oop: Oop): boolean {
    return this.isWords(oop) || this.isBytes(oop);
  }

  isPointers(oop: Oop): boolean {
    return typeof oop !== "number" && oop.format <= format.ephemeron;
  }

  isIntegerValue(oop: Oop): boolean {
    return typeof oop === "number";
  }

  isKindOfInteger(oop: Oop): boolean {
    return typeof oop === "number" || this.vm.memory.isLargeInteger(oop);
  }

  isArray(oop: Oop): boolean {
    return typeof oop !== "number" && oop.sqClass === this.classArray();
  }

  isMemberOf(oop: Oop, className: string): boolean {
    return this.vm.memory.className(this.vm.memory.classOf(oop)) === className;
  }

  // Conversions

  booleanValueOf(oop: Oop): boolean {
    if (oop === this.vm.true) return true;
    if (oop !== this.vm.false) this.ok = false;
    return false;
  }

  positive32BitValueOf(oop: Oop): number {
    const value = this.vm.memory.safeIntegerValue(oop);
    if (value >= 0 && value <= 0xffffffff) return value;
    this.ok = false;
    return 0;
  }

  positive32BitIntegerFor(value: number): Oop {
    return this.vm.memory.integer(value >>> 0);
  }

  floatValueOf(oop: Oop): number {
    return this.checked(oop, (each) => (typeof each === "number" ? each : each.float), 0);
  }

  floatObjectOf(value: number): SqueakObject {
    return this.vm.memory.float(value);
  }

  // Object access

  fetchPointerofObject(index: number, object: SqueakObject): Oop {
    return object.pointers[index];
  }

  fetchBytesofObject(index: number, object: SqueakObject): Uint8Array {
    return this.fetchBytesofObjectOrFail(object.pointers[index]);
  }

  fetchWordsofObject(index: number, object: SqueakObject): Uint32Array {
    return this.wordsOrFail(object.pointers[index]);
  }

  fetchInt32ArrayofObject(index: number, object: SqueakObject): Int32Array {
    const words = this.wordsOrFail(object.pointers[index]);
    return new Int32Array(words.buffer, words.byteOffset, words.length);
  }

  fetchInt16ArrayofObject(index: number, object: SqueakObject): Int16Array {
    const words = this.wordsOrFail(object.pointers[index]);
    return new Int16Array(words.buffer, words.byteOffset, words.length * 2);
  }

  fetchUint16ArrayofObject(index: number, object: SqueakObject): Uint16Array {
    const words = this.wordsOrFail(object.pointers[index]);
    return new Uint16Array(words.buffer, words.byteOffset, words.length * 2);
  }

  fetchIntegerofObject(index: number, object: SqueakObject): number {
    return this.checked(object.pointers[index], (oop) => (typeof oop === "number" ? oop : undefined), 0);
  }

  fetchLong32ofObject(index: number, object: SqueakObject): number {
    return object.words[index];
  }

  fetchFloatofObject(index: number, object: SqueakObject): number {
    return this.floatValueOf(object.pointers[index]);
  }

  storeIntegerofObjectwithValue(index: number, object: SqueakObject, value: number): void {
    object.pointers[index] = value;
  }

  storePointerofObjectwithValue(index: number, object: SqueakObject, value: Oop): void {
    this.vm.memory.store(object, index, value);
  }

  stObjectatput(array: SqueakObject, index: number, value: Oop): void {
    if (index < 1 || index > array.pointersSize()) this.ok = false;
    else this.vm.memory.store(array, index - 1, value);
  }

  // Classes and constants

  classArray(): SqueakObject {
    return this.vm.memory.classArray;
  }

  classBitmap(): SqueakObject {
    return this.vm.memory.special(specialObjects.classBitmap);
  }

  classSmallInteger(): SqueakObject {
    return this.vm.memory.classSmallInteger;
  }

  classLargePositiveInteger(): SqueakObject {
    return this.vm.memory.largeIntegerClass(false);
  }

  classLargeNegativeInteger(): SqueakObject {
    return this.vm.memory.largeIntegerClass(true);
  }

  classPoint(): SqueakObject {
    return this.vm.memory.special(specialObjects.classPoint);
  }

  classString(): SqueakObject {
    return this.vm.memory.special(specialObjects.classString);
  }

  classByteArray(): SqueakObject {
    return this.vm.memory.special(specialObjects.classByteArray);
  }

  nilObject(): SqueakObject {
    return this.vm.nil;
  }

  falseObject(): SqueakObject {
    return this.vm.false;
  }

  trueObject(): SqueakObject {
    return this.vm.true;
  }

  // Making objects

  clone(object: SqueakObject): SqueakObject {
    return this.vm.memory.shallowCopy(object);
  }

  instantiateClassindexableSize(aClass: SqueakObject, size: number): SqueakObject {
    const object = this.vm.memory.instantiate(aClass, size);
    if (object === null) this.ok = false;
    return object ?? this.vm.nil;
  }

  makePointwithxValueyValue(x: number, y: number): SqueakObject {
    return this.vm.memory.point(x, y);
  }

  private readonly remappable: Oop[] = [];

  /** Squeak's machines move objects; this one does not, so these only keep the order. */
  pushRemappableOop(oop: Oop): void {
    this.remappable.push(oop);
  }

  popRemappableOop(): Oop {
    return this.remappable.pop() ?? this.vm.nil;
  }

  showDisplayBitsLeftTopRightBottom(): void {
    // there is no display: its primitives are absent, so no form is one
  }

  ioLoadFunctionFrom(functionName: string, moduleName: string): Primitive | null {
    return moduleName === "" ? ownFunction(functionName) : null;
  }
}

/** What upstream's modules find as `vm.primHandler`. */
export class PrimitiveHandler {
  private readonly vm: VirtualMachine;
  success = true;

  constructor(vm: VirtualMachine) {
    this.vm = vm;
  }

  makeStString(text: string): SqueakObject {
    return this.vm.memory.string(text);
  }

  makeStByteArray(bytes: ArrayLike<number>): SqueakObject {
    return this.vm.memory.bytesObject(this.vm.memory.special(specialObjects.classByteArray), Uint8Array.from(bytes));
  }

  makeStArray(values: readonly unknown[], proxyClass?: SqueakObject): SqueakObject {
    return this.vm.memory.array(values.map((each) => this.makeStObject(each, proxyClass)));
  }

  makeFloat(value: number): SqueakObject {
    return this.vm.memory.float(value);
  }

  makeLargeIfNeeded(value: number): Oop {
    return this.vm.memory.integer(value);
  }

  makePointWithXandY(x: Oop, y: Oop): SqueakObject {
    return this.vm.memory.point(x, y);
  }

  charFromInt(code: number): SqueakObject {
    return this.vm.memory.character(code);
  }

  /**
   * The Smalltalk object for a JavaScript value. Numbers that are whole and exact are Integers, -0 is a Float; without a
   * proxy class strings and arrays are converted, with one they, like every other object, are wrapped.
   */
  makeStObject(value: unknown, proxyClass?: SqueakObject): Oop {
    const memory = this.vm.memory;
    if (value === undefined || value === null) return this.vm.nil;
    if (value === true) return this.vm.true;
    if (value === false) return this.vm.false;
    if (value instanceof SqueakObject) return value;
    if (typeof value === "number") {
      return Number.isSafeInteger(value) && !Object.is(value, -0) ? memory.integer(value) : memory.float(value);
    }
    if (typeof value === "bigint") return fromBigInt(memory, value);
    if (proxyClass !== undefined) {
      const proxy = memory.instantiate(proxyClass, 0);
      if (proxy === null) throw new Error(`${memory.className(proxyClass)} cannot have instances, so it is no class of proxies`);
      proxy.aux = value;
      return proxy;
    }
    if (typeof value === "string") return memory.text(value);
    if (Array.isArray(value)) return this.makeStArray(value);
    throw new Error(`a JavaScript ${typeof value} has no Smalltalk counterpart; give a class of proxies`);
  }

  signalSemaphoreWithIndex(index: number): void {
    this.vm.signalSemaphoreWithIndex(index);
  }
}
