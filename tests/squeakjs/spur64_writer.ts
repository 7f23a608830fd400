/**
 * Writes a tiny image as a 64-bit Spur file (68021), to have one to read: the machine itself only writes 32 bits.
 * Floats in the range of SmallFloats become immediate, as a 64-bit machine would have made them.
 */
import { liveSlots, reachableObjects } from "../../squeakjs/heap_walk.ts";
import { format, type Oop, SqueakObject, type VirtualMachine } from "../../squeakjs/index.ts";

const headerBytes = 128;
const bridgeBytes = 16;

export function writeSpur64(vm: VirtualMachine): ArrayBuffer {
  const first = [vm.nil, vm.false, vm.true];
  const isImmediate = (each: SqueakObject): boolean => each.format === format.immediate || (each.float !== undefined && smallFloatBits(each.float) !== null);
  const objects = reachableObjects(vm).filter((each) => !isImmediate(each) && !first.includes(each));
  const contextClass = vm.memory.special(10);
  const addresses = new Map<SqueakObject, number>();
  let end = 0;
  const place = (slots: number): number => {
    const oop = end + (slots >= 255 ? 8 : 0);
    end = oop + 8 + Math.max(1, slots) * 8;
    return oop;
  };
  for (const each of first) addresses.set(each, place(slotCount(each)));
  place(32);
  place(4104);
  const pages = [place(1024), place(1024)];
  for (const each of objects) addresses.set(each, place(slotCount(each)));
  end += bridgeBytes;

  const data = new DataView(new ArrayBuffer(headerBytes + end));
  let at = headerBytes;
  const long = (value: bigint): void => {
    data.setBigUint64(at, BigInt.asUintN(64, value), true);
    at += 8;
  };
  const oopOf = (value: Oop): bigint => {
    if (typeof value === "number") return (BigInt(value) << 3n) | 1n;
    if (value.format === format.immediate) return (BigInt(value.hash) << 3n) | 2n;
    if (value.float !== undefined) {
      const bits = smallFloatBits(value.float);
      if (bits !== null) return bits;
    }
    return BigInt(addresses.get(value) ?? (addresses.get(vm.nil) as number)); // a class that nothing refers to is not written
  };
  const prefix = (slots: number, classIndex: number, kind: number, hash: number): void => {
    if (slots >= 255) long(BigInt(slots) | (0xffn << 56n));
    long(BigInt(classIndex) | (BigInt(kind) << 24n) | (BigInt(hash) << 32n) | (BigInt(Math.min(slots, 255)) << 56n));
  };
  const write = (object: SqueakObject): void => {
    const slots = slotCount(object);
    const unused = object.bytes === null ? 0 : -object.bytes.length & 7;
    const kind = object.format === format.shorts ? object.format + (unused >> 1) : object.format === format.words && object.words !== null ? object.format + (object.words.length & 1) : object.format + unused;
    prefix(slots, object.sqClass.hash, kind, object.hash);
    const next = at + Math.max(1, slots) * 8;
    if (object.pointers !== null) {
      const live = liveSlots(object);
      object.pointers.forEach((each, i) => {
        let value = oopOf(i < live ? each : vm.nil);
        // a 64-bit header keeps the alternate set's mark in its sign; a pc counts literals of eight bytes
        if (i === 0 && object.format === format.method && (each as number) < 0) value = (BigInt((each as number) + 0x40000000) << 3n) | 1n | (1n << 63n);
        if (i === 1 && object.sqClass === contextClass && typeof each === "number") value = oopOf(each + (object.pointers[3] as SqueakObject).pointers.length * 4);
        long(value);
      });
    }
    if (object.words !== null) object.words.forEach((word, i) => data.setUint32(at + i * 4, word, true));
    if (object.float !== undefined) data.setFloat64(at, object.float, true);
    if (object.bytes !== null) new Uint8Array(data.buffer, at, object.bytes.length).set(object.bytes);
    at = next;
  };
  for (const each of first) write(each);
  prefix(32, 18, format.longs, 0);
  at += 32 * 8;
  prefix(4104, 16, format.indexable, 0);
  for (let i = 0; i < 4104; i++) long(BigInt(pages[i] ?? (addresses.get(vm.nil) as number)));
  for (const page of [0, 1]) {
    prefix(1024, 16, format.indexable, 0);
    for (let i = 0; i < 1024; i++) long(oopOf(vm.memory.classAtIndex(page * 1024 + i) ?? vm.nil));
  }
  for (const each of objects) write(each);
  long(0n);
  long(0n);
  data.setUint32(0, 68021, true);
  data.setUint32(4, headerBytes, true);
  const header = [end, 0, addresses.get(vm.memory.specialObjectsArray) as number, 0, 0, 0, 0, 0, 0, end];
  header.forEach((word, i) => data.setBigUint64(8 + i * 8, BigInt(word), true));
  return data.buffer as ArrayBuffer;
}

function slotCount(object: SqueakObject): number {
  if (object.float !== undefined) return 1;
  return object.pointersSize() + Math.ceil(object.wordsSize() / 2) + Math.ceil(object.bytesSize() / 8);
}

/** The tagged word of a SmallFloat: exponents from -127 to 128, and zero. */
function smallFloatBits(value: number): bigint | null {
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, value);
  const raw = bits.getBigUint64(0);
  const rotated = BigInt.asUintN(64, raw << 1n) | (raw >> 63n);
  if (rotated <= 1n) return (rotated << 3n) | 4n;
  const shifted = rotated - (896n << 53n);
  return shifted > 1n && shifted < 1n << 61n ? (shifted << 3n) | 4n : null;
}
