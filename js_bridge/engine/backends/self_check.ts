// Whether a backend computes what the reference does: a few small kernels of every kind, run once when it is opened.
// Drivers have defects, and a wrong number that nobody notices is worse than a slow right one. It is no test of the
// kernels (those are in tests/engine): it must be over in tens of milliseconds.

import { type Backend, laidOut, type Value } from "../backend.ts";

/** Relative to the largest number: far above rounding, far below any defect. */
const ALLOWED = 1e-3;

const [BATCH, POSITIONS, HEADS, KEY_HEADS, WIDTH] = [2, 3, 4, 2, 6];

const CHECKS: Record<string, (backend: Backend, keep: (value: Value) => Value) => Value> = {
  "product of 1 row": (b, keep) => multiplied(b, keep, 1, false),
  "product of 9 rows": (b, keep) => multiplied(b, keep, 9, false),
  "int8 product of 9 rows": (b, keep) => multiplied(b, keep, 9, true),
  "layer norm": (b, keep) => {
    const [w, bias] = [keep(noise(b, [10], 2)), keep(noise(b, [10], 3))];
    return b.norm(keep(noise(b, [4, 10], 1)), w, bias, 0.1, true);
  },
  "root mean square norm": (b, keep) => b.norm(keep(noise(b, [4, 10], 1)), keep(noise(b, [10], 2)), null, 0.1, false),
  "GELU far out": (b, keep) =>
    b.activate("geluTanh", keep(b.upload(Float32Array.of(-40, -13, -1, 0, 0.5, 13, 40), [7]))),
  rotation: (b, keep) => {
    const angles = [BATCH, POSITIONS, WIDTH / 2];
    return b.rotate(keep(queries(b)), keep(noise(b, angles, 5)), keep(noise(b, angles, 6)));
  },
  "attention pattern": (b, keep) => pattern(b, keep),
  "attention beside padding that is not a number": (b, keep) => {
    const shape = [BATCH, POSITIONS + 1, KEY_HEADS, WIDTH];
    const numbers = wave(BATCH * (POSITIONS + 1) * KEY_HEADS * WIDTH, 8);
    numbers.fill(NaN, POSITIONS * KEY_HEADS * WIDTH, (POSITIONS + 1) * KEY_HEADS * WIDTH);
    return b.mix(keep(pattern(b, keep)), keep(b.upload(numbers, shape)), { offset: 0, window: null, starts: null });
  },
  "sum and broadcast": (b, keep) => {
    const sum = keep(b.reduce("sum", keep(noise(b, [3, 5], 1)), 0));
    return b.binary("multiply", sum, keep(noise(b, [3, 1], 4)), [3, 5]);
  },
};

/** What is wrong with a backend, in words; null: nothing. Pauses between kernels. Fails: as its kernels do. */
export async function selfCheck(
  backend: Backend,
  reference: Backend,
  pause: () => Promise<void> = async () => undefined,
): Promise<string | null> {
  for (const [name, run] of Object.entries(CHECKS)) {
    await pause();
    const [expected, found] = [numbersOf(reference, run), numbersOf(backend, run)];
    const apart = distance(found, expected);
    if (!(apart <= ALLOWED)) {
      return `${name} is off by ${apart.toPrecision(2)} of the largest number, ${ALLOWED} is allowed`;
    }
  }
  return null;
}

function numbersOf(backend: Backend, run: (backend: Backend, keep: (value: Value) => Value) => Value): Float32Array {
  const kept: Value[] = [];
  const keep = (value: Value) => {
    kept.push(value);
    return value;
  };
  try {
    return backend.read(keep(run(backend, keep)));
  } finally {
    for (const value of kept) backend.release(value);
  }
}

/** Infinite where only one of them is a number. */
function distance(found: Float32Array, expected: Float32Array): number {
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-30);
  let most = found.length === expected.length ? 0 : Infinity;
  for (const [i, x] of expected.entries()) {
    if (Object.is(x, found[i])) continue;
    const apart = Math.abs(found[i] - x) / largest;
    most = Math.max(most, Number.isNaN(apart) ? Infinity : apart);
  }
  return most;
}

function multiplied(b: Backend, keep: (value: Value) => Value, rows: number, isInt8: boolean): Value {
  const [inputs, outputs] = [11, 14];
  const codes = Int8Array.from({ length: inputs * outputs }, (_, i) => ((i * 37) % 255) - 127);
  const scales = isInt8 ? wave(outputs, 7) : null;
  const numbers = isInt8 ? codes : wave(inputs * outputs, 2);
  const matrix = laidOut(b, numbers, { inputs, outputs, transposed: false, scales });
  try {
    return b.product(keep(noise(b, [rows, inputs], 1)), matrix, keep(noise(b, [outputs], 3)));
  } finally {
    b.releaseMatrix(matrix);
  }
}

function queries(b: Backend): Value {
  return noise(b, [BATCH, POSITIONS, HEADS, WIDTH], 1);
}

/** Over one key more than the queries see. */
function pattern(b: Backend, keep: (value: Value) => Value): Value {
  const keys = keep(noise(b, [BATCH, POSITIONS + 1, KEY_HEADS, WIDTH], 2));
  const reach = { offset: 0, window: 2, starts: null };
  const scores = keep(b.scores(keep(queries(b)), keys, { factor: 0.5, softCap: 3, reach }));
  return b.softmax(scores, null);
}

function noise(b: Backend, shape: readonly number[], seed: number): Value {
  return b.upload(
    wave(
      shape.reduce((product, extent) => product * extent, 1),
      seed,
    ),
    shape,
  );
}

function wave(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7 + seed * 5.3));
}
