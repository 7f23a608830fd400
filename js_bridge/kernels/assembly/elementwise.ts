// Operations number by number, for tensors of one shape and for rows that are repeated. Where units of work are groups
// of four, what lies behind a storage's last number may be read and written: storages are rounded up.

import { hyperbolicTangent, loadSome, multiplyAdd, storeSome, wideExponential } from "./lanes";

// The orders are those of BINARY_OPERATIONS and UNARY_OPERATIONS in ../wasm.ts.
// @ts-ignore: decorator
@inline
const ADD = 0;
// @ts-ignore: decorator
@inline
const SUBTRACT = 1;
// @ts-ignore: decorator
@inline
const MULTIPLY = 2;
// @ts-ignore: decorator
@inline
const DIVIDE = 3;
// @ts-ignore: decorator
@inline
const MINIMUM = 4;
// @ts-ignore: decorator
@inline
const MAXIMUM = 5;

// @ts-ignore: decorator
@inline
const NEGATE = 0;
// @ts-ignore: decorator
@inline
const EXP = 1;
// @ts-ignore: decorator
@inline
const LOG = 2;
// @ts-ignore: decorator
@inline
const SQRT = 3;
// @ts-ignore: decorator
@inline
const TANH = 4;
// @ts-ignore: decorator
@inline
const ABSOLUTE = 5;

// @ts-ignore: decorator
@inline
function combined(operation: i32, a: v128, b: v128): v128 {
  if (operation === ADD) return f32x4.add(a, b);
  if (operation === SUBTRACT) return f32x4.sub(a, b);
  if (operation === MULTIPLY) return f32x4.mul(a, b);
  if (operation === DIVIDE) return f32x4.div(a, b);
  if (operation === MINIMUM) return f32x4.min(a, b);
  return f32x4.max(a, b);
}

// @ts-ignore: decorator
@inline
function combineRows(
  operation: i32,
  a: usize,
  aRow: usize,
  aStep: i32,
  b: usize,
  bRow: usize,
  bStep: i32,
  y: usize,
  width: i32,
  from: i32,
  to: i32,
): void {
  for (let row = from; row < to; row++) {
    const left = a + <usize>row * aRow;
    const right = b + <usize>row * bRow;
    const out = y + ((<usize>row * <usize>width) << 2);
    const p = v128.load32_splat(left);
    const q = v128.load32_splat(right);
    for (let i = 0; i < width; i += 4) {
      const at = (<usize>i) << 2;
      const u = aStep === 0 ? p : loadSome(left + at, width - i);
      const v = bStep === 0 ? q : loadSome(right + at, width - i);
      storeSome(out + at, combined(operation, u, v), width - i);
    }
  }
}

/**
 * Rows of `width`; an operand's row has as many numbers, or one where its step is 0, and begins `…Row` bytes after the
 * one before.
 */
export function binary(
  operation: i32,
  a: usize,
  aRow: usize,
  aStep: i32,
  b: usize,
  bRow: usize,
  bStep: i32,
  y: usize,
  width: i32,
  from: i32,
  to: i32,
): void {
  switch (operation) {
    case ADD:
      return combineRows(ADD, a, aRow, aStep, b, bRow, bStep, y, width, from, to);
    case SUBTRACT:
      return combineRows(SUBTRACT, a, aRow, aStep, b, bRow, bStep, y, width, from, to);
    case MULTIPLY:
      return combineRows(MULTIPLY, a, aRow, aStep, b, bRow, bStep, y, width, from, to);
    case DIVIDE:
      return combineRows(DIVIDE, a, aRow, aStep, b, bRow, bStep, y, width, from, to);
    case MINIMUM:
      return combineRows(MINIMUM, a, aRow, aStep, b, bRow, bStep, y, width, from, to);
    default:
      return combineRows(MAXIMUM, a, aRow, aStep, b, bRow, bStep, y, width, from, to);
  }
}

/**
 * ln x, relative error below 2e-7: x = m · 2^e with √½ ≤ m < √2, ln m by a polynomial; numbers too small for an
 * exponent are multiplied by 2^24 first.
 * Source: Cephes, logf.
 */
// @ts-ignore: decorator
@inline
function logarithm(x: v128): v128 {
  const small = f32x4.lt(x, f32x4.splat(1.17549435e-38));
  const scaled = v128.bitselect(f32x4.mul(x, f32x4.splat(16777216)), x, small);
  // Adding the distance of √½ from 1 carries into the exponent just where m would pass √2.
  const bits = i32x4.add(scaled, i32x4.splat(0x3f800000 - 0x3f3504f3));
  const exponent = i32x4.sub(i32x4.shr_s(bits, 23), i32x4.splat(127));
  const mantissa = i32x4.add(v128.and(bits, i32x4.splat(0x007fffff)), i32x4.splat(0x3f3504f3));
  const e = f32x4.sub(f32x4.convert_i32x4_s(exponent), v128.and(small, f32x4.splat(24)));
  const z = f32x4.sub(mantissa, f32x4.splat(1));
  const square = f32x4.mul(z, z);
  let p = f32x4.splat(7.0376836292e-2);
  p = multiplyAdd(p, z, f32x4.splat(-1.151461031e-1));
  p = multiplyAdd(p, z, f32x4.splat(1.167699874e-1));
  p = multiplyAdd(p, z, f32x4.splat(-1.2420140846e-1));
  p = multiplyAdd(p, z, f32x4.splat(1.4249322787e-1));
  p = multiplyAdd(p, z, f32x4.splat(-1.6668057665e-1));
  p = multiplyAdd(p, z, f32x4.splat(2.0000714765e-1));
  p = multiplyAdd(p, z, f32x4.splat(-2.4999993993e-1));
  p = multiplyAdd(p, z, f32x4.splat(3.3333331174e-1));
  let y = f32x4.mul(f32x4.mul(p, z), square);
  y = f32x4.add(y, f32x4.mul(e, f32x4.splat(-2.12194440e-4)));
  y = f32x4.sub(y, f32x4.mul(f32x4.splat(0.5), square));
  y = f32x4.add(f32x4.add(z, y), f32x4.mul(e, f32x4.splat(0.693359375)));
  const infinity = f32x4.splat(Infinity);
  y = v128.bitselect(f32x4.neg(infinity), y, f32x4.eq(x, f32x4.splat(0)));
  y = v128.bitselect(infinity, y, f32x4.eq(x, infinity));
  const wrong = v128.or(f32x4.lt(x, f32x4.splat(0)), f32x4.ne(x, x));
  return v128.bitselect(f32x4.splat(NaN), y, wrong);
}

// @ts-ignore: decorator
@inline
function transformAll(operation: i32, x: usize, y: usize, from: i32, to: i32): void {
  for (let i = <usize>from << 4, end = <usize>to << 4; i < end; i += 16) {
    const v = v128.load(x + i);
    let result = v;
    if (operation === NEGATE) result = f32x4.neg(v);
    else if (operation === EXP) result = wideExponential(v);
    else if (operation === LOG) result = logarithm(v);
    else if (operation === SQRT) result = f32x4.sqrt(v);
    else if (operation === TANH) result = hyperbolicTangent(v);
    else if (operation === ABSOLUTE) result = f32x4.abs(v);
    else result = f32x4.mul(v, v);
    v128.store(y + i, result);
  }
}

/** Units are groups of four. */
export function unary(operation: i32, x: usize, y: usize, from: i32, to: i32): void {
  switch (operation) {
    case NEGATE:
      return transformAll(NEGATE, x, y, from, to);
    case EXP:
      return transformAll(EXP, x, y, from, to);
    case LOG:
      return transformAll(LOG, x, y, from, to);
    case SQRT:
      return transformAll(SQRT, x, y, from, to);
    case TANH:
      return transformAll(TANH, x, y, from, to);
    case ABSOLUTE:
      return transformAll(ABSOLUTE, x, y, from, to);
    default:
      return transformAll(6, x, y, from, to);
  }
}

/** a where the mask is not 0, b elsewhere, all of one shape. Units are groups of four. */
export function select(mask: usize, a: usize, b: usize, y: usize, from: i32, to: i32): void {
  for (let i = <usize>from << 4, end = <usize>to << 4; i < end; i += 16) {
    const isZero = f32x4.eq(v128.load(mask + i), f32x4.splat(0));
    v128.store(y + i, v128.bitselect(v128.load(b + i), v128.load(a + i), isZero));
  }
}
