// Four float32 at a time: products, sums of rows, and the functions that the kernels share.
// Only `multiplyAdd` is fused, in the builds for machines with relaxed SIMD; the other builds give the same numbers on
// every machine.

/** a · b + c. */
// @ts-ignore: decorator
@inline
export function multiplyAdd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(c, f32x4.mul(a, b));
}

/** The four lanes added pairwise. */
// @ts-ignore: decorator
@inline
export function sumOfLanes(a: v128): f32 {
  return f32x4.extract_lane(a, 0) + f32x4.extract_lane(a, 1) + (f32x4.extract_lane(a, 2) + f32x4.extract_lane(a, 3));
}

/** `sumOfLanes` of four vectors, bit by bit the same. */
// @ts-ignore: decorator
@inline
export function sumsOfLanes(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab02 = v128.shuffle<f32>(a, b, 0, 4, 2, 6);
  const ab13 = v128.shuffle<f32>(a, b, 1, 5, 3, 7);
  const cd02 = v128.shuffle<f32>(c, d, 0, 4, 2, 6);
  const cd13 = v128.shuffle<f32>(c, d, 1, 5, 3, 7);
  const ab = f32x4.add(ab02, ab13); // a01 b01 a23 b23
  const cd = f32x4.add(cd02, cd13);
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}

// @ts-ignore: decorator
@inline
export function maxOfLanes(a: v128): f32 {
  return max(
    max(f32x4.extract_lane(a, 0), f32x4.extract_lane(a, 1)),
    max(f32x4.extract_lane(a, 2), f32x4.extract_lane(a, 3)),
  );
}

/** Added to a number of at most 22 bits, it leaves the nearest integer in the last bits of the sum. */
// @ts-ignore: decorator
@inline
const INTEGRAL: f32 = 12582912;

/** x log₂ e + INTEGRAL, for x between -104 and 89. */
// @ts-ignore: decorator
@inline
function powerOf(x: v128): v128 {
  return f32x4.add(f32x4.mul(x, f32x4.splat(1.44269504)), f32x4.splat(INTEGRAL));
}

/** e^r of x = n ln 2 + r, with |r| ≤ ln 2 / 2; ln 2 is in two parts so that r is exact. Source: Cephes, expf. */
// @ts-ignore: decorator
@inline
function restOf(x: v128, power: v128): v128 {
  const n = f32x4.sub(power, f32x4.splat(INTEGRAL));
  let r = f32x4.sub(x, f32x4.mul(n, f32x4.splat(0.693359375)));
  r = f32x4.add(r, f32x4.mul(n, f32x4.splat(2.1219444e-4)));
  let p = f32x4.splat(1.98756915e-4);
  p = multiplyAdd(p, r, f32x4.splat(1.3981999507e-3));
  p = multiplyAdd(p, r, f32x4.splat(8.3334519073e-3));
  p = multiplyAdd(p, r, f32x4.splat(4.1665795894e-2));
  p = multiplyAdd(p, r, f32x4.splat(1.6666665459e-1));
  p = multiplyAdd(p, r, f32x4.splat(5.0000001201e-1));
  return f32x4.add(multiplyAdd(p, f32x4.mul(r, r), r), f32x4.splat(1));
}

/** e^x, relative error below 2e-7; exactly 0 below -87.3, where float32 loses its last bits; clamped above 88.3. */
// @ts-ignore: decorator
@inline
export function exponential(x: v128): v128 {
  const tiny = f32x4.lt(x, f32x4.splat(-87.3));
  // The order of the operands keeps NaN.
  const bounded = f32x4.pmin(f32x4.pmax(x, f32x4.splat(-87.3)), f32x4.splat(88.3));
  const n = powerOf(bounded);
  const power = i32x4.shl(i32x4.add(n, i32x4.splat(127)), 23);
  return v128.andnot(f32x4.mul(restOf(bounded, n), power), tiny);
}

/** e^x over all of float32, down to its smallest numbers and up to ∞: 2^n is multiplied in as two powers. */
// @ts-ignore: decorator
@inline
export function wideExponential(x: v128): v128 {
  const bounded = f32x4.pmin(f32x4.pmax(x, f32x4.splat(-104)), f32x4.splat(89));
  const n = powerOf(bounded);
  const whole = i32x4.sub(n, f32x4.splat(INTEGRAL));
  const half = i32x4.shr_s(whole, 1);
  const first = i32x4.shl(i32x4.add(half, i32x4.splat(127)), 23);
  const second = i32x4.shl(i32x4.add(i32x4.sub(whole, half), i32x4.splat(127)), 23);
  return f32x4.mul(f32x4.mul(restOf(bounded, n), first), second);
}

/**
 * tanh x, relative error below 3e-7: near 0 an odd polynomial, since 1 − 2 / (e^2x + 1) loses digits there.
 * Source: Cephes, tanhf.
 */
// @ts-ignore: decorator
@inline
export function hyperbolicTangent(x: v128): v128 {
  const one = f32x4.splat(1);
  const two = f32x4.splat(2);
  const far = f32x4.sub(one, f32x4.div(two, f32x4.add(exponential(f32x4.mul(two, x)), one)));
  const z = f32x4.mul(x, x);
  let p = f32x4.splat(-5.70498872745e-3);
  p = multiplyAdd(p, z, f32x4.splat(2.06390887954e-2));
  p = multiplyAdd(p, z, f32x4.splat(-5.37397155531e-2));
  p = multiplyAdd(p, z, f32x4.splat(1.33314422036e-1));
  p = multiplyAdd(p, z, f32x4.splat(-3.33332819422e-1));
  const near = f32x4.add(f32x4.mul(f32x4.mul(p, z), x), x);
  return v128.bitselect(near, far, f32x4.lt(f32x4.abs(x), f32x4.splat(0.625)));
}

/** Up to four numbers from memory, zero beyond `count`. */
// @ts-ignore: decorator
@inline
export function loadSome(from: usize, count: i32): v128 {
  if (count >= 4) return v128.load(from);
  let a = f32x4.splat(0);
  if (count > 0) a = f32x4.replace_lane(a, 0, load<f32>(from));
  if (count > 1) a = f32x4.replace_lane(a, 1, load<f32>(from, 4));
  if (count > 2) a = f32x4.replace_lane(a, 2, load<f32>(from, 8));
  return a;
}

/** The first `count` of four numbers to memory. */
// @ts-ignore: decorator
@inline
export function storeSome(to: usize, a: v128, count: i32): void {
  if (count >= 4) {
    v128.store(to, a);
    return;
  }
  if (count > 0) store<f32>(to, f32x4.extract_lane(a, 0));
  if (count > 1) store<f32>(to, f32x4.extract_lane(a, 1), 4);
  if (count > 2) store<f32>(to, f32x4.extract_lane(a, 2), 8);
}
