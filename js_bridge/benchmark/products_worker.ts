// Single matrix products in WebGL2: the engine's backend and TensorFlow.js's, in one worker, on the same numbers.

import { type Backend, laidOut, type Matrix, type Value } from "../engine/backend.ts";
import { openWebglBackend } from "../kernels/webgl.ts";
import { answerCalls } from "./answer_calls.ts";

type Library = any; // loaded by address; it is no dependency, so there are no types of it

interface Contestant {
  /** So many products after one another, until the last is computed. */
  run(count: number): Promise<void>;
  numbers(): Promise<Float32Array>;
  free(): void;
}

let tensorflow: Library;
let backend: Backend;
let contestants: Record<string, Contestant> = {};

const noise = (count: number, seed: number): Float32Array => {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1103515245) + 12345) | 0;
    return state / 2 ** 33;
  });
};

function ours(x: Float32Array, w: Float32Array, rows: number, inputs: number, outputs: number): Contestant {
  const matrix: Matrix = laidOut(backend, w, { inputs, outputs, transposed: false, scales: null });
  const value: Value = backend.upload(x, [rows, inputs]);
  const product = () => backend.product(value, matrix, null);
  return {
    run: async (count) => {
      for (let i = 1; i < count; i++) backend.release(product());
      const last = product();
      const corner = backend.strided(last, [1], 0, [1]);
      backend.read(corner);
      for (const each of [corner, last]) backend.release(each);
    },
    numbers: async () => {
      const result = product();
      const numbers = backend.read(result);
      backend.release(result);
      return numbers;
    },
    free: () => {
      backend.release(value);
      backend.releaseMatrix(matrix);
    },
  };
}

function theirs(x: Float32Array, w: Float32Array, rows: number, inputs: number, outputs: number): Contestant {
  const left = tensorflow.tensor2d(x, [rows, inputs]);
  const right = tensorflow.tensor2d(w, [inputs, outputs]);
  const product = () => tensorflow.matMul(left, right);
  return {
    run: async (count) => {
      for (let i = 1; i < count; i++) product().dispose();
      const last = product();
      const corner = tensorflow.slice(last, [0, 0], [1, 1]);
      await corner.data();
      for (const each of [corner, last]) each.dispose();
    },
    numbers: async () => {
      const result = product();
      const numbers = await result.data();
      result.dispose();
      return numbers;
    },
    free: () => {
      left.dispose();
      right.dispose();
    },
  };
}

answerCalls({
  async open(script: string) {
    await import(script);
    tensorflow = (globalThis as unknown as { tf: Library }).tf;
    tensorflow.env().set("IS_BROWSER", true);
    await tensorflow.setBackend("webgl");
    await tensorflow.ready();
    backend = openWebglBackend(() => undefined);
    return { version: tensorflow.version.tfjs, backend: tensorflow.getBackend() };
  },

  /** Makes both ready for a shape; answers the largest difference between them. */
  async shape(rows: number, inputs: number, outputs: number) {
    for (const each of Object.values(contestants)) each.free();
    const x = noise(rows * inputs, 7);
    const w = noise(inputs * outputs, 11);
    contestants = { ours: ours(x, w, rows, inputs, outputs), theirs: theirs(x, w, rows, inputs, outputs) };
    const [a, b] = [await contestants.ours.numbers(), await contestants.theirs.numbers()];
    return a.reduce((most, each, i) => Math.max(most, Math.abs(each - b[i])), 0);
  },

  /** Milliseconds a product, of so many after one another. */
  async time(who: string, count: number) {
    const began = performance.now();
    await contestants[who].run(count);
    return (performance.now() - began) / count;
  },
});
