// Each kernel's way back, on the reference backend, against differences of the kernel itself: the case's number is a
// random weighting of its result, and each input element is moved by ±h and ±2h. In float32 the fourth-order formula
// with h = 1/32 is right to some 1e-5 of the largest slope; the tolerance is 2e-4 of it.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Backend, laidOut, type Matrix, type Value } from "../../js_bridge/engine/backend.ts";
import { sweepBack } from "../../js_bridge/engine/gradient/gradient.ts";
import { broadcastShapes, elementsOf } from "../../js_bridge/engine/tensors/shape.ts";
import { Tape } from "../../js_bridge/engine/gradient/tape.ts";
import { type Step, stepOf } from "../../js_bridge/engine/gradient/tape_step.ts";
import { ReferenceBackend } from "../../js_bridge/kernels/reference.ts";
import type { Shape } from "../../js_bridge/protocol.ts";
import { noise } from "./tiny.ts";

const TOLERANCE = 2e-4;
const H = 1 / 32;

interface Case {
  name: string;
  /** Shapes of the inputs that gradients are taken to. */
  shapes: Shape[];
  /** Numbers in place of noise: what has kinks or poles wants to be away from them. */
  numbers?: (x: number, index: number) => number;
  run: (backend: Backend, inputs: Value[]) => Value;
}

const recording = { origin: "a test", isAlive: () => true };

/** Counts bytes as the engine's table does. */
class CountingKeeper {
  held = 0;
  keep(): void {
    this.held++;
  }
  drop(): void {
    this.held--;
  }
}

function matrixOf(backend: Backend, inputs: number, outputs: number): Matrix {
  return laidOut(backend, noise(inputs * outputs, 77), { inputs, outputs, transposed: false, scales: null });
}

const weights = new Map<string, Value>();
/** A constant, the same for every run of a case. */
function constant(backend: Backend, shape: Shape, seed: number, map: (x: number) => number = (x) => x): Value {
  const key = `${shape.join(" ")} ${seed} ${map}`;
  const known = weights.get(key) ?? backend.upload(noise(elementsOf(shape), seed).map(map), shape);
  weights.set(key, known);
  return known;
}

const positive = (x: number) => 1.5 + x;
/** All different, at least 0.2 apart and from 0: no step of a difference crosses a kink. */
const apart = (_: number, index: number) => (((index * 7) % 23) - 11.3) * 0.3;

const reaches = {
  causal: { offset: 0, window: null, starts: null },
  windowed: { offset: 0, window: 2, starts: null },
  "after cached positions": { offset: 2, window: 3, starts: null },
  "with left padding": { offset: 0, window: null, starts: [2, 0] },
} as const;

const CASES: Case[] = [
  { name: "product", shapes: [[2, 3, 5]], run: (b, [x]) => b.product(x, matrixOf(b, 5, 7), constant(b, [7], 3)) },
  { name: "productTransposed", shapes: [[2, 7]], run: (b, [y]) => b.productTransposed(y, matrixOf(b, 5, 7)) },
  ...[true, false].flatMap((centred): Case[] => [
    { name: `normScale, centred ${centred}`, shapes: [[3, 6]], run: (b, [x]) => b.normScale(x, 0.1, centred) },
    {
      name: `normalize, centred ${centred}`,
      shapes: [
        [3, 6],
        [3, 1],
      ],
      numbers: positive,
      run: (b, [x, scale]) => b.normalize(x, scale, centred),
    },
    {
      name: `norm, centred ${centred}`,
      shapes: [[3, 6]],
      run: (b, [x]) => b.norm(x, constant(b, [6], 8), constant(b, [6], 9), 0.1, centred),
    },
    {
      name: `norm without weights, centred ${centred}`,
      shapes: [[3, 6]],
      run: (b, [x]) => b.norm(x, null, null, 0.1, centred),
    },
    {
      name: `norm from its parts, centred ${centred}`,
      shapes: [[3, 6]],
      run: (b, [x]) => b.affine(b.normalize(x, b.normScale(x, 0.1, centred), centred), constant(b, [6], 8), null),
    },
  ]),
  { name: "affine", shapes: [[2, 3, 4]], run: (b, [x]) => b.affine(x, constant(b, [4], 5), constant(b, [4], 6)) },
  ...(["geluTanh", "geluErf", "silu"] as const).map((kind) => ({
    name: `activate ${kind}`,
    shapes: [[4, 5]],
    numbers: (x: number) => 3 * x,
    run: (b: Backend, [x]: Value[]) => b.activate(kind, x),
  })),
  { name: "activate relu", shapes: [[4, 5]], numbers: apart, run: (b, [x]) => b.activate("relu", x) },
  {
    name: "activateGradient, to the gradient",
    shapes: [[4, 5]],
    run: (b, [g]) => b.activateGradient("silu", constant(b, [4, 5], 2), g),
  },
  {
    name: "rotate, part of each head",
    shapes: [[2, 3, 2, 6]],
    run: (b, [x]) => b.rotate(x, constant(b, [2, 3, 2], 4, Math.cos), constant(b, [2, 3, 2], 4, Math.sin)),
  },
  ...Object.entries(reaches).flatMap(([name, reach]): Case[] => {
    const keys = 4 + reach.offset;
    const shapes = [
      [2, 4, 4, 3],
      [2, keys, 2, 3],
    ];
    return [
      {
        name: `scores, ${name}`,
        shapes,
        run: (b, [q, k]) => b.scores(q, k, { factor: 0.7, softCap: null, reach }),
      },
      {
        name: `scores with a soft cap, ${name}`,
        shapes,
        run: (b, [q, k]) => b.scores(q, k, { factor: 2, softCap: 1.5, reach }),
      },
      {
        name: `attention with sinks, ${name}`,
        shapes: [...shapes, [2, keys, 2, 3]],
        run: (b, [q, k, v]) => {
          const pattern = b.softmax(b.scores(q, k, { factor: 2, softCap: 3, reach }), constant(b, [4], 12));
          return b.mix(pattern, v, reach);
        },
      },
    ];
  }),
  {
    name: "scores without a mask",
    shapes: [
      [1, 2, 2, 3],
      [1, 5, 1, 3],
    ],
    run: (b, [q, k]) => b.scores(q, k, { factor: 1, softCap: null, reach: null }),
  },
  { name: "softmax", shapes: [[2, 2, 3, 5]], numbers: (x) => 3 * x, run: (b, [x]) => b.softmax(x, null) },
  {
    name: "softmax with sinks",
    shapes: [[2, 2, 3, 5]],
    numbers: (x) => 3 * x,
    run: (b, [x]) => b.softmax(x, constant(b, [2], 3)),
  },
  {
    name: "mix without a mask",
    shapes: [
      [2, 4, 3, 5],
      [2, 5, 2, 3],
    ],
    run: (b, [pattern, v]) => b.mix(pattern, v, null),
  },
  {
    name: "mixTransposed",
    shapes: [
      [2, 4, 3, 5],
      [2, 3, 4, 3],
    ],
    run: (b, [pattern, x]) => b.mixTransposed(pattern, x, 2),
  },
  {
    name: "extend",
    shapes: [
      [2, 4, 2, 3],
      [2, 2, 2, 3],
    ],
    run: (b, [before, fresh]) => b.extend(before, 3, fresh),
  },
  { name: "extend nothing", shapes: [[2, 2, 2, 3]], run: (b, [fresh]) => b.extend(null, 0, fresh) },
  ...(["negate", "exp", "log", "sqrt", "tanh", "square"] as const).map((operation) => ({
    name: operation,
    shapes: [[3, 4]],
    numbers: positive,
    run: (b: Backend, [x]: Value[]) => b.unary(operation, x),
  })),
  { name: "absolute", shapes: [[3, 4]], numbers: apart, run: (b, [x]) => b.unary("absolute", x) },
  ...(["add", "subtract", "multiply", "divide", "minimum", "maximum"] as const).flatMap((operation) =>
    [
      [[2, 3, 4], [2, 3, 4]],
      [[2, 3, 4], [3, 1]],
      [[4], [2, 1, 4]],
      [[2, 3, 4], []],
    ].map((shapes) => ({
      name: `${operation} of [${shapes[0]}] and [${shapes[1]}]`,
      shapes,
      numbers: operation === "minimum" || operation === "maximum" ? (_: number, i: number) => apart(0, i) : positive,
      run: (b: Backend, [x, y]: Value[]) => {
        const isKinked = operation === "minimum" || operation === "maximum";
        const beside = isKinked ? b.binary("add", y, constant(b, [], 1, () => 0.14), y.shape) : y; // off the kinks
        return b.binary(operation, x, beside, broadcastShapes(shapes[0], shapes[1]));
      },
    })),
  ),
  {
    name: "select, broadcast",
    shapes: [[3, 1], [2, 1, 4]],
    run: (b, [x, y]) => b.select(constant(b, [3, 4], 5, (n) => (n > 0 ? 1 : 0)), x, y, [2, 3, 4]),
  },
  ...(["sum", "mean"] as const).flatMap((operation) =>
    [0, 1, 2].map((axis) => ({
      name: `${operation} over axis ${axis}`,
      shapes: [[2, 3, 4]],
      run: (b: Backend, [x]: Value[]) => b.reduce(operation, x, axis),
    })),
  ),
  ...(["max", "min"] as const).map((operation) => ({
    name: `${operation} over the middle axis`,
    shapes: [[2, 3, 4]],
    numbers: apart,
    run: (b: Backend, [x]: Value[]) => b.reduce(operation, x, 1),
  })),
  { name: "strided: a slice", shapes: [[3, 4]], run: (b, [x]) => b.strided(x, [2, 2], 5, [4, 1]) },
  { name: "strided: a permutation", shapes: [[2, 3, 4]], run: (b, [x]) => b.strided(x, [4, 2, 3], 0, [1, 12, 4]) },
  { name: "strided: repetition", shapes: [[3, 4]], run: (b, [x]) => b.strided(x, [2, 3, 5, 4], 0, [0, 4, 0, 1]) },
  { name: "strided: a diagonal", shapes: [[4, 4]], run: (b, [x]) => b.strided(x, [4], 0, [5]) },
  { name: "strided: windows that overlap", shapes: [[6]], run: (b, [x]) => b.strided(x, [4, 3], 0, [1, 1]) },
  { name: "stridedTransposed", shapes: [[2, 2]], run: (b, [x]) => b.stridedTransposed(x, [3, 4], 5, [4, 1]) },
  { name: "take, some twice", shapes: [[2, 4, 3]], run: (b, [x]) => b.take(x, 1, Int32Array.of(3, 0, 3)) },
  { name: "takeTransposed", shapes: [[2, 3, 2]], run: (b, [x]) => b.takeTransposed(x, 1, Int32Array.of(3, 0, 3), 5) },
  { name: "matmul", shapes: [[2, 3, 4], [2, 4, 5]], run: (b, [x, y]) => b.matmul(x, y) },
  { name: "reshape", shapes: [[2, 3, 4]], run: (b, [x]) => b.reshape(x, [4, 6]) },
  {
    name: "one value used twice",
    shapes: [[2, 3]],
    run: (b, [x]) => b.binary("multiply", x, b.unary("tanh", x), [2, 3]),
  },
];

function numbersOf({ shapes, numbers = (x) => x }: Case): Float32Array[] {
  return shapes.map((shape, i) => noise(elementsOf(shape), 20 + i).map((x, index) => numbers(x, index + 5 * i)));
}

/** The gradients of a case's number by the tape. */
function taped(wanted: Case, backend: Backend, given: Float32Array[]): Float32Array[] {
  const keeper = new CountingKeeper();
  const tape = new Tape(backend, recording, keeper);
  const inputs = wanted.shapes.map((shape, i) => tape.watch(backend.upload(given[i], shape)));
  const result = wanted.run(tape, inputs);
  const finite = backend.read(result).map((x) => (Number.isFinite(x) ? 1 : 0));
  const zero = backend.upload(Float32Array.of(0), []);
  const hidden = tape.select(backend.upload(finite, result.shape), result, zero, result.shape);
  const weighted = tape.binary("multiply", hidden, backend.upload(noise(finite.length, 5), result.shape), result.shape);
  const number = tape.reduce("sum", tape.reshape(weighted, [finite.length]), 0);
  const steps = inputs.map((each) => stepOf(each) as Step);
  const { found } = finished(stepOf(number) as Step, steps);
  return steps.map((step) => {
    const gradient = found.get(step) as Value;
    assert.deepEqual(gradient.shape, step.shape);
    return backend.read(gradient);
  });
}

/** A whole sweep, and through how many steps it went. */
function finished(of: Step, to: Step[]): { found: ReadonlyMap<Step, Value>; count: number } {
  const run = sweepBack(of, new Set(to));
  let count = 0;
  let done = run.next();
  for (; done.done !== true; done = run.next()) count++;
  return { found: done.value as Map<Step, Value>, count };
}

/** The same number in plain numbers, in float64 from the result on. */
function plainNumber(wanted: Case, backend: Backend, given: Float32Array[]): number {
  const result = wanted.run(backend, wanted.shapes.map((shape, i) => backend.upload(given[i], shape)));
  const factors = noise(elementsOf(result.shape), 5);
  return backend.read(result).reduce((sum, x, i) => sum + (Number.isFinite(x) ? x * factors[i] : 0), 0);
}

describe("the way back through each kernel is its slope", () => {
  const backend = new ReferenceBackend();
  for (const wanted of CASES) {
    test(wanted.name, () => {
      const given = numbersOf(wanted);
      const gradients = taped(wanted, backend, given);
      for (const [i, ours] of gradients.entries()) {
        const slopes = given[i].map((_, index) => {
          const at = (steps: number) => {
            const moved = given[i].with(index, given[i][index] + steps * H) as Float32Array;
            return plainNumber(wanted, backend, given.with(i, moved));
          };
          return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * H);
        });
        const largest = slopes.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
        assert.ok(largest > 0.01, `input ${i} makes no difference: ${slopes}`);
        for (const [index, slope] of slopes.entries()) {
          assert.ok(
            Math.abs(ours[index] - slope) <= TOLERANCE * Math.max(1, largest),
            `input ${i}, element ${index}: ${ours[index]}, slope ${slope}\n${ours}\n${slopes}`,
          );
        }
      }
    });
  }
});

describe("the conventions are PyTorch's", () => {
  const backend = new ReferenceBackend();
  const gradientsOf = (numbers: number[][], run: Case["run"]) =>
    taped(
      { name: "", shapes: numbers.map((each) => [each.length]), run },
      backend,
      numbers.map((each) => Float32Array.from(each)),
    ).map((each) => [...each]);
  const factors = [...noise(3, 5)];

  test("equal numbers share the gradient of maximum, minimum and max", () => {
    const [a, b] = gradientsOf([[1, 2, 3], [1, 5, 0]], (each, [x, y]) => each.binary("maximum", x, y, [3]));
    assert.deepEqual(a, [Math.fround(factors[0] / 2), 0, factors[2]]);
    assert.deepEqual(b, [Math.fround(factors[0] / 2), factors[1], 0]);
    const [max] = gradientsOf([[4, 1, 4]], (each, [x]) => each.reduce("max", x, 0));
    assert.deepEqual(max, [Math.fround(factors[0] / 2), 0, Math.fround(factors[0] / 2)]);
  });

  test("where the gradient is 0 it stays 0, be the slope infinite", () => {
    const zero = (each: Backend) => each.upload(Float32Array.of(0, 1, 0), [3]);
    for (const operation of ["log", "sqrt"] as const) {
      const [ours] = gradientsOf([[0, 1, 0]], (each, [x]) =>
        each.select(zero(each), each.unary(operation, x), each.upload(Float32Array.of(7), []), [3]),
      );
      assert.equal(ours[0], 0);
      assert.equal(ours[2], 0);
    }
    const [ours] = gradientsOf([[-1, 0, 2]], (each, [x]) => each.unary("absolute", x));
    assert.deepEqual(ours, [-factors[0], 0, factors[2]]);
  });

  test("nothing goes back through NaN that a query does not see, nor through padding", () => {
    const shape = [2, 3, 1, 2];
    const isReal = [false, true, true, true, true, false];
    const tape = new Tape(backend, recording, new CountingKeeper(), isReal);
    const reach = { offset: 0, window: null, starts: [1, 0] };
    const numbers = noise(12, 4);
    for (const i of [0, 1, 10, 11]) numbers[i] = NaN;
    const [q, k, v] = [1, 2, 3].map(() => tape.watch(backend.upload(numbers, shape)));
    const pattern = tape.softmax(tape.scores(q, k, { factor: 1, softCap: 2, reach }), null);
    const z = tape.mix(pattern, v, reach);
    const real = backend.upload(Float32Array.from(isReal, Number), [2, 3, 1, 1]);
    const weighted = tape.binary("multiply", z, backend.upload(noise(12, 6), shape), shape);
    const chosen = tape.select(real, weighted, backend.upload(Float32Array.of(0), []), shape);
    const number = tape.reduce("sum", tape.reshape(chosen, [12]), 0);
    const steps = [q, k, v].map((each) => stepOf(each) as Step);
    const { found } = finished(stepOf(number) as Step, steps);
    for (const step of steps) {
      const gradient = backend.read(found.get(step) as Value);
      assert.ok(gradient.every(Number.isFinite), `${gradient}`);
      assert.ok(gradient.some((x) => Math.abs(x) > 1e-3));
    }
  });
});

describe("a sweep", () => {
  test("goes back only through what leads to a wanted value, and frees all its scratch", () => {
    const backend = new ReferenceBackend();
    const keeper = new CountingKeeper();
    const tape = new Tape(backend, recording, keeper);
    const [first, second] = [1, 2].map((seed) => {
      const plain = backend.upload(noise(6, seed), [2, 3]);
      const value = tape.watch(plain);
      tape.release(plain);
      return value;
    });
    const chain = [tape.unary("square", first)];
    chain.push(tape.unary("exp", chain[0]));
    chain.push(tape.binary("multiply", chain[1], second, [2, 3]));
    chain.push(tape.reshape(chain[2], [6]));
    chain.push(tape.reduce("sum", chain[3], 0));
    const number = stepOf(chain[4]) as Step;
    const before = backend.bytes;
    const { found, count } = finished(number, [stepOf(second) as Step]);
    assert.equal(count, 4); // the sum, the reshape, the product, the value itself
    for (const gradient of found.values()) backend.release(gradient);
    assert.equal(backend.bytes, before);
    const abandoned = sweepBack(number, new Set([stepOf(first) as Step]));
    abandoned.next();
    abandoned.next();
    abandoned.return(new Map());
    assert.equal(backend.bytes, before);
    // The number alone keeps all that its way back needs, and nothing else.
    for (const value of [first, second, ...chain.slice(0, 4)]) tape.release(value);
    assert.ok(keeper.held > 0);
    tape.release(chain[4]);
    assert.equal(keeper.held, 0);
    assert.equal(backend.bytes, 0);
  });

  test("what nothing watched came into has no past", () => {
    const backend = new ReferenceBackend();
    const keeper = new CountingKeeper();
    const tape = new Tape(backend, recording, keeper);
    const x = tape.upload(noise(4, 1), [4]);
    assert.equal(stepOf(tape.unary("tanh", tape.binary("add", x, x, [4]))), null);
    assert.equal(keeper.held, 0);
  });

  test("ten thousand steps in a row overflow no stack", () => {
    const backend = new ReferenceBackend();
    const tape = new Tape(backend, recording, new CountingKeeper());
    const first = tape.watch(backend.upload(Float32Array.of(1), [1]));
    let last = tape.retain(first);
    for (let i = 0; i < 10_000; i++) {
      const next = tape.unary("negate", last);
      tape.release(last);
      last = next;
    }
    const step = stepOf(first) as Step;
    const { found } = finished(stepOf(last) as Step, [step]);
    assert.deepEqual([...backend.read(found.get(step) as Value)], [1]);
    tape.release(last);
  });
});
