// Products with the transpose of a weight, over the panels of the weight itself: what a product does to gradients.
// A unit of work is a block of inputs. Up to five rows keep their sums with two inputs in registers, as in product.ts,
// over so few panels that their lines stay in the cache for the next rows. Few rows read the panels one after another,
// and keep their sums in memory.
// Every sum keeps four lanes over all outputs in their order, and adds them up at the end: a row's result depends
// neither on the rows beside it nor on who computes which block.

import { loadSome, multiplyAdd, sumOfLanes } from "./lanes";
import { widen } from "./product_int8";

/** Inputs of a block; ../wasm.ts has it too. */
// @ts-ignore: decorator
@inline
const BLOCK = 96;
/** Panels that are taken together, and rows that are computed with them before the next. */
// @ts-ignore: decorator
@inline
const PANELS = 16;
// @ts-ignore: decorator
@inline
const ROWS = 32;
/** Rows that read a panel's line often enough for tiles. */
// @ts-ignore: decorator
@inline
const SHARED = 4;
/** Rows of a tile: see product.ts. */
// @ts-ignore: decorator
@inline
const TILE = 5;

/** Bytes of a row's numbers for PANELS, and of a row's sums. */
// @ts-ignore: decorator
@inline
const ROW: usize = PANELS * 32;
// @ts-ignore: decorator
@inline
const SUMS: usize = BLOCK * 16;

/**
 * y [rows N] · weightᵀ → x [rows K], inputs of blocks `from` … `to`. Without scales the panels are float32, else int8.
 * Scratch: sums [ROWS BLOCK 4], widened codes [PANELS BLOCK 8], rows [ROWS PANELS 8].
 */
export function productTransposed(
  y: usize,
  panels: usize,
  scales: usize,
  x: usize,
  rows: i32,
  K: i32,
  N: i32,
  scratch: usize,
  from: i32,
  to: i32,
): void {
  const sums = scratch;
  const wide = sums + ROWS * SUMS;
  const numbers = wide + BLOCK * PANELS * 32;
  const count = (N + 7) >> 3;
  for (let block = from; block < to; block++) {
    const first = block * BLOCK;
    const inputs = min(BLOCK, K - first);
    for (let row = 0; row < rows; row += ROWS) {
      const height = min(ROWS, rows - row);
      const own = y + ((<usize>row * <usize>N) << 2);
      memory.fill(sums, 0, <usize>height * SUMS);
      for (let p = 0; p < count; p += PANELS) {
        const width = min(PANELS, count - p);
        copyRows(own, scales, numbers, height, p, width, N);
        const place = <usize>p * <usize>K + <usize>first;
        let weights = panels + (place << 5);
        let step = (<usize>K) << 5;
        if (scales !== 0) {
          for (let i = 0; i < width; i++) {
            widen(panels + ((place + <usize>i * <usize>K) << 3), wide + <usize>i * (BLOCK * 32), inputs);
          }
          weights = wide;
          step = BLOCK * 32;
        }
        if (height < SHARED) accumulateAll(weights, step, numbers, sums, height, width, inputs);
        else {
          // The last input of an odd number is computed with the one beside it, whose sum is not kept.
          for (let i: usize = 0; i < <usize>inputs; i += 2) {
            allRows(weights + (i << 5), step, numbers, sums + (i << 4), height, width);
          }
        }
      }
      for (let r = 0; r < height; r++) {
        const out = x + ((<usize>(row + r) * <usize>K + <usize>first) << 2);
        for (let i = 0; i < inputs; i++) {
          store<f32>(out + (<usize>i << 2), sumOfLanes(v128.load(sums + <usize>r * SUMS + ((<usize>i) << 4))));
        }
      }
    }
  }
}

/** The rows' numbers for so many panels, times their scales, and 0 behind the last output. */
function copyRows(y: usize, scales: usize, to: usize, rows: i32, p: i32, width: i32, N: i32): void {
  const first = p << 3;
  const whole = min(width << 3, (N - first) & ~3);
  for (let row = 0; row < rows; row++) {
    const source = y + ((<usize>row * <usize>N + <usize>first) << 2);
    const target = to + <usize>row * ROW;
    memory.fill(target + ((<usize>whole) << 2), 0, <usize>((width << 3) - whole) << 2);
    let at: usize = 0;
    for (let end = (<usize>whole) << 2; at < end; at += 16) v128.store(target + at, v128.load(source + at));
    if (whole < width << 3) v128.store(target + at, loadSome(source + at, N - first - whole));
    if (scales === 0) continue;
    const factors = scales + ((<usize>first) << 2);
    for (let i: usize = 0, end = (<usize>width) << 5; i < end; i += 16) {
      v128.store(target + i, f32x4.mul(v128.load(target + i), v128.load(factors + i)));
    }
  }
}

/** Two inputs with all rows, in tiles of nearly equal height. */
function allRows(w: usize, step: usize, numbers: usize, sums: usize, rows: i32, width: i32): void {
  for (let tiles = (rows + TILE - 1) / TILE, left = rows; tiles > 0; tiles--) {
    const height = (left + tiles - 1) / tiles;
    if (height === 5) fiveRows(w, step, numbers, sums, width);
    else if (height === 4) fourRows(w, step, numbers, sums, width);
    else if (height === 3) threeRows(w, step, numbers, sums, width);
    else twoRows(w, step, numbers, sums, width);
    numbers += <usize>height * ROW;
    sums += <usize>height * SUMS;
    left -= height;
  }
}

function fiveRows(w: usize, step: usize, y: usize, sums: usize, width: i32): void {
  tile(5, w, step, y, sums, width);
}
function fourRows(w: usize, step: usize, y: usize, sums: usize, width: i32): void {
  tile(4, w, step, y, sums, width);
}
function threeRows(w: usize, step: usize, y: usize, sums: usize, width: i32): void {
  tile(3, w, step, y, sums, width);
}
function twoRows(w: usize, step: usize, y: usize, sums: usize, width: i32): void {
  tile(2, w, step, y, sums, width);
}

/** `height` is a constant wherever this is inlined: what lies beyond it is not compiled. */
// @ts-ignore: decorator
@inline
function tile(height: i32, w: usize, step: usize, y: usize, sums: usize, width: i32): void {
  let a0 = v128.load(sums),
    a1 = v128.load(sums, 16),
    b0 = v128.load(sums, SUMS),
    b1 = v128.load(sums, SUMS + 16);
  let c0 = a0,
    c1 = a0,
    d0 = a0,
    d1 = a0,
    e0 = a0,
    e1 = a0;
  if (height > 2) {
    c0 = v128.load(sums, 2 * SUMS);
    c1 = v128.load(sums, 2 * SUMS + 16);
  }
  if (height > 3) {
    d0 = v128.load(sums, 3 * SUMS);
    d1 = v128.load(sums, 3 * SUMS + 16);
  }
  if (height > 4) {
    e0 = v128.load(sums, 4 * SUMS);
    e1 = v128.load(sums, 4 * SUMS + 16);
  }
  for (const end = y + ((<usize>width) << 5); y < end; y += 32) {
    let w0 = v128.load(w);
    let w1 = v128.load(w, 32);
    let s: v128;
    s = v128.load(y, 0);
    a0 = multiplyAdd(w0, s, a0);
    a1 = multiplyAdd(w1, s, a1);
    s = v128.load(y, ROW);
    b0 = multiplyAdd(w0, s, b0);
    b1 = multiplyAdd(w1, s, b1);
    if (height > 2) {
      s = v128.load(y, 2 * ROW);
      c0 = multiplyAdd(w0, s, c0);
      c1 = multiplyAdd(w1, s, c1);
    }
    if (height > 3) {
      s = v128.load(y, 3 * ROW);
      d0 = multiplyAdd(w0, s, d0);
      d1 = multiplyAdd(w1, s, d1);
    }
    if (height > 4) {
      s = v128.load(y, 4 * ROW);
      e0 = multiplyAdd(w0, s, e0);
      e1 = multiplyAdd(w1, s, e1);
    }
    w0 = v128.load(w, 16);
    w1 = v128.load(w, 48);
    w += step;
    s = v128.load(y, 16);
    a0 = multiplyAdd(w0, s, a0);
    a1 = multiplyAdd(w1, s, a1);
    s = v128.load(y, ROW + 16);
    b0 = multiplyAdd(w0, s, b0);
    b1 = multiplyAdd(w1, s, b1);
    if (height > 2) {
      s = v128.load(y, 2 * ROW + 16);
      c0 = multiplyAdd(w0, s, c0);
      c1 = multiplyAdd(w1, s, c1);
    }
    if (height > 3) {
      s = v128.load(y, 3 * ROW + 16);
      d0 = multiplyAdd(w0, s, d0);
      d1 = multiplyAdd(w1, s, d1);
    }
    if (height > 4) {
      s = v128.load(y, 4 * ROW + 16);
      e0 = multiplyAdd(w0, s, e0);
      e1 = multiplyAdd(w1, s, e1);
    }
  }
  v128.store(sums, a0);
  v128.store(sums, a1, 16);
  v128.store(sums, b0, SUMS);
  v128.store(sums, b1, SUMS + 16);
  if (height > 2) {
    v128.store(sums, c0, 2 * SUMS);
    v128.store(sums, c1, 2 * SUMS + 16);
  }
  if (height > 3) {
    v128.store(sums, d0, 3 * SUMS);
    v128.store(sums, d1, 3 * SUMS + 16);
  }
  if (height > 4) {
    v128.store(sums, e0, 4 * SUMS);
    v128.store(sums, e1, 4 * SUMS + 16);
  }
}

/** Few rows with a block's inputs, two panels at a time. */
function accumulateAll(
  panel: usize,
  step: usize,
  numbers: usize,
  sums: usize,
  rows: i32,
  width: i32,
  inputs: i32,
): void {
  for (let p = 0; p < width; p += 2, panel += 2 * step) {
    for (let r = 0; r < rows; r++) {
      const y = numbers + <usize>r * ROW + ((<usize>p) << 5);
      const own = sums + <usize>r * SUMS;
      if (p + 1 < width) accumulateTwo(panel, panel + step, y, own, inputs);
      else accumulate(panel, y, own, inputs);
    }
  }
}

/** `accumulate` for one panel and then the next. */
// @ts-ignore: decorator
@inline
function accumulateTwo(panel: usize, next: usize, y: usize, sums: usize, inputs: i32): void {
  const a = v128.load(y),
    b = v128.load(y, 16),
    c = v128.load(y, 32),
    d = v128.load(y, 48);
  for (let i = 0; i < inputs; i++) {
    const at = sums + (<usize>i << 4);
    const w = panel + (<usize>i << 5);
    const v = next + (<usize>i << 5);
    const sum = multiplyAdd(v128.load(w, 16), b, multiplyAdd(v128.load(w), a, v128.load(at)));
    v128.store(at, multiplyAdd(v128.load(v, 16), d, multiplyAdd(v128.load(v), c, sum)));
  }
}

// @ts-ignore: decorator
@inline
function accumulate(panel: usize, y: usize, sums: usize, inputs: i32): void {
  const low = v128.load(y),
    high = v128.load(y, 16);
  for (let i = 0; i < inputs; i++) {
    const at = sums + (<usize>i << 4);
    const w = panel + (<usize>i << 5);
    v128.store(at, multiplyAdd(v128.load(w, 16), high, multiplyAdd(v128.load(w), low, v128.load(at))));
  }
}
