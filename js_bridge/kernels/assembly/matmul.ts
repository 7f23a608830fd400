// Products of two tensors that are no weights: [batches M N] · [batches N O] → [batches M O], both row-major. Units of
// work are rows of the result; each sum runs over n in order.

import { loadSome, multiplyAdd, storeSome } from "./lanes";

export function matmul(a: usize, b: usize, y: usize, M: i32, N: i32, O: i32, from: i32, to: i32): void {
  const step = (<usize>O) << 2;
  for (let row = from; row < to; row++) {
    const left = a + ((<usize>row * <usize>N) << 2);
    const right = b + ((<usize>(row / M) * <usize>N * <usize>O) << 2);
    const out = y + <usize>row * step;
    let column = 0;
    for (; column + 16 <= O; column += 16) {
      const at = (<usize>column) << 2;
      let p = f32x4.splat(0),
        q = p,
        r = p,
        s = p;
      let w = right + at;
      for (let n: usize = 0; n < <usize>N; n++, w += step) {
        const x = v128.load32_splat(left + (n << 2));
        p = multiplyAdd(x, v128.load(w), p);
        q = multiplyAdd(x, v128.load(w, 16), q);
        r = multiplyAdd(x, v128.load(w, 32), r);
        s = multiplyAdd(x, v128.load(w, 48), s);
      }
      v128.store(out + at, p);
      v128.store(out + at, q, 16);
      v128.store(out + at, r, 32);
      v128.store(out + at, s, 48);
    }
    for (; column < O; column += 4) {
      const at = (<usize>column) << 2;
      let p = f32x4.splat(0);
      let w = right + at;
      for (let n: usize = 0; n < <usize>N; n++, w += step) {
        p = multiplyAdd(v128.load32_splat(left + (n << 2)), loadSome(w, O - column), p);
      }
      storeSome(out + at, p, O - column);
    }
  }
}
