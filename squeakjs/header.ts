/**
 * The words that describe a method and a class: the method header and the class format.
 * Both eras are read: Spur, and the images before it, whose header holds the primitive's number itself.
 */
import { classSlots } from "./special_objects.ts";
import { format, type SqueakObject } from "./object.ts";

export const callPrimitiveV3 = 0x8b;
export const callPrimitiveSista = 0xf8;
const longStoreTempV3 = 0x81;
const longStoreTempSista = 0xf5;

export function literalCount(method: SqueakObject): number {
  return method.pointers.length - 1;
}

/** Literals that a header announces, needed only while a method is read or made. */
export function literalCountOf(header: number, spur: boolean): number {
  return spur ? header & 0x7fff : (header >> 9) & 0xff;
}

export function argumentCount(method: SqueakObject): number {
  return ((method.pointers[0] as number) >> 24) & 15;
}

/** Temporaries, arguments included. */
export function temporaryCount(method: SqueakObject): number {
  return ((method.pointers[0] as number) >> 18) & 63;
}

export function needsLargeFrame(method: SqueakObject): boolean {
  return ((method.pointers[0] as number) & 0x20000) !== 0;
}

/** A negative header marks the alternate bytecode set, Sista V1. */
export function usesSista(method: SqueakObject): boolean {
  return (method.pointers[0] as number) < 0;
}

export function primitiveNumber(method: SqueakObject, spur: boolean): number {
  const header = method.pointers[0] as number;
  if (!spur) return (header & 0x1ff) | ((header >> 19) & 0x200);
  if ((header & 0x10000) === 0) return 0;
  const bytes = method.bytes;
  const opcode = header < 0 ? callPrimitiveSista : callPrimitiveV3;
  return bytes[0] === opcode ? bytes[1] | ((bytes[2] & 0x7f) << 8) : 0;
}

/** Bytecodes to skip before the first that runs when the primitive has failed. */
export function firstBytecode(method: SqueakObject, spur: boolean): number {
  return spur && primitiveNumber(method, spur) !== 0 ? 3 : 0;
}

/** Whether a method's failure code begins by storing the error into a temporary (`<primitive: n error: e>`). */
export function storesErrorCode(method: SqueakObject): boolean {
  return method.bytes[3] === (usesSista(method) ? longStoreTempSista : longStoreTempV3);
}

/** The pc of a context whose next bytecode is the first: one-based, counted from the method's header. */
export function pcBase(method: SqueakObject): number {
  return method.pointers.length * 4 + 1;
}

export function namedSlotCount(aClass: SqueakObject, spur: boolean): number {
  const word = aClass.pointers[classSlots.format] as number;
  return spur ? word & 0xffff : ((word >> 1) & 0x3f) + ((word >> 10) & 0xc0) - 1;
}

/** The instances' format, in Spur's numbering for either era. */
export function instanceFormat(aClass: SqueakObject, spur: boolean): number {
  const word = aClass.pointers[classSlots.format] as number;
  return spur ? (word >> 16) & 31 : modernFormat((word >> 7) & 15);
}

/** Translates the format numbers of the older object headers. */
export function modernFormat(old: number): number {
  if (old <= 4) return old;
  if (old === 6) return format.words;
  if (old >= 8 && old <= 11) return format.bytes;
  if (old >= 12) return format.method;
  throw new RangeError(`object format ${old} is not one of 0-4, 6, 8-15; the image is damaged or of an unknown kind`);
}
