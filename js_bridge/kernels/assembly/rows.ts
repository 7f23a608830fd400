// Kernels along the rows of a tensor: the norms in their three steps and at once, and softmax. Units of work are rows.
// A step alone and the same step within `norm` are one function, so that both give the same bits.

import { exponential, loadSome, maxOfLanes, storeSome, sumOfLanes } from "./lanes";

// @ts-ignore: decorator
@inline
function placeOf(x: usize, row: i32, width: i32): usize {
  return x + ((<usize>row * <usize>width) << 2);
}

function meanOf(x: usize, width: i32): f32 {
  let sum = f32x4.splat(0);
  const whole = width & ~3;
  for (let i = 0; i < whole; i += 4) sum = f32x4.add(sum, v128.load(x + ((<usize>i) << 2)));
  if (whole < width) sum = f32x4.add(sum, loadSome(x + ((<usize>whole) << 2), width - whole));
  return sumOfLanes(sum) / <f32>width;
}

function scaleOf(x: usize, mean: f32, width: i32, epsilon: f32): f32 {
  const centre = f32x4.splat(mean);
  const whole = width & ~3;
  let squares = f32x4.splat(0);
  for (let i = 0; i < whole; i += 4) {
    const d = f32x4.sub(v128.load(x + ((<usize>i) << 2)), centre);
    squares = f32x4.add(squares, f32x4.mul(d, d));
  }
  let sum = sumOfLanes(squares);
  for (let i = whole; i < width; i++) {
    const d = load<f32>(x + ((<usize>i) << 2)) - mean;
    sum += d * d;
  }
  return Mathf.sqrt(sum / <f32>width + epsilon);
}

// @ts-ignore: decorator
@inline
function normalized(x: v128, mean: v128, scale: v128): v128 {
  return f32x4.div(f32x4.sub(x, mean), scale);
}

/** x · weight + bias; either address may be 0, for none. Vectors of parameters are rounded up, so all four are read. */
// @ts-ignore: decorator
@inline
function transformed(x: v128, weight: usize, bias: usize, at: usize): v128 {
  if (weight !== 0) x = f32x4.mul(x, v128.load(weight + at));
  if (bias !== 0) x = f32x4.add(x, v128.load(bias + at));
  return x;
}

/** √(variance + epsilon) of each row, or of its mean square. */
export function normScale(
  x: usize,
  y: usize,
  width: i32,
  epsilon: f32,
  centred: bool,
  from: i32,
  to: i32,
): void {
  for (let row = from; row < to; row++) {
    const a = placeOf(x, row, width);
    store<f32>(y + ((<usize>row) << 2), scaleOf(a, centred ? meanOf(a, width) : 0, width, epsilon));
  }
}

/** (x − mean of the row, where centred) / scale. */
export function normalize(x: usize, scale: usize, y: usize, width: i32, centred: bool, from: i32, to: i32): void {
  for (let row = from; row < to; row++) {
    const a = placeOf(x, row, width);
    const b = placeOf(y, row, width);
    const mean = f32x4.splat(centred ? meanOf(a, width) : 0);
    const divisor = v128.load32_splat(scale + ((<usize>row) << 2));
    const whole = (<usize>(width & ~3)) << 2;
    const rest = width & 3;
    for (let at: usize = 0; at < whole; at += 16) v128.store(b + at, normalized(v128.load(a + at), mean, divisor));
    if (rest > 0) storeSome(b + whole, normalized(loadSome(a + whole, rest), mean, divisor), rest);
  }
}

/** x · weight + bias, either of which may be 0. */
export function affine(x: usize, weight: usize, bias: usize, y: usize, width: i32, from: i32, to: i32): void {
  for (let row = from; row < to; row++) {
    const a = placeOf(x, row, width);
    const b = placeOf(y, row, width);
    const whole = (<usize>(width & ~3)) << 2;
    const rest = width & 3;
    for (let at: usize = 0; at < whole; at += 16) {
      v128.store(b + at, transformed(v128.load(a + at), weight, bias, at));
    }
    if (rest > 0) storeSome(b + whole, transformed(loadSome(a + whole, rest), weight, bias, whole), rest);
  }
}

/** The three at once. */
export function norm(
  x: usize,
  weight: usize,
  bias: usize,
  y: usize,
  width: i32,
  epsilon: f32,
  centred: bool,
  from: i32,
  to: i32,
): void {
  for (let row = from; row < to; row++) {
    const a = placeOf(x, row, width);
    const b = placeOf(y, row, width);
    const mean: f32 = centred ? meanOf(a, width) : 0;
    const centre = f32x4.splat(mean);
    const divisor = f32x4.splat(scaleOf(a, mean, width, epsilon));
    const whole = (<usize>(width & ~3)) << 2;
    const rest = width & 3;
    for (let at: usize = 0; at < whole; at += 16) {
      v128.store(b + at, transformed(normalized(v128.load(a + at), centre, divisor), weight, bias, at));
    }
    if (rest > 0) {
      const x4 = normalized(loadSome(a + whole, rest), centre, divisor);
      storeSome(b + whole, transformed(x4, weight, bias, whole), rest);
    }
  }
}

/**
 * e^(x − max) / Σ along each row; −∞ becomes exactly 0, and a row of nothing else all 0. `sinks`, where not 0, holds
 * one more logit for each of `heads`, which takes part in the sum and is dropped; a head has `queries` rows.
 */
export function softmax(
  x: usize,
  sinks: usize,
  y: usize,
  width: i32,
  heads: i32,
  queries: i32,
  from: i32,
  to: i32,
): void {
  const whole = width & ~3;
  for (let row = from; row < to; row++) {
    const a = placeOf(x, row, width);
    const b = placeOf(y, row, width);
    const sink: f32 = sinks === 0 ? -Infinity : load<f32>(sinks + ((<usize>((row / queries) % heads)) << 2));
    let most = f32x4.splat(-Infinity);
    for (let i = 0; i < whole; i += 4) most = f32x4.max(most, v128.load(a + ((<usize>i) << 2)));
    let greatest = max(sink, maxOfLanes(most));
    for (let i = whole; i < width; i++) greatest = max(greatest, load<f32>(a + ((<usize>i) << 2)));
    if (greatest === -Infinity) {
      memory.fill(b, 0, (<usize>width) << 2);
      continue;
    }
    const shift = f32x4.splat(greatest);
    let sums = f32x4.splat(0);
    for (let i = 0; i < whole; i += 4) {
      const power = exponential(f32x4.sub(v128.load(a + ((<usize>i) << 2)), shift));
      sums = f32x4.add(sums, power);
      v128.store(b + ((<usize>i) << 2), power);
    }
    let sum = sumOfLanes(sums);
    for (let i = whole; i < width; i++) {
      const power = f32x4.extract_lane(exponential(f32x4.splat(load<f32>(a + ((<usize>i) << 2)) - greatest)), 0);
      sum += power;
      store<f32>(b + ((<usize>i) << 2), power);
    }
    if (sinks !== 0) sum += f32x4.extract_lane(exponential(f32x4.splat(sink - greatest)), 0);
    const divisor = f32x4.splat(sum);
    for (let i = 0; i < whole; i += 4) {
      const at = b + ((<usize>i) << 2);
      v128.store(at, f32x4.div(v128.load(at), divisor));
    }
    if (whole < width) {
      const at = b + ((<usize>whole) << 2);
      storeSome(at, f32x4.div(loadSome(at, width - whole), divisor), width - whole);
    }
  }
}
