// Attention's two products. q, k, v and z are [B T H K], scores and pattern [B H T T] (query, key).

import { loadSome, storeSome, sumOfLanes } from "./lanes";

/** q · k · factor; −∞ where the key lies after the query. */
export function scores(
  q: usize,
  k: usize,
  y: usize,
  batches: i32,
  positions: i32,
  heads: i32,
  width: i32,
  factor: f32,
): void {
  const row = (<usize>heads * <usize>width) << 2;
  let to = y;
  for (let b = 0; b < batches; b++) {
    for (let h = 0; h < heads; h++) {
      const base = <usize>b * <usize>positions * row + ((<usize>h * <usize>width) << 2);
      for (let query = 0; query < positions; query++) {
        const left = q + base + <usize>query * row;
        for (let key = 0; key < positions; key++) {
          store<f32>(to, key <= query ? dot(left, k + base + <usize>key * row, width) * factor : -Infinity);
          to += 4;
        }
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function dot(a: usize, b: usize, width: i32): f32 {
  let sum = f32x4.splat(0);
  for (let i = 0; i < width; i += 4) {
    const at = (<usize>i) << 2;
    sum = f32x4.add(sum, f32x4.mul(loadSome(a + at, width - i), loadSome(b + at, width - i)));
  }
  return sumOfLanes(sum);
}

/** pattern · v. Keys after the query are read too: a hook may have given them weight. */
export function mix(pattern: usize, v: usize, z: usize, batches: i32, positions: i32, heads: i32, width: i32): void {
  const row = (<usize>heads * <usize>width) << 2;
  for (let b = 0; b < batches; b++) {
    for (let h = 0; h < heads; h++) {
      const base = <usize>b * <usize>positions * row + ((<usize>h * <usize>width) << 2);
      for (let query = 0; query < positions; query++) {
        const weights =
          pattern +
          ((((<usize>b * <usize>heads + <usize>h) * <usize>positions + <usize>query) * <usize>positions) << 2);
        for (let i = 0; i < width; i += 4) {
          const at = base + ((<usize>i) << 2);
          let sum = f32x4.splat(0);
          for (let key = 0; key < positions; key++) {
            const weight = v128.load32_splat(weights + ((<usize>key) << 2));
            sum = f32x4.add(sum, f32x4.mul(weight, loadSome(v + at + <usize>key * row, width - i)));
          }
          storeSome(z + at + <usize>query * row, sum, width - i);
        }
      }
    }
  }
}
