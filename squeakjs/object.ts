/**
 * The representation of every Smalltalk object but SmallInteger, which is a JavaScript number.
 *
 * All objects share one hidden class: the constructor stores every field in one order and none is
 * added later, so the interpreter's `receiver.sqClass` is a monomorphic load. Objects are not chained:
 * JavaScript's collector is the collector, and what must enumerate objects traces from the roots
 * (heap_walk.ts). Weak slots hold WeakRefs and are therefore only read through `indexedPointer`.
 *
 * Exactly one kind of body is present, as `format` says: `pointers`, `words`, `bytes`, or `float`;
 * a method has `pointers` (header, then literals) and `bytes` (bytecodes and trailer).
 */

export type Oop = SqueakObject | number;

export const maxSmallInteger = 0x3fffffff;
export const minSmallInteger = -0x40000000;

/** Object formats, as in Spur; the low bits that count unused bytes in a file are always zero here. */
export const format = {
  empty: 0,
  fixed: 1,
  indexable: 2,
  fixedIndexable: 3,
  weak: 4,
  ephemeron: 5,
  immediate: 7,
  longs: 9,
  words: 10,
  shorts: 12,
  bytes: 16,
  method: 24,
} as const;

// Absent bodies are null; they are typed as present because `format` decides which may be touched.
const noPointers = null as unknown as Oop[];
const noWords = null as unknown as Uint32Array;
const noBytes = null as unknown as Uint8Array;

export class SqueakObject {
  // Only declared, so that each is stored once, by the constructor, and not defined as undefined before.
  declare sqClass: SqueakObject;
  declare format: number;
  /** Identity hash; 0 is "not asked for yet". The index in the class table for a class, the code point for a Character. */
  declare hash: number;
  declare pointers: Oop[];
  /** 32-bit words, unsigned; a 64-bit element is two of them, the low one first. */
  declare words: Uint32Array;
  /** Bytes; a 16-bit element is two of them, the low one first. */
  declare bytes: Uint8Array;
  /** Present in Floats alone: `undefined` elsewhere, so that a Float is never taken for a SmallInteger. */
  declare float: number | undefined;
  /** The epoch of the last trace that reached this object. */
  declare mark: number;
  /** What a part of the machine knows of this object: "nil", "true", "false", a JavaScript value behind a proxy. */
  declare aux: unknown;

  constructor(sqClass: SqueakObject, objectFormat: number, hash: number) {
    this.sqClass = sqClass;
    this.format = objectFormat;
    this.hash = hash;
    this.pointers = noPointers;
    this.words = noWords;
    this.bytes = noBytes;
    this.float = undefined;
    this.mark = 0;
    this.aux = undefined;
  }

  /** The format under the name that upstream's plugins read. */
  get _format(): number {
    return this.format;
  }

  get isNil(): boolean {
    return this.aux === "nil";
  }

  get isTrue(): boolean {
    return this.aux === "true";
  }

  get isFalse(): boolean {
    return this.aux === "false";
  }

  get isFloat(): boolean {
    return this.float !== undefined;
  }

  /** The bytes as text, one character each (Latin-1). */
  bytesAsString(): string {
    const bytes = this.bytes;
    let text = "";
    for (let start = 0; start < bytes.length; start += 4096) {
      text += String.fromCharCode(...bytes.subarray(start, start + 4096));
    }
    return text;
  }

  pointersSize(): number {
    return this.pointers === null ? 0 : this.pointers.length;
  }

  bytesSize(): number {
    return this.bytes === null ? 0 : this.bytes.length;
  }

  wordsSize(): number {
    return this.words === null ? 0 : this.words.length;
  }

  /** The value behind a proxy, under the name that plugins know. */
  get jsObject(): unknown {
    return this.aux;
  }

  set jsObject(value: unknown) {
    this.aux = value;
  }
}

export function isSmallInteger(value: number): boolean {
  return value >= minSmallInteger && value <= maxSmallInteger;
}

// The phantom properties keep a failed test from excluding every SqueakObject.
export type MethodObject = SqueakObject & { readonly kind: "method" };
export type LargeIntegerObject = SqueakObject & { readonly kind: "large integer" };

export function isMethod(oop: Oop): oop is MethodObject {
  return typeof oop !== "number" && oop.format >= format.method;
}

/** Whether an object has the layout of a class: a format word where a class has it. */
export function isClassShaped(oop: Oop | undefined): oop is SqueakObject {
  return typeof oop === "object" && oop.format === format.fixed && oop.pointers.length > 2 && typeof oop.pointers[2] === "number";
}

/** A slot of any object with pointers; a weak slot whose referent was collected reads as nil. */
export function indexedPointer(object: SqueakObject, index: number, nil: SqueakObject): Oop {
  const value: unknown = object.pointers[index];
  if (value instanceof WeakRef) return (value.deref() as SqueakObject | undefined) ?? nil;
  return value as Oop;
}

/** Stores into a slot; `fixedSize` is the number of named, always strong, slots. */
export function storeIndexedPointer(object: SqueakObject, index: number, value: Oop, fixedSize: number): void {
  const weak = object.format === format.weak && index >= fixedSize && typeof value !== "number" && !isPermanent(value);
  object.pointers[index] = weak ? (new WeakRef(value as object) as unknown as Oop) : value;
}

// nil, booleans and characters live as long as the machine, so a WeakRef to one would only cost.
function isPermanent(object: SqueakObject): boolean {
  return object.format === format.immediate || object.isNil || object.isTrue || object.isFalse;
}
