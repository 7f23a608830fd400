// Values as textures: where they get their room, how numbers go in and out, and how a kernel runs over one.

import type { Storage, Value } from "../engine/backend.ts";
import { elementsOf, lastOf } from "../engine/tensors/shape.ts";
import type { Shape } from "../protocol.ts";
import { type Kernel, MASKED, READ_AS_INFINITE, samplersOf, sourceOf } from "./shaders.ts";
import type { Texture, UniformValue, WebglContext } from "./webgl_context.ts";

export interface TextureStorage extends Storage {
  readonly texture: Texture;
  /** Texels that have been written, where there is room for more behind them. */
  filled: number;
}

export type Uniforms = Record<string, UniformValue>;

export class TextureValues {
  readonly context: WebglContext;
  /** Of all values and weights. */
  bytes = 0;

  constructor(context: WebglContext) {
    this.context = context;
  }

  /** New room for a tensor, and for `room` texels at least; what is in it is undefined. Fails: BadParameter. */
  allocate(shape: Shape, room = 0): Value {
    const texels = texelsIn(shape);
    const texture = this.context.lineTexture(Math.max(texels, room));
    const { bytes } = texture;
    this.bytes += bytes;
    return { shape, storage: { texture, bytes, references: 1, filled: texels } as TextureStorage };
  }

  upload(numbers: Float32Array, shape: Shape): Value {
    const result = this.allocate(shape);
    const { texture } = storageOf(result);
    const columns = lastOf(shape);
    const stride = 4 * texelsOf(columns);
    const height = rowsOf(texture, texelsIn(shape));
    const texels = new Float32Array(4 * texture.width * height);
    if (stride === columns) texels.set(numbers);
    else {
      for (let row = 0; row * columns < numbers.length; row++) {
        texels.set(numbers.subarray(row * columns, (row + 1) * columns), row * stride);
      }
    }
    for (let i = texels.indexOf(-Infinity); i >= 0; i = texels.indexOf(-Infinity, i + 1)) texels[i] = MASKED;
    this.context.write(texture, 0, 0, texture.width, height, texels);
    return result;
  }

  read({ shape, storage }: Value): Float32Array {
    const { texture } = storage as TextureStorage;
    const columns = lastOf(shape);
    const stride = 4 * texelsOf(columns);
    const texels = this.context.read(texture, rowsOf(texture, texelsIn(shape)));
    const numbers = new Float32Array(elementsOf(shape));
    if (stride === columns) numbers.set(texels.subarray(0, numbers.length));
    else {
      for (let row = 0; row * columns < numbers.length; row++) {
        numbers.set(texels.subarray(row * stride, row * stride + columns), row * columns);
      }
    }
    for (let i = 0; i < numbers.length; i++) if (numbers[i] < READ_AS_INFINITE) numbers[i] = -Infinity;
    return numbers;
  }

  release({ storage }: Value): void {
    if (--storage.references > 0) return;
    this.bytes -= storage.bytes;
    this.context.recycle((storage as TextureStorage).texture);
  }

  /** Runs a kernel over every texel of a new value. */
  run(
    kernel: Kernel,
    shape: Shape,
    inputs: readonly Value[],
    uniforms: Uniforms = {},
    more: readonly Texture[] = [],
  ): Value {
    const result = this.allocate(shape);
    this.runInto(result, kernel, 0, texelsIn(shape), inputs, uniforms, more);
    return result;
  }

  /** Over the texels from `begin` up to `end` at least, whole rows of the texture. */
  runInto(
    target: Value,
    kernel: Kernel,
    begin: number,
    end: number,
    inputs: readonly Value[],
    uniforms: Uniforms,
    more: readonly Texture[] = [],
  ): void {
    const { texture } = storageOf(target);
    const values = uniforms;
    values.out_layout = layoutOf(target);
    for (let i = 0; i < inputs.length; i++) values[`${kernel.inputs[i]}_layout`] = layoutOf(inputs[i]);
    const textures = [...inputs.map((input) => storageOf(input).texture), ...more];
    const band = { top: Math.floor(begin / texture.width), bottom: rowsOf(texture, end) };
    this.context.draw(this.context.program(sourceOf(kernel), samplersOf(kernel)), texture, band, textures, values);
  }
}

export function storageOf(value: Value): TextureStorage {
  return value.storage as TextureStorage;
}

export function texelsOf(columns: number): number {
  return Math.ceil(columns / 4);
}

export function texelsIn(shape: Shape): number {
  const columns = lastOf(shape);
  return (elementsOf(shape) / columns) * texelsOf(columns);
}

/** NAME_layout of the shaders. */
export function layoutOf(value: Value): [number, number, number, number] {
  const columns = lastOf(value.shape);
  const { shift, width } = storageOf(value).texture;
  return [shift, texelsOf(columns), columns, width - 1];
}

function rowsOf({ width }: Texture, texels: number): number {
  return Math.ceil(texels / width);
}
