// Products with the transpose of a weight, over the panels of the weight itself: what a product does to gradients.
// A unit of work is a block of inputs; its sums keep four lanes each until all panels are done, so the order of the
// additions depends on nothing but the number of outputs.

import { loadSome, multiplyAdd, sumOfLanes } from "./lanes";
import { widen } from "./product_int8";

/** Inputs of a block, and rows whose sums are kept at once: 16 bytes for each pair. */
// @ts-ignore: decorator
@inline
const BLOCK = 128;
// @ts-ignore: decorator
@inline
const ROWS = 4;

/**
 * y [rows N] · weightᵀ → x [rows K], inputs of blocks `from` … `to`. Without scales the panels are float32, else int8.
 * Scratch holds (ROWS · 4 + 16) · BLOCK numbers.
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
  const wide = scratch + ROWS * BLOCK * 16;
  const count = (N + 7) >> 3;
  for (let block = from; block < to; block++) {
    const first = block * BLOCK;
    const inputs = min(BLOCK, K - first);
    for (let row = 0; row < rows; row += ROWS) {
      const height = min(ROWS, rows - row);
      memory.fill(sums, 0, ROWS * BLOCK * 16);
      for (let p = 0; p < count; p += 2) {
        const isPair = p + 1 < count;
        const place = <usize>p * <usize>K + <usize>first;
        let panel = panels + (place << 5);
        let next = panel + (<usize>K << 5);
        if (scales !== 0) {
          widen(panels + (place << 3), wide, inputs);
          if (isPair) widen(panels + ((place + <usize>K) << 3), wide + BLOCK * 32, inputs);
          panel = wide;
          next = wide + BLOCK * 32;
        }
        for (let r = 0; r < height; r++) {
          const from = y + ((<usize>(row + r) * <usize>N) << 2);
          const n = p << 3;
          const own = sums + <usize>r * (BLOCK * 16);
          const a = scaled(from, scales, n, N);
          const b = scaled(from, scales, n + 4, N);
          if (isPair) {
            const c = scaled(from, scales, n + 8, N);
            const d = scaled(from, scales, n + 12, N);
            accumulateTwo(panel, next, a, b, c, d, own, inputs);
          } else {
            accumulate(panel, a, b, own, inputs);
          }
        }
      }
      for (let r = 0; r < height; r++) {
        const out = x + ((<usize>(row + r) * <usize>K + <usize>first) << 2);
        for (let i = 0; i < inputs; i++) {
          store<f32>(out + (<usize>i << 2), sumOfLanes(v128.load(sums + <usize>((r * BLOCK + i) << 4))));
        }
      }
    }
  }
}

/** Numbers n … n + 3 of a row of N, each times its scale. */
// @ts-ignore: decorator
@inline
function scaled(row: usize, scales: usize, n: i32, N: i32): v128 {
  const at = (<usize>n) << 2;
  const numbers = loadSome(row + at, N - n);
  return scales === 0 ? numbers : f32x4.mul(numbers, v128.load(scales + at));
}

/** `accumulate` for one panel and then the next. */
// @ts-ignore: decorator
@inline
function accumulateTwo(
  panel: usize,
  next: usize,
  a: v128,
  b: v128,
  c: v128,
  d: v128,
  sums: usize,
  inputs: i32,
): void {
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
function accumulate(panel: usize, low: v128, high: v128, sums: usize, inputs: i32): void {
  for (let i = 0; i < inputs; i++) {
    const at = sums + (<usize>i << 4);
    const w = panel + (<usize>i << 5);
    v128.store(at, multiplyAdd(v128.load(w, 16), high, multiplyAdd(v128.load(w), low, v128.load(at))));
  }
}
