/**
 * Recognises an image file by its version word and hands it to the reader of its era.
 * Source: the version numbers that Squeak's virtual machines write into the first word.
 */
import type { Image } from "./memory.ts";
import { readPreSpur } from "./prespur_reader.ts";
import { type FileHeader, readSpur } from "./spur_reader.ts";

const launcherBytes = 512;
const knownVersions = [6501, 6502, 6504, 68000, 68002, 68004];
// Bits that may be set beside a known version: floats in native order, Spur, two bytecode sets.
const ignoredBits = 1 | 16 | 512 | 1024;
const spurBit = 16;

/** Reads an image; the array buffer is copied from, not kept. */
export function readImage(buffer: ArrayBufferLike | ArrayBufferView, name: string): Image {
  const data = ArrayBuffer.isView(buffer)
    ? new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength)
    : new DataView(buffer);
  const file = recognise(data, name);
  if ((file.version & spurBit) !== 0) return readSpur(data, file, name);
  if (file.version >= 68000) {
    throw new Error(`${name}: version ${file.version} is a 64-bit image from before Spur; only 32-bit ones of that era can be read, convert it with Squeak`);
  }
  return readPreSpur(data, file, name);
}

function recognise(data: DataView, name: string): FileHeader {
  for (const start of [0, launcherBytes]) {
    if (data.byteLength < start + 64) break;
    for (const littleEndian of [true, false]) {
      // a 64-bit image has a 64-bit version word, whose low half comes second when big-endian
      const version = data.getUint32(start, littleEndian) || data.getUint32(start + 4, littleEndian);
      if (version < 0x20000 && knownVersions.includes(version & ~ignoredBits)) return { version, littleEndian, start };
    }
  }
  const found = data.byteLength >= 4 ? data.getUint32(0, true) : 0;
  throw new Error(
    `${name}: the first word, ${found}, is no version of an image that can be read (${knownVersions.join(", ")} and their variants such as 6521); was the download complete?`,
  );
}
