// The backend in WebGL2 fragment shaders. Every value is a texture until somebody reads it; draws are queued, nothing
// waits. Small differences to the others: tanh is clamped, sums run in float32, and −∞ is a very negative number
// that becomes −∞ on read-back.

import type {
  Activation,
  Backend,
  Matrix,
  MatrixLayout,
  MatrixWriter,
  ScoreOptions,
  Storage,
  Value,
} from "../engine/backend.ts";
import { EngineError } from "../engine/errors.ts";
import { broadcastStrides, elementsOf, lastOf, sameShape, stridesOf } from "../engine/shape.ts";
import type { BinaryOperation, Reduction, Shape, UnaryOperation } from "../protocol.ts";
import * as shaders from "./shaders.ts";
import { type Texture, WebglContext } from "./webgl_context.ts";

interface TextureStorage extends Storage {
  readonly texture: Texture;
}

interface TextureMatrix extends Matrix {
  readonly texture: Texture;
}

type Ints = Record<string, number | readonly number[]>;

const FOLD = 2 ** shaders.FOLD_BITS;

/** Fails: BackendUnavailable. */
export function openWebglBackend(onLost: () => void): WebglBackend {
  return new WebglBackend(new WebglContext(onLost));
}

export class WebglBackend implements Backend {
  readonly name = "webgl";
  readonly threads = 1;
  bytes = 0;
  readonly #context: WebglContext;
  /** Texels of four columns that one fragment makes: 2 with eight draw buffers, 1 with the four that are promised. */
  readonly #blockTexels: 1 | 2;

  constructor(context: WebglContext, drawBuffers = context.drawBuffers) {
    this.#context = context;
    this.#blockTexels = drawBuffers >= 8 ? 2 : 1;
  }

  upload(numbers: Float32Array, shape: Shape): Value {
    const result = this.#allocate(shape);
    const { texture } = result.storage as TextureStorage;
    const columns = lastOf(shape);
    const stride = 4 * texelsOf(columns);
    const texels = new Float32Array(4 * texture.width * texture.height);
    for (let row = 0; row < numbers.length / columns; row++) {
      for (let i = 0; i < columns; i++) {
        const x = numbers[row * columns + i];
        texels[row * stride + i] = x === -Infinity ? shaders.MASKED : x;
      }
    }
    this.#context.write(texture, texels);
    return result;
  }

  read(value: Value): Float32Array {
    const columns = lastOf(value.shape);
    const stride = 4 * texelsOf(columns);
    const texels = this.#context.read((value.storage as TextureStorage).texture);
    const numbers = new Float32Array(elementsOf(value.shape));
    for (let row = 0; row < numbers.length / columns; row++) {
      for (let i = 0; i < columns; i++) {
        const x = texels[row * stride + i];
        numbers[row * columns + i] = x < shaders.READ_AS_INFINITE ? -Infinity : x;
      }
    }
    return numbers;
  }

  retain(value: Value): Value {
    value.storage.references++;
    return value;
  }

  release(value: Value): void {
    if (--value.storage.references > 0) return;
    this.bytes -= value.storage.bytes;
    this.#context.recycle((value.storage as TextureStorage).texture);
  }

  /** Rows of whole texels may be read as rows of another number of texels; others are laid out anew. */
  reshape(value: Value, shape: Shape): Value {
    const [from, to] = [lastOf(value.shape), lastOf(shape)];
    if (from === to || (from % 4 === 0 && to % 4 === 0)) {
      value.storage.references++;
      return { shape, storage: value.storage };
    }
    return this.strided({ shape: value.shape, storage: value.storage }, [elementsOf(shape)], 0, [1], shape);
  }

  startMatrix({ inputs, outputs, transposed, scales }: MatrixLayout): MatrixWriter {
    const blocks = texelsOf(outputs);
    const width = inputs * Math.ceil(blocks / FOLD);
    const texture = this.#context.texture(width, Math.min(blocks, FOLD), 1);
    const texels = new Float32Array(4 * width * texture.height);
    const bytes = texels.byteLength;
    let row = 0;
    return {
      write: (rows) => {
        const extent = transposed ? inputs : outputs;
        for (let at = 0; at < rows.length; at += extent, row++) {
          for (let i = 0; i < extent; i++) {
            const [k, n] = transposed ? [i, row] : [row, i];
            const block = n >> 2;
            const start = 4 * ((block % FOLD) * width + inputs * Math.floor(block / FOLD)) + (n & 3);
            texels[start + 4 * k] = rows[at + i] * (scales?.[n] ?? 1);
          }
        }
      },
      finish: () => {
        this.#context.write(texture, texels);
        this.bytes += bytes;
        return { inputs, outputs, bytes, texture } as TextureMatrix;
      },
      abandon: () => this.#context.delete(texture),
    };
  }

  releaseMatrix(matrix: Matrix): void {
    this.bytes -= matrix.bytes;
    this.#context.delete((matrix as TextureMatrix).texture);
  }

  columns(table: Matrix, ids: Int32Array, lead: Shape): Value {
    const indices = this.upload(Float32Array.from(ids), [ids.length, 1]);
    const { texture, inputs } = table as TextureMatrix;
    const result = this.#run(shaders.COLUMNS, [...lead, inputs], [indices], { inputs }, {}, { W_texture: texture });
    this.release(indices);
    return result;
  }

  product(x: Value, matrix: Matrix, bias: Value | null): Value {
    const { texture, inputs, outputs } = matrix as TextureMatrix;
    const shape = [...x.shape.slice(0, -1), outputs];
    const rows = elementsOf(x.shape) / inputs;
    const kind = bias === null ? "bare" : "biased";
    const biases = bias === null ? [] : [bias];
    if (rows < 4) return this.#run(shaders.NARROW[kind], shape, [x, ...biases], { inputs }, {}, { W_texture: texture });
    const blocksPerRow = Math.ceil(texelsOf(outputs) / this.#blockTexels);
    const line = Math.ceil(rows / 4) * blocksPerRow;
    const width = 2 ** Math.max(0, Math.ceil(Math.log2(Math.sqrt(line))));
    const blocks = this.#context.texture(width, Math.ceil(line / width), 4 * this.#blockTexels);
    const textures = { X_texture: (x.storage as TextureStorage).texture, W_texture: texture };
    this.#context.draw(shaders.blockSource(this.#blockTexels), blocks, textures, {
      ...layoutOf("X", x),
      inputs,
      rows,
      blocksPerRow,
      out_shift: blocks.shift,
    });
    const result = this.#run(
      shaders.ASSEMBLE[this.#blockTexels][kind],
      shape,
      biases,
      { blocks_shift: blocks.shift, blocksPerRow },
      {},
      { blocks },
    );
    this.#context.recycle(blocks);
    return result;
  }

  productTransposed(): Value {
    throw lacking("productTransposed");
  }

  normScale(x: Value, epsilon: number, centred: boolean): Value {
    if (!centred) throw lacking("normScale");
    const shape = [...x.shape.slice(0, -1), 1];
    const mean = this.#run(shaders.ROW_MEAN, shape, [x]);
    const result = this.#run(shaders.NORM_SCALE, shape, [x, mean], {}, { epsilon });
    this.release(mean);
    return result;
  }

  normalize(x: Value, scale: Value, centred: boolean): Value {
    if (!centred) throw lacking("normalize");
    const mean = this.#run(shaders.ROW_MEAN, scale.shape, [x]);
    const result = this.#run(shaders.NORMALIZE, x.shape, [x, mean, scale]);
    this.release(mean);
    return result;
  }

  affine(x: Value, weight: Value | null, bias: Value | null): Value {
    if (weight === null || bias === null) throw lacking("affine");
    return this.#run(shaders.AFFINE, x.shape, [x, weight, bias]);
  }

  norm(x: Value, weight: Value | null, bias: Value | null, epsilon: number, centred: boolean): Value {
    const scale = this.normScale(x, epsilon, centred);
    const normalized = this.normalize(x, scale, centred);
    const result = this.affine(normalized, weight, bias);
    this.release(scale);
    this.release(normalized);
    return result;
  }

  activate(kind: Activation, x: Value): Value {
    if (kind === "silu") throw lacking("silu");
    return this.#run(shaders.ACTIVATIONS[kind], x.shape, [x]);
  }

  activateGradient(): Value {
    throw lacking("activateGradient");
  }

  rotate(): Value {
    throw lacking("rotate");
  }

  scores(q: Value, k: Value, { factor, softCap, reach }: ScoreOptions): Value {
    if (softCap !== null || !sameShape(q.shape, k.shape) || reach === null || reach.window !== null)
      throw lacking("scores");
    const [batches, positions, heads] = q.shape;
    return this.#run(shaders.SCORES, [batches, heads, positions, positions], [q, k], { positions, heads }, { factor });
  }

  softmax(x: Value, sinks: Value | null): Value {
    if (sinks !== null) throw lacking("softmax");
    const sums = this.#run(shaders.SOFTMAX_SUMS, [elementsOf(x.shape) / lastOf(x.shape), 2], [x]);
    const result = this.#run(shaders.SOFTMAX, x.shape, [x, sums]);
    this.release(sums);
    return result;
  }

  mix(pattern: Value, v: Value): Value {
    const [, positions, heads] = v.shape;
    return this.#run(shaders.MIX, v.shape, [pattern, v], { positions, heads });
  }

  mixTransposed(): Value {
    throw lacking("mixTransposed");
  }

  extend(): Value {
    throw lacking("extend");
  }

  unary(operation: UnaryOperation, x: Value): Value {
    return this.#run(shaders.UNARY[operation], x.shape, [x]);
  }

  binary(operation: BinaryOperation, a: Value, b: Value, shape: Shape): Value {
    if (sameShape(a.shape, shape) && sameShape(b.shape, shape))
      return this.#run(shaders.BINARY[operation], shape, [a, b]);
    return this.#run(shaders.BROADCAST[operation], shape, [a, b], {
      ...extentsOf(shape),
      ...repeated("A", a, shape),
      ...repeated("B", b, shape),
    });
  }

  select(mask: Value, a: Value, b: Value, shape: Shape): Value {
    const places = {
      ...extentsOf(shape),
      ...repeated("M", mask, shape),
      ...repeated("A", a, shape),
      ...repeated("B", b, shape),
    };
    return this.#run(shaders.SELECT, shape, [mask, a, b], places);
  }

  reduce(operation: Reduction, x: Value, axis: number): Value {
    const inner = elementsOf(x.shape.slice(axis + 1));
    return this.#run(shaders.REDUCE[operation], x.shape.with(axis, 1), [x], { extent: x.shape[axis], inner });
  }

  /** `shape` is walked, the result is read as `target`. */
  strided(x: Value, shape: Shape, offset: number, strides: readonly number[], target: Shape = shape): Value {
    return this.#run(shaders.STRIDED, target, [x], {
      ...extentsOf(shape),
      X_offset: offset,
      X_strides: padded(strides, 0),
    });
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
      .map((step, axis) => ({ step, extent: sum.shape[axis], own: own[axis] }))
      .filter(({ extent }) => extent > 1)
      .sort((a, b) => b.step - a.step);
    let reach = 0;
    for (const { step, extent } of axes.toReversed()) {
      if (step <= reach) throw lacking("stridedTransposed: strides that overlap");
      reach += step * (extent - 1);
    }
    while (axes.length < shaders.RANK) axes.unshift({ step: 2 ** 30, extent: 1, own: 0 });
    const result = this.#run(shaders.STRIDED_TRANSPOSED, shape, [sum], {
      X_offset: offset,
      extents: axes.map((each) => each.extent),
      steps: axes.map((each) => each.step),
      X_strides: axes.map((each) => each.own),
    });
    this.release(sum);
    return result;
  }

  take(x: Value, axis: number, indices: Int32Array): Value {
    const places = this.upload(Float32Array.from(indices), [indices.length]);
    const shape = x.shape.with(axis, indices.length);
    const result = this.#run(shaders.TAKE, shape, [x, places], {
      extent: x.shape[axis],
      taken: indices.length,
      inner: stridesOf(x.shape)[axis],
    });
    this.release(places);
    return result;
  }

  takeTransposed(x: Value, axis: number, indices: Int32Array, extent: number): Value {
    const places = this.upload(Float32Array.from(indices), [indices.length]);
    const inner = stridesOf(x.shape)[axis];
    const shape = x.shape.with(axis, extent);
    const result = this.#run(shaders.TAKE_TRANSPOSED, shape, [x, places], { extent, taken: indices.length, inner });
    this.release(places);
    return result;
  }

  matmul(a: Value, b: Value): Value {
    const rows = a.shape[a.shape.length - 2];
    return this.#run(shaders.MATMUL, [...a.shape.slice(0, -1), lastOf(b.shape)], [a, b], {
      rows,
      depth: lastOf(a.shape),
    });
  }

  #allocate(shape: Shape): Value {
    const columns = lastOf(shape);
    const texels = (elementsOf(shape) / columns) * texelsOf(columns);
    if (texels > 2 ** 29)
      throw new EngineError("BadParameter", `A tensor of ${texels} texels: shaders count to ${2 ** 29}`);
    const texture = this.#context.lineTexture(texels);
    const bytes = 16 * texture.width * texture.height;
    this.bytes += bytes;
    return { shape, storage: { texture, bytes, references: 1 } as TextureStorage };
  }

  #run(
    kernel: shaders.Kernel,
    shape: Shape,
    inputs: readonly Value[],
    ints: Ints = {},
    floats: Record<string, number> = {},
    more: Record<string, Texture> = {},
  ): Value {
    const result = this.#allocate(shape);
    const { texture } = result.storage as TextureStorage;
    const textures: Record<string, Texture> = { ...more };
    const layouts: Ints = { out_shift: texture.shift, out_texels: texelsOf(lastOf(shape)), out_columns: lastOf(shape) };
    for (const [i, name] of kernel.inputs.entries()) {
      textures[`${name}_texture`] = (inputs[i].storage as TextureStorage).texture;
      Object.assign(layouts, layoutOf(name, inputs[i]));
    }
    this.#context.draw(shaders.sourceOf(kernel), texture, textures, { ...layouts, ...ints }, floats);
    return result;
  }
}

function texelsOf(columns: number): number {
  return Math.ceil(columns / 4);
}

function layoutOf(name: string, value: Value): Ints {
  const columns = lastOf(value.shape);
  return {
    [`${name}_shift`]: (value.storage as TextureStorage).texture.shift,
    [`${name}_texels`]: texelsOf(columns),
    [`${name}_columns`]: columns,
  };
}

/** A list of the shaders' fixed rank, filled up in front. */
function padded(list: readonly number[], filler: number): number[] {
  return [...new Array<number>(shaders.RANK - list.length).fill(filler), ...list];
}

function extentsOf(shape: Shape): Ints {
  return { extents: padded(shape, 1) };
}

function repeated(name: string, value: Value, shape: Shape): Ints {
  return { [`${name}_strides`]: padded(broadcastStrides(value.shape, shape), 0), [`${name}_offset`]: 0 };
}

function lacking(kernel: string): Error {
  return new Error(`webgl has no kernel for this case of ${kernel}`);
}
