// Random numbers that a seed repeats, on every machine and backend: xoshiro128++, seeded by splitmix32. Not for secrets.
// Source: D. Blackman, S. Vigna, Scrambled Linear Pseudorandom Number Generators (2021), algorithm and rotations.

export class Random {
  readonly #state: Uint32Array;

  /** Any number is a seed; its low and high 32 bits both count. */
  constructor(seed: number) {
    const whole = Math.trunc(Math.abs(seed));
    let mixed = ((whole >>> 0) ^ Math.imul(Math.floor(whole / 2 ** 32) >>> 0, 0x9e3779b1)) >>> 0;
    if (seed < 0) mixed = ~mixed >>> 0;
    this.#state = Uint32Array.from({ length: 4 }, () => {
      mixed = (mixed + 0x9e3779b9) >>> 0;
      let word = mixed;
      word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
      word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
      return (word ^ (word >>> 16)) >>> 0;
    });
  }

  /** Thirty-two bits. */
  word(): number {
    const s = this.#state;
    const result = (rotated((s[0] + s[3]) >>> 0, 7) + s[0]) >>> 0;
    const carried = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= carried;
    s[3] = rotated(s[3], 11);
    return result;
  }

  /** At least 0 and less than 1, in steps of 2^-53. */
  fraction(): number {
    const high = this.word() >>> 5; // 27 bits
    const low = this.word() >>> 6; // 26 bits
    return (high * 2 ** 26 + low) / 2 ** 53;
  }
}

function rotated(word: number, by: number): number {
  return ((word << by) | (word >>> (32 - by))) >>> 0;
}
