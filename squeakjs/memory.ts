/**
 * Object memory: makes objects, and converts between JavaScript values and Smalltalk's.
 * It owns no list of objects; what enumerates them is heap_walk.ts.
 */
import { instanceFormat, namedSlotCount } from "./header.ts";
import { format, isClassShaped, isSmallInteger, type LargeIntegerObject, type Oop, SqueakObject, storeIndexedPointer } from "./object.ts";
import { classSlots, methodDictionarySlots, specialObjects } from "./special_objects.ts";

/** What a reader hands over: everything that a machine needs to run an image. */
export type Image = {
  readonly name: string;
  /** The version word of the file. */
  readonly version: number;
  readonly spur: boolean;
  readonly specialObjectsArray: SqueakObject;
  /** Indexes of the class table that the file uses; empty before Spur. */
  readonly classTable: readonly (SqueakObject | undefined)[];
  /** The Characters that the file's objects refer to, by code point. */
  readonly characters: ReadonlyMap<number, SqueakObject>;
  /** Header words that a snapshot keeps: window size and flags. */
  readonly windowSize: number;
  readonly flags: number;
};

const maxHash = 0x3fffff;
const firstFreeClassIndex = 1024;
/** Larger requests fail instead of bringing the tab down. */
export const maxObjectBytes = 512 * 1024 * 1024;

export class ObjectMemory {
  readonly image: Image;
  readonly spur: boolean;
  readonly nil: SqueakObject;
  readonly true: SqueakObject;
  readonly false: SqueakObject;
  /** Slots of the special objects array; replaced as a whole by nobody, so safe to keep. */
  specials: Oop[];
  private readonly characters: (SqueakObject | undefined)[] = [];
  private readonly otherCharacters = new Map<number, SqueakObject>();
  private readonly nilFrames: Oop[][] = [];
  private readonly classTable: (SqueakObject | undefined)[];

  constructor(image: Image) {
    this.image = image;
    this.spur = image.spur;
    this.specials = image.specialObjectsArray.pointers;
    this.nil = this.special(specialObjects.nil);
    this.true = this.special(specialObjects.true);
    this.false = this.special(specialObjects.false);
    this.classTable = [...image.classTable];
    for (const [code, character] of image.characters) {
      if (code < 256) this.characters[code] = character;
      else this.otherCharacters.set(code, character);
    }
    for (let size = 0; size <= 64; size++) this.nilFrames.push(nilArray(size, this.nil));
  }

  get specialObjectsArray(): SqueakObject {
    return this.image.specialObjectsArray;
  }

  special(index: number): SqueakObject {
    return this.specials[index] as SqueakObject;
  }

  get classSmallInteger(): SqueakObject {
    return this.special(specialObjects.classSmallInteger);
  }

  get classArray(): SqueakObject {
    return this.special(specialObjects.classArray);
  }

  classOf(oop: Oop): SqueakObject {
    return typeof oop === "number" ? this.classSmallInteger : oop.sqClass;
  }

  boolean(value: boolean): SqueakObject {
    return value ? this.true : this.false;
  }

  // Making objects

  /** Makes an instance with `indexableSize` elements, or null when the class cannot have it. */
  instantiate(aClass: SqueakObject, indexableSize: number): SqueakObject | null {
    if (!isClassShaped(aClass)) return null;
    const named = namedSlotCount(aClass, this.spur);
    const instances = instanceFormat(aClass, this.spur);
    if (indexableSize < 0 || indexableSize > maxObjectBytes) return null;
    const object = new SqueakObject(aClass, instances, 0);
    switch (instances) {
      case format.empty:
      case format.fixed:
        if (indexableSize > 0) return null;
        object.pointers = this.nilSlots(named);
        return object;
      case format.indexable:
      case format.fixedIndexable:
      case format.weak:
      case format.ephemeron:
        if ((named + indexableSize) * 4 > maxObjectBytes) return null;
        object.pointers = this.nilSlots(named + indexableSize);
        return object;
      case format.longs:
        if (indexableSize * 8 > maxObjectBytes) return null;
        object.words = new Uint32Array(indexableSize * 2);
        return object;
      case format.words:
      case format.words + 1:
        if (indexableSize * 4 > maxObjectBytes) return null;
        object.format = format.words;
        if (aClass === this.specials[specialObjects.classFloat]) object.float = 0;
        else object.words = new Uint32Array(indexableSize);
        return object;
      case format.shorts:
        object.bytes = new Uint8Array(indexableSize * 2);
        return object;
      case format.bytes:
        object.bytes = new Uint8Array(indexableSize);
        return object;
      default:
        return null; // immediates and methods are made otherwise
    }
  }

  /** An array of nils; short ones are copied from a template, several times faster than filling. */
  nilSlots(size: number): Oop[] {
    return size < this.nilFrames.length ? this.nilFrames[size].slice() : new Array<Oop>(size).fill(this.nil);
  }

  array(elements: Oop[]): SqueakObject {
    const array = new SqueakObject(this.classArray, format.indexable, 0);
    array.pointers = elements;
    return array;
  }

  float(value: number): SqueakObject {
    const float = new SqueakObject(this.special(specialObjects.classFloat), format.words, 0);
    float.float = value;
    return float;
  }

  /** A ByteString; a character beyond Latin-1 becomes a question mark. */
  string(text: string): SqueakObject {
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      bytes[i] = code < 256 ? code : 63;
    }
    return this.bytesObject(this.special(specialObjects.classString), bytes);
  }

  /** A String of any characters: a WideString, where the image has that class and the text needs it. */
  text(text: string): SqueakObject {
    const codes = Array.from(text, (each) => each.codePointAt(0) as number);
    const wideClass = codes.some((code) => code > 255) ? this.classNamed("WideString") : undefined;
    if (wideClass === undefined) return this.string(text);
    const wide = new SqueakObject(wideClass, format.words, 0);
    wide.words = Uint32Array.from(codes);
    return wide;
  }

  private classNamed(name: string): SqueakObject | undefined {
    return this.classTable.find((each) => each !== undefined && this.className(each) === name);
  }

  bytesObject(aClass: SqueakObject, bytes: Uint8Array): SqueakObject {
    const object = new SqueakObject(aClass, format.bytes, 0);
    object.bytes = bytes;
    return object;
  }

  point(x: Oop, y: Oop): SqueakObject {
    const point = new SqueakObject(this.special(specialObjects.classPoint), format.fixed, 0);
    point.pointers = [x, y];
    return point;
  }

  /** The one Character of a code point: characters are identical when equal. */
  character(code: number): SqueakObject {
    let found = code < 256 ? this.characters[code] : this.otherCharacters.get(code);
    if (found === undefined) {
      if (this.spur) {
        found = new SqueakObject(this.special(specialObjects.classCharacter), format.immediate, code);
      } else {
        const table = this.special(specialObjects.characterTable).pointers;
        found = table[code] as SqueakObject;
      }
      if (code < 256) this.characters[code] = found;
      else this.otherCharacters.set(code, found);
    }
    return found;
  }

  /** The code point of a Character, -1 for anything else. */
  codePoint(oop: Oop): number {
    if (typeof oop === "number" || oop.sqClass !== this.specials[specialObjects.classCharacter]) return -1;
    return this.spur ? oop.hash : (oop.pointers[0] as number);
  }

  /** The integer object for a whole JavaScript number of at most 53 bits. */
  integer(value: number): Oop {
    if (isSmallInteger(value)) return value + 0; // +0 turns -0 into 0
    let magnitude = Math.abs(value);
    const bytes: number[] = [];
    while (magnitude > 0) {
      bytes.push(magnitude % 256);
      magnitude = Math.floor(magnitude / 256);
    }
    return this.bytesObject(this.largeIntegerClass(value < 0), Uint8Array.from(bytes));
  }

  largeIntegerClass(negative: boolean): SqueakObject {
    return this.special(negative ? specialObjects.classLargeNegativeInteger : specialObjects.classLargePositiveInteger);
  }

  isLargeInteger(oop: Oop): oop is LargeIntegerObject {
    if (typeof oop === "number") return false;
    const aClass = oop.sqClass;
    return (
      aClass === this.specials[specialObjects.classLargePositiveInteger] ||
      aClass === this.specials[specialObjects.classLargeNegativeInteger]
    );
  }

  /** An Integer's value where a double holds it exactly, NaN otherwise. */
  safeIntegerValue(oop: Oop): number {
    if (typeof oop === "number") return oop;
    if (!this.isLargeInteger(oop)) return NaN;
    const bytes = oop.bytes;
    let value = 0;
    for (let i = bytes.length - 1; i >= 0; i--) value = value * 256 + bytes[i];
    if (value > Number.MAX_SAFE_INTEGER) return NaN;
    return oop.sqClass === this.specials[specialObjects.classLargeNegativeInteger] ? -value : value;
  }

  // Identity

  identityHash(object: SqueakObject): number {
    if (object.hash === 0 && object.format !== format.immediate) {
      object.hash = this.spur ? 1 + Math.floor(Math.random() * maxHash) : 1 + Math.floor(Math.random() * 0xfff);
    }
    return object.hash;
  }

  /** A class's identity hash is its index in the class table; a class without one gets the next free one. */
  classIndex(aClass: SqueakObject): number {
    if (this.classTable[aClass.hash] === aClass) return aClass.hash;
    let index = Math.max(firstFreeClassIndex, this.classTable.length);
    while (this.classTable[index] !== undefined) index++;
    this.classTable[index] = aClass;
    aClass.hash = index;
    return index;
  }

  /** A class that took another's place in the class table (become:). */
  noteClassMoved(aClass: SqueakObject, index: number): void {
    this.classTable[index] = aClass;
  }

  /** The class at an index of the class table. */
  classAtIndex(index: number): SqueakObject | undefined {
    return this.classTable[index];
  }

  /** Whether an object is a class as far as the machine must know: it has an index, or its instances' format and methods. */
  isIndexedClass(object: SqueakObject): boolean {
    return object.hash !== 0 && this.classTable[object.hash] === object;
  }

  // Copying and resizing

  shallowCopy(object: SqueakObject): SqueakObject {
    const copy = new SqueakObject(object.sqClass, object.format, 0);
    if (object.pointers !== null) copy.pointers = object.pointers.slice();
    if (object.words !== null) copy.words = object.words.slice();
    if (object.bytes !== null) copy.bytes = object.bytes.slice();
    copy.float = object.float;
    if (typeof object.aux !== "string") copy.aux = object.aux;
    return copy;
  }

  namedSlots(object: SqueakObject): number {
    return object.format >= format.longs ? 0 : namedSlotCount(object.sqClass, this.spur);
  }

  store(object: SqueakObject, index: number, value: Oop): void {
    if (object.format === format.weak) storeIndexedPointer(object, index, value, this.namedSlots(object));
    else object.pointers[index] = value;
  }

  /** The name of a class, for people: "Array", "Array class". */
  className(aClass: SqueakObject): string {
    const slots = aClass.pointers;
    if (slots === null) return "?";
    for (let index = classSlots.name; index <= classSlots.name + 1 && index < slots.length; index++) {
      const name = slots[index];
      if (typeof name !== "number" && name.bytes !== null) return name.bytesAsString();
    }
    for (let index = slots.length - 1; index >= 3; index--) {
      const instance = slots[index];
      if (typeof instance !== "number" && instance.sqClass === aClass && instance !== aClass) {
        return `${this.className(instance)} class`;
      }
    }
    const name = slots[3];
    return typeof name === "object" && name.bytes !== null ? name.bytesAsString() : "?";
  }

  /** The method that a class itself has for the selector spelt so, for the few sends that no special object names. */
  selectorNamed(aClass: SqueakObject, spelling: string): SqueakObject | null {
    for (let each: SqueakObject = aClass; !each.isNil; each = each.pointers[classSlots.superclass] as SqueakObject) {
      const dictionary = each.pointers[classSlots.methodDictionary] as SqueakObject;
      if (dictionary.isNil) return null;
      for (let i = methodDictionarySlots.firstKey; i < dictionary.pointers.length; i++) {
        const selector = dictionary.pointers[i];
        if (typeof selector !== "number" && selector.bytes !== null && selector.bytesAsString() === spelling) return selector;
      }
    }
    return null;
  }
}

function nilArray(size: number, nil: SqueakObject): Oop[] {
  const slots: Oop[] = [];
  for (let i = 0; i < size; i++) slots.push(nil);
  return slots;
}
