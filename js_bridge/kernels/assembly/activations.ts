// Activations and their derivatives, four numbers at a time; ../activations.ts has them as plain formulas. Units of
// work are groups of four; a storage is rounded up to whole groups, so what lies behind its last number may be read
// and written.
// None of them subtracts nearly equal numbers: far to the left, too, a value keeps its digits.

import { exponential, multiplyAdd } from "./lanes";

// The order is that of ACTIVATION_KINDS in ../wasm.ts.
// @ts-ignore: decorator
@inline
const GELU_TANH = 0;
// @ts-ignore: decorator
@inline
const GELU_ERF = 1;
// @ts-ignore: decorator
@inline
const RELU = 2;
// @ts-ignore: decorator
@inline
const SILU = 3;

// @ts-ignore: decorator
@inline
function sigmoid(x: v128): v128 {
  const one = f32x4.splat(1);
  return f32x4.div(one, f32x4.add(one, exponential(f32x4.neg(x))));
}

/** (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, which is the sigmoid of twice the tanh's argument. */
// @ts-ignore: decorator
@inline
function tanhGate(x: v128): v128 {
  const square = f32x4.mul(x, x);
  const slope = f32x4.add(f32x4.splat(1.5957691216), f32x4.mul(f32x4.splat(0.0713548162726), square));
  return sigmoid(f32x4.mul(x, slope));
}

/** e^(−x²/2) */
// @ts-ignore: decorator
@inline
function bell(x: v128): v128 {
  return exponential(f32x4.mul(f32x4.splat(-0.5), f32x4.mul(x, x)));
}

/**
 * The normal distribution, Φ(x) = erfc(−x/√2) / 2, from bell(x). With z = |x|/√2 and t = 1 / (1 + z/2),
 * erfc(z) e^z² / 2 is a polynomial in t, fitted by least squares of the relative error (below 3e-8 for z up to 10).
 */
// @ts-ignore: decorator
@inline
function normal(x: v128, bell: v128): v128 {
  const one = f32x4.splat(1);
  const t = f32x4.div(one, f32x4.add(one, f32x4.mul(f32x4.splat(0.35355339059), f32x4.abs(x))));
  let p = f32x4.splat(0.00473071809490375);
  p = multiplyAdd(p, t, f32x4.splat(-0.05416619484923127));
  p = multiplyAdd(p, t, f32x4.splat(0.1974567471580851));
  p = multiplyAdd(p, t, f32x4.splat(-0.31313627434321856));
  p = multiplyAdd(p, t, f32x4.splat(0.19319566298795235));
  p = multiplyAdd(p, t, f32x4.splat(-0.04024785351413833));
  p = multiplyAdd(p, t, f32x4.splat(0.10986336117463474));
  p = multiplyAdd(p, t, f32x4.splat(0.11990480425967379));
  p = multiplyAdd(p, t, f32x4.splat(0.14136372279170012));
  p = multiplyAdd(p, t, f32x4.splat(0.14103529394786313));
  const tail = f32x4.mul(f32x4.mul(p, t), bell);
  return v128.bitselect(tail, f32x4.sub(one, tail), f32x4.lt(x, f32x4.splat(0)));
}

// @ts-ignore: decorator
@inline
function activated(kind: i32, x: v128): v128 {
  if (kind === GELU_TANH) return f32x4.mul(x, tanhGate(x));
  if (kind === GELU_ERF) return f32x4.mul(x, normal(x, bell(x)));
  if (kind === RELU) return f32x4.max(x, f32x4.splat(0));
  return f32x4.mul(x, sigmoid(x));
}

// @ts-ignore: decorator
@inline
function slope(kind: i32, x: v128): v128 {
  const one = f32x4.splat(1);
  if (kind === GELU_TANH) {
    const gate = tanhGate(x);
    const square = f32x4.mul(x, x);
    const inner = f32x4.add(f32x4.splat(1.5957691216), f32x4.mul(f32x4.splat(0.2140644488178), square));
    return f32x4.add(gate, f32x4.mul(f32x4.mul(x, f32x4.mul(gate, f32x4.sub(one, gate))), inner));
  }
  if (kind === GELU_ERF) {
    const height = bell(x);
    return f32x4.add(normal(x, height), f32x4.mul(f32x4.mul(x, height), f32x4.splat(0.39894228040)));
  }
  if (kind === RELU) return v128.and(one, f32x4.gt(x, f32x4.splat(0)));
  const gate = sigmoid(x);
  return f32x4.mul(gate, f32x4.add(one, f32x4.mul(x, f32x4.sub(one, gate))));
}

// @ts-ignore: decorator
@inline
function activateAll(kind: i32, x: usize, y: usize, from: i32, to: i32): void {
  for (let i = <usize>from << 4, end = <usize>to << 4; i < end; i += 16) {
    v128.store(y + i, activated(kind, v128.load(x + i)));
  }
}

export function activate(kind: i32, x: usize, y: usize, from: i32, to: i32): void {
  switch (kind) {
    case GELU_TANH:
      return activateAll(GELU_TANH, x, y, from, to);
    case GELU_ERF:
      return activateAll(GELU_ERF, x, y, from, to);
    case RELU:
      return activateAll(RELU, x, y, from, to);
    default:
      return activateAll(SILU, x, y, from, to);
  }
}

// @ts-ignore: decorator
@inline
function gradientAll(kind: i32, x: usize, gradient: usize, y: usize, from: i32, to: i32): void {
  for (let i = <usize>from << 4, end = <usize>to << 4; i < end; i += 16) {
    v128.store(y + i, f32x4.mul(v128.load(gradient + i), slope(kind, v128.load(x + i))));
  }
}

/** gradient · the derivative at x. */
export function activateGradient(kind: i32, x: usize, gradient: usize, y: usize, from: i32, to: i32): void {
  switch (kind) {
    case GELU_TANH:
      return gradientAll(GELU_TANH, x, gradient, y, from, to);
    case GELU_ERF:
      return gradientAll(GELU_ERF, x, gradient, y, from, to);
    case RELU:
      return gradientAll(RELU, x, gradient, y, from, to);
    default:
      return gradientAll(SILU, x, gradient, y, from, to);
  }
}
