/**
 * Integers of any size between Smalltalk (SmallInteger, LargePositiveInteger, LargeNegativeInteger:
 * a sign and little-endian magnitude bytes) and JavaScript's BigInt. Results are always normalised.
 */
import type { ObjectMemory } from "./memory.ts";
import type { Oop } from "./object.ts";

/** The value of an Integer object, null for anything else. */
export function toBigInt(memory: ObjectMemory, oop: Oop): bigint | null {
  if (typeof oop === "number") return BigInt(oop);
  if (!memory.isLargeInteger(oop)) return null;
  const magnitude = magnitudeOf(oop.bytes);
  return oop.sqClass === memory.largeIntegerClass(true) ? -magnitude : magnitude;
}

/** The normalised Integer object of a value. */
export function fromBigInt(memory: ObjectMemory, value: bigint): Oop {
  if (value >= -0x40000000n && value <= 0x3fffffffn) return Number(value);
  const magnitude = value < 0n ? -value : value;
  return memory.bytesObject(memory.largeIntegerClass(value < 0n), bytesOf(magnitude));
}

const bytesOfSafeInteger = 6;

// Short ones as doubles; long ones through hexadecimal text both ways: linear, where shifting byte by byte is quadratic.
function magnitudeOf(bytes: Uint8Array): bigint {
  if (bytes.length <= bytesOfSafeInteger) {
    let value = 0;
    for (let i = bytes.length - 1; i >= 0; i--) value = value * 256 + bytes[i];
    return BigInt(value);
  }
  let digits = "0x0";
  for (let i = bytes.length - 1; i >= 0; i--) digits += hexDigits[bytes[i]];
  return BigInt(digits);
}

function bytesOf(magnitude: bigint): Uint8Array {
  if (magnitude < 1n << 48n) {
    let rest = Number(magnitude);
    const bytes = new Uint8Array(rest < 2 ** 32 ? 4 : rest < 2 ** 40 ? 5 : 6); // beyond SmallIntegers, so never fewer than 4
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = rest % 256;
      rest = Math.floor(rest / 256);
    }
    return bytes;
  }
  let digits = magnitude.toString(16);
  if (digits.length % 2 === 1) digits = `0${digits}`;
  const bytes = new Uint8Array(digits.length / 2);
  for (let i = 0; i < bytes.length; i++) {
    const end = digits.length - 2 * i;
    bytes[i] = parseInt(digits.slice(end - 2, end), 16);
  }
  return bytes;
}

const hexDigits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** Division rounded towards negative infinity, as `//`. */
export function floorDivide(a: bigint, b: bigint): bigint {
  const quotient = a / b;
  return a % b !== 0n && a < 0n !== b < 0n ? quotient - 1n : quotient;
}

/** The remainder that belongs to `floorDivide`, as `\\`. */
export function floorModulo(a: bigint, b: bigint): bigint {
  const remainder = a % b;
  return remainder !== 0n && remainder < 0n !== b < 0n ? remainder + b : remainder;
}
