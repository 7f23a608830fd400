// How a gradient goes back through each kernel: from that of the result to that of an input, by kernels of the same
// backend. Results are the caller's, arguments are borrowed; scratch goes to the sweep. Where a kernel is its own rule
// (a product's is its transposed product), tape.ts names it and there is nothing here.
//
// A place that a mask hides, or that is padding, has gradient 0 by selection, never by multiplication: what lies there
// may be −∞ or NaN. Source of the conventions at ties and at 0: PyTorch.

import type { BinaryOperation, Reduction, Shape, UnaryOperation } from "../../protocol.ts";
import type { Backend, Reach, Value } from "../backend.ts";
import type { Sweep } from "./gradient.ts";
import { broadcastStrides, elementsOf, lastOf, sameShape, stridesOf } from "../tensors/shape.ts";

/** What the queries of an attention see. */
export interface Sight {
  readonly reach: Reach | null;
  /** Which of the B*T are no padding; null: all. */
  readonly real: readonly boolean[] | null;
}

// ── Norms ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** d √(mean (x − μ)² + ε) = (x − μ) / (D · scale) */
export function normScale(sweep: Sweep, gradient: Value, x: Value, scale: Value, centred: boolean): Value {
  const { backend } = sweep;
  const normalized = sweep.keep(backend.normalize(x, scale, centred));
  const share = sweep.keep(backend.binary("multiply", gradient, sweep.number(1 / lastOf(x.shape)), gradient.shape));
  return backend.binary("multiply", normalized, share, x.shape);
}

/** Of the scale in (x − μ) / scale: −Σ gradient · result / scale. */
export function divisor(sweep: Sweep, gradient: Value, result: Value, scale: Value): Value {
  const { backend } = sweep;
  const products = sweep.keep(backend.binary("multiply", gradient, result, result.shape));
  const sums = sweep.keep(backend.reduce("sum", products, result.shape.length - 1));
  return backend.unary("negate", sweep.keep(backend.binary("divide", sums, scale, scale.shape)));
}

/**
 * The two ways back through a whole norm: through the division, and through its scale. Apart, and by the same kernels
 * as without fusing, so that a gradient has the same bits whether or not anybody looks at scale and normalized.
 */
export function norm(
  sweep: Sweep,
  way: "division" | "scale",
  gradient: Value,
  x: Value,
  weight: Value | null,
  epsilon: number,
  centred: boolean,
): Value {
  const { backend } = sweep;
  const once = (name: string, make: () => Value) => sweep.once(name, () => sweep.keep(make()));
  const scale = once("scale", () => backend.normScale(x, epsilon, centred));
  const weighted = weight === null ? gradient : once("weighted", () => backend.affine(gradient, weight, null));
  if (way === "division") return backend.normalize(weighted, scale, centred);
  const normalized = sweep.keep(backend.normalize(x, scale, centred));
  return normScale(sweep, sweep.keep(divisor(sweep, weighted, normalized, scale)), x, scale, centred);
}

// ── Attention ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** The gradient of q · k · factor before soft cap and mask; it is the sweep's. [B H T S] */
export function scoreProducts(
  sweep: Sweep,
  gradient: Value,
  cap: { readonly softCap: number; readonly result: Value } | null,
  sight: Sight,
): Value {
  return sweep.once("score products", () => {
    const { backend } = sweep;
    let products = gradient;
    if (cap !== null) {
      const { softCap, result } = cap;
      const tanh = sweep.keep(backend.binary("divide", result, sweep.number(softCap), result.shape));
      const squares = sweep.keep(backend.unary("square", tanh));
      const slope = sweep.keep(backend.binary("subtract", sweep.number(1), squares, squares.shape));
      products = sweep.keep(backend.binary("multiply", gradient, slope, slope.shape));
    }
    return visible(sweep, products, sight);
  });
}

/** [B H T S], [B S KV K] → [B T H K] */
export function scoresToQueries(sweep: Sweep, products: Value, k: Value, factor: number, { reach }: Sight): Value {
  return scaled(sweep, sweep.backend.mix(products, k, reach), factor);
}

/** [B H T S], [B T H K] → [B S KV K] */
export function scoresToKeys(
  sweep: Sweep,
  products: Value,
  q: Value,
  factor: number,
  keyValueHeads: number,
  sight: Sight,
): Value {
  const queries = withoutPadding(sweep, q, sight);
  return scaled(sweep, sweep.backend.mixTransposed(products, queries, keyValueHeads), factor);
}

/** pattern · (gradient − Σ pattern · gradient); a sink changes nothing in it. */
export function softmax(sweep: Sweep, gradient: Value, pattern: Value): Value {
  const { backend } = sweep;
  const { shape } = pattern;
  const products = sweep.keep(backend.binary("multiply", gradient, pattern, shape));
  const sums = sweep.keep(backend.reduce("sum", products, shape.length - 1));
  return backend.binary("multiply", pattern, sweep.keep(backend.binary("subtract", gradient, sums, shape)), shape);
}

/** [B T H K], [B S KV K] → [B H T S] */
export function mixToPattern(sweep: Sweep, gradient: Value, v: Value, sight: Sight): Value {
  const products = sweep.backend.scores(gradient, v, { factor: 1, softCap: null, reach: sight.reach });
  return sweep.backend.retain(visible(sweep, sweep.keep(products), sight));
}

/** [B T H K], [B H T S] → [B S KV K] */
export function mixToValues(
  sweep: Sweep,
  gradient: Value,
  pattern: Value,
  keyValueHeads: number,
  sight: Sight,
): Value {
  const { backend } = sweep;
  const real = sight.real === null ? pattern : visible(sweep, pattern, sight);
  return backend.mixTransposed(real, withoutPadding(sweep, gradient, sight), keyValueHeads);
}

/** 0 wherever the query does not see the key, or is padding; the sweep's. [B H T S] */
function visible(sweep: Sweep, x: Value, { reach, real }: Sight): Value {
  if (reach === null && real === null) return x;
  const { backend } = sweep;
  const [batch, , queries, keys] = x.shape;
  const rows = real === null && (reach?.starts ?? null) === null ? 1 : batch;
  const mask = sweep.constant(`sight ${JSON.stringify([reach, real, rows, queries, keys])}`, () => {
    const numbers = new Float32Array(rows * queries * keys);
    for (let row = 0; row < rows; row++) {
      for (let query = 0; query < queries; query++) {
        if (real !== null && !real[row * queries + query]) continue;
        const own = reach === null ? keys - 1 : reach.offset + query;
        const first = Math.max(reach?.starts?.[row] ?? 0, own + 1 - (reach?.window ?? keys + own), 0);
        const start = (row * queries + query) * keys;
        numbers.fill(1, start + first, start + Math.max(first, own + 1));
      }
    }
    return backend.upload(numbers, [rows, 1, queries, keys]);
  });
  return sweep.keep(backend.select(mask, x, sweep.number(0), x.shape));
}

/** 0 in the rows of queries that are padding; the sweep's. [B T H K] */
function withoutPadding(sweep: Sweep, x: Value, { real }: Sight): Value {
  if (real === null) return x;
  const { backend } = sweep;
  const [batch, positions] = x.shape;
  const mask = sweep.constant(`real ${JSON.stringify([real, positions])}`, () =>
    backend.upload(Float32Array.from(real, Number), [batch, positions, 1, 1]),
  );
  return sweep.keep(backend.select(mask, x, sweep.number(0), x.shape));
}

function scaled(sweep: Sweep, x: Value, factor: number): Value {
  if (factor === 1) return x;
  return sweep.backend.binary("multiply", sweep.keep(x), sweep.number(factor), x.shape);
}

/** What came behind the first `count` positions. [B S KV K] → [B T KV K] */
export function positionsFrom(backend: Backend, gradient: Value, count: number, shape: Shape): Value {
  const strides = stridesOf(gradient.shape);
  return backend.strided(gradient, shape, count * strides[1], strides);
}

/** The first `count` positions, and 0 behind them. [B S KV K] */
export function positionsBefore(sweep: Sweep, gradient: Value, count: number, shape: Shape): Value {
  const { backend } = sweep;
  if (count === 0) return backend.upload(new Float32Array(elementsOf(shape)), shape);
  const first = sweep.keep(backend.strided(gradient, shape.with(1, count), 0, stridesOf(gradient.shape)));
  return backend.stridedTransposed(first, shape, 0, stridesOf(shape));
}

// ── Tensor operations ───────────────────────────────────────────────────────────────────────────────────────────────

export function unary(sweep: Sweep, operation: UnaryOperation, gradient: Value, x: Value, result: Value): Value {
  const { backend } = sweep;
  const times = (factor: Value) => backend.binary("multiply", gradient, factor, x.shape);
  const over = (divided: Value, by: Value) => backend.binary("divide", divided, by, x.shape);
  switch (operation) {
    case "negate":
      return backend.unary("negate", gradient);
    case "exp":
      return times(result);
    case "log":
      return whereNot0(sweep, gradient, over(gradient, x));
    case "sqrt":
      return whereNot0(sweep, gradient, over(gradient, sweep.keep(backend.binary("add", result, result, x.shape))));
    case "tanh": {
      const squares = sweep.keep(backend.unary("square", result));
      return times(sweep.keep(backend.binary("subtract", sweep.number(1), squares, x.shape)));
    }
    case "absolute":
      return whereNot0(sweep, x, times(sweep.keep(over(x, sweep.keep(backend.unary("absolute", x))))));
    case "square":
      return times(sweep.keep(backend.binary("add", x, x, x.shape)));
    default:
      return operation satisfies never;
  }
}

export function binary(
  sweep: Sweep,
  operation: BinaryOperation,
  gradient: Value,
  a: Value,
  b: Value,
  result: Value,
  isLeft: boolean,
): Value {
  const { backend } = sweep;
  const { shape } = gradient;
  const own = isLeft ? a : b;
  const whole = (): Value => {
    switch (operation) {
      case "add":
        return backend.retain(gradient);
      case "subtract":
        return isLeft ? backend.retain(gradient) : backend.unary("negate", gradient);
      case "multiply":
        return backend.binary("multiply", gradient, isLeft ? b : a, shape);
      case "divide": {
        const quotient = backend.binary("divide", gradient, b, shape);
        if (isLeft) return whereNot0(sweep, gradient, quotient);
        const product = sweep.keep(backend.binary("multiply", sweep.keep(quotient), result, shape));
        return whereNot0(sweep, gradient, backend.unary("negate", product));
      }
      case "minimum":
      case "maximum": {
        const half = sweep.keep(backend.binary("multiply", gradient, sweep.number(0.5), shape));
        const beside = sweep.keep(backend.binary("subtract", result, isLeft ? b : a, shape));
        const taken = sweep.keep(backend.select(beside, gradient, half, shape));
        const behind = sweep.keep(backend.binary("subtract", result, own, shape));
        return backend.select(behind, sweep.number(0), taken, shape);
      }
      default:
        return operation satisfies never;
    }
  };
  return summedTo(sweep, whole(), own.shape);
}

/** Of one side of a selection. */
export function selected(sweep: Sweep, gradient: Value, mask: Value, isLeft: boolean, shape: Shape): Value {
  const zero = sweep.number(0);
  const sides = isLeft ? ([gradient, zero] as const) : ([zero, gradient] as const);
  return summedTo(sweep, sweep.backend.select(mask, ...sides, gradient.shape), shape);
}

export function reduce(
  sweep: Sweep,
  operation: Exclude<Reduction, "argmax">,
  gradient: Value,
  x: Value,
  axis: number,
  result: Value,
): Value {
  const { backend } = sweep;
  const spread = (value: Value) => backend.strided(value, x.shape, 0, broadcastStrides(value.shape, x.shape));
  const scaledBy = (factor: number) =>
    sweep.keep(backend.binary("multiply", gradient, sweep.number(factor), gradient.shape));
  switch (operation) {
    case "sum":
      return spread(gradient);
    case "mean":
      return spread(scaledBy(1 / x.shape[axis]));
    case "max":
    case "min": {
      const behind = sweep.keep(backend.binary("subtract", x, result, x.shape));
      const isBest = sweep.keep(backend.select(behind, sweep.number(0), sweep.number(1), x.shape));
      const count = sweep.keep(backend.reduce("sum", isBest, axis));
      return backend.binary(
        "multiply",
        isBest,
        sweep.keep(backend.binary("divide", gradient, count, gradient.shape)),
        x.shape,
      );
    }
    default:
      return operation satisfies never;
  }
}

/** The last two axes change places. */
export function transposed(backend: Backend, x: Value): Value {
  const swap = (list: readonly number[]) => [...list.slice(0, -2), list[list.length - 1], list[list.length - 2]];
  return backend.strided(x, swap(x.shape), 0, swap(stridesOf(x.shape)));
}

/** A value, taken over, where another is not 0, and 0 elsewhere. */
function whereNot0(sweep: Sweep, mask: Value, value: Value): Value {
  return sweep.backend.select(mask, sweep.keep(value), sweep.number(0), value.shape);
}

/** A gradient, taken over, summed over what was repeated to broadcast `shape`. */
function summedTo(sweep: Sweep, gradient: Value, shape: Shape): Value {
  const { backend } = sweep;
  const lead = gradient.shape.length - shape.length;
  let sum = gradient;
  for (const [axis, extent] of gradient.shape.entries()) {
    if (extent === 1 || (axis >= lead && shape[axis - lead] !== 1)) continue;
    sum = backend.reduce("sum", sweep.keep(sum), axis);
  }
  return sameShape(sum.shape, shape) ? sum : backend.reshape(sweep.keep(sum), shape);
}
