/**
 * Reads the 32-bit images from before Spur (versions 6501, 6502, 6504, 6505), of either byte order.
 * An object has one to three header words; classes with an index in the compact classes array need only one.
 * Floats are kept with their high word first, unless the version's lowest bit says that they are in native order.
 */
import { literalCountOf, modernFormat, namedSlotCount } from "./header.ts";
import type { Image } from "./memory.ts";
import { format, type Oop, SqueakObject, storeIndexedPointer } from "./object.ts";
import type { FileHeader } from "./spur_reader.ts";
import { specialObjects } from "./special_objects.ts";

/** `classOop` is an address, or the compact class's index when below 32. */
type Found = { readonly object: SqueakObject; readonly classOop: number; readonly body: number; readonly words: number; readonly fileFormat: number };

export function readPreSpur(data: DataView, file: FileHeader, name: string): Image {
  const u32 = (at: number): number => data.getUint32(at, file.littleEndian);
  const damaged = (what: string): Error => new Error(`${name}: ${what}; the image is damaged or incomplete, get it again`);
  const heap = file.start + u32(file.start + 4);
  const heapBytes = u32(file.start + 8);
  const oldBase = u32(file.start + 12);
  const specialsOop = u32(file.start + 16);
  if (heap + heapBytes > data.byteLength) throw damaged(`${heapBytes} bytes of objects are announced, ${data.byteLength - heap} are there`);

  const objects = new Map<number, Found>();
  const unlinked = new SqueakObject(null as unknown as SqueakObject, format.empty, 0);
  for (let at = heap; at < heap + heapBytes; ) {
    const type = u32(at) & 3; // 0: size and class precede, 1: class precedes, 2: free, 3: the header alone
    let words: number;
    let classOop: number;
    let header: number;
    if (type === 0) {
      words = u32(at) >>> 2;
      classOop = (u32(at + 4) & ~3) >>> 0;
      header = u32(at + 8);
      at += 8;
    } else if (type === 1) {
      classOop = (u32(at) & ~3) >>> 0;
      header = u32(at + 4);
      words = (header >>> 2) & 63;
      at += 4;
    } else if (type === 3) {
      header = u32(at);
      words = (header >>> 2) & 63;
      classOop = (header >>> 12) & 31;
    } else {
      throw damaged(`the object at byte ${at} is a free chunk`);
    }
    words--; // the count includes the header itself
    const fileFormat = (header >>> 8) & 15;
    const object = new SqueakObject(unlinked, modernFormat(fileFormat), (header >>> 17) & 0xfff);
    objects.set(at - heap + oldBase, { object, classOop, body: at + 4, words, fileFormat });
    at += 4 + words * 4;
  }

  const objectAt = (oop: number): SqueakObject => {
    const found = objects.get(oop);
    if (found === undefined) throw damaged(`0x${oop.toString(16)} is no object's address`);
    return found.object;
  };
  const readOops = (body: number, count: number): Oop[] => {
    const slots: Oop[] = [];
    for (let i = 0; i < count; i++) {
      const raw = u32(body + i * 4);
      slots.push((raw & 1) === 1 ? (raw | 0) >> 1 : objectAt(raw));
    }
    return slots;
  };
  const readBytes = (at: number, count: number): Uint8Array => new Uint8Array(data.buffer, data.byteOffset + at, count).slice();

  for (const { object, body, words, fileFormat } of objects.values()) {
    if (fileFormat <= 4) {
      object.pointers = readOops(body, words);
    } else if (fileFormat >= 12) {
      const count = literalCountOf((u32(body) | 0) >> 1, false) + 1;
      object.pointers = readOops(body, count);
      object.bytes = readBytes(body + count * 4, (words - count) * 4 - (fileFormat & 3));
    } else if (fileFormat >= 8) {
      object.bytes = readBytes(body, words * 4 - (fileFormat & 3));
    } else {
      object.words = Uint32Array.from({ length: words }, (_, i) => u32(body + i * 4));
    }
  }

  const specialsArray = objectAt(specialsOop);
  const special = (index: number): SqueakObject => specialsArray.pointers[index] as SqueakObject;
  const compactClasses = special(specialObjects.compactClasses).pointers;
  for (const { object, classOop } of objects.values()) {
    object.sqClass = classOop < 32 ? (compactClasses[classOop - 1] as SqueakObject) : objectAt(classOop);
  }
  special(specialObjects.nil).aux = "nil";
  special(specialObjects.true).aux = "true";
  special(specialObjects.false).aux = "false";
  const classFloat = special(specialObjects.classFloat);
  const nativeFloats = (file.version & 1) === 1 && file.littleEndian;
  for (const { object, fileFormat } of objects.values()) {
    if (object.sqClass === classFloat) {
      const [high, low] = nativeFloats ? [object.words[1], object.words[0]] : [object.words[0], object.words[1]];
      const view = new DataView(new ArrayBuffer(8));
      view.setUint32(0, high);
      view.setUint32(4, low);
      object.float = view.getFloat64(0);
      object.words = null as unknown as Uint32Array;
    } else if (fileFormat === 4) {
      const named = namedSlotCount(object.sqClass, false);
      for (let i = named; i < object.pointers.length; i++) storeIndexedPointer(object, i, object.pointers[i], named);
    }
  }
  return {
    name,
    version: file.version,
    spur: false,
    specialObjectsArray: specialsArray,
    classTable: [],
    characters: new Map(),
    windowSize: u32(file.start + 24),
    flags: u32(file.start + 28),
  };
}
