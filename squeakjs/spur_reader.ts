/**
 * Reads Spur images: 32 bits (versions 6521 and 7033) and 64 bits (68019, 68021, 68533), which become 32-bit
 * ones in memory: SmallIntegers beyond 31 bits turn into LargeIntegers, SmallFloats into Floats.
 * Two passes over the heap: the first makes an object per header, the second fills the bodies, when every oop has its object.
 */
import { literalCountOf, namedSlotCount } from "./header.ts";
import type { Image } from "./memory.ts";
import { format, isSmallInteger, type Oop, SqueakObject, storeIndexedPointer } from "./object.ts";
import { contextSlots, specialObjects } from "./special_objects.ts";

export type FileHeader = {
  readonly version: number;
  readonly littleEndian: boolean;
  /** Where the header starts: 0, or 512 behind a launcher script. */
  readonly start: number;
};

type Found = { readonly object: SqueakObject; readonly classIndex: number; readonly body: number; readonly slots: number; readonly fileFormat: number };

const classTableIndex = 16;
const smallestRealClassIndex = 32;
const bridgeBytes = 16;

export function readSpur(data: DataView, file: FileHeader, name: string): Image {
  return new SpurReader(data, file, name).read();
}

class SpurReader {
  private readonly data: DataView;
  private readonly file: FileHeader;
  private readonly name: string;
  private readonly wide: boolean;
  private readonly objects = new Map<number, Found>();
  private readonly characters = new Map<number, SqueakObject>();
  private readonly classTable: (SqueakObject | undefined)[] = [];
  private hiddenRoots: Found | null = null;
  private readonly placeholder = new SqueakObject(null as unknown as SqueakObject, format.empty, 0);
  private specials!: SqueakObject;

  constructor(data: DataView, file: FileHeader, name: string) {
    this.data = data;
    this.file = file;
    this.name = name;
    this.wide = file.version >= 68000;
  }

  read(): Image {
    const word = this.wide ? 8 : 4;
    const at = (index: number): number => this.address(this.file.start + 8 + index * word);
    const headerBytes = this.u32(this.file.start + 4);
    // words 2.. of the header: heap bytes, old base address, special objects, last hash, window size
    const oldBase = at(1);
    const specialsOop = at(2);
    const windowSize = at(4);
    const flags = this.wide ? at(5) : this.u32(this.file.start + 28);
    const firstSegment = this.wide ? this.address(this.file.start + 80) : this.u32(this.file.start + 48);
    this.scanSegments(this.file.start + headerBytes, oldBase, firstSegment);
    this.readClassTable();
    const specials = this.objects.get(specialsOop);
    if (specials === undefined) throw this.damaged(`no object at the special objects' address 0x${specialsOop.toString(16)}`);
    this.specials = specials.object;
    for (const found of this.objects.values()) this.linkClass(found);
    for (const found of this.objects.values()) if (found.classIndex >= smallestRealClassIndex) this.fill(found);
    // Immediates met on the way took their classes from here, where the array was not yet filled.
    for (const character of this.characters.values()) character.sqClass = this.special(specialObjects.classCharacter);
    this.fixFloatsAndIntegers();
    if (this.wide) this.narrowContexts();
    this.weaken();
    return {
      name: this.name,
      version: this.file.version,
      spur: true,
      specialObjectsArray: this.specials,
      classTable: this.classTable,
      characters: this.characters,
      windowSize,
      flags,
    };
  }

  private readonly madeFloats: SqueakObject[] = [];
  private readonly madeIntegers: { object: SqueakObject; negative: boolean }[] = [];

  private special(index: number): SqueakObject {
    return this.specials.pointers[index] as SqueakObject;
  }

  private fixFloatsAndIntegers(): void {
    const floatClass = this.special(specialObjects.classFloat);
    for (const float of this.madeFloats) float.sqClass = floatClass;
    for (const { object, negative } of this.madeIntegers) {
      object.sqClass = this.special(negative ? specialObjects.classLargeNegativeInteger : specialObjects.classLargePositiveInteger);
    }
    for (const { object } of this.objects.values()) {
      if (object.sqClass === floatClass && object.words !== null) {
        const view = new DataView(new ArrayBuffer(8));
        view.setUint32(0, object.words[1]);
        view.setUint32(4, object.words[0]);
        object.float = view.getFloat64(0);
        object.words = null as unknown as Uint32Array;
      }
    }
  }

  // First pass

  private scanSegments(start: number, oldBase: number, firstSegment: number): void {
    let position = start;
    let toOop = oldBase - start;
    let segmentEnd = start + firstSegment;
    for (;;) {
      while (position < segmentEnd - bridgeBytes) position = this.scanObject(position, toOop);
      const bridge = segmentEnd - bridgeBytes;
      const gapWord = this.u64(bridge);
      const nextSegment = this.u64(bridge + 8);
      if (nextSegment === 0n) return;
      // where addresses are not contiguous the bridge has an overflow slot count that spans the gap
      if (gapWord >> 56n === 0xffn) toOop += Number(gapWord & 0xffffffffffffffn) * (this.wide ? 8 : 4);
      position = segmentEnd;
      segmentEnd += Number(nextSegment);
    }
  }

  private scanObject(at: number, toOop: number): number {
    let position = at;
    let high = this.highWord(position);
    let slots = high >>> 24;
    if (slots === 255) {
      slots = this.lowWord(position);
      position += 8;
      high = this.highWord(position);
    }
    const low = this.lowWord(position);
    const body = position + 8;
    const slotBytes = this.wide ? 8 : 4;
    const bodyBytes = Math.max(8, Math.ceil((slots * slotBytes) / 8) * 8);
    const classIndex = low & 0x3fffff;
    const fileFormat = (low >>> 24) & 31;
    if (body + bodyBytes > this.data.byteLength) throw this.damaged(`the object at byte ${at} reaches beyond the end of the file`);
    if (classIndex !== 0) {
      const object = new SqueakObject(this.placeholder, runTimeFormat(fileFormat), high & 0x3fffff);
      const found = { object, classIndex, body, slots, fileFormat };
      this.objects.set(position + toOop, found);
      if (classIndex === classTableIndex && this.hiddenRoots === null) this.hiddenRoots = found;
    }
    return body + bodyBytes;
  }

  private readClassTable(): void {
    if (this.hiddenRoots === null) throw this.damaged("no class table was found");
    const word = this.wide ? 8 : 4;
    for (let page = 0; page < 4096; page++) {
      const found = this.objects.get(this.address(this.hiddenRoots.body + page * word));
      if (found === undefined) throw this.damaged(`page ${page} of the class table is no object`);
      if (found.classIndex !== classTableIndex) continue; // nil: the page is not used
      for (let i = 0; i < 1024; i++) {
        const entry = this.objects.get(this.address(found.body + i * word));
        if (entry === undefined) throw this.damaged(`entry ${page * 1024 + i} of the class table is no object`);
        if (entry.classIndex >= smallestRealClassIndex && entry !== this.nilFound) this.classTable[page * 1024 + i] = entry.object;
      }
    }
  }

  private get nilFound(): Found {
    return this.objects.values().next().value as Found;
  }

  private linkClass(found: Found): void {
    if (found.classIndex < smallestRealClassIndex) return;
    const sqClass = this.classTable[found.classIndex];
    if (sqClass === undefined) throw this.damaged(`class index ${found.classIndex} is not in the class table`);
    found.object.sqClass = sqClass;
  }

  // Second pass

  private fill(found: Found): void {
    const { object, body, slots, fileFormat } = found;
    const slotBytes = this.wide ? 8 : 4;
    if (fileFormat <= format.ephemeron) {
      object.pointers = this.readOops(body, slots);
    } else if (fileFormat >= format.method) {
      const count = literalCountOf(this.smallInteger(body), true) + 1;
      object.pointers = this.readOops(body, count);
      object.bytes = this.readBytes(body + count * slotBytes, (slots - count) * slotBytes - (fileFormat & (slotBytes - 1)));
      if (this.wide) this.narrowHeader(object, body);
    } else if (fileFormat >= format.bytes) {
      object.bytes = this.readBytes(body, slots * slotBytes - (fileFormat & (slotBytes - 1)));
    } else if (fileFormat >= format.shorts) {
      object.bytes = this.readBytes(body, slots * slotBytes - (fileFormat & (slotBytes / 2 - 1)) * 2);
    } else if (fileFormat >= format.words) {
      object.words = this.readWords(body, (slots * slotBytes) / 4 - (fileFormat & (slotBytes / 4 - 1)));
    } else if (fileFormat === format.longs) {
      object.words = this.readWords(body, (slots * slotBytes) / 4);
    } else {
      throw this.damaged(`the object at byte ${body - 8} has the unused format ${fileFormat}`);
    }
  }

  private readOops(body: number, count: number): Oop[] {
    const slots: Oop[] = [];
    for (let i = 0; i < count; i++) slots.push(this.wide ? this.wideOop(body + i * 8) : this.narrowOop(body + i * 4));
    return slots;
  }

  private narrowOop(at: number): Oop {
    const raw = this.u32(at);
    if ((raw & 1) === 1) return (raw | 0) >> 1;
    if ((raw & 3) === 2) return this.character(raw >>> 2);
    return this.objectAt(raw, at);
  }

  private wideOop(at: number): Oop {
    const raw = this.u64(at);
    switch (Number(raw & 7n)) {
      case 0:
        return this.objectAt(Number(raw), at);
      case 1:
        return this.wideInteger(BigInt.asIntN(64, raw) >> 3n);
      case 2:
        return this.character(Number(raw >> 3n));
      case 4:
        return this.smallFloat(raw);
      default:
        throw this.damaged(`the word at byte ${at} has the unknown tag ${raw & 7n}`);
    }
  }

  private objectAt(oop: number, at: number): SqueakObject {
    const found = this.objects.get(oop);
    if (found === undefined) throw this.damaged(`the word at byte ${at}, 0x${oop.toString(16)}, is no object's address`);
    return found.object;
  }

  private character(code: number): SqueakObject {
    let character = this.characters.get(code);
    if (character === undefined) {
      character = new SqueakObject(this.placeholder, format.immediate, code);
      this.characters.set(code, character);
    }
    return character;
  }

  private wideInteger(value: bigint): Oop {
    const number = Number(value);
    if (isSmallInteger(number)) return number;
    const object = new SqueakObject(this.placeholder, format.bytes, 0);
    const bytes: number[] = [];
    for (let rest = value < 0n ? -value : value; rest > 0n; rest >>= 8n) bytes.push(Number(rest & 255n));
    object.bytes = Uint8Array.from(bytes);
    this.madeIntegers.push({ object, negative: value < 0n });
    return object;
  }

  /** A SmallFloat's bits are a double's, rotated so that the sign is the lowest and the exponent is nearer zero. */
  private smallFloat(raw: bigint): SqueakObject {
    let rotated = raw >> 3n;
    if (rotated > 1n) rotated += 896n << 53n;
    const bits = BigInt.asUintN(64, (rotated >> 1n) | ((rotated & 1n) << 63n));
    const object = new SqueakObject(this.placeholder, format.words, 0);
    object.float = new DataView(BigUint64Array.of(bits).buffer).getFloat64(0, true);
    this.madeFloats.push(object);
    return object;
  }

  private weaken(): void {
    this.special(specialObjects.nil).aux = "nil";
    this.special(specialObjects.true).aux = "true";
    this.special(specialObjects.false).aux = "false";
    for (const { object, classIndex } of this.objects.values()) {
      if (object.format !== format.weak || classIndex < smallestRealClassIndex) continue;
      const named = namedSlotCount(object.sqClass, true);
      for (let i = named; i < object.pointers.length; i++) storeIndexedPointer(object, i, object.pointers[i], named);
    }
  }

  // From 64 bits to 32

  private narrowHeader(method: SqueakObject, body: number): void {
    const header = this.u64(body) >> 3n;
    const sista = this.u64(body) >> 63n === 1n;
    method.pointers[0] = sista ? Number(header & 0x3fffffffn) - 0x40000000 : Number(header & 0x3fffffffn);
  }

  /** A pc counts the literals' bytes, which are half as many now. */
  private narrowContexts(): void {
    const contextClass = this.special(specialObjects.classContext);
    const closureClass = this.special(specialObjects.classBlockClosure);
    for (const { object } of this.objects.values()) {
      if (object.sqClass === contextClass) {
        const method = object.pointers[contextSlots.method] as SqueakObject;
        const pc = object.pointers[contextSlots.pc];
        if (typeof pc === "number") object.pointers[contextSlots.pc] = pc - method.pointers.length * 4;
      } else if (object.sqClass === closureClass && typeof object.pointers[1] === "number") {
        const outer = object.pointers[0] as SqueakObject;
        const method = outer.pointers?.[contextSlots.method] as SqueakObject | undefined;
        if (method?.bytes) object.pointers[1] -= method.pointers.length * 4;
      }
    }
  }

  // The file

  private u32(at: number): number {
    return this.data.getUint32(at, this.file.littleEndian);
  }

  private u64(at: number): bigint {
    return this.data.getBigUint64(at, this.file.littleEndian);
  }

  private lowWord(at: number): number {
    return this.u32(this.file.littleEndian ? at : at + 4);
  }

  private highWord(at: number): number {
    return this.u32(this.file.littleEndian ? at + 4 : at);
  }

  private address(at: number): number {
    return this.wide ? Number(this.u64(at)) : this.u32(at);
  }

  private smallInteger(at: number): number {
    return this.wide ? Number((this.u64(at) >> 3n) & 0x3fffffffn) : (this.u32(at) | 0) >> 1;
  }

  private readBytes(at: number, count: number): Uint8Array {
    return new Uint8Array(this.data.buffer, this.data.byteOffset + at, count).slice();
  }

  private readWords(at: number, count: number): Uint32Array {
    const words = new Uint32Array(count);
    for (let i = 0; i < count; i++) words[i] = this.u32(at + i * 4);
    return words;
  }

  private damaged(what: string): Error {
    return new Error(`${this.name}: ${what}; the image is damaged or incomplete, build or save it again`);
  }
}

/** Formats without the bits that count unused bytes. */
function runTimeFormat(fileFormat: number): number {
  if (fileFormat >= format.method) return format.method;
  if (fileFormat >= format.bytes) return format.bytes;
  if (fileFormat >= format.shorts) return format.shorts;
  if (fileFormat >= format.words) return format.words;
  return fileFormat;
}
