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
  for (let k = 0; k < K; k++) {
    const s = v128.load32_splat(x + (<usize>k << 2));
    const a = v128.load_ext<i8>(w0);
    a0 = multiplyAdd(s, lowOf(a), a0);
    a1 = multiplyAdd(s, highOf(a), a1);
    const b = v128.load_ext<i8>(w1);
    b0 = multiplyAdd(s, lowOf(b), b0);
    b1 = multiplyAdd(s, highOf(b), b1);
    const c = v128.load_ext<i8>(w2);
    c0 = multiplyAdd(s, lowOf(c), c0);
    c1 = multiplyAdd(s, highOf(c), c1);
    const d = v128.load_ext<i8>(w3);
    d0 = multiplyAdd(s, lowOf(d), d0);
    d1 = multiplyAdd(s, highOf(d), d1);
    w0 += 8;
    w1 += 8;
    w2 += 8;
    w3 += 8;
  }
  v128.store(y, a0);
  v128.store(y, a1, 16);
  v128.store(y, b0, 32);
  v128.store(y, b1, 48);
  v128.store(y, c0, 64);
  v128.store(y, c1, 80);
  storeSome(y + 96, d0, columns - 24);
  storeSome(y + 112, d1, columns - 28);
}
