// A backend that wraps another and remembers the kernel calls that rest on watched values, so that gradients can go
// back through them (gradient.ts). The decoder, interventions and operations run on it without knowing.
// It remembers no gradients of weights: weights, biases, sinks, cosines and sines are constants to it.
//
// A value that nothing watched came into has no past and costs nothing. What later rules need (the input of an
// activation, the pattern) is kept until the last tensor that rests on it is released. Values of the wrapped backend
// may be given to it freely; values with a past are retained and released through it, or their steps leak.

import type { BackendName, BinaryOperation, Reduction, Shape, UnaryOperation } from "../../protocol.ts";
import type {
  Activation,
  Backend,
  Matrix,
  MatrixLayout,
  MatrixWriter,
  Reach,
  ScoreOptions,
  Value,
} from "../backend.ts";
import type { Sweep } from "./gradient.ts";
import * as rules from "./rules.ts";
import { type Back, type Keeper, type Recording, Step, stepOf } from "./tape_step.ts";

/** An input of a kernel call, the way back to it, and what that way needs. */
interface Input {
  readonly value: Value;
  readonly back: Back;
  readonly keeps?: readonly Value[];
  readonly weights?: readonly (Value | null)[];
}

export class Tape implements Backend {
  readonly plain: Backend;
  readonly #recording: Recording;
  readonly #keeper: Keeper;
  readonly #real: readonly boolean[] | null;

  /** `real` tells which of a pass's B*T positions are no padding; null: all. */
  constructor(plain: Backend, recording: Recording, keeper: Keeper, real: readonly boolean[] | null = null) {
    this.plain = plain;
    this.#recording = recording;
    this.#keeper = keeper;
    this.#real = real;
  }

  get name(): BackendName {
    return this.plain.name;
  }

  get threads(): number {
    return this.plain.threads;
  }

  get bytes(): number {
    return this.plain.bytes;
  }

  // ── What is remembered ────────────────────────────────────────────────────────────────────────────────────────────

  /** The same numbers as a value of its own, to which gradients can be asked for: what comes of *it* counts. */
  watch(value: Value): Value {
    return this.#remember({ ...this.plain.reshape(value, value.shape) }, [{ value, back: same }], true);
  }

  /** Some places of a watched value along an axis; the gradient to them is cut from that to the whole. */
  watchPart(whole: Value, axis: number, indices: Int32Array): Value {
    const part = this.take(whole, axis, indices);
    const [step, from] = [stepOf(part), stepOf(whole)];
    if (step !== null && from !== null) {
      step.cutOf = { whole: from, cut: (gradient) => this.plain.take(gradient, axis, indices) };
    }
    return part;
  }

  /** A value that now lies in this tape's backend, of a past in another one. */
  moved(value: Value, from: Value): Value {
    const back: Back = (gradient) => {
      const home = (stepOf(from) as Step).backend;
      return home.upload(this.plain.read(gradient), gradient.shape);
    };
    return this.#remember(value, [{ value: from, back }]);
  }

  /**
   * A result, taken over, with its past; without one where no input has any, unless it `isWatched`.
   * Fails: OverBudget, and then the result is released.
   */
  #remember(result: Value, inputs: readonly Input[], isWatched = false): Value {
    const recorded = inputs.filter(({ value }) => stepOf(value) !== null);
    if (recorded.length === 0 && !isWatched) return result;
    const kept: Value[] = [];
    try {
      for (const value of recorded.flatMap(({ keeps = [] }) => keeps)) {
        this.#keeper.keep(value);
        kept.push(this.plain.retain(value));
      }
    } catch (error) {
      for (const value of kept) {
        this.#keeper.drop(value);
        this.plain.release(value);
      }
      this.plain.release(result);
      throw error;
    }
    const weights = recorded.flatMap((input) => input.weights ?? []).filter((weight) => weight !== null);
    for (const weight of weights) this.plain.retain(weight);
    const paths = recorded.map(({ value, back }) => ({ from: stepOf(value) as Step, back }));
    const past = new Step(this.plain, this.#recording, result.shape, paths, this.#keeper, kept, weights);
    return { ...result, past };
  }

  retain(value: Value): Value {
    this.plain.retain(value);
    stepOf(value)?.retain();
    return value;
  }

  release(value: Value): void {
    this.plain.release(value);
    stepOf(value)?.release();
  }

  // ── What has no gradient ──────────────────────────────────────────────────────────────────────────────────────────

  upload(numbers: Float32Array, shape: Shape): Value {
    return this.plain.upload(numbers, shape);
  }

  read(value: Value): Float32Array {
    return this.plain.read(value);
  }

  startMatrix(layout: MatrixLayout): MatrixWriter {
    return this.plain.startMatrix(layout);
  }

  releaseMatrix(matrix: Matrix): void {
    this.plain.releaseMatrix(matrix);
  }

  columns(table: Matrix, ids: Int32Array, lead: Shape): Value {
    return this.plain.columns(table, ids, lead);
  }

  // ── The decoder's kernels ─────────────────────────────────────────────────────────────────────────────────────────

  product(x: Value, matrix: Matrix, bias: Value | null): Value {
    const back: Back = (gradient) => this.plain.productTransposed(gradient, matrix);
    return this.#remember(this.plain.product(x, matrix, bias), [{ value: x, back }]);
  }

  productTransposed(y: Value, matrix: Matrix): Value {
    const back: Back = (gradient) => this.plain.product(gradient, matrix, null);
    return this.#remember(this.plain.productTransposed(y, matrix), [{ value: y, back }]);
  }

  normScale(x: Value, epsilon: number, centred: boolean): Value {
    const scale = this.plain.normScale(x, epsilon, centred);
    const back: Back = (gradient, sweep) => rules.normScale(sweep, gradient, x, scale, centred);
    return this.#remember(scale, [{ value: x, back, keeps: [x, scale] }]);
  }

  normalize(x: Value, scale: Value, centred: boolean): Value {
    const result = this.plain.normalize(x, scale, centred);
    return this.#remember(result, [
      { value: x, back: (gradient) => this.plain.normalize(gradient, scale, centred), keeps: [scale] },
      {
        value: scale,
        back: (gradient, sweep) => rules.divisor(sweep, gradient, result, scale),
        keeps: [result, scale],
      },
    ]);
  }

  affine(x: Value, weight: Value | null, bias: Value | null): Value {
    const back: Back = (gradient) =>
      weight === null ? this.plain.retain(gradient) : this.plain.affine(gradient, weight, null);
    return this.#remember(this.plain.affine(x, weight, bias), [{ value: x, back, weights: [weight] }]);
  }

  norm(x: Value, weight: Value | null, bias: Value | null, epsilon: number, centred: boolean): Value {
    const back =
      (way: "division" | "scale"): Back =>
      (gradient, sweep) =>
        rules.norm(sweep, way, gradient, x, weight, epsilon, centred);
    return this.#remember(this.plain.norm(x, weight, bias, epsilon, centred), [
      { value: x, back: back("division"), keeps: [x], weights: [weight] },
      { value: x, back: back("scale") },
    ]);
  }

  activate(kind: Activation, x: Value): Value {
    const back: Back = (gradient) => this.plain.activateGradient(kind, x, gradient);
    return this.#remember(this.plain.activate(kind, x), [{ value: x, back, keeps: [x] }]);
  }

  /** Linear in the gradient; there are no second derivatives. */
  activateGradient(kind: Activation, x: Value, gradient: Value): Value {
    const back: Back = (next) => this.plain.activateGradient(kind, x, next);
    return this.#remember(this.plain.activateGradient(kind, x, gradient), [{ value: gradient, back, keeps: [x] }]);
  }

  rotate(x: Value, cosines: Value, sines: Value): Value {
    const back: Back = (gradient, sweep) =>
      this.plain.rotate(gradient, cosines, sweep.keep(this.plain.unary("negate", sines)));
    return this.#remember(this.plain.rotate(x, cosines, sines), [{ value: x, back, weights: [cosines, sines] }]);
  }

  scores(q: Value, k: Value, options: ScoreOptions): Value {
    const result = this.plain.scores(q, k, options);
    const { factor, softCap, reach } = options;
    const sight = { reach, real: this.#real };
    const linear = (gradient: Value, sweep: Sweep) =>
      rules.scoreProducts(sweep, gradient, softCap === null ? null : { softCap, result }, sight);
    const capped = softCap === null ? [] : [result];
    return this.#remember(result, [
      {
        value: q,
        back: (gradient, sweep) => rules.scoresToQueries(sweep, linear(gradient, sweep), k, factor, sight),
        keeps: [k, ...capped],
      },
      {
        value: k,
        back: (gradient, sweep) => rules.scoresToKeys(sweep, linear(gradient, sweep), q, factor, k.shape[2], sight),
        keeps: [q, ...capped],
      },
    ]);
  }

  softmax(x: Value, sinks: Value | null): Value {
    const result = this.plain.softmax(x, sinks);
    const back: Back = (gradient, sweep) => rules.softmax(sweep, gradient, result);
    return this.#remember(result, [{ value: x, back, keeps: [result] }]);
  }

  mix(pattern: Value, v: Value, reach: Reach | null): Value {
    const sight = { reach, real: this.#real };
    return this.#remember(this.plain.mix(pattern, v, reach), [
      { value: pattern, back: (gradient, sweep) => rules.mixToPattern(sweep, gradient, v, sight), keeps: [v] },
      {
        value: v,
        back: (gradient, sweep) => rules.mixToValues(sweep, gradient, pattern, v.shape[2], sight),
        keeps: [pattern],
      },
    ]);
  }

  mixTransposed(pattern: Value, x: Value, keyValueHeads: number): Value {
    const noScaling = { factor: 1, softCap: null, reach: null };
    return this.#remember(this.plain.mixTransposed(pattern, x, keyValueHeads), [
      { value: pattern, back: (gradient) => this.plain.scores(x, gradient, noScaling), keeps: [x] },
      { value: x, back: (gradient) => this.plain.mix(pattern, gradient, null), keeps: [pattern] },
    ]);
  }

  extend(before: Value | null, positions: number, fresh: Value): Value {
    const result = this.plain.extend(before, positions, fresh);
    return this.#remember(result, [
      { value: fresh, back: (gradient) => rules.positionsFrom(this.plain, gradient, positions, fresh.shape) },
      ...(before === null
        ? []
        : [
            {
              value: before,
              back: (gradient: Value, sweep: Sweep) => rules.positionsBefore(sweep, gradient, positions, before.shape),
            },
          ]),
    ]);
  }

  // ── Tensor operations ─────────────────────────────────────────────────────────────────────────────────────────────

  reshape(value: Value, shape: Shape): Value {
    const back: Back = (gradient) => this.plain.reshape(gradient, value.shape);
    return this.#remember({ ...this.plain.reshape(value, shape) }, [{ value, back }]);
  }

  unary(operation: UnaryOperation, x: Value): Value {
    const result = this.plain.unary(operation, x);
    const back: Back = (gradient, sweep) => rules.unary(sweep, operation, gradient, x, result);
    const keeps = { negate: [], exp: [result], sqrt: [result], tanh: [result], log: [x], absolute: [x], square: [x] };
    return this.#remember(result, [{ value: x, back, keeps: keeps[operation] }]);
  }

  binary(operation: BinaryOperation, a: Value, b: Value, shape: Shape): Value {
    const result = this.plain.binary(operation, a, b, shape);
    const back =
      (isLeft: boolean): Back =>
      (gradient, sweep) =>
        rules.binary(sweep, operation, gradient, a, b, result, isLeft);
    const keeps: Record<BinaryOperation, readonly [readonly Value[], readonly Value[]]> = {
      add: [[], []],
      subtract: [[], []],
      multiply: [[b], [a]],
      divide: [[b], [b, result]],
      minimum: [
        [a, b, result],
        [a, b, result],
      ],
      maximum: [
        [a, b, result],
        [a, b, result],
      ],
    };
    return this.#remember(result, [
      { value: a, back: back(true), keeps: keeps[operation][0] },
      { value: b, back: back(false), keeps: keeps[operation][1] },
    ]);
  }

  select(mask: Value, a: Value, b: Value, shape: Shape): Value {
    return this.#remember(this.plain.select(mask, a, b, shape), [
      { value: a, back: (gradient, sweep) => rules.selected(sweep, gradient, mask, true, a.shape), keeps: [mask] },
      { value: b, back: (gradient, sweep) => rules.selected(sweep, gradient, mask, false, b.shape), keeps: [mask] },
    ]);
  }

  reduce(operation: Reduction, x: Value, axis: number): Value {
    const result = this.plain.reduce(operation, x, axis);
    if (operation === "argmax") return result;
    const keeps = operation === "max" || operation === "min" ? [x, result] : [];
    const back: Back = (gradient, sweep) => rules.reduce(sweep, operation, gradient, x, axis, result);
    return this.#remember(result, [{ value: x, back, keeps }]);
  }

  strided(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value {
    const back: Back = (gradient) => this.plain.stridedTransposed(gradient, x.shape, offset, strides);
    return this.#remember(this.plain.strided(x, shape, offset, strides), [{ value: x, back }]);
  }

  stridedTransposed(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value {
    const back: Back = (gradient) => this.plain.strided(gradient, x.shape, offset, strides);
    return this.#remember(this.plain.stridedTransposed(x, shape, offset, strides), [{ value: x, back }]);
  }

  take(x: Value, axis: number, indices: Int32Array): Value {
    const back: Back = (gradient) => this.plain.takeTransposed(gradient, axis, indices, x.shape[axis]);
    return this.#remember(this.plain.take(x, axis, indices), [{ value: x, back }]);
  }

  takeTransposed(x: Value, axis: number, indices: Int32Array, extent: number): Value {
    const back: Back = (gradient) => this.plain.take(gradient, axis, indices);
    return this.#remember(this.plain.takeTransposed(x, axis, indices, extent), [{ value: x, back }]);
  }

  matmul(a: Value, b: Value): Value {
    return this.#remember(this.plain.matmul(a, b), [
      {
        value: a,
        back: (gradient, sweep) => this.plain.matmul(gradient, sweep.keep(rules.transposed(this.plain, b))),
        keeps: [b],
      },
      {
        value: b,
        back: (gradient, sweep) => this.plain.matmul(sweep.keep(rules.transposed(this.plain, a)), gradient),
        keeps: [a],
      },
    ]);
  }
}

/** The backend that a tape wraps, or the backend itself: where numbers really lie. */
export function plainOf(backend: Backend): Backend {
  return backend instanceof Tape ? backend.plain : backend;
}

const same: Back = (gradient, sweep) => sweep.backend.retain(gradient);
