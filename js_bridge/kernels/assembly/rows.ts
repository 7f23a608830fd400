// Kernels along the rows of a tensor: layer norm in its three steps, GELU, softmax, sums of two tensors.

import { exponential, loadSome, maxOfLanes, storeSome, sumOfLanes } from "./lanes";

function meanOf(x: usize, width: i32): f32 {
  let sum = f32x4.splat(0);
  for (let i = 0; i < width; i += 4) sum = f32x4.add(sum, loadSome(x + ((<usize>i) << 2), width - i));
  return sumOfLanes(sum) / <f32>width;
}

/** √(variance + epsilon) of each row. */
export function normScale(x: usize, y: usize, rows: i32, width: i32, epsilon: f32): void {
  for (let row = 0; row < rows; row++) {
    const from = x + ((<usize>row * <usize>width) << 2);
    const mean = f32x4.splat(meanOf(from, width));
    let squares = f32x4.splat(0);
    const whole = width & ~3;
    for (let i = 0; i < whole; i += 4) {
      const d = f32x4.sub(v128.load(from + ((<usize>i) << 2)), mean);
      squares = f32x4.add(squares, f32x4.mul(d, d));
    }
    let sum = sumOfLanes(squares);
    for (let i = whole; i < width; i++) {
      const d = load<f32>(from + ((<usize>i) << 2)) - f32x4.extract_lane(mean, 0);
      sum += d * d;
    }
    store<f32>(y + ((<usize>row) << 2), Mathf.sqrt(sum / <f32>width + epsilon));
  }
}

/** (x − mean of the row) / scale. */
export function normalize(x: usize, scale: usize, y: usize, rows: i32, width: i32): void {
  for (let row = 0; row < rows; row++) {
    const offset = (<usize>row * <usize>width) << 2;
    const mean = f32x4.splat(meanOf(x + offset, width));
    const divisor = v128.load32_splat(scale + ((<usize>row) << 2));
    for (let i = 0; i < width; i += 4) {
      const at = offset + ((<usize>i) << 2);
      storeSome(y + at, f32x4.div(f32x4.sub(loadSome(x + at, width - i), mean), divisor), width - i);
    }
  }
}

/** x · weight + bias. */
export function affine(x: usize, weight: usize, bias: usize, y: usize, rows: i32, width: i32): void {
  for (let row = 0; row < rows; row++) {
    const offset = (<usize>row * <usize>width) << 2;
    for (let i = 0; i < width; i += 4) {
      const at = (<usize>i) << 2;
      const left = width - i;
      storeSome(
        y + offset + at,
        f32x4.add(f32x4.mul(loadSome(x + offset + at, left), loadSome(weight + at, left)), loadSome(bias + at, left)),
        left,
      );
    }
  }
}

/** x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), the tanh as 1 − 2 / (e^2u + 1). */
export function geluTanh(x: usize, y: usize, count: i32): void {
  const one = f32x4.splat(1);
  const two = f32x4.splat(2);
  for (let i = 0; i < count; i += 4) {
    const at = (<usize>i) << 2;
    const v = loadSome(x + at, count - i);
    const cube = f32x4.mul(f32x4.mul(v, v), v);
    const u = f32x4.mul(f32x4.splat(0.7978845608), f32x4.add(v, f32x4.mul(f32x4.splat(0.044715), cube)));
    const tanh = f32x4.sub(one, f32x4.div(two, f32x4.add(exponential(f32x4.mul(two, u)), one)));
    storeSome(y + at, f32x4.mul(f32x4.mul(f32x4.splat(0.5), v), f32x4.add(one, tanh)), count - i);
  }
}

/** e^(x − max) / Σ along each row; −∞ becomes exactly 0. */
export function softmax(x: usize, y: usize, rows: i32, width: i32): void {
  const whole = width & ~3;
  for (let row = 0; row < rows; row++) {
    const from = x + ((<usize>row * <usize>width) << 2);
    const to = y + ((<usize>row * <usize>width) << 2);
    let most = f32x4.splat(-Infinity);
    for (let i = 0; i < whole; i += 4) most = f32x4.max(most, v128.load(from + ((<usize>i) << 2)));
    let greatest = maxOfLanes(most);
    for (let i = whole; i < width; i++) greatest = max(greatest, load<f32>(from + ((<usize>i) << 2)));
    const shift = f32x4.splat(greatest);
    let sums = f32x4.splat(0);
    for (let i = 0; i < whole; i += 4) {
      const power = exponential(f32x4.sub(v128.load(from + ((<usize>i) << 2)), shift));
      sums = f32x4.add(sums, power);
      v128.store(to + ((<usize>i) << 2), power);
    }
    let sum = sumOfLanes(sums);
    for (let i = whole; i < width; i++) {
      const power = f32x4.extract_lane(exponential(f32x4.splat(load<f32>(from + ((<usize>i) << 2)) - greatest)), 0);
      sum += power;
      store<f32>(to + ((<usize>i) << 2), power);
    }
    const divisor = f32x4.splat(sum);
    for (let i = 0; i < width; i += 4) {
      const at = to + ((<usize>i) << 2);
      storeSome(at, f32x4.div(loadSome(at, width - i), divisor), width - i);
    }
  }
}

/** x + y, number by number. */
export function add(x: usize, y: usize, z: usize, count: i32): void {
  for (let i = 0; i < count; i += 4) {
    const at = (<usize>i) << 2;
    storeSome(z + at, f32x4.add(loadSome(x + at, count - i), loadSome(y + at, count - i)), count - i);
  }
}
