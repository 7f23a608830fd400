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
 * Scratch holds (ROWS · 4 + 8) · BLOCK numbers.
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
      for (let p = 0; p < count; p++) {
        const place = <usize>p * <usize>K + <usize>first;
        let panel = panels + (place << 5);
        if (scales !== 0) {
          widen(panels + (place << 3), wide, inputs);
          panel = wide;
        }
        const left = N - (p << 3);
        for (let r = 0; r < height; r++) {
          const at = y + ((<usize>(row + r) * <usize>N + (<usize>p << 3)) << 2);
          let low = loadSome(at, left);
          let high = loadSome(at + 16, left - 4);
          if (scales !== 0) {
            low = f32x4.mul(low, v128.load(scales + (<usize>p << 5)));
            high = f32x4.mul(high, v128.load(scales + (<usize>p << 5), 16));
          }
          accumulate(panel, low, high, sums + <usize>r * (BLOCK * 16), inputs);
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

// @ts-ignore: decorator
@inline
function accumulate(panel: usize, low: v128, high: v128, sums: usize, inputs: i32): void {
  for (let i = 0; i < inputs; i++) {
    const at = sums + (<usize>i << 4);
    const w = panel + (<usize>i << 5);
    v128.store(at, multiplyAdd(v128.load(w, 16), high, multiplyAdd(v128.load(w), low, v128.load(at))));
  }
}
