// Weights on their way into panels, [ceil(N/8)][K][8], and single columns out of them. Panels are float32, or int8
// codes with a scale for each column. Units of work are panels; whoever fills the last one clears it first.

/** Rows k = first … of [K N] in a file's order. */
export function fillByRows(
  source: usize,
  rows: i32,
  first: i32,
  panels: usize,
  K: i32,
  N: i32,
  from: i32,
  to: i32,
): void {
  for (let p = from; p < to; p++) {
    let a = source + (<usize>p << 5);
    let b = panels + ((<usize>p * <usize>K + <usize>first) << 5);
    const columns = min(8, N - (p << 3));
    for (let row = 0; row < rows; row++) {
      if (columns === 8) {
        v128.store(b, v128.load(a));
        v128.store(b, v128.load(a, 16), 16);
      } else {
        for (let n: usize = 0; n < <usize>columns; n++) store<f32>(b + (n << 2), load<f32>(a + (n << 2)));
      }
      a += <usize>N << 2;
      b += 32;
    }
  }
}

/** Rows n = first … of [N K] in a file's order; panels are counted from the one that holds row `first`. */
export function fillByColumns(
  source: usize,
  rows: i32,
  first: i32,
  panels: usize,
  K: i32,
  N: i32,
  from: i32,
  to: i32,
): void {
  const bytes = <usize>K << 2;
  for (let p = (first >> 3) + from, end = (first >> 3) + to; p < end; p++) {
    const begin = max(first, p << 3);
    const finish = min(first + rows, (p + 1) << 3);
    const a = source + <usize>(begin - first) * bytes;
    const b = panels + ((<usize>p * <usize>K) << 5);
    if (finish - begin === 8) eightRows(a, b, K);
    else {
      for (let n = begin; n < finish; n++) {
        const row = a + <usize>(n - begin) * bytes;
        const lane = b + (<usize>(n & 7) << 2);
        for (let k: usize = 0; k < <usize>K; k++) store<f32>(lane + (k << 5), load<f32>(row + (k << 2)));
      }
    }
  }
}

/** Transposes [8 K] into [K 8], four columns at a time. */
function eightRows(from: usize, to: usize, K: i32): void {
  const bytes = <usize>K << 2;
  const whole = <usize>(K & ~3);
  for (let k: usize = 0; k < whole; k += 4) {
    const a = from + (k << 2);
    const b = to + (k << 5);
    fourByFour(a, b, bytes);
    fourByFour(a + (bytes << 2), b + 16, bytes);
  }
  for (let k = whole; k < <usize>K; k++) {
    for (let n: usize = 0; n < 8; n++) store<f32>(to + (k << 5) + (n << 2), load<f32>(from + n * bytes + (k << 2)));
  }
}

// @ts-ignore: decorator
@inline
function fourByFour(from: usize, to: usize, bytes: usize): void {
  const a = v128.load(from);
  const b = v128.load(from + bytes);
  const c = v128.load(from + 2 * bytes);
  const d = v128.load(from + 3 * bytes);
  const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
  const cd = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
  const ef = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
  const gh = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<f32>(ab, cd, 0, 1, 4, 5));
  v128.store(to, v128.shuffle<f32>(ab, cd, 2, 3, 6, 7), 32);
  v128.store(to, v128.shuffle<f32>(ef, gh, 0, 1, 4, 5), 64);
  v128.store(to, v128.shuffle<f32>(ef, gh, 2, 3, 6, 7), 96);
}

/** `fillByRows` of codes. */
export function fillCodesByRows(
  source: usize,
  rows: i32,
  first: i32,
  panels: usize,
  K: i32,
  N: i32,
  from: i32,
  to: i32,
): void {
  for (let p = from; p < to; p++) {
    let a = source + (<usize>p << 3);
    let b = panels + ((<usize>p * <usize>K + <usize>first) << 3);
    const columns = min(8, N - (p << 3));
    for (let row = 0; row < rows; row++) {
      if (columns === 8) store<u64>(b, load<u64>(a));
      else for (let n: usize = 0; n < <usize>columns; n++) store<u8>(b + n, load<u8>(a + n));
      a += <usize>N;
      b += 8;
    }
  }
}

/** `fillByColumns` of codes. */
export function fillCodesByColumns(
  source: usize,
  rows: i32,
  first: i32,
  panels: usize,
  K: i32,
  N: i32,
  from: i32,
  to: i32,
): void {
  for (let p = (first >> 3) + from, end = (first >> 3) + to; p < end; p++) {
    for (let n = max(first, p << 3), finish = min(first + rows, (p + 1) << 3); n < finish; n++) {
      const row = source + <usize>(n - first) * <usize>K;
      const lane = panels + ((<usize>p * <usize>K) << 3) + <usize>(n & 7);
      for (let k: usize = 0; k < <usize>K; k++) store<u8>(lane + (k << 3), load<u8>(row + k));
    }
  }
}

/** Column ids[i] → row i of y [count K]; without scales the panels are float32. Units are ids. */
export function columns(ids: usize, panels: usize, scales: usize, y: usize, K: i32, from: i32, to: i32): void {
  for (let i = from; i < to; i++) {
    const id = <usize>load<i32>(ids + (<usize>i << 2));
    const start = (id >> 3) * <usize>K;
    const row = y + ((<usize>i * <usize>K) << 2);
    if (scales === 0) {
      const a = panels + (start << 5) + ((id & 7) << 2);
      for (let k: usize = 0; k < <usize>K; k++) store<f32>(row + (k << 2), load<f32>(a + (k << 5)));
    } else {
      const a = panels + (start << 3) + (id & 7);
      const scale = load<f32>(scales + (id << 2));
      for (let k: usize = 0; k < <usize>K; k++) store<f32>(row + (k << 2), <f32>load<i8>(a + (k << 3)) * scale);
    }
  }
}
