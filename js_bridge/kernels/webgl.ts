// The backend in WebGL2 fragment shaders. Every value is a texture until somebody reads it; draws are queued, nothing
// waits. Small differences to the others: tanh is clamped, sums run in float32, and −∞ is a very negative number
// that becomes −∞ on read-back.

import type {
  Activation,
  Backend,
  Matrix,
  MatrixLayout,
  MatrixWriter,
  Reach,
  ScoreOptions,
  Value,
} from "../engine/backend.ts";
import { broadcastStrides, elementsOf, lastOf, sameShape, stridesOf } from "../engine/tensors/shape.ts";
import type { BinaryOperation, Reduction, Shape, UnaryOperation } from "../protocol.ts";
import { ReferenceBackend } from "./reference.ts";
import { RANK } from "./shaders.ts";
import * as attention from "./shaders_attention.ts";
import * as elements from "./shaders_elements.ts";
import { COLUMNS } from "./shaders_products.ts";
import * as rowwise from "./shaders_rows.ts";
import { MAX_TEXTURE_BYTES, WebglContext } from "./webgl_context.ts";
import { MatrixUpload, type TextureLimits, type TextureMatrix } from "./webgl_matrix.ts";
import { Products } from "./webgl_products.ts";
import { possible, type TimedTiling, UNTIMED } from "./webgl_tilings.ts";
import { storageOf, texelsIn, TextureValues, type Uniforms } from "./webgl_values.ts";

export interface WebglOptions {
  /** At most those that the GPU has. */
  readonly drawBuffers?: number;
  /** Of a texture with weights. */
  readonly textureBytes?: number;
  readonly textureSide?: number;
}

/** Numbers of an axis that one fragment reduces, where there are more. */
const REDUCED_AT_ONCE = 256;

/** Fails: BackendUnavailable. */
export function openWebglBackend(onLost: () => void): WebglBackend {
  return new WebglBackend(new WebglContext(onLost));
}

export class WebglBackend implements Backend {
  readonly name = "webgl";
  readonly threads = 1;
  readonly context: WebglContext;
  readonly drawBuffers: number;
  readonly #values: TextureValues;
  readonly #products: Products;
  readonly #limits: TextureLimits;

  constructor(context: WebglContext, options: WebglOptions = {}) {
    const { drawBuffers = 8, textureBytes = MAX_TEXTURE_BYTES, textureSide = context.maxSize } = options;
    this.context = context;
    this.drawBuffers = Math.min(drawBuffers, context.drawBuffers);
    this.#limits = { bytes: textureBytes, side: Math.min(textureSide, context.maxSize) };
    this.#values = new TextureValues(context);
    this.#products = new Products(this.#values, possible(UNTIMED, this.drawBuffers));
  }

  get bytes(): number {
    return this.#values.bytes;
  }

  get tilings(): readonly TimedTiling[] {
    return this.#products.tilings;
  }

  /** How products are cut into fragments from now on; their bits stay the same. */
  set tilings(tilings: readonly TimedTiling[]) {
    this.#products.tilings = tilings;
  }

  upload(numbers: Float32Array, shape: Shape): Value {
    return this.#values.upload(numbers, shape);
  }

  read(value: Value): Float32Array {
    return this.#values.read(value);
  }

  retain(value: Value): Value {
    value.storage.references++;
    return value;
  }

  release(value: Value): void {
    this.#values.release(value);
  }

  /** Rows of whole texels may be read as rows of another number of texels; others are laid out anew. */
  reshape(value: Value, shape: Shape): Value {
    const [from, to] = [lastOf(value.shape), lastOf(shape)];
    if (from === to || (from % 4 === 0 && to % 4 === 0)) {
      value.storage.references++;
      return { shape, storage: value.storage };
    }
    const places = { extents: padded([elementsOf(shape)], 1), X_offset: 0, X_strides: padded([1], 0) };
    return this.#run(elements.STRIDED, shape, [value], places);
  }

  startMatrix(layout: MatrixLayout): MatrixWriter {
    return new MatrixUpload(this.context, layout, this.#limits, (made): TextureMatrix => {
      this.#values.bytes += made.bytes;
      if (layout.scales === null) return { ...made, scales: null };
      const scales = this.upload(layout.scales, [layout.outputs]);
      return { ...made, bytes: made.bytes + scales.storage.bytes, scales };
    });
  }

  releaseMatrix(matrix: Matrix): void {
    const { parts, scales } = matrix as TextureMatrix;
    for (const { texture } of parts) {
      this.#values.bytes -= texture.bytes;
      this.context.delete(texture);
    }
    if (scales !== null) this.release(scales);
  }

  columns(table: Matrix, ids: Int32Array, lead: Shape): Value {
    const { packing, parts, depth, inputs, scales } = table as TextureMatrix;
    const indices = this.upload(Float32Array.from(ids), [ids.length]);
    const result = this.#values.allocate([...lead, inputs]);
    const given = scales === null ? [indices] : [indices, scales];
    for (const { texture, fold, firstBlock, blocks } of parts) {
      const uniforms = { W_fold: fold, depth, blocks, firstBlock };
      this.#values.runInto(result, COLUMNS[packing], 0, texelsIn(result.shape), given, uniforms, [texture]);
    }
    this.release(indices);
    return result;
  }

  product(x: Value, matrix: Matrix, bias: Value | null): Value {
    return this.#products.straight(x, matrix as TextureMatrix, bias);
  }

  productTransposed(y: Value, matrix: Matrix): Value {
    return this.#products.transposed(y, matrix as TextureMatrix);
  }

  normScale(x: Value, epsilon: number, centred: boolean): Value {
    return this.#statistics(x, "scale", centred, epsilon);
  }

  normalize(x: Value, scale: Value, centred: boolean): Value {
    if (!centred) return this.#run(rowwise.DIVIDE_ROWS, x.shape, [x, scale]);
    const mean = this.#statistics(x, "mean", true, 0);
    const result = this.#run(rowwise.NORMALIZE, x.shape, [x, mean, scale]);
    this.release(mean);
    return result;
  }

  affine(x: Value, weight: Value | null, bias: Value | null): Value {
    const terms = termsOf(weight, bias);
    if (terms === null) return this.reshape(x, x.shape);
    return this.#run(
      rowwise.AFFINE[terms],
      x.shape,
      [x, weight, bias].filter((each) => each !== null),
    );
  }

  norm(x: Value, weight: Value | null, bias: Value | null, epsilon: number, centred: boolean): Value {
    const statistics = this.#statistics(x, centred ? "both" : "scale", centred, epsilon);
    const terms = termsOf(weight, bias);
    const kernel = (centred ? rowwise.NORM : rowwise.NORM_DIVIDED)[terms ?? "none"];
    const result = this.#run(
      kernel,
      x.shape,
      [x, statistics, weight, bias].filter((each) => each !== null),
    );
    this.release(statistics);
    return result;
  }

  #statistics(x: Value, wanted: keyof typeof rowwise.WANTED, centred: boolean, epsilon: number): Value {
    const shape = [...x.shape.slice(0, -1), wanted === "both" ? 2 : 1];
    const uniforms = { wanted: rowwise.WANTED[wanted], centred: Number(centred), epsilon };
    return this.#run(rowwise.ROW_STATISTICS, shape, [x], uniforms);
  }

  activate(kind: Activation, x: Value): Value {
    return this.#run(elements.ACTIVATIONS[kind], x.shape, [x]);
  }

  activateGradient(kind: Activation, x: Value, gradient: Value): Value {
    return this.#run(elements.ACTIVATION_GRADIENTS[kind], x.shape, [x, gradient]);
  }

  rotate(x: Value, cosines: Value, sines: Value): Value {
    const uniforms = { heads: x.shape[2], turned: lastOf(cosines.shape) };
    return this.#run(attention.ROTATE, x.shape, [x, cosines, sines], uniforms);
  }

  scores(q: Value, k: Value, { factor, softCap, reach }: ScoreOptions): Value {
    const [batches, positions, heads] = q.shape;
    const [, keyPositions, keyHeads] = k.shape;
    const uniforms = { positions, keyPositions, heads, keyHeads, factor, softCap: softCap ?? 0 };
    const shape = [batches, heads, positions, keyPositions];
    return this.#reaching(attention.SCORES, shape, [q, k], uniforms, reach);
  }

  softmax(x: Value, sinks: Value | null): Value {
    const rows = elementsOf(x.shape) / lastOf(x.shape);
    const sums =
      sinks === null
        ? this.#run(rowwise.SOFTMAX_SUMS.plain, [rows, 2], [x])
        : this.#run(rowwise.SOFTMAX_SUMS.sinks, [rows, 2], [x, sinks], {
            positions: x.shape[2],
            heads: elementsOf(sinks.shape),
          });
    const result = this.#run(rowwise.SOFTMAX, x.shape, [x, sums]);
    this.release(sums);
    return result;
  }

  mix(pattern: Value, v: Value, reach: Reach | null): Value {
    const [batches, heads, positions, keyPositions] = pattern.shape;
    const [, , keyHeads, width] = v.shape;
    const uniforms = { positions, keyPositions, heads, keyHeads };
    return this.#reaching(attention.MIX, [batches, positions, heads, width], [pattern, v], uniforms, reach);
  }

  #reaching(
    kernels: typeof attention.MIX,
    shape: Shape,
    inputs: readonly Value[],
    uniforms: Uniforms,
    reach: Reach | null,
  ): Value {
    if (reach === null) return this.#run(kernels.plain, shape, inputs, uniforms);
    const { offset, window, starts } = reach;
    const firsts = starts === null ? this.retain(inputs[0]) : this.upload(Float32Array.from(starts), [starts.length]);
    const places = { offset, window: window ?? 0, hasStarts: Number(starts !== null) };
    const result = this.#run(kernels.masked, shape, [...inputs, firsts], { ...uniforms, ...places });
    this.release(firsts);
    return result;
  }

  mixTransposed(pattern: Value, x: Value, keyValueHeads: number): Value {
    const [batches, heads, positions, keyPositions] = pattern.shape;
    const uniforms = { positions, keyPositions, heads, keyHeads: keyValueHeads };
    const shape = [batches, keyPositions, keyValueHeads, lastOf(x.shape)];
    return this.#run(attention.MIX_TRANSPOSED, shape, [pattern, x], uniforms);
  }

  /** One row is put behind what is there, where nobody has done so before; its texture has room. */
  extend(before: Value | null, count: number, fresh: Value): Value {
    const [batches, positions, heads] = fresh.shape;
    const shape = fresh.shape.with(1, count + positions);
    const perPosition = texelsIn(fresh.shape) / (batches * positions);
    const [begin, end] = [count * perPosition, (count + positions) * perPosition];
    if (batches === 1 && before !== null && count > 0) {
      const storage = storageOf(before);
      const { width, height } = storage.texture;
      if (storage.filled === begin && end <= width * height) {
        storage.filled = end;
        const result = { shape, storage: this.retain(before).storage };
        const rows = { firstRow: count * heads, rows: positions * heads };
        this.#values.runInto(result, attention.APPEND, begin, end, [fresh], rows);
        return result;
      }
    }
    const room = batches === 1 ? Math.ceil((count + positions + 16) * 1.25) * perPosition : 0;
    const result = this.#values.allocate(shape, room);
    const places = { count, positions, before: before?.shape[1] ?? 0, heads };
    this.#values.runInto(result, attention.EXTEND, 0, texelsIn(shape), [before ?? fresh, fresh], places);
    return result;
  }

  unary(operation: UnaryOperation, x: Value): Value {
    return this.#run(elements.UNARY[operation], x.shape, [x]);
  }

  binary(operation: BinaryOperation, a: Value, b: Value, shape: Shape): Value {
    if (sameShape(a.shape, shape) && sameShape(b.shape, shape))
      return this.#run(elements.BINARY[operation], shape, [a, b]);
    return this.#run(elements.BROADCAST[operation], shape, [a, b], {
      extents: padded(shape, 1),
      ...repeated("A", a, shape),
      ...repeated("B", b, shape),
    });
  }

  select(mask: Value, a: Value, b: Value, shape: Shape): Value {
    return this.#run(elements.SELECT, shape, [mask, a, b], {
      extents: padded(shape, 1),
      ...repeated("M", mask, shape),
      ...repeated("A", a, shape),
      ...repeated("B", b, shape),
    });
  }

  /** A long axis is reduced in pieces, then the pieces: one fragment that reads it all would keep a GPU waiting. */
  reduce(operation: Reduction, x: Value, axis: number): Value {
    const extent = x.shape[axis];
    const inner = elementsOf(x.shape.slice(axis + 1));
    const shape = x.shape.with(axis, 1);
    const kernel = elements.REDUCE[operation];
    const divisor = operation === "mean" ? extent : 1;
    if (extent <= REDUCED_AT_ONCE) {
      return this.#run(kernel, shape, [x], { extent, inner, parts: 1, chunk: extent, divisor });
    }
    const chunk = Math.max(REDUCED_AT_ONCE, Math.ceil(Math.sqrt(extent)));
    const parts = Math.ceil(extent / chunk);
    const places = { extent, inner, parts, chunk, divisor: 1 };
    const some = this.#run(kernel, x.shape.with(axis, parts), [x], places);
    const result =
      operation === "argmax"
        ? this.#run(elements.ARGMAX_OF_PARTS, shape, [x, some], { extent, inner, parts })
        : this.#run(kernel, shape, [some], { extent: parts, inner, parts: 1, chunk: parts, divisor });
    this.release(some);
    return result;
  }

  strided(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value {
    const places = { extents: padded(shape, 1), X_offset: offset, X_strides: padded(strides, 0) };
    return this.#run(elements.STRIDED, shape, [x], places);
  }

  /** Axes that are repeated are summed first; then each place of the result is read at most once. */
  stridedTransposed(x: Value, shape: Shape, offset: number, strides: readonly number[]): Value {
    let sum = this.retain(x);
    for (const [axis, stride] of strides.entries()) {
      if (stride !== 0 || x.shape[axis] === 1) continue;
      const next = this.reduce("sum", sum, axis);
      this.release(sum);
      sum = next;
    }
    const own = stridesOf(sum.shape);
    const axes = strides
      .map((stride, axis) => ({ stride, extent: sum.shape[axis], own: own[axis] }))
      .filter(({ extent }) => extent > 1)
      .sort((a, b) => b.stride - a.stride);
    const overlap = axes.some(({ stride }, axis) => {
      const inside = axes.slice(axis + 1).reduce((reach, each) => reach + each.stride * (each.extent - 1), 0);
      return stride <= inside;
    });
    const result = overlap
      ? this.#inPlainLoops(sum, (plain, there) => plain.stridedTransposed(there, shape, offset, strides))
      : this.#run(elements.STRIDED_TRANSPOSED, shape, [sum], {
          X_offset: offset,
          extents: padded(
            axes.map(({ extent }) => extent),
            1,
          ),
          strides: padded(
            axes.map(({ stride }) => stride),
            2 ** 30,
          ),
          own: padded(
            axes.map((each) => each.own),
            0,
          ),
        });
    this.release(sum);
    return result;
  }

  /** For the rare case that a fragment, which writes one place only, can't do. Waits for the GPU. */
  #inPlainLoops(x: Value, action: (plain: ReferenceBackend, x: Value) => Value): Value {
    const plain = new ReferenceBackend();
    const result = action(plain, plain.upload(this.read(x), x.shape));
    return this.upload(plain.read(result), result.shape);
  }

  take(x: Value, axis: number, indices: Int32Array): Value {
    const places = this.upload(Float32Array.from(indices), [indices.length]);
    const isLast = axis === x.shape.length - 1;
    const result = this.#run(
      isLast ? elements.TAKE : elements.TAKE_ROWS,
      x.shape.with(axis, indices.length),
      [x, places],
      {
        extent: x.shape[axis],
        taken: indices.length,
        inner: isLast ? 1 : stridesOf(x.shape)[axis] / lastOf(x.shape),
      },
    );
    this.release(places);
    return result;
  }

  takeTransposed(x: Value, axis: number, indices: Int32Array, extent: number): Value {
    const places = this.upload(Float32Array.from(indices), [indices.length]);
    const result = this.#run(elements.TAKE_TRANSPOSED, x.shape.with(axis, extent), [x, places], {
      extent,
      taken: indices.length,
      inner: stridesOf(x.shape)[axis],
    });
    this.release(places);
    return result;
  }

  matmul(a: Value, b: Value): Value {
    const rows = a.shape[a.shape.length - 2];
    const shape = [...a.shape.slice(0, -1), lastOf(b.shape)];
    return this.#run(elements.MATMUL, shape, [a, b], { rows, depth: lastOf(a.shape) });
  }

  #run(
    kernel: Parameters<TextureValues["run"]>[0],
    shape: Shape,
    inputs: readonly Value[],
    uniforms?: Uniforms,
  ): Value {
    return this.#values.run(kernel, shape, inputs, uniforms);
  }
}

function termsOf(weight: Value | null, bias: Value | null): rowwise.Terms | null {
  if (weight !== null) return bias === null ? "weight" : "both";
  return bias === null ? null : "bias";
}

/** A list of the shaders' fixed rank, filled up in front. */
function padded(list: readonly number[], filler: number): number[] {
  return [...new Array<number>(RANK - list.length).fill(filler), ...list];
}

function repeated(name: string, value: Value, shape: Shape): Uniforms {
  return { [`${name}_strides`]: padded(broadcastStrides(value.shape, shape), 0), [`${name}_offset`]: 0 };
}
