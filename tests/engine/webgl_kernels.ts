// Every kernel of the WebGL backend beside the reference's, on odd shapes: for test_webgl_kernels.py, in a page.
// A case is a line: what it is called, and what it does with a backend; the two results must agree.

import {
  type Activation,
  type Backend,
  type Matrix,
  type MatrixLayout,
  type Reach,
  type Value,
} from "../../js_bridge/engine/backend.ts";
import { rememberedHere } from "../../js_bridge/engine/backends/remembered.ts";
import { selfCheck } from "../../js_bridge/engine/backends/self_check.ts";
import { ReferenceBackend } from "../../js_bridge/kernels/reference.ts";
import { WebglBackend, type WebglOptions } from "../../js_bridge/kernels/webgl.ts";
import { MAX_TEXTURE_BYTES, WebglContext } from "../../js_bridge/kernels/webgl_context.ts";
import { CANDIDATES } from "../../js_bridge/kernels/webgl_tilings.ts";
import { tune } from "../../js_bridge/kernels/webgl_tuning.ts";

type Case = (backend: Backend) => Value | Value[];

/** Numbers in (-1, 1) that look random and repeat. */
function noise(count: number, seed = 1): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + seed * 78.233) * 0.99);
}

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const put = (backend: Backend, shape: number[], seed = 1) => backend.upload(noise(count(shape), seed), shape);

/** Written in pieces of 1, 2, 3, … rows, as bytes come over the line. */
function matrix(
  backend: Backend,
  inputs: number,
  outputs: number,
  how: { transposed?: boolean; int8?: boolean } = {},
): Matrix {
  const { transposed = false, int8 = false } = how;
  const codes = Int8Array.from(noise(inputs * outputs, 5), (x) => Math.round(x * 127));
  const scales = int8 ? noise(outputs, 6) : null;
  const layout: MatrixLayout = { inputs, outputs, transposed, scales };
  const numbers = int8 ? codes : noise(inputs * outputs, 5);
  const writer = backend.startMatrix(layout);
  const extent = transposed ? inputs : outputs;
  const rows = transposed ? outputs : inputs;
  for (let row = 0, piece = 1; row < rows; row += piece, piece = (piece % 7) + 1)
    writer.write(numbers.subarray(row * extent, Math.min(rows, row + piece) * extent));
  return writer.finish();
}

const cases: Record<string, Case> = {};

for (const [inputs, outputs] of [
  [7, 21],
  [12, 16],
  [33, 6],
  [1, 1],
  [64, 130],
]) {
  for (const int8 of [false, true]) {
    for (const transposed of [false, true]) {
      const weight = (b: Backend) => matrix(b, inputs, outputs, { int8, transposed });
      const name = `${inputs} to ${outputs}${int8 ? ", int8" : ""}${transposed ? ", rows of outputs" : ""}`;
      for (const rows of [1, 2, 5, 13]) {
        cases[`product of ${rows} rows, ${name}`] = (b) =>
          b.product(put(b, [rows, inputs]), weight(b), put(b, [outputs], 3));
        cases[`transposed product of ${rows} rows, ${name}`] = (b) =>
          b.productTransposed(put(b, [rows, outputs]), weight(b));
      }
      cases[`columns, ${name}`] = (b) =>
        b.columns(weight(b), Int32Array.of(outputs - 1, 0, Math.floor(outputs / 2), 0), [2, 2]);
    }
  }
}
cases["product without bias of 2 x 3 rows"] = (b) => b.product(put(b, [2, 3, 9]), matrix(b, 9, 10), null);

for (const width of [1, 3, 8, 21]) {
  for (const centred of [true, false]) {
    const x = (b: Backend) => put(b, [2, 3, width]);
    const name = `${centred ? "layer" : "root mean square"} norm of ${width}`;
    cases[`scale of the ${name}`] = (b) => b.normScale(x(b), 1e-5, centred);
    cases[`normalize, ${name}`] = (b) => b.normalize(x(b), put(b, [2, 3, 1], 9), centred);
    cases[`${name}, weight and bias`] = (b) => b.norm(x(b), put(b, [width], 2), put(b, [width], 3), 1e-5, centred);
    cases[`${name}, weight`] = (b) => b.norm(x(b), put(b, [width], 2), null, 1e-5, centred);
    cases[`${name}, bare`] = (b) => b.norm(x(b), null, null, 1e-5, centred);
  }
}
cases["affine, weight and bias"] = (b) => b.affine(put(b, [4, 6]), put(b, [6], 2), put(b, [6], 3));
cases["affine, weight"] = (b) => b.affine(put(b, [4, 6]), put(b, [6], 2), null);
cases["affine, bias"] = (b) => b.affine(put(b, [4, 6]), null, put(b, [6], 2));
cases["affine, nothing"] = (b) => b.affine(put(b, [4, 6]), null, null);

const wide = Float32Array.of(-1e20, -300, -88, -14, -6, -1.5, -0.1, 0, 0.1, 1.5, 6, 14, 88, 300, 1e20);
for (const kind of ["geluTanh", "geluErf", "relu", "silu"] as Activation[]) {
  cases[`${kind}`] = (b) => b.activate(kind, b.upload(wide, [3, 5]));
  cases[`slope of ${kind}`] = (b) => b.activateGradient(kind, b.upload(wide, [3, 5]), put(b, [3, 5], 4));
}
cases["tanh far out"] = (b) => b.unary("tanh", b.upload(wide, [15]));

for (const [width, turned] of [
  [8, 8],
  [8, 4],
  [6, 6],
  [10, 4],
  [5, 2],
]) {
  cases[`rotate ${turned} of ${width}`] = (b) =>
    b.rotate(put(b, [2, 3, 4, width]), put(b, [2, 3, turned / 2], 2), put(b, [2, 3, turned / 2], 3));
}

const reaches: Record<string, Reach | null> = {
  "everything before": { offset: 0, window: null, starts: null },
  "cached keys": { offset: 6, window: null, starts: null },
  "a window of 3": { offset: 2, window: 3, starts: null },
  "a window of 1": { offset: 0, window: 1, starts: null },
  "left padding": { offset: 1, window: null, starts: [0, 4] },
  "left padding and a window": { offset: 6, window: 4, starts: [3, 9] },
  "no mask": null,
};
for (const [name, reach] of Object.entries(reaches)) {
  for (const [heads, keyHeads, width] of [
    [4, 4, 8],
    [6, 2, 5],
    [3, 1, 4],
  ]) {
    const [positions, keys] = [5, 5 + (reach?.offset ?? 4)];
    const q = (b: Backend) => put(b, [2, positions, heads, width]);
    const k = (b: Backend) => put(b, [2, keys, keyHeads, width], 2);
    const at = `${name}, ${heads} heads over ${keyHeads}`;
    cases[`scores, ${at}`] = (b) => b.scores(q(b), k(b), { factor: 0.4, softCap: null, reach });
    cases[`capped scores, ${at}`] = (b) => b.scores(q(b), k(b), { factor: 9, softCap: 2, reach });
    cases[`pattern, ${at}`] = (b) => b.softmax(b.scores(q(b), k(b), { factor: 0.4, softCap: null, reach }), null);
    cases[`pattern with sinks, ${at}`] = (b) =>
      b.softmax(b.scores(q(b), k(b), { factor: 3, softCap: null, reach }), put(b, [heads], 7));
    cases[`mix, ${at}`] = (b) => b.mix(put(b, [2, heads, positions, keys], 3), k(b), reach);
    cases[`transposed mix, ${at}`] = (b) => b.mixTransposed(put(b, [2, heads, positions, keys], 3), q(b), keyHeads);
    /** What padding leaves behind a row's text: NaN in the keys and values that no query sees. */
    const spoilt = (b: Backend) => {
      const numbers = noise(2 * keys * keyHeads * width, 2);
      const row = keyHeads * width;
      for (let key = 0; key < keys; key++) {
        for (let batch = 0; batch < 2; batch++) {
          const hidden = reach !== null && (key > reach.offset + 2 || key < (reach.starts?.[batch] ?? 0));
          if (hidden) numbers.fill(NaN, (batch * keys + key) * row, (batch * keys + key + 1) * row);
        }
      }
      return b.upload(numbers, [2, keys, keyHeads, width]);
    };
    const three = (b: Backend) => put(b, [2, 3, heads, width]);
    cases[`attention beside NaN, ${at}`] = (b) =>
      b.mix(b.softmax(b.scores(three(b), spoilt(b), { factor: 0.4, softCap: null, reach }), null), spoilt(b), reach);
    cases[`a pattern of zeros beside NaN, ${at}`] = (b) =>
      b.mix(b.upload(new Float32Array(2 * heads * 3 * keys), [2, heads, 3, keys]), spoilt(b), null);
  }
}
cases["softmax of rows that are all −∞"] = (b) =>
  b.softmax(b.upload(new Float32Array(12).fill(-Infinity), [1, 2, 2, 3]), null);
cases["softmax of −∞ and a sink"] = (b) =>
  b.softmax(b.upload(new Float32Array(12).fill(-Infinity), [1, 2, 2, 3]), put(b, [2]));
cases["softmax of large numbers"] = (b) => b.softmax(b.upload(wide, [1, 1, 3, 5]), null);
cases["−∞ stays −∞"] = (b) => b.binary("add", b.upload(Float32Array.of(-Infinity, 1, NaN), [3]), put(b, [3]), [3]);

for (const batch of [1, 2]) {
  const fresh = (b: Backend, positions: number, seed: number) => put(b, [batch, positions, 2, 6], seed);
  cases[`extend nothing, batch of ${batch}`] = (b) => b.extend(null, 0, fresh(b, 3, 1));
  cases[`extend, batch of ${batch}`] = (b) => b.extend(fresh(b, 3, 1), 3, fresh(b, 2, 2));
  cases[`extend many times, batch of ${batch}`] = (b) => {
    const shown = [fresh(b, 3, 1)];
    for (let i = 0; i < 40; i++) shown.push(b.extend(shown[i], 3 + i, fresh(b, 1, i + 2)));
    return shown;
  };
  /** Both branches of a cache that was cut back, and what it was before, keep their numbers. */
  cases[`extend what was cut back, batch of ${batch}`] = (b) => {
    const trunk = b.extend(null, 0, fresh(b, 4, 1));
    const first = b.extend(trunk, 4, fresh(b, 2, 2));
    return [
      trunk,
      first,
      b.extend(trunk, 4, fresh(b, 3, 3)),
      b.extend(first, 2, fresh(b, 2, 4)),
      b.extend(trunk, 1, fresh(b, 1, 5)),
    ];
  };
}

for (const operation of ["sum", "mean", "max", "min", "argmax"] as const) {
  for (const axis of [0, 1, 2])
    cases[`${operation} over axis ${axis}`] = (b) => b.reduce(operation, put(b, [3, 5, 6]), axis);
  cases[`${operation} of 5003`] = (b) => b.reduce(operation, put(b, [2, 5003]), 1);
  cases[`${operation} of 5003 rows`] = (b) => b.reduce(operation, put(b, [5003, 3]), 0);
}
cases["add, broadcast"] = (b) => b.binary("add", put(b, [3, 1, 5]), put(b, [4, 1], 2), [3, 4, 5]);
cases["divide"] = (b) => b.binary("divide", put(b, [3, 5]), put(b, [3, 5], 2), [3, 5]);
cases["select"] = (b) => b.select(b.upload(Float32Array.of(0, 1, 2), [3]), put(b, [2, 3]), put(b, [1], 2), [2, 3]);
cases["reshape"] = (b) => b.reshape(put(b, [3, 10]), [5, 6]);
cases["reshape of whole texels"] = (b) => b.reshape(put(b, [3, 8]), [6, 4]);
cases["transpose"] = (b) => b.strided(put(b, [3, 5]), [5, 3], 0, [1, 5]);
cases["a diagonal put back"] = (b) => b.stridedTransposed(put(b, [2, 3]), [2, 3, 5], 1, [15, 6]);
cases["copies put back"] = (b) => b.stridedTransposed(put(b, [4, 2, 3]), [2, 3], 0, [0, 3, 1]);
cases["an overlap put back"] = (b) => b.stridedTransposed(put(b, [3, 3]), [6], 0, [1, 1]);
for (const axis of [0, 1, 2]) {
  const places = Int32Array.of(1, 0, 1, 1);
  cases[`take along axis ${axis}`] = (b) => b.take(put(b, [2, 3, 5]), axis, places);
  cases[`take along axis ${axis} put back`] = (b) => b.takeTransposed(put(b, [4, 4, 4]), axis, places, 3);
}
cases["matmul"] = (b) => b.matmul(put(b, [2, 3, 7]), put(b, [2, 7, 5], 2));

/** How far two results are apart, relative to the largest number; Infinity where only one is NaN or −∞. */
function distance(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Infinity;
  let largest = 1e-30;
  for (const x of b) if (Number.isFinite(x)) largest = Math.max(largest, Math.abs(x));
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    if (Object.is(a[i], b[i]) || a[i] === b[i]) continue;
    const far = Math.abs(a[i] - b[i]) / largest;
    if (!(far <= most)) most = Number.isNaN(far) ? Infinity : far;
  }
  return most;
}

export interface Finding {
  readonly name: string;
  readonly distance: number;
  readonly error?: string;
}

/** Every case that is further off than allowed, or fails; and how many were compared. */
function compareKernels(
  options: WebglOptions,
  allowed: number,
  only = "",
): { compared: number; far: Finding[]; most: number } {
  const webgl = new WebglBackend(new WebglContext(() => undefined), options);
  const far: Finding[] = [];
  let [compared, most] = [0, 0];
  for (const [name, run] of Object.entries(cases)) {
    if (!name.includes(only)) continue;
    compared++;
    const reference = new ReferenceBackend();
    try {
      const [expected, found] = [reference, webgl].map((b) =>
        [run(b)].flat().map((value) => ({ shape: value.shape, numbers: b.read(value) })),
      );
      const apart = Math.max(
        ...found.map((each, i) =>
          String(each.shape) === String(expected[i].shape) ? distance(each.numbers, expected[i].numbers) : Infinity,
        ),
      );
      most = Math.max(most, apart);
      if (!(apart <= allowed)) far.push({ name, distance: apart });
    } catch (error) {
      far.push({ name, distance: Infinity, error: String((error as Error).stack) });
    }
  }
  return { compared, far, most };
}

/** Whether the norm gives the bits of its three parts, and each tiling those of the first, row by row. */
function sameBits(): Record<string, boolean> {
  const webgl = new WebglBackend(new WebglContext(() => undefined));
  const bits = (value: Value) => [...new Uint32Array(webgl.read(value).buffer)].join(" ");
  const found: Record<string, boolean> = {};
  for (const centred of [true, false]) {
    for (const width of [5, 96]) {
      const [x, w, b] = [put(webgl, [7, width]), put(webgl, [width], 2), put(webgl, [width], 3)];
      const scale = webgl.normScale(x, 1e-5, centred);
      const parts = webgl.affine(webgl.normalize(x, scale, centred), w, b);
      found[`norm of ${width}, centred ${centred}`] = bits(webgl.norm(x, w, b, 1e-5, centred)) === bits(parts);
    }
  }
  for (const int8 of [false, true]) {
    const weight = matrix(webgl, 70, 45, { int8 });
    for (const kernel of ["product", "productTransposed"] as const) {
      const x = put(webgl, [11, kernel === "product" ? 70 : 45]);
      const results = CANDIDATES.filter(({ rows, texels }) => rows * texels <= webgl.drawBuffers).map((tiling) => {
        webgl.tilings = [{ ...tiling, cost: 1 }];
        return bits(webgl[kernel](x, weight, null));
      });
      found[`${kernel}, int8 ${int8}`] = results.length > 2 && results.every((each) => each === results[0]);
    }
  }
  return found;
}

/** The bytes of each upload while a weight comes in pieces, and those of the weight. */
function uploadsOf(
  inputs: number,
  outputs: number,
  transposed: boolean,
  int8: boolean,
): { largest: number; total: number; matrix: number } {
  const { texSubImage2D } = WebGL2RenderingContext.prototype;
  let [largest, total] = [0, 0];
  WebGL2RenderingContext.prototype.texSubImage2D = function (this: WebGL2RenderingContext, ...given: unknown[]) {
    const { byteLength } = given[8] as ArrayBufferView;
    largest = Math.max(largest, byteLength);
    total += byteLength;
    return Reflect.apply(texSubImage2D, this, given);
  } as typeof texSubImage2D;
  try {
    const webgl = new WebglBackend(new WebglContext(() => undefined));
    const { bytes } = matrix(webgl, inputs, outputs, { transposed, int8 });
    return { largest, total, matrix: bytes };
  } finally {
    WebGL2RenderingContext.prototype.texSubImage2D = texSubImage2D;
  }
}

/** What the backend says that it holds after everything was released, and the draws of a norm. */
function balance(): { bytes: number; normDraws: number; attentionDraws: number } {
  const webgl = new WebglBackend(new WebglContext(() => undefined), { textureBytes: MAX_TEXTURE_BYTES });
  const [x, y, w] = [put(webgl, [4, 12]), put(webgl, [2, 9]), put(webgl, [12])];
  const weight = matrix(webgl, 12, 9, { int8: true });
  const made = [webgl.product(x, weight, null), webgl.productTransposed(y, weight)];
  let began = webgl.context.draws;
  made.push(webgl.norm(x, w, w, 1e-5, true));
  const normDraws = webgl.context.draws - began;
  const q = put(webgl, [1, 4, 2, 6]);
  began = webgl.context.draws;
  const reach = { offset: 0, window: null, starts: null };
  const scores = webgl.scores(q, q, { factor: 1, softCap: null, reach });
  const pattern = webgl.softmax(scores, null);
  made.push(scores, pattern, webgl.mix(pattern, q, reach));
  const attentionDraws = webgl.context.draws - began;
  for (const value of [...made, x, y, w, q]) webgl.release(value);
  webgl.releaseMatrix(weight);
  return { bytes: webgl.bytes, normDraws, attentionDraws };
}

/** What the self-check says of a driver that compiles something else wherever a shader says `right`. */
async function refusalWhere(right: string, wrong: string): Promise<string | null> {
  const { shaderSource } = WebGL2RenderingContext.prototype;
  WebGL2RenderingContext.prototype.shaderSource = function (this: WebGL2RenderingContext, shader, source) {
    shaderSource.call(this, shader, source.replaceAll(right, wrong));
  };
  try {
    return await selfCheck(new WebglBackend(new WebglContext(() => undefined)), new ReferenceBackend());
  } finally {
    WebGL2RenderingContext.prototype.shaderSource = shaderSource;
  }
}

/** Milliseconds of the self-check of a fresh context, shaders compiled and all; and of the rest of a start. */
async function startTimes(): Promise<{
  check: number;
  tune: number;
  recalled: number;
  rows: number[];
  remembered: boolean;
}> {
  const remembered = rememberedHere();
  const options = { remembered, now: () => performance.now(), pause: async () => undefined };
  const timed = async (action: () => unknown) => {
    const began = performance.now();
    await action();
    return performance.now() - began;
  };
  const webgl = new WebglBackend(new WebglContext(() => undefined));
  const check = await timed(() => selfCheck(webgl, new ReferenceBackend()));
  const measured = await timed(() => tune(webgl, options));
  const bytes = webgl.bytes;
  const next = new WebglBackend(new WebglContext(() => undefined));
  const recalled = await timed(() => tune(next, options));
  const same = JSON.stringify(next.tilings) === JSON.stringify(webgl.tilings);
  return {
    check,
    tune: measured,
    recalled,
    rows: webgl.tilings.map(({ rows }) => rows),
    remembered: same && bytes === 0,
  };
}

Object.assign(globalThis, { refusalWhere, startTimes, compareKernels, sameBits, uploadsOf, balance });
