// XXH32: the checksum of what is kept. It finds damage, at a tenth of the time that a SHA-256 takes; it proves no
// origin: that was done by SHA-256 when the bytes came, before they were kept.
// Source: Y. Collet, xxHash fast digest algorithm, specification 0.1.1, with seed 0.

// As signed words.
const P1 = 0x9e3779b1 | 0;
const P2 = 0x85ebca77 | 0;
const P3 = 0xc2b2ae3d | 0;
const P4 = 0x27d4eb2f | 0;
const P5 = 0x165667b1 | 0;

/** 32 bits, unsigned. The machine is taken to be little-endian, as every one is that has a browser. */
export function xxh32(bytes: Uint8Array): number {
  const stripes = bytes.length & ~15;
  let hash = stripes === 0 ? P5 : striped(bytes, stripes);
  hash = (hash + bytes.length) | 0;
  let at = stripes;
  const rest = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (; at + 4 <= bytes.length; at += 4) {
    hash = Math.imul(turned((hash + Math.imul(rest.getInt32(at, true), P3)) | 0, 17), P4);
  }
  for (; at < bytes.length; at++) hash = Math.imul(turned((hash + Math.imul(bytes[at], P5)) | 0, 11), P1);
  hash = Math.imul(hash ^ (hash >>> 15), P2);
  hash = Math.imul(hash ^ (hash >>> 13), P3);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Four lanes that do not wait for one another, over whole stripes of 16 bytes. */
function striped(bytes: Uint8Array, length: number): number {
  const isAligned = bytes.byteOffset % 4 === 0;
  const { buffer, byteOffset } = isAligned ? bytes : bytes.slice();
  const words = new Int32Array(buffer, byteOffset, length / 4);
  let a = (P1 + P2) | 0;
  let b = P2;
  let c = 0;
  let d = -P1 | 0;
  for (let i = 0; i < words.length; i += 4) {
    a = Math.imul(turned((a + Math.imul(words[i], P2)) | 0, 13), P1);
    b = Math.imul(turned((b + Math.imul(words[i + 1], P2)) | 0, 13), P1);
    c = Math.imul(turned((c + Math.imul(words[i + 2], P2)) | 0, 13), P1);
    d = Math.imul(turned((d + Math.imul(words[i + 3], P2)) | 0, 13), P1);
  }
  return (turned(a, 1) + turned(b, 7) + turned(c, 12) + turned(d, 18)) | 0;
}

function turned(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}
