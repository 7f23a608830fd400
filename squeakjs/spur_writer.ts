/**
 * Writes the machine's state as a Spur 32-bit image (version 6521, little-endian): nil, false, true, an empty free list,
 * the class table, then every reachable object. Contexts are padded with nil above their stacks. Weak referents that
 * nothing else holds become nil.
 */
import { liveSlots, reachableObjects } from "./heap_walk.ts";
import type { Interpreter } from "./interpreter.ts";
import { format, indexedPointer, type Oop, SqueakObject } from "./object.ts";
import { processSlots } from "./special_objects.ts";

const version = 6521;
const headerBytes = 64;
const bridgeBytes = 16;
const hiddenRootSlots = 4096 + 8;
const pageSlots = 1024;
const freeListSlots = 32;
const freeListClass = 18;
const classTableClass = 16;
const indexes = { smallInteger: 1, character: 2 } as const;

type Placed = { readonly oop: number };

export function writeSpur(vm: Interpreter): ArrayBuffer {
  return new SpurWriter(vm).write();
}

class SpurWriter {
  private readonly vm: Interpreter;
  private readonly addresses = new Map<SqueakObject, number>();
  private data!: DataView;
  private at = 0;

  constructor(vm: Interpreter) {
    this.vm = vm;
  }

  write(): ArrayBuffer {
    const vm = this.vm;
    const context = vm.exposeContext();
    vm.scheduler.activeProcess.pointers[processSlots.suspendedContext] = context;
    const first = [vm.nil, vm.false, vm.true];
    const objects = reachableObjects(vm).filter((each) => each.format !== format.immediate && !first.includes(each));
    const pages = this.classPages([...first, ...objects]);

    let end = 0;
    const place = (slots: number): Placed => {
      const oop = end + (slots >= 255 ? 8 : 0);
      end = oop + 8 + bodyBytes(slots);
      return { oop };
    };
    for (const each of first) this.addresses.set(each, place(slotCount(each)).oop);
    place(freeListSlots);
    place(hiddenRootSlots);
    const pageOops = pages.map(() => place(pageSlots).oop);
    for (const each of objects) this.addresses.set(each, place(slotCount(each)).oop);
    end += bridgeBytes;

    const buffer = new ArrayBuffer(headerBytes + end);
    this.data = new DataView(buffer);
    this.writeHeader(end);
    this.at = headerBytes;
    for (const each of first) this.writeObject(each);
    this.writePrefix(freeListSlots, freeListClass, format.words, 0);
    this.skipBody(freeListSlots);
    this.writePrefix(hiddenRootSlots, classTableClass, format.indexable, 0);
    for (let i = 0; i < hiddenRootSlots; i++) this.word(pageOops[i] ?? this.oop(vm.nil));
    for (const page of pages) {
      this.writePrefix(pageSlots, classTableClass, format.indexable, 0);
      for (let i = 0; i < pageSlots; i++) this.word(this.oop(page[i] ?? vm.nil));
    }
    for (const each of objects) this.writeObject(each);
    this.word(0x4a000003);
    this.word(0x00800000);
    this.word(0);
    this.word(0);
    return buffer;
  }

  /** Gives every class of an object an index; answers the pages of the class table. */
  private classPages(objects: readonly SqueakObject[]): SqueakObject[][] {
    const memory = this.vm.memory;
    const pages: SqueakObject[][] = [[]];
    const note = (aClass: SqueakObject): void => {
      const index = memory.classIndex(aClass);
      const page = Math.floor(index / pageSlots);
      while (pages.length <= page) pages.push([]);
      pages[page][index % pageSlots] = aClass;
    };
    for (const each of objects) {
      note(each.sqClass);
      if (memory.isIndexedClass(each)) note(each);
    }
    pages[0][3] = memory.classSmallInteger; // both tags of SmallIntegers name the class
    pages[0][indexes.smallInteger] = memory.classSmallInteger;
    return pages;
  }

  private writeHeader(heapBytes: number): void {
    const image = this.vm.memory.image;
    const specials = this.addresses.get(this.vm.memory.specialObjectsArray) as number;
    const words = [version, headerBytes, heapBytes, 0, specials, 0, image.windowSize, image.flags, 0, 0, 0, 0, heapBytes, 0, 0, 0];
    words.forEach((word, i) => this.data.setUint32(i * 4, word, true));
  }

  private writeObject(object: SqueakObject): void {
    const slots = slotCount(object);
    const start = this.at;
    this.writePrefix(slots, this.vm.memory.classIndex(object.sqClass), object.format | unusedBytes(object), object.hash);
    const body = this.at;
    if (object.pointers !== null) {
      const live = liveSlots(object);
      for (let i = 0; i < object.pointers.length; i++) {
        this.word(i === 0 && object.format >= format.method ? tagged(object.pointers[0] as number) : this.oop(i < live ? indexedPointer(object, i, this.vm.nil) : this.vm.nil));
      }
    }
    if (object.words !== null) for (const word of object.words) this.word(word);
    if (object.float !== undefined) {
      this.data.setFloat64(this.at, object.float, true);
      this.at += 8;
    }
    if (object.bytes !== null) {
      new Uint8Array(this.data.buffer, this.at, object.bytes.length).set(object.bytes);
    }
    this.at = body + bodyBytes(slots);
    if (this.at <= start) throw new Error("an object of no size was written; the writer is wrong");
  }

  private writePrefix(slots: number, classIndex: number, objectFormat: number, hash: number): void {
    if (slots >= 255) {
      this.word(slots);
      this.word(0xff000000);
    }
    this.word((objectFormat << 24) | classIndex);
    this.word(((Math.min(slots, 255) << 24) | hash) >>> 0);
  }

  private skipBody(slots: number): void {
    this.at += bodyBytes(slots);
  }

  private word(value: number): void {
    this.data.setUint32(this.at, value, true);
    this.at += 4;
  }

  private oop(value: Oop): number {
    if (typeof value === "number") return tagged(value);
    if (value.format === format.immediate) return ((value.hash << 2) | indexes.character) >>> 0;
    const address = this.addresses.get(value);
    return address ?? (this.addresses.get(this.vm.nil) as number); // a weak referent that nothing else holds
  }
}

function tagged(value: number): number {
  return ((value << 1) | 1) >>> 0;
}

function slotCount(object: SqueakObject): number {
  if (object.float !== undefined) return 2;
  return object.pointersSize() + object.wordsSize() + Math.ceil(object.bytesSize() / 4);
}

function bodyBytes(slots: number): number {
  return Math.max(8, Math.ceil(slots / 2) * 8);
}

/** The low bits of a format, which count the bytes or 16-bit elements at the end that are not used. */
function unusedBytes(object: SqueakObject): number {
  if (object.format < format.shorts) return 0;
  const unused = -object.bytes.length & 3;
  return object.format < format.bytes ? unused >> 1 : unused;
}
