/** SmallInteger, LargeInteger and Float primitives, against BigInt and against JavaScript's own doubles. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Oop, primitiveTable, SqueakObject } from "../../squeakjs/index.ts";
import { fromBigInt } from "../../squeakjs/integers.ts";
import { exponentOf, timesPowerOfTwo } from "../../squeakjs/primitives/float.ts";
import { plain, TinyImage } from "./tiny_image.ts";

const tiny = new TinyImage();
const { vm } = tiny.start({ bytes: [0x78] });

/** Runs a primitive on a receiver and arguments; undefined when it fails. */
function run(number: number, ...values: (Oop | bigint)[]): unknown {
  const base = vm.sp;
  for (const value of values) vm.push(typeof value === "bigint" ? fromBigInt(vm.memory, value) : value);
  const entry = primitiveTable.get(number);
  assert.ok(entry?.run);
  const succeeded = entry.run(vm, values.length - 1);
  const answer = succeeded ? plain(vm, vm.pop()) : undefined;
  if (!succeeded) vm.sp -= values.length;
  assert.equal(vm.sp, base, `primitive ${number} left the stack unbalanced`);
  return answer;
}

function floorDivide(a: bigint, b: bigint): bigint {
  const quotient = a / b;
  return a % b !== 0n && a < 0n !== b < 0n ? quotient - 1n : quotient;
}

const operations: readonly [small: number, large: number, bytecode: number | null, exact: (a: bigint, b: bigint) => bigint | boolean | undefined][] = [
  [1, 21, 0, (a, b) => a + b],
  [2, 22, 1, (a, b) => a - b],
  [3, 23, 2, (a, b) => a < b],
  [4, 24, 3, (a, b) => a > b],
  [5, 25, 4, (a, b) => a <= b],
  [6, 26, 5, (a, b) => a >= b],
  [7, 27, 6, (a, b) => a === b],
  [8, 28, 7, (a, b) => a !== b],
  [9, 29, 8, (a, b) => a * b],
  [10, 30, 9, (a, b) => (b !== 0n && a % b === 0n ? a / b : undefined)],
  [11, 31, 10, (a, b) => (b === 0n ? undefined : a - floorDivide(a, b) * b)],
  [12, 32, 13, (a, b) => (b === 0n ? undefined : floorDivide(a, b))],
  [13, 33, null, (a, b) => (b === 0n ? undefined : a / b)],
  [14, 34, 14, (a, b) => a & b],
  [15, 35, 15, (a, b) => a | b],
  [16, 36, null, (a, b) => a ^ b],
];

const max = 0x3fffffffn;
const min = -0x40000000n;
const small = [0n, 1n, -1n, 2n, -2n, 3n, -3n, 7n, 255n, 65536n, -65537n, 46341n, max, max - 1n, min, min + 1n];
const few = [0n, 1n, -3n, 7n, 46341n, max, min];
const large = [max + 1n, min - 1n, 2n ** 32n, -(2n ** 32n), 2n ** 53n + 1n, -(2n ** 63n) - 5n, 10n ** 30n, -(10n ** 30n) - 1n];

/** Whole results as `plain` gives them: SmallIntegers as numbers, -0 never. */
function expected(value: bigint | boolean | undefined): unknown {
  if (typeof value !== "bigint") return value;
  return value >= min && value <= max ? Number(value) : value;
}

test("SmallInteger primitives are exact for every pair of edge values", () => {
  for (const [number, , , exact] of operations) {
    for (const a of small) for (const b of small) assert.deepStrictEqual(run(number, a, b), expected(exact(a, b)), `primitive ${number}: ${a}, ${b}`);
  }
});

test("LargeInteger primitives are exact for every pair of edge values", () => {
  for (const [, number, , exact] of operations) {
    for (const a of [...small, ...large]) for (const b of [...small, ...large]) assert.deepStrictEqual(run(number, a, b), expected(exact(a, b)), `primitive ${number}: ${a}, ${b}`);
  }
});

test("the arithmetic bytecodes agree with the primitives, in both sets", () => {
  for (const [, , bytecode, exact] of operations) {
    if (bytecode === null) continue;
    for (const a of few) {
      for (const b of few) {
        const result = exact(a, b);
        if (result === undefined) continue; // there the primitive fails, and the image decides
        for (const [base, sista] of [[0xb0, false], [0x60, true]] as const) {
          const { vm, reported } = tiny.start(tiny.reporting({ bytes: [0x22, 0x23, base + bytecode], literals: [Number(a), Number(b)], sista }));
          vm.step(1000);
          assert.deepStrictEqual(plain(vm, reported[0]), expected(result), `bytecode ${bytecode}: ${a}, ${b}`);
        }
      }
    }
  }
});

test("a product beyond 53 bits is recomputed from the operands", () => {
  // 1073741823 * 1073741821 is odd, but the nearest double is even
  assert.equal(run(9, max, max - 2n), max * (max - 2n));
});

test("zero has no sign", () => {
  for (const [number, a, b] of [[9, 0n, -5n], [11, -4n, 2n], [12, 0n, -5n], [13, -1n, 5n], [10, 0n, -5n]] as const) {
    assert.ok(Object.is(run(number, a, b), 0), `primitive ${number}`);
  }
});

test("bitShift: goes both ways, to any size", () => {
  for (const value of [...small, ...large]) {
    for (const by of [0n, 1n, -1n, 30n, 31n, -31n, -40n, 64n, 200n]) {
      assert.deepStrictEqual(run(37, value, by), expected(by < 0n ? value >> -by : value << by), `${value} bitShift: ${by}`);
    }
  }
});

test("integers survive the way to BigInt and back", () => {
  for (let bits = 1; bits < 200; bits++) {
    for (const value of [2n ** BigInt(bits) - 1n, -(2n ** BigInt(bits))]) assert.deepStrictEqual(run(21, value, 0n), expected(value));
  }
});

test("Floats compare as IEEE 754 says, NaN included", () => {
  const values = [0, -0, 1, -1.5, Infinity, -Infinity, NaN, 5e-324];
  for (const a of values) {
    for (const b of values) {
      const [x, y] = [tiny.float(a), tiny.float(b)];
      assert.deepEqual([43, 44, 45, 46, 47, 48].map((number) => run(number, x, y)), [a < b, a > b, a <= b, a >= b, a === b, a !== b], `${a}, ${b}`);
    }
  }
});

test("a Float is never a SmallInteger, also when whole", () => {
  assert.deepEqual(run(41, tiny.float(1), tiny.float(2)), { float: 3 });
  assert.deepEqual(run(1, tiny.float(1), tiny.float(2)), undefined);
  assert.deepEqual(run(60, tiny.array([10]), tiny.float(1)), undefined);
});

test("division of Floats by zero fails", () => {
  assert.equal(run(50, tiny.float(1), tiny.float(0)), undefined);
  assert.equal(run(50, tiny.float(1), tiny.float(-0)), undefined);
});

test("truncated answers SmallIntegers alone", () => {
  assert.equal(run(51, tiny.float(-2.9)), -2);
  assert.ok(Object.is(run(51, tiny.float(-0.5)), 0));
  assert.equal(run(51, tiny.float(1e10)), undefined);
  assert.equal(run(51, tiny.float(NaN)), undefined);
});

test("timesTwoPower: rounds once, from and to the denormals", () => {
  const exact = (value: number, power: number): number => {
    // through integers: value = m * 2^e with 53-bit m
    const e = value === 0 ? 0 : Math.max(exponentOf(value) - 52, -1074);
    const m = value / 2 ** Math.max(e, -1000) / (e < -1000 ? 2 ** (e + 1000) : 1);
    let numerator = BigInt(m);
    let shift = e + power;
    const negative = numerator < 0n;
    if (negative) numerator = -numerator;
    const least = -1074;
    if (numerator === 0n) return value;
    const length = numerator.toString(2).length;
    const drop = Math.max(length - 53, least - shift, 0);
    if (drop > 0) {
      const half = 1n << BigInt(drop - 1);
      const rest = numerator & ((1n << BigInt(drop)) - 1n);
      numerator >>= BigInt(drop);
      if (rest > half || (rest === half && numerator % 2n === 1n)) numerator += 1n;
      shift += drop;
    }
    const magnitude = shift > 971 ? Infinity : Number(numerator) * 2 ** Math.max(shift, -1000) * (shift < -1000 ? 2 ** (shift + 1000) : 1);
    return negative ? -magnitude : magnitude;
  };
  for (const value of [1, -1, 1.5, Math.PI, 1 + 2 ** -52, 2 ** -1022, 5e-324, 3 * 2 ** -1074, Number.MAX_VALUE, 2 ** -500 * 1.1]) {
    for (const power of [0, 1, -1, 52, -52, 500, -500, -1022, -1073, -1074, -1075, 1023, 1024, 2000, 2098, -2098, 3000, -3000]) {
      assert.equal(timesPowerOfTwo(value, power), exact(value, power), `${value} timesTwoPower: ${power}`);
    }
  }
});

test("exponent is that of the leading bit", () => {
  for (const [value, exponent] of [[1, 0], [0.5, -1], [3, 1], [5e-324, -1074], [2 ** -1023, -1023], [Number.MAX_VALUE, 1023], [-8, 3]]) {
    assert.equal(run(53, tiny.float(value)), exponent);
  }
});

test("word access to a Float has the high word first", () => {
  const float = tiny.float(1);
  assert.equal(run(38, float, 1), 0x3ff00000);
  assert.equal(run(38, float, 2), 0);
  assert.equal(run(39, float, 1, 0x40080000n), BigInt(0x40080000));
  assert.equal((float as SqueakObject).float, 3);
});
