// Every kernel of the WebAssembly backend against its formula in the reference backend, on shapes that fill no vector,
// panel or tile; and the same bits from every build and any number of threads.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { nodeThreads } from "../../hosts/node_engine.ts";
import { type Activation, type Backend, laidOut, type Reach, type Value } from "../../js_bridge/engine/backend.ts";
import { sampleFrom, Sampler } from "../../js_bridge/engine/generation/sampling.ts";
import { elementsOf, stridesOf } from "../../js_bridge/engine/tensors/shape.ts";
import { ReferenceBackend } from "../../js_bridge/kernels/reference.ts";
import { besideKernels } from "../../js_bridge/kernels/threads.ts";
import { openWasmBackend, type WasmBackend } from "../../js_bridge/kernels/wasm.ts";
import { readFiles } from "../../js_bridge/store/files.ts";
import { KERNELS } from "./session.ts";
import { noise } from "./tiny.ts";

/** A build of the kernels, and threads; each unit of work goes out alone, so that small shapes are shared too. */
async function opened(relaxed: boolean, threads: number): Promise<WasmBackend> {
  const backend = await openWasmBackend({
    fetchKernels: async (file) => {
      return !relaxed && file.includes("relaxed") ? null : readFiles(besideKernels(KERNELS, file));
    },
    threads: threads === 1 ? null : nodeThreads(KERNELS, threads),
    portion: 1,
  });
  assert.equal(backend.threads, threads);
  return backend;
}

let plain: WasmBackend[];
let relaxed: WasmBackend[];
before(async () => {
  plain = [await opened(false, 1), await opened(false, 2), await opened(false, 3)];
  relaxed = [await opened(true, 1), await opened(true, 2), await opened(true, 3)];
});
after(() => {
  for (const backend of [...plain, ...relaxed]) assert.equal(backend.bytes, 0, "a test left values behind");
});

let seed = 1;
/** A tensor of noise that every backend gets alike. */
function random(...shape: number[]): (backend: Backend) => Value {
  const numbers = noise(elementsOf(shape), seed++);
  return (backend) => backend.upload(numbers, shape);
}

type Kernel = (backend: Backend, keep: (value: Value) => Value) => Value;

function result(backend: Backend, kernel: Kernel): Float32Array {
  const kept: Value[] = [];
  const value = kernel(backend, (each) => (kept.push(each), each));
  const numbers = backend.read(value);
  for (const each of [value, ...kept]) backend.release(each);
  return numbers;
}

/** At most `tolerance` from the formula, relative where numbers are above 1; the same bits from any count of threads. */
function agrees(name: string, kernel: Kernel, tolerance = 2e-6): void {
  const expected = result(new ReferenceBackend(), kernel);
  for (const [build, backends] of Object.entries({ plain, relaxed })) {
    const first = result(backends[0], kernel);
    assert.equal(first.length, expected.length, `${name}: size`);
    for (const [i, x] of expected.entries()) {
      const allowed = tolerance * Math.max(1, Math.abs(x));
      const isClose = Number.isFinite(x) ? Math.abs(first[i] - x) <= allowed : Object.is(first[i], x);
      assert.ok(isClose, `${name}, ${build}: number ${i} is ${first[i]}, by its formula ${x}`);
    }
    for (const more of backends.slice(1)) {
      assert.deepEqual(result(more, kernel), first, `${name}, ${build}, ${more.threads} threads`);
    }
  }
}

describe("products", () => {
  const SHAPES = [
    [1, 1, 1],
    [1, 7, 5],
    [1, 33, 67],
    [1, 20, 205],
    [2, 5, 8],
    [3, 13, 31],
    [4, 64, 33],
    [5, 17, 40],
    [7, 3, 67],
    [11, 300, 19],
    [64, 31, 23],
    [6, 101, 267],
    [37, 9, 150],
  ];
  for (const transposed of [false, true]) {
    test(`of float32, ${transposed ? "[outputs, inputs]" : "[inputs, outputs]"} in the file`, () => {
      for (const [rows, inputs, outputs] of SHAPES) {
        const layout = { inputs, outputs, transposed, scales: null };
        const [x, y, bias] = [random(rows, inputs), random(rows, outputs), random(outputs)];
        const w = noise(inputs * outputs, 9);
        const shape = `${rows} ${inputs} ${outputs}`;
        agrees(`product ${shape}`, (backend, keep) => {
          const matrix = laidOut(backend, w, layout);
          const z = backend.product(keep(x(backend)), matrix, keep(bias(backend)));
          backend.releaseMatrix(matrix);
          return z;
        }, 1e-5); // prettier-ignore
        agrees(`productTransposed ${shape}`, (backend, keep) => {
          const matrix = laidOut(backend, w, layout);
          const z = backend.productTransposed(keep(y(backend)), matrix);
          backend.releaseMatrix(matrix);
          return z;
        }, 1e-5); // prettier-ignore
        agrees(`columns ${shape}`, (backend) => {
          const matrix = laidOut(backend, w, layout);
          const ids = Int32Array.from({ length: 6 }, (_, i) => (i * 5) % outputs);
          const z = backend.columns(matrix, ids, [2, 3]);
          backend.releaseMatrix(matrix);
          return z;
        }, 0); // prettier-ignore
      }
    });

    test(`of int8 codes, ${transposed ? "[outputs, inputs]" : "[inputs, outputs]"} in the file`, () => {
      for (const [rows, inputs, outputs] of SHAPES) {
        const scales = noise(outputs, 4).map((s) => (Math.abs(s) + 0.1) / 127);
        const layout = { inputs, outputs, transposed, scales };
        const codes = Int8Array.from(noise(inputs * outputs, 5), (x) => Math.round(127 * x));
        const [x, y, bias] = [random(rows, inputs), random(rows, outputs), random(outputs)];
        const laid = (backend: Backend) => {
          const writer = backend.startMatrix(layout);
          writer.write(codes);
          return writer.finish();
        };
        for (const [name, kernel] of Object.entries<Kernel>({
          product: (backend, keep) => {
            const matrix = laid(backend);
            const z = backend.product(keep(x(backend)), matrix, keep(bias(backend)));
            backend.releaseMatrix(matrix);
            return z;
          },
          productTransposed: (backend, keep) => {
            const matrix = laid(backend);
            const z = backend.productTransposed(keep(y(backend)), matrix);
            backend.releaseMatrix(matrix);
            return z;
          },
          columns: (backend) => {
            const matrix = laid(backend);
            const z = backend.columns(matrix, Int32Array.of(0, outputs - 1, outputs >> 1), [3]);
            backend.releaseMatrix(matrix);
            return z;
          },
        })) {
          agrees(`${name} int8 ${rows} ${inputs} ${outputs}`, kernel, 1e-5);
        }
      }
    });
  }

  test("take a weight in pieces of any size", () => {
    const [inputs, outputs] = [37, 43];
    for (const transposed of [false, true]) {
      const numbers = noise(inputs * outputs, 3);
      const width = transposed ? inputs : outputs;
      const x = random(2, inputs);
      const pieces = (sizes: readonly number[]) => (backend: Backend, keep: (value: Value) => Value) => {
        const writer = backend.startMatrix({ inputs, outputs, transposed, scales: null });
        let row = 0;
        for (let i = 0; row * width < numbers.length; i++) {
          const next = row + sizes[i % sizes.length];
          writer.write(numbers.subarray(row * width, next * width));
          row = next;
        }
        const matrix = writer.finish();
        const z = backend.product(keep(x(backend)), matrix, null);
        backend.releaseMatrix(matrix);
        return z;
      };
      for (const backend of [plain[0], relaxed[2]]) {
        const whole = result(backend, pieces([1000]));
        for (const sizes of [[1], [3], [8], [1, 7, 13]]) assert.deepEqual(result(backend, pieces(sizes)), whole);
      }
    }
  });

  test("give a row the same bits alone and among others, and a code those of its number", () => {
    const [inputs, outputs] = [29, 45];
    const codes = Int8Array.from(noise(inputs * outputs, 7), (x) => 100 * x);
    const sides = { product: [inputs, outputs], productTransposed: [outputs, inputs] } as const;
    for (const [name, [width, results]] of Object.entries(sides) as [keyof typeof sides, readonly number[]][]) {
      const rows = noise(13 * width, 8);
      for (const backend of [...plain, ...relaxed]) {
        const of = [null, new Float32Array(outputs).fill(1)].map((scales) => {
          const layout = { inputs, outputs, transposed: false, scales };
          const matrix = laidOut(backend, scales === null ? Float32Array.from(codes) : codes, layout);
          const several = (count: number) =>
            result(backend, (b, keep) => {
              const x = keep(b.upload(rows.subarray(0, count * width), [count, width]));
              return name === "product" ? b.product(x, matrix, null) : b.productTransposed(x, matrix);
            });
          const all = several(13);
          for (let count = 1; count < 13; count++) {
            assert.deepEqual(several(count), all.slice(0, count * results), `${name}, ${count} rows`);
          }
          backend.releaseMatrix(matrix);
          return all;
        });
        assert.deepEqual(of[1], of[0], name);
      }
    }
  });

  test("of two tensors", () => {
    for (const [batches, m, n, o] of [[1, 1, 1, 1], [2, 3, 5, 7], [3, 4, 9, 33], [1, 6, 31, 20]]) { // prettier-ignore
      const [a, b] = [random(batches, m, n), random(batches, n, o)];
      agrees("matmul", (backend, keep) => backend.matmul(keep(a(backend)), keep(b(backend))), 1e-5);
    }
  });
});

describe("rows", () => {
  for (const width of [1, 3, 4, 13, 64, 101]) {
    test(`norms of width ${width}, fused and in three steps`, () => {
      const [x, w, b] = [random(2, 3, width), random(width), random(width)];
      for (const centred of [true, false]) {
        for (const [weight, bias] of [[w, b], [w, null], [null, b], [null, null]]) { // prettier-ignore
          const fused: Kernel = (backend, keep) => {
            const given = [weight, bias].map((each) => (each === null ? null : keep(each(backend))));
            return backend.norm(keep(x(backend)), given[0], given[1], 1e-5, centred);
          };
          const steps: Kernel = (backend, keep) => {
            const given = [weight, bias].map((each) => (each === null ? null : keep(each(backend))));
            const from = keep(x(backend));
            const scale = keep(backend.normScale(from, 1e-5, centred));
            return backend.affine(keep(backend.normalize(from, scale, centred)), given[0], given[1]);
          };
          agrees("norm", fused, 1e-5);
          agrees("normScale, normalize, affine", steps, 1e-5);
          for (const backend of [...plain, ...relaxed]) {
            const same = result(backend, fused).every((number, i) => number === result(backend, steps)[i]);
            assert.ok(same, "norm differs from its three parts");
          }
        }
      }
    });

    test(`softmax of width ${width}, with −∞, rows of nothing else, and sinks`, () => {
      const numbers = noise(2 * 3 * 5 * width, 6).map((x, i) => (i % 3 === 1 ? -Infinity : 30 * x));
      numbers.fill(-Infinity, 2 * width, 4 * width);
      const sinks = random(3);
      const softmax = (withSinks: boolean): Kernel => (backend, keep) =>
        backend.softmax(keep(backend.upload(numbers, [2, 3, 5, width])), withSinks ? keep(sinks(backend)) : null);
      agrees("softmax", softmax(false));
      agrees("softmax with sinks", softmax(true));
      const rows = result(relaxed[1], softmax(false));
      assert.deepEqual(rows.subarray(2 * width, 4 * width), new Float32Array(2 * width));
      for (const [i, x] of numbers.entries()) if (x === -Infinity) assert.equal(rows[i], 0);
    });
  }

  test("a NaN makes its row of a softmax NaN, and no other", () => {
    const numbers = noise(3 * 9, 4);
    numbers[9 + 4] = NaN;
    agrees("softmax", (backend, keep) => backend.softmax(keep(backend.upload(numbers, [1, 1, 3, 9])), null));
  });

  test("sums of exponentials, over stretches, without NaN", () => {
    for (const count of [1, 3, 1024, 1026, 5003]) {
      const numbers = noise(count, count).map((x) => 30 * x);
      if (count > 3) numbers.set([NaN, -Infinity], count >> 1);
      const most = numbers.reduce((a, b) => (b > a ? b : a), -Infinity);
      const expected = numbers.reduce((sum, x) => (Number.isNaN(x) ? sum : sum + Math.exp(x - most)), 0);
      for (const backends of [plain, relaxed]) {
        const sums = backends.map((backend) => {
          const x = backend.upload(numbers, [count]);
          const sum = backend.sumExponentials(x, most);
          backend.release(x);
          return sum;
        });
        assert.ok(Math.abs(sums[0] - expected) < 1e-6 * expected, `${count}: ${sums[0]}, by its formula ${expected}`);
        assert.deepEqual(sums, sums.map(() => sums[0]), `${count}: by threads`); // prettier-ignore
      }
    }
  });

  test("the greedy token of a row is the one that its numbers say when they are read", () => {
    const rows = [noise(5003, 5), noise(7, 6), new Float32Array(9), Float32Array.of(-Infinity, -2, -Infinity, -2)];
    const withNaN = (row: Float32Array, at: number) => row.map((x, i) => (i === at ? NaN : x));
    rows.push(withNaN(rows[0], 0), withNaN(rows[0], 2500), Float32Array.of(1, Infinity, 2), Float32Array.of(-Infinity));
    const greedy = new Sampler({ temperature: 0 });
    for (const [index, row] of rows.entries()) {
      const expected = greedy.next(row);
      for (const backend of [plain, relaxed].flat()) {
        const logits = backend.upload(row, [1, 1, row.length]);
        const found = sampleFrom(backend, logits, greedy);
        backend.release(logits);
        assert.equal(found.token, expected.token, `row ${index}`);
        assert.ok(
          Object.is(found.logProbability, expected.logProbability) ||
            Math.abs(found.logProbability - expected.logProbability) < 1e-6,
          `row ${index}: ${found.logProbability}, read ${expected.logProbability}`,
        );
      }
    }
    const nothing = plain[0].upload(Float32Array.of(NaN, NaN), [1, 1, 2]);
    assert.throws(() => sampleFrom(plain[0], nothing, greedy), /None of the 2 logits is a number/);
    plain[0].release(nothing);
  });

  test("reductions over each axis", () => {
    const numbers = noise(4 * 11, 3).map((x, i) => (i === 0 || i === 15 ? NaN : i > 30 ? 0.5 : x));
    for (const operation of ["max", "min", "argmax"] as const)
      agrees(operation, (b, keep) => b.reduce(operation, keep(b.upload(numbers, [4, 11])), 1), 0);
    for (const operation of ["sum", "mean", "max", "min", "argmax"] as const) {
      for (const shape of [[5], [3, 7], [2, 5, 9], [4, 1, 6], [3, 129, 2]]) {
        for (const axis of shape.keys()) {
          const x = random(...shape);
          agrees(`${operation} of [${shape}]`, (b, keep) => b.reduce(operation, keep(x(b)), axis), 1e-6);
        }
      }
    }
  });
});

describe("number by number", () => {
  const KINDS: Activation[] = ["geluTanh", "geluErf", "relu", "silu"];

  /** Where the formulas bend, and far to both sides. */
  const points = Float32Array.from([
    ...Array.from({ length: 4001 }, (_, i) => (i - 2000) / 100),
    ...[0, -0, 1e-30, -1e-30, 88.4, -88.4, 1e4, -1e4],
  ]);

  for (const kind of KINDS) {
    test(`${kind} and its derivative`, () => {
      agrees(kind, (backend, keep) => backend.activate(kind, keep(backend.upload(points, [points.length]))), 1e-6);
      const gradient = random(points.length);
      agrees(
        `gradient of ${kind}`,
        (backend, keep) =>
          backend.activateGradient(kind, keep(backend.upload(points, [points.length])), keep(gradient(backend))),
        2e-6,
      );
    });

    test(`${kind} keeps its digits where it is small`, () => {
      const kernel: Kernel = (b, keep) => b.activate(kind, keep(b.upload(points, [points.length])));
      const expected = result(new ReferenceBackend(), kernel);
      const found = result(relaxed[0], kernel);
      for (const [i, x] of points.entries()) {
        // The plain formulas themselves lose digits below -3, where they add to -1.
        if (x < -3 && kind !== "silu") continue;
        assert.ok(Math.abs(found[i] - expected[i]) <= 1e-6 * Math.abs(expected[i]) + 1e-30, `${kind}(${x})`);
      }
    });
  }

  test("unary operations", () => {
    for (const operation of ["negate", "exp", "sqrt", "log", "tanh", "absolute", "square"] as const) {
      const given = operation === "sqrt" || operation === "log" ? points.map(Math.abs) : points;
      const near = given.map((x) => (Math.abs(x) > 1e3 ? 87 : x));
      agrees(operation, (b, keep) => b.unary(operation, keep(b.upload(near, [near.length]))), 1e-6);
    }
    const edges = Float32Array.of(NaN, Infinity, -Infinity, 0, -1, 1e-40, 89, -104, 3e38);
    for (const operation of ["exp", "log", "tanh", "sqrt"] as const) {
      agrees(operation, (b, keep) => b.unary(operation, keep(b.upload(edges, [edges.length]))), 1e-6);
    }
  });

  test("binary operations, of one shape and broadcast", () => {
    const PAIRS = [
      [[7], [7]],
      [[3, 5], [5]],
      [[3, 5], [3, 1]],
      [[3, 5], []],
      [[], [3, 5]],
      [[1, 5], [3, 1]],
      [[2, 3, 4, 5], [3, 1, 5]],
      [[2, 3, 5], [2, 1, 1]],
      [[41, 53], [41, 53]],
      [[2053], []],
      [[33, 64], [64]],
    ]; // prettier-ignore
    for (const operation of ["add", "subtract", "multiply", "divide", "minimum", "maximum"] as const) {
      for (const [left, right] of PAIRS) {
        const rank = Math.max(left.length, right.length);
        const at = (shape: number[], axis: number) => shape[axis - (rank - shape.length)] ?? 1;
        const shape = Array.from({ length: rank }, (_, axis) => Math.max(at(left, axis), at(right, axis)));
        const [a, b] = [random(...left), random(...right)];
        agrees(
          `${operation} of [${left}] and [${right}]`,
          (backend, keep) => backend.binary(operation, keep(a(backend)), keep(b(backend)), shape),
          1e-6,
        );
      }
    }
  });

  test("select, slices and permutations", () => {
    const [a, b] = [random(3, 5, 4), random(4)];
    const mask = Float32Array.from({ length: 15 }, (_, i) => Number(i % 2));
    const select: Kernel = (backend, keep) => {
      const condition = keep(backend.upload(mask, [3, 5, 1]));
      return backend.select(condition, keep(a(backend)), keep(b(backend)), [3, 5, 4]);
    };
    agrees("select", select, 0);
    for (const [shape, offset, strides] of [
      [[5, 3], 2, [4, 20]],
      [[4, 5, 3], 0, [1, 4, 20]],
      [[3, 2, 4], 4, [20, 8, 1]],
      [[2, 3, 5, 4], 0, [0, 20, 4, 1]],
      [[4], 59, [-1]],
      [[1], 7, [1]],
    ] as const) {
      agrees("strided", (backend, keep) => backend.strided(keep(a(backend)), shape, offset, strides), 0);
    }
    assert.deepEqual(stridesOf([3, 5, 4]), [20, 4, 1]);
  });

  test("rotation of whole and of partial heads", () => {
    for (const [heads, width, half] of [[1, 2, 1], [3, 10, 3], [2, 16, 8], [5, 12, 4]]) { // prettier-ignore
      const [x, cos, sin] = [random(2, 3, heads, width), random(2, 3, half), random(2, 3, half)];
      agrees("rotate", (b, keep) => b.rotate(keep(x(b)), keep(cos(b)), keep(sin(b))), 1e-6);
    }
  });
});

describe("attention", () => {
  /** B, T, S, H, KV, K, reach */
  const CASES: [number, number, number, number, number, number, Reach | null][] = [
    [1, 1, 1, 1, 1, 1, { offset: 0, window: null, starts: null }],
    [2, 5, 5, 3, 3, 7, { offset: 0, window: null, starts: null }],
    [2, 5, 5, 6, 2, 12, null],
    [1, 1, 9, 4, 2, 33, { offset: 8, window: null, starts: null }],
    [1, 3, 11, 4, 1, 64, { offset: 8, window: 4, starts: null }],
    [3, 6, 6, 5, 5, 5, { offset: 0, window: 2, starts: [0, 3, 5] }],
    [2, 2, 10, 6, 3, 36, { offset: 8, window: null, starts: [9, 1] }],
  ];

  for (const [B, T, S, H, KV, K, reach] of CASES) {
    const seen = reach === null ? "everything" : JSON.stringify(reach);
    test(`of ${T} queries to ${S} keys, ${H} heads over ${KV} of ${K}, seeing ${seen}`, () => {
      const [q, k, v, x] = [random(B, T, H, K), random(B, S, KV, K), random(B, S, KV, K), random(B, T, H, K)];
      for (const softCap of [null, 0.5, 30]) {
        const options = { factor: 0.3, softCap, reach };
        agrees("scores", (backend, keep) => backend.scores(keep(q(backend)), keep(k(backend)), options), 2e-6);
      }
      const pattern = (backend: Backend, keep: (value: Value) => Value) => {
        const scores = keep(backend.scores(keep(q(backend)), keep(k(backend)), { factor: 2, softCap: null, reach }));
        return keep(backend.softmax(scores, null));
      };
      agrees("mix", (backend, keep) => backend.mix(pattern(backend, keep), keep(v(backend)), reach), 5e-6);
      agrees("mixTransposed", (b, keep) => b.mixTransposed(pattern(b, keep), keep(x(b)), KV), 5e-6);
    });
  }

  test("never reads what padding holds", () => {
    const [T, H, KV, K] = [6, 4, 2, 13];
    const starts = [2, 0];
    const clean = [random(2, T, H, K), random(2, T, KV, K), random(2, T, KV, K)].map((make) => {
      const reference = new ReferenceBackend();
      return reference.read(make(reference));
    });
    const dirty = clean.map((numbers, i) => {
      const row = i === 0 ? H * K : KV * K;
      return numbers.slice().fill(NaN, 0, starts[0] * row); // the padding of the first row
    });
    const z = ([q, k, v]: Float32Array[], reach: Reach): Kernel => (backend, keep) => {
      const [queries, keys, values] = [[q, H], [k, KV], [v, KV]].map(([numbers, heads]) =>
        keep(backend.upload(numbers as Float32Array, [2, T, heads as number, K])),
      ); // prettier-ignore
      const scores = keep(backend.scores(queries, keys, { factor: 1, softCap: null, reach }));
      return backend.mix(keep(backend.softmax(scores, null)), values, reach);
    };
    const reach = { offset: 0, window: null, starts };
    for (const backend of [...plain, ...relaxed]) {
      const [found, expected] = [result(backend, z(dirty, reach)), result(backend, z(clean, reach))];
      assert.deepEqual(found.subarray(starts[0] * H * K), expected.subarray(starts[0] * H * K));
      // A query of padding sees nothing.
      assert.deepEqual(found.subarray(0, starts[0] * H * K), new Float32Array(starts[0] * H * K));
    }
  });

  test("adds nothing where a replaced pattern is 0, even of NaN", () => {
    const values = noise(5 * 2 * 9, 2);
    values.fill(NaN, 3 * 18, 4 * 18);
    const pattern = noise(4 * 2 * 5, 3).map((x, i) => (i % 5 === 3 ? 0 : x));
    const mix: Kernel = (b, keep) =>
      b.mix(keep(b.upload(pattern, [1, 4, 2, 5])), keep(b.upload(values, [1, 5, 2, 9])), null);
    agrees("mix", mix, 1e-6);
  });

  test("keys grow in place while there is room, and what is shown never changes", () => {
    const rows = Array.from({ length: 40 }, (_, i) => noise(2 * 3, i + 1));
    for (const backend of [...plain.slice(0, 1), ...relaxed.slice(2)]) {
      const before = backend.bytes;
      const fresh = (numbers: Float32Array) => backend.upload(numbers, [1, numbers.length / 6, 2, 3]);
      const put = (keys: Value | null, count: number, numbers: Float32Array) => {
        const added = fresh(numbers);
        const longer = backend.extend(keys, count, added);
        backend.release(added);
        return longer;
      };
      const whole = (count: number) => Float32Array.from(rows.slice(0, count).flatMap((row) => [...row]));
      const shown: Value[] = [put(null, 0, rows[0])];
      for (let i = 1; i < rows.length; i++) shown.push(put(shown[i - 1], i, rows[i]));
      const storages = new Set(shown.map((each) => each.storage));
      assert.ok(storages.size < 6, `${storages.size} storages for ${rows.length} steps`);
      for (const [i, keys] of shown.entries()) assert.deepEqual(backend.read(keys), whole(i + 1));
      // Two ways to go on from the same keys: neither writes over the other.
      const [left, right] = [put(shown[9], 10, rows[30]), put(shown[9], 10, rows[31])];
      const short = put(shown[9], 4, rows[32]);
      assert.deepEqual(backend.read(left).slice(60), rows[30]);
      assert.deepEqual(backend.read(right).slice(60), rows[31]);
      assert.deepEqual(backend.read(short), Float32Array.of(...whole(4), ...rows[32]));
      for (const [i, keys] of shown.entries()) assert.deepEqual(backend.read(keys), whole(i + 1));
      for (const each of [...shown, left, right, short]) backend.release(each);
      assert.equal(backend.bytes, before);
    }
  });

  test("keys of several rows grow by copies", () => {
    const [a, b] = [random(3, 4, 2, 5), random(3, 2, 2, 5)];
    agrees("extend", (backend, keep) => backend.extend(keep(a(backend)), 3, keep(b(backend))), 0);
    agrees("extend", (backend, keep) => backend.extend(null, 0, keep(b(backend))), 0);
  });
});
