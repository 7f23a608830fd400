// Products with a weight in panels of int8 codes, [ceil(N/8)][K][8], and one scale per column, applied to the sum.
// Codes are exact in float32, so one row converts them on the way and several rows read a panel widened once: the same
// sums in the same order, hence the same bits.

import { multiplyAdd, storeSome } from "./lanes";
import { productOfPanel } from "./product";

/**
 * x [rows K] · (codes · scales) + bias → y [rows N]; scratch holds K · 8 numbers. Units of work are so many panels as
 * `block` says.
 */
export function productInt8(
  x: usize,
  codes: usize,
  scales: usize,
  bias: usize,
  y: usize,
  rows: i32,
  K: i32,
  N: i32,
  block: i32,
  scratch: usize,
  first: i32,
  last: i32,
): void {
  const from = first * block;
  const to = min(last * block, (N + 7) >> 3);
  const step = <usize>K << 3;
  if (rows === 1) {
    let p = from;
    for (; p + 4 <= to; p += 4) fourPanels(x, codes + <usize>p * step, step, y + (<usize>p << 5), K, N - (p << 3));
    for (; p < to; p++) onePanel(x, codes + <usize>p * step, y + (<usize>p << 5), K, N - (p << 3));
  } else {
    for (let p = from; p < to; p++) {
      widen(codes + <usize>p * step, scratch, K);
      productOfPanel(x, scratch, y, rows, K, N, p);
    }
  }
  for (let row = 0; row < rows; row++) {
    const at = y + ((<usize>row * <usize>N) << 2);
    for (let n = from << 3, end = min(to << 3, N); n < end; n += 4) {
      const place = (<usize>n) << 2;
      let scaled = f32x4.mul(loadRow(at + place, end - n), v128.load(scales + place));
      if (bias !== 0) scaled = f32x4.add(scaled, v128.load(bias + place));
      storeSome(at + place, scaled, end - n);
    }
  }
}

// @ts-ignore: decorator
@inline
function loadRow(from: usize, count: i32): v128 {
  if (count >= 4) return v128.load(from);
  let a = v128.load32_zero(from);
  if (count > 1) a = f32x4.replace_lane(a, 1, load<f32>(from, 4));
  if (count > 2) a = f32x4.replace_lane(a, 2, load<f32>(from, 8));
  return a;
}

// @ts-ignore: decorator
@inline
function lowOf(eight: v128): v128 {
  return f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(eight));
}

// @ts-ignore: decorator
@inline
function highOf(eight: v128): v128 {
  return f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(eight));
}

/** `count` times eight codes as float32. */
export function widen(codes: usize, to: usize, count: i32): void {
  for (let i = 0; i < count; i++) {
    const eight = v128.load_ext<i8>(codes + (<usize>i << 3));
    v128.store(to + (<usize>i << 5), lowOf(eight));
    v128.store(to + (<usize>i << 5), highOf(eight), 16);
  }
}

function onePanel(x: usize, panel: usize, y: usize, K: i32, columns: i32): void {
  let a0 = f32x4.splat(0),
    a1 = a0;
  for (let k = 0; k < K; k++) {
    const s = v128.load32_splat(x + (<usize>k << 2));
    const a = v128.load_ext<i8>(panel + (<usize>k << 3));
    a0 = multiplyAdd(s, lowOf(a), a0);
    a1 = multiplyAdd(s, highOf(a), a1);
  }
  storeSome(y, a0, columns);
  storeSome(y + 16, a1, columns - 4);
}

/** For four inputs of a panel: their codes in the highest bytes of the lanes. What is loaded V8 keeps in registers. */
const LANES = memory.data<u8>([
  255, 255, 255, 0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 3,
  255, 255, 255, 4, 255, 255, 255, 5, 255, 255, 255, 6, 255, 255, 255, 7,
  255, 255, 255, 8, 255, 255, 255, 9, 255, 255, 255, 10, 255, 255, 255, 11,
  255, 255, 255, 12, 255, 255, 255, 13, 255, 255, 255, 14, 255, 255, 255, 15,
], 16); // prettier-ignore
const ZEROS = memory.data(16, 16);

/** Four of sixteen codes, each times 2²⁴. `lanes` are their place in LANES, or zeros. */
// @ts-ignore: decorator
@inline
function raised(codes: v128, quarter: i32, lanes: v128): v128 {
  let words: v128;
  if (ASC_FEATURE_RELAXED_SIMD) words = i8x16.relaxed_swizzle(codes, lanes);
  else {
    const pairs =
      quarter < 2
        ? v128.shuffle<i8>(lanes, codes, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
        : v128.shuffle<i8>(lanes, codes, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    words =
      quarter % 2 === 0
        ? v128.shuffle<i16>(lanes, pairs, 0, 8, 1, 9, 2, 10, 3, 11)
        : v128.shuffle<i16>(lanes, pairs, 4, 12, 5, 13, 6, 14, 7, 15);
  }
  return f32x4.convert_i32x4_s(words);
}

/**
 * Two inputs at a time. A code goes to the highest byte of its lane, which takes fewer instructions than to widen it,
 * and makes it 2²⁴ times as large: a power of two, taken back from the sums, so they have the same bits.
 */
function fourPanels(x: usize, panel: usize, step: usize, y: usize, K: i32, columns: i32): void {
  let w0 = panel;
  let w1 = w0 + step,
    w2 = w1 + step,
    w3 = w2 + step;
  let a0 = f32x4.splat(0),
    a1 = a0,
    b0 = a0,
    b1 = a0,
    c0 = a0,
    c1 = a0,
    d0 = a0,
    d1 = a0;
  const table = ASC_FEATURE_RELAXED_SIMD ? LANES : ZEROS;
  const next = ASC_FEATURE_RELAXED_SIMD ? 16 : 0;
  const l0 = v128.load(table),
    l1 = v128.load(table + next),
    l2 = v128.load(table + 2 * next),
    l3 = v128.load(table + 3 * next);
  const bytes = <usize>K << 2;
  let k: usize = 0;
  for (; k + 8 <= bytes; k += 8) {
    const s = v128.load32_splat(x + k);
    const t = v128.load32_splat(x + k, 4);
    const a = v128.load(w0);
    a0 = multiplyAdd(t, raised(a, 2, l2), multiplyAdd(s, raised(a, 0, l0), a0));
    a1 = multiplyAdd(t, raised(a, 3, l3), multiplyAdd(s, raised(a, 1, l1), a1));
    const b = v128.load(w1);
    b0 = multiplyAdd(t, raised(b, 2, l2), multiplyAdd(s, raised(b, 0, l0), b0));
    b1 = multiplyAdd(t, raised(b, 3, l3), multiplyAdd(s, raised(b, 1, l1), b1));
    const c = v128.load(w2);
    c0 = multiplyAdd(t, raised(c, 2, l2), multiplyAdd(s, raised(c, 0, l0), c0));
    c1 = multiplyAdd(t, raised(c, 3, l3), multiplyAdd(s, raised(c, 1, l1), c1));
    const d = v128.load(w3);
    d0 = multiplyAdd(t, raised(d, 2, l2), multiplyAdd(s, raised(d, 0, l0), d0));
    d1 = multiplyAdd(t, raised(d, 3, l3), multiplyAdd(s, raised(d, 1, l1), d1));
    w0 += 16;
    w1 += 16;
    w2 += 16;
    w3 += 16;
  }
  if (k < bytes) {
    const s = v128.load32_splat(x + k);
    const a = v128.load64_zero(w0);
    a0 = multiplyAdd(s, raised(a, 0, l0), a0);
    a1 = multiplyAdd(s, raised(a, 1, l1), a1);
    const b = v128.load64_zero(w1);
    b0 = multiplyAdd(s, raised(b, 0, l0), b0);
    b1 = multiplyAdd(s, raised(b, 1, l1), b1);
    const c = v128.load64_zero(w2);
    c0 = multiplyAdd(s, raised(c, 0, l0), c0);
    c1 = multiplyAdd(s, raised(c, 1, l1), c1);
    const d = v128.load64_zero(w3);
    d0 = multiplyAdd(s, raised(d, 0, l0), d0);
    d1 = multiplyAdd(s, raised(d, 1, l1), d1);
  }
  const unit = f32x4.splat(5.9604644775390625e-8); // 2⁻²⁴
  v128.store(y, f32x4.mul(a0, unit));
  v128.store(y, f32x4.mul(a1, unit), 16);
  v128.store(y, f32x4.mul(b0, unit), 32);
  v128.store(y, f32x4.mul(b1, unit), 48);
  v128.store(y, f32x4.mul(c0, unit), 64);
  v128.store(y, f32x4.mul(c1, unit), 80);
  storeSome(y + 96, f32x4.mul(d0, unit), columns - 24);
  storeSome(y + 112, f32x4.mul(d1, unit), columns - 28);
}
