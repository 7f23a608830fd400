// Matrix products with a weight in panels: [ceil(N/8)][K][8], so that a column block of 8 lies in one stream.
// Every sum runs over k in order, with one accumulator, whatever the number of rows: a row's result does not depend
// on the rows beside it.

import { storeSome } from "./lanes";

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

/** x [rows K] · panels + bias → y [rows N]; bias is 0 or padded to a multiple of 8. */
export function product(x: usize, panels: usize, bias: usize, y: usize, rows: i32, K: i32, N: i32): void {
  const rowBytes = <usize>K << 2;
  const outBytes = <usize>N << 2;
  const panelBytes = rowBytes << 3;
  const count = (N + 7) >> 3;
  if (rows === 1) return oneRow(x, panels, bias, y, rowBytes, N, count);
  for (let p = 0; p < count; p++) {
    const columns = min(8, N - (p << 3));
    const panel = panels + <usize>p * panelBytes;
    const offset: usize = bias === 0 ? 0 : bias + (<usize>p << 5);
    const to = y + (<usize>p << 5);
    for (let row = 0; row < rows; row += 4) {
      const from = x + <usize>row * rowBytes;
      fourRows(from, panel, offset, to + <usize>row * outBytes, rowBytes, outBytes, columns, min(4, rows - row));
    }
  }
}

/** Four rows share each load of the weights. Of fewer than four, the last is computed again, and not stored. */
// @ts-ignore: decorator
@inline
function fourRows(
  x0: usize,
  panel: usize,
  bias: usize,
  y: usize,
  rowBytes: usize,
  outBytes: usize,
  columns: i32,
  rows: i32,
): void {
  const x1 = rows > 1 ? x0 + rowBytes : x0;
  const x2 = rows > 2 ? x1 + rowBytes : x1;
  const x3 = rows > 3 ? x2 + rowBytes : x2;
  let a0 = f32x4.splat(0),
    a1 = a0,
    b0 = a0,
    b1 = a0,
    c0 = a0,
    c1 = a0,
    d0 = a0,
    d1 = a0;
  let w = panel;
  for (let k: usize = 0; k < rowBytes; k += 4) {
    const low = v128.load(w);
    const high = v128.load(w, 16);
    w += 32;
    let s = v128.load32_splat(x0 + k);
    a0 = f32x4.add(a0, f32x4.mul(s, low));
    a1 = f32x4.add(a1, f32x4.mul(s, high));
    s = v128.load32_splat(x1 + k);
    b0 = f32x4.add(b0, f32x4.mul(s, low));
    b1 = f32x4.add(b1, f32x4.mul(s, high));
    s = v128.load32_splat(x2 + k);
    c0 = f32x4.add(c0, f32x4.mul(s, low));
    c1 = f32x4.add(c1, f32x4.mul(s, high));
    s = v128.load32_splat(x3 + k);
    d0 = f32x4.add(d0, f32x4.mul(s, low));
    d1 = f32x4.add(d1, f32x4.mul(s, high));
  }
  storeRow(y, a0, a1, bias, columns);
  if (rows > 1) storeRow(y + outBytes, b0, b1, bias, columns);
  if (rows > 2) storeRow(y + 2 * outBytes, c0, c1, bias, columns);
  if (rows > 3) storeRow(y + 3 * outBytes, d0, d1, bias, columns);
}

/** Four panels at a time: eight independent sums hide the latency that four rows hide above. */
function oneRow(x: usize, panels: usize, bias: usize, y: usize, rowBytes: usize, N: i32, count: i32): void {
  const panelBytes = rowBytes << 3;
  let p = 0;
  for (; p + 4 <= count; p += 4) {
    let w0 = panels + <usize>p * panelBytes;
    let w1 = w0 + panelBytes,
      w2 = w1 + panelBytes,
      w3 = w2 + panelBytes;
    let a0 = f32x4.splat(0),
      a1 = a0,
      b0 = a0,
      b1 = a0,
      c0 = a0,
      c1 = a0,
      d0 = a0,
      d1 = a0;
    for (let k: usize = 0; k < rowBytes; k += 4) {
      const s = v128.load32_splat(x + k);
      a0 = f32x4.add(a0, f32x4.mul(s, v128.load(w0)));
      a1 = f32x4.add(a1, f32x4.mul(s, v128.load(w0, 16)));
      b0 = f32x4.add(b0, f32x4.mul(s, v128.load(w1)));
      b1 = f32x4.add(b1, f32x4.mul(s, v128.load(w1, 16)));
      c0 = f32x4.add(c0, f32x4.mul(s, v128.load(w2)));
      c1 = f32x4.add(c1, f32x4.mul(s, v128.load(w2, 16)));
      d0 = f32x4.add(d0, f32x4.mul(s, v128.load(w3)));
      d1 = f32x4.add(d1, f32x4.mul(s, v128.load(w3, 16)));
      w0 += 32;
      w1 += 32;
      w2 += 32;
      w3 += 32;
    }
    const to = y + ((<usize>p) << 5);
    const offset: usize = bias === 0 ? 0 : bias + ((<usize>p) << 5);
    const step: usize = bias === 0 ? 0 : 32;
    storeRow(to, a0, a1, offset, 8);
    storeRow(to + 32, b0, b1, offset + step, 8);
    storeRow(to + 64, c0, c1, offset + 2 * step, 8);
    storeRow(to + 96, d0, d1, offset + 3 * step, min(8, N - ((p + 3) << 3)));
  }
  for (; p < count; p++) {
    let w = panels + <usize>p * panelBytes;
    let a0 = f32x4.splat(0),
      a1 = a0;
    for (let k: usize = 0; k < rowBytes; k += 4) {
      const s = v128.load32_splat(x + k);
      a0 = f32x4.add(a0, f32x4.mul(s, v128.load(w)));
      a1 = f32x4.add(a1, f32x4.mul(s, v128.load(w, 16)));
      w += 32;
    }
    storeRow(y + ((<usize>p) << 5), a0, a1, bias === 0 ? 0 : bias + ((<usize>p) << 5), min(8, N - (p << 3)));
  }
}

/** Column `id` of the panels, K numbers. */
export function column(panels: usize, id: i32, y: usize, K: i32): void {
  const from = panels + ((<usize>(id >> 3) * <usize>K) << 5) + ((<usize>(id & 7)) << 2);
  for (let k = 0; k < K; k++) store<f32>(y + ((<usize>k) << 2), load<f32>(from + ((<usize>k) << 5)));
}
