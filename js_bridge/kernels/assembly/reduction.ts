// Reductions over one axis: x [outer extent inner] → y [outer inner]. Sums are kept in float64. Units of work are the
// outer rows; of the one row of `sumExponentials`, stretches.

import { exponential } from "./lanes";

// The order is that of REDUCTIONS in ../wasm.ts.
// @ts-ignore: decorator
@inline
const MEAN = 1;
// @ts-ignore: decorator
@inline
const MIN = 3;
// @ts-ignore: decorator
@inline
const ARGMAX = 4;

export function reduce(operation: i32, x: usize, y: usize, extent: i32, inner: i32, from: i32, to: i32): void {
  for (let outer = from; outer < to; outer++) {
    const a = x + ((<usize>outer * <usize>extent * <usize>inner) << 2);
    const b = y + ((<usize>outer * <usize>inner) << 2);
    if (operation > MEAN) {
      if (inner === 1) store<f32>(b, bestAlong(operation, a, extent));
      else {
        for (let i: usize = 0; i < <usize>inner; i++) {
          store<f32>(b + (i << 2), best(operation, a + (i << 2), extent, (<usize>inner) << 2));
        }
      }
    } else {
      const divisor: f64 = operation === MEAN ? <f64>extent : 1;
      if (inner === 1) store<f32>(b, <f32>(sumAlong(a, extent) / divisor));
      else sumAcross(a, b, extent, inner, divisor);
    }
  }
}

/** The first of the greatest or least numbers, or its place; a NaN at the very start stays. */
function best(operation: i32, x: usize, extent: i32, step: usize): f32 {
  let found = load<f32>(x);
  let place = 0;
  for (let i = 1; i < extent; i++) {
    const next = load<f32>(x + <usize>i * step);
    if (operation === MIN ? next < found : next > found) {
      found = next;
      place = i;
    }
  }
  return operation === ARGMAX ? <f32>place : found;
}

/** `best` of numbers side by side: pmax keeps its first operand unless the second is greater, as the loop above does. */
function bestAlong(operation: i32, x: usize, extent: i32): f32 {
  let most = v128.load32_splat(x);
  const whole = extent & ~3;
  for (let i = 0; i < whole; i += 4) {
    const v = v128.load(x + ((<usize>i) << 2));
    most = operation === MIN ? f32x4.pmin(most, v) : f32x4.pmax(most, v);
  }
  let found = f32x4.extract_lane(most, 0);
  for (let lane = 1; lane < 4; lane++) {
    most = v128.shuffle<f32>(most, most, 1, 2, 3, 0);
    const next = f32x4.extract_lane(most, 0);
    if (operation === MIN ? next < found : next > found) found = next;
  }
  for (let i = whole; i < extent; i++) {
    const next = load<f32>(x + ((<usize>i) << 2));
    if (operation === MIN ? next < found : next > found) found = next;
  }
  if (operation !== ARGMAX) return found;
  for (let i = 0; i < extent; i++) if (load<f32>(x + ((<usize>i) << 2)) === found) return <f32>i;
  return 0; // a NaN at the start
}

function sumAlong(x: usize, extent: i32): f64 {
  let low = f64x2.splat(0),
    high = low;
  const whole = extent & ~3;
  for (let i = 0; i < whole; i += 4) {
    const v = v128.load(x + ((<usize>i) << 2));
    low = f64x2.add(low, f64x2.promote_low_f32x4(v));
    high = f64x2.add(high, f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3)));
  }
  const both = f64x2.add(low, high);
  let sum = f64x2.extract_lane(both, 0) + f64x2.extract_lane(both, 1);
  for (let i = whole; i < extent; i++) sum += <f64>load<f32>(x + ((<usize>i) << 2));
  return sum;
}

/** Over rows that lie below one another, two columns at a time. */
function sumAcross(x: usize, y: usize, extent: i32, inner: i32, divisor: f64): void {
  const step = (<usize>inner) << 2;
  let column = 0;
  for (; column + 2 <= inner; column += 2) {
    const a = x + ((<usize>column) << 2);
    let sum = f64x2.splat(0);
    for (let i = 0; i < extent; i++) {
      sum = f64x2.add(sum, f64x2.promote_low_f32x4(v128.load64_zero(a + <usize>i * step)));
    }
    const result = f32x4.demote_f64x2_zero(f64x2.div(sum, f64x2.splat(divisor)));
    v128.store64_lane(y + ((<usize>column) << 2), result, 0);
  }
  if (column < inner) {
    const a = x + ((<usize>column) << 2);
    let sum: f64 = 0;
    for (let i = 0; i < extent; i++) sum += <f64>load<f32>(a + <usize>i * step);
    store<f32>(y + ((<usize>column) << 2), <f32>(sum / divisor));
  }
}

/** Numbers of a stretch: those of EXPONENTIALS in ../wasm.ts. */
// @ts-ignore: decorator
@inline
const EXPONENTIALS = 1024;

/** Σ e^(x − shift) of each stretch of x [count] → sums, float64; NaN adds nothing. */
export function sumExponentials(x: usize, sums: usize, count: i32, shift: f32, from: i32, to: i32): void {
  const shifts = f32x4.splat(shift);
  for (let stretch = from; stretch < to; stretch++) {
    const first = stretch * EXPONENTIALS;
    const end = min(first + EXPONENTIALS, count);
    const whole = first + ((end - first) & ~3);
    let low = f64x2.splat(0),
      high = low;
    for (let i = first; i < whole; i += 4) {
      const power = powers(v128.load(x + ((<usize>i) << 2)), shifts);
      low = f64x2.add(low, f64x2.promote_low_f32x4(power));
      high = f64x2.add(high, f64x2.promote_low_f32x4(v128.shuffle<f32>(power, power, 2, 3, 2, 3)));
    }
    const both = f64x2.add(low, high);
    let sum = f64x2.extract_lane(both, 0) + f64x2.extract_lane(both, 1);
    for (let i = whole; i < end; i++) {
      sum += <f64>f32x4.extract_lane(powers(v128.load32_splat(x + ((<usize>i) << 2)), shifts), 0);
    }
    store<f64>(sums + ((<usize>stretch) << 3), sum);
  }
}

// @ts-ignore: decorator
@inline
function powers(x: v128, shift: v128): v128 {
  const power = exponential(f32x4.sub(x, shift));
  return v128.and(power, f32x4.eq(power, power));
}
