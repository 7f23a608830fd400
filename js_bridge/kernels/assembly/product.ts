// Products with a weight in panels: [ceil(N/8)][K][8], so that a column block of 8 lies in one stream.
// Every sum runs over k in order, with one accumulator, whatever the number of rows: a row's result depends neither on
// the rows beside it nor on who computes which panel.

import { multiplyAdd, storeSome } from "./lanes";

/** Rows that share each load of the weights: ten sums, two weights and a factor fill the sixteen registers of x86. */
// @ts-ignore: decorator
@inline
const TILE = 5;

/** Numbers of x that are read again for each panel, so that they stay in the second-level cache. */
// @ts-ignore: decorator
@inline
const CHUNK = 131072;

/**
 * x [rows K] · panels + bias → y [rows N]; bias is 0 or readable to a multiple of 8. Units of work are so many panels
 * as `block` says.
 */
export function product(
  x: usize,
  panels: usize,
  bias: usize,
  y: usize,
  rows: i32,
  K: i32,
  N: i32,
  block: i32,
  first: i32,
  last: i32,
): void {
  const from = first * block;
  const to = min(last * block, (N + 7) >> 3);
  if (rows === 1) return oneRow(x, panels, bias, y, K, N, from, to);
  const chunk = max(1, CHUNK / K / TILE) * TILE;
  for (let row = 0; row < rows; row += chunk) {
    for (let p = from; p < to; p++) {
      onePanel(x, panels + ((<usize>p * <usize>K) << 5), bias, y, row, min(chunk, rows - row), K, N, p);
    }
  }
}

/** Rows `first` … of panel p, whose weights may lie anywhere; tiles of nearly equal height. */
// @ts-ignore: decorator
@inline
function onePanel(
  x: usize,
  panel: usize,
  bias: usize,
  y: usize,
  first: i32,
  rows: i32,
  K: i32,
  N: i32,
  p: i32,
): void {
  const bytes = <usize>K << 2;
  const out = <usize>N << 2;
  const columns = min(8, N - (p << 3));
  const offset: usize = bias === 0 ? 0 : bias + (<usize>p << 5);
  let a = x + <usize>first * bytes;
  let b = y + <usize>first * out + (<usize>p << 5);
  for (let tiles = (rows + TILE - 1) / TILE, left = rows; tiles > 0; tiles--) {
    const height = (left + tiles - 1) / tiles;
    if (height === 5) fiveRows(a, panel, offset, b, bytes, out, columns);
    else if (height === 4) fourRows(a, panel, offset, b, bytes, out, columns);
    else if (height === 3) threeRows(a, panel, offset, b, bytes, out, columns);
    else if (height === 2) twoRows(a, panel, offset, b, bytes, out, columns);
    else singleRow(a, panel, offset, b, bytes, out, columns);
    a += <usize>height * bytes;
    b += <usize>height * out;
    left -= height;
  }
}

/** For weights that are widened panel by panel. */
export function productOfPanel(
  x: usize,
  panel: usize,
  y: usize,
  rows: i32,
  K: i32,
  N: i32,
  p: i32,
): void {
  onePanel(x, panel, 0, y, 0, rows, K, N, p);
}

function fiveRows(x: usize, w: usize, bias: usize, y: usize, bytes: usize, out: usize, columns: i32): void {
  tile(5, x, w, bias, y, bytes, out, columns);
}
function fourRows(x: usize, w: usize, bias: usize, y: usize, bytes: usize, out: usize, columns: i32): void {
  tile(4, x, w, bias, y, bytes, out, columns);
}
function threeRows(x: usize, w: usize, bias: usize, y: usize, bytes: usize, out: usize, columns: i32): void {
  tile(3, x, w, bias, y, bytes, out, columns);
}
function twoRows(x: usize, w: usize, bias: usize, y: usize, bytes: usize, out: usize, columns: i32): void {
  tile(2, x, w, bias, y, bytes, out, columns);
}
function singleRow(x: usize, w: usize, bias: usize, y: usize, bytes: usize, out: usize, columns: i32): void {
  tile(1, x, w, bias, y, bytes, out, columns);
}

/** `height` is a constant wherever this is inlined: what lies beyond it is not compiled. */
// @ts-ignore: decorator
@inline
function tile(
  height: i32,
  x0: usize,
  panel: usize,
  bias: usize,
  y: usize,
  bytes: usize,
  out: usize,
  columns: i32,
): void {
  const x1 = x0 + bytes,
    x2 = x1 + bytes,
    x3 = x2 + bytes,
    x4 = x3 + bytes;
  let a0 = f32x4.splat(0),
    a1 = a0,
    b0 = a0,
    b1 = a0,
    c0 = a0,
    c1 = a0,
    d0 = a0,
    d1 = a0,
    e0 = a0,
    e1 = a0;
  let w = panel;
  for (let k: usize = 0; k < bytes; k += 4) {
    const low = v128.load(w);
    const high = v128.load(w, 16);
    w += 32;
    let s = v128.load32_splat(x0 + k);
    a0 = multiplyAdd(s, low, a0);
    a1 = multiplyAdd(s, high, a1);
    if (height > 1) {
      s = v128.load32_splat(x1 + k);
      b0 = multiplyAdd(s, low, b0);
      b1 = multiplyAdd(s, high, b1);
    }
    if (height > 2) {
      s = v128.load32_splat(x2 + k);
      c0 = multiplyAdd(s, low, c0);
      c1 = multiplyAdd(s, high, c1);
    }
    if (height > 3) {
      s = v128.load32_splat(x3 + k);
      d0 = multiplyAdd(s, low, d0);
      d1 = multiplyAdd(s, high, d1);
    }
    if (height > 4) {
      s = v128.load32_splat(x4 + k);
      e0 = multiplyAdd(s, low, e0);
      e1 = multiplyAdd(s, high, e1);
    }
  }
  storeRow(y, a0, a1, bias, columns);
  if (height > 1) storeRow(y + out, b0, b1, bias, columns);
  if (height > 2) storeRow(y + 2 * out, c0, c1, bias, columns);
  if (height > 3) storeRow(y + 3 * out, d0, d1, bias, columns);
  if (height > 4) storeRow(y + 4 * out, e0, e1, bias, columns);
}

// @ts-ignore: decorator
@inline
function storeRow(to: usize, low: v128, high: v128, bias: usize, columns: i32): void {
  if (bias !== 0) {
    low = f32x4.add(low, v128.load(bias));
    high = f32x4.add(high, v128.load(bias, 16));
  }
  storeSome(to, low, columns);
  storeSome(to + 16, high, columns - 4);
}

/** Four panels at a time: eight independent sums hide the latency that several rows hide above. */
function oneRow(x: usize, panels: usize, bias: usize, y: usize, K: i32, N: i32, from: i32, to: i32): void {
  const bytes = <usize>K << 2;
  const step = bytes << 3;
  let p = from;
  for (; p + 4 <= to; p += 4) {
    let w0 = panels + <usize>p * step;
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
    for (let k: usize = 0; k < bytes; k += 4) {
      const s = v128.load32_splat(x + k);
      a0 = multiplyAdd(s, v128.load(w0), a0);
      a1 = multiplyAdd(s, v128.load(w0, 16), a1);
      b0 = multiplyAdd(s, v128.load(w1), b0);
      b1 = multiplyAdd(s, v128.load(w1, 16), b1);
      c0 = multiplyAdd(s, v128.load(w2), c0);
      c1 = multiplyAdd(s, v128.load(w2, 16), c1);
      d0 = multiplyAdd(s, v128.load(w3), d0);
      d1 = multiplyAdd(s, v128.load(w3, 16), d1);
      w0 += 32;
      w1 += 32;
      w2 += 32;
      w3 += 32;
    }
    const at = y + (<usize>p << 5);
    const offset: usize = bias === 0 ? 0 : bias + (<usize>p << 5);
    const next: usize = bias === 0 ? 0 : 32;
    storeRow(at, a0, a1, offset, 8);
    storeRow(at + 32, b0, b1, offset + next, 8);
    storeRow(at + 64, c0, c1, offset + 2 * next, 8);
    storeRow(at + 96, d0, d1, offset + 3 * next, min(8, N - ((p + 3) << 3)));
  }
  for (; p < to; p++) onePanel(x, panels + <usize>p * step, bias, y, 0, 1, K, N, p);
}
