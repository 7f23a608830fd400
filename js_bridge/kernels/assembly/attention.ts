// Attention between queries [B T H K] and keys or values [B S KV K]: head h reads key-value head ⌊h · KV / H⌋. Units of
// work are rows of the result. What a query does not see is not read: it may hold anything, NaN too.

import { hyperbolicTangent, loadSome, multiplyAdd, storeSome, sumOfLanes, sumsOfLanes } from "./lanes";

/** Keys `first` … `last` are those that a query sees, of `keys`. */
// @ts-ignore: decorator
@inline
function firstSeen(own: i32, window: i32, starts: usize, batch: i32): i32 {
  const start = starts === 0 ? 0 : load<i32>(starts + ((<usize>batch) << 2));
  return max(start, window < 0 ? 0 : own - window + 1);
}

/**
 * q · k · factor → y [B H T S], c · tanh(score / c) where the cap c is not 0, −∞ where the query does not see the key.
 * Not masked: all is seen. A negative window is none; `starts` is 0 or has one number for each row of the batch.
 */
export function scores(
  q: usize,
  k: usize,
  y: usize,
  queries: i32,
  keys: i32,
  heads: i32,
  keyHeads: i32,
  width: i32,
  factor: f32,
  cap: f32,
  masked: bool,
  offset: i32,
  window: i32,
  starts: usize,
  from: i32,
  to: i32,
): void {
  const keyRow = (<usize>keyHeads * <usize>width) << 2;
  for (let row = from; row < to; row++) {
    const query = row % queries;
    const head = (row / queries) % heads;
    const batch = row / queries / heads;
    const a = q + ((((<usize>batch * <usize>queries + <usize>query) * <usize>heads + <usize>head) * <usize>width) << 2);
    const shared = (head * keyHeads) / heads;
    const b = k + <usize>batch * <usize>keys * keyRow + ((<usize>shared * <usize>width) << 2);
    const out = y + ((<usize>row * <usize>keys) << 2);
    const first = masked ? min(keys, firstSeen(offset + query, window, starts, batch)) : 0;
    const end = masked ? max(first, min(keys, offset + query + 1)) : keys;
    for (let key = 0; key < first; key++) store<f32>(out + ((<usize>key) << 2), -Infinity);
    scoreRow(a, b, out, first, end, keyRow, width, factor, cap);
    for (let key = end; key < keys; key++) store<f32>(out + ((<usize>key) << 2), -Infinity);
  }
}

/** One query with keys `first` … `end`, four at a time; a score is the same whichever keys lie beside it. */
// @ts-ignore: decorator
@inline
function scoreRow(
  q: usize,
  k: usize,
  out: usize,
  first: i32,
  end: i32,
  keyRow: usize,
  width: i32,
  factor: f32,
  cap: f32,
): void {
  const whole = (<usize>(width & ~3)) << 2;
  const rest = width & 3;
  let key = first;
  for (; key + 4 <= end; key += 4) {
    const k0 = k + <usize>key * keyRow;
    const k1 = k0 + keyRow,
      k2 = k1 + keyRow,
      k3 = k2 + keyRow;
    let a = f32x4.splat(0),
      b = a,
      c = a,
      d = a;
    for (let i: usize = 0; i < whole; i += 16) {
      const x = v128.load(q + i);
      a = multiplyAdd(x, v128.load(k0 + i), a);
      b = multiplyAdd(x, v128.load(k1 + i), b);
      c = multiplyAdd(x, v128.load(k2 + i), c);
      d = multiplyAdd(x, v128.load(k3 + i), d);
    }
    if (rest > 0) {
      const x = loadSome(q + whole, rest);
      a = multiplyAdd(x, loadSome(k0 + whole, rest), a);
      b = multiplyAdd(x, loadSome(k1 + whole, rest), b);
      c = multiplyAdd(x, loadSome(k2 + whole, rest), c);
      d = multiplyAdd(x, loadSome(k3 + whole, rest), d);
    }
    v128.store(out + ((<usize>key) << 2), finished(sumsOfLanes(a, b, c, d), factor, cap));
  }
  for (; key < end; key++) {
    const k0 = k + <usize>key * keyRow;
    let a = f32x4.splat(0);
    for (let i: usize = 0; i < whole; i += 16) a = multiplyAdd(v128.load(q + i), v128.load(k0 + i), a);
    if (rest > 0) a = multiplyAdd(loadSome(q + whole, rest), loadSome(k0 + whole, rest), a);
    const score = finished(f32x4.splat(sumOfLanes(a)), factor, cap);
    store<f32>(out + ((<usize>key) << 2), f32x4.extract_lane(score, 0));
  }
}

// @ts-ignore: decorator
@inline
function finished(sum: v128, factor: f32, cap: f32): v128 {
  const score = f32x4.mul(sum, f32x4.splat(factor));
  if (cap === 0) return score;
  const c = f32x4.splat(cap);
  return f32x4.mul(c, hyperbolicTangent(f32x4.div(score, c)));
}

/** pattern · v → z [B T H K]; where the pattern is 0 nothing is added. Units are rows of the pattern, [B H T]. */
export function mix(
  pattern: usize,
  v: usize,
  z: usize,
  queries: i32,
  keys: i32,
  heads: i32,
  keyHeads: i32,
  width: i32,
  masked: bool,
  offset: i32,
  window: i32,
  starts: usize,
  from: i32,
  to: i32,
): void {
  const keyRow = (<usize>keyHeads * <usize>width) << 2;
  for (let row = from; row < to; row++) {
    const query = row % queries;
    const head = (row / queries) % heads;
    const batch = row / queries / heads;
    const weights = pattern + ((<usize>row * <usize>keys) << 2);
    const shared = (head * keyHeads) / heads;
    const a = v + <usize>batch * <usize>keys * keyRow + ((<usize>shared * <usize>width) << 2);
    const out =
      z + ((((<usize>batch * <usize>queries + <usize>query) * <usize>heads + <usize>head) * <usize>width) << 2);
    const first = masked ? min(keys, firstSeen(offset + query, window, starts, batch)) : 0;
    const end = masked ? max(first, min(keys, offset + query + 1)) : keys;
    let i = 0;
    for (; i + 32 <= width; i += 32) {
      const at = (<usize>i) << 2;
      weighted32(weights, 4, first, end, a + at, keyRow, out + at, false);
    }
    for (; i < width; i += 4) {
      const at = (<usize>i) << 2;
      weighted4(weights, 4, first, end, a + at, keyRow, out + at, width - i, false);
    }
  }
}

/**
 * patternᵀ · x, summed over the heads that share a key-value head → y [B S KV K]. [B H T S], [B T H K].
 * Units are rows of the result.
 */
export function mixTransposed(
  pattern: usize,
  x: usize,
  y: usize,
  queries: i32,
  keys: i32,
  heads: i32,
  keyHeads: i32,
  width: i32,
  from: i32,
  to: i32,
): void {
  const queryRow = (<usize>heads * <usize>width) << 2;
  const step = (<usize>keys) << 2;
  for (let row = from; row < to; row++) {
    const shared = row % keyHeads;
    const key = (row / keyHeads) % keys;
    const batch = row / keyHeads / keys;
    const out = y + ((<usize>row * <usize>width) << 2);
    // Heads h with ⌊h · KV / H⌋ = shared.
    const firstHead = (shared * heads + keyHeads - 1) / keyHeads;
    const endHead = ((shared + 1) * heads + keyHeads - 1) / keyHeads;
    memory.fill(out, 0, (<usize>width) << 2);
    for (let head = firstHead; head < endHead; head++) {
      const weights =
        pattern + (((<usize>batch * <usize>heads + <usize>head) * <usize>queries * <usize>keys + <usize>key) << 2);
      const a = x + <usize>batch * <usize>queries * queryRow + ((<usize>head * <usize>width) << 2);
      let i = 0;
      for (; i + 32 <= width; i += 32) {
        const at = (<usize>i) << 2;
        weighted32(weights, step, 0, queries, a + at, queryRow, out + at, true);
      }
      for (; i < width; i += 4) {
        const at = (<usize>i) << 2;
        weighted4(weights, step, 0, queries, a + at, queryRow, out + at, width - i, true);
      }
    }
  }
}

/** Σ weight · row over 32 columns, onto what is there where `again`. Rows of weight 0 are not read. */
// @ts-ignore: decorator
@inline
function weighted32(
  weights: usize,
  step: usize,
  first: i32,
  end: i32,
  rows: usize,
  rowBytes: usize,
  out: usize,
  again: bool,
): void {
  let a = f32x4.splat(0),
    b = a,
    c = a,
    d = a,
    e = a,
    f = a,
    g = a,
    h = a;
  if (again) {
    a = v128.load(out);
    b = v128.load(out, 16);
    c = v128.load(out, 32);
    d = v128.load(out, 48);
    e = v128.load(out, 64);
    f = v128.load(out, 80);
    g = v128.load(out, 96);
    h = v128.load(out, 112);
  }
  for (let i = first; i < end; i++) {
    const weight = load<f32>(weights + <usize>i * step);
    if (weight === 0) continue;
    const w = f32x4.splat(weight);
    const row = rows + <usize>i * rowBytes;
    a = multiplyAdd(w, v128.load(row), a);
    b = multiplyAdd(w, v128.load(row, 16), b);
    c = multiplyAdd(w, v128.load(row, 32), c);
    d = multiplyAdd(w, v128.load(row, 48), d);
    e = multiplyAdd(w, v128.load(row, 64), e);
    f = multiplyAdd(w, v128.load(row, 80), f);
    g = multiplyAdd(w, v128.load(row, 96), g);
    h = multiplyAdd(w, v128.load(row, 112), h);
  }
  v128.store(out, a);
  v128.store(out, b, 16);
  v128.store(out, c, 32);
  v128.store(out, d, 48);
  v128.store(out, e, 64);
  v128.store(out, f, 80);
  v128.store(out, g, 96);
  v128.store(out, h, 112);
}

/** The same over at most four columns. */
// @ts-ignore: decorator
@inline
function weighted4(
  weights: usize,
  step: usize,
  first: i32,
  end: i32,
  rows: usize,
  rowBytes: usize,
  out: usize,
  columns: i32,
  again: bool,
): void {
  let sum = again ? loadSome(out, columns) : f32x4.splat(0);
  for (let i = first; i < end; i++) {
    const weight = load<f32>(weights + <usize>i * step);
    if (weight === 0) continue;
    sum = multiplyAdd(f32x4.splat(weight), loadSome(rows + <usize>i * rowBytes, columns), sum);
  }
  storeSome(out, sum, columns);
}
