// How a weight lies in textures, and the writer that puts it there piece by piece, with a few megabytes of its own.
//
// A texel holds four columns of one row (float32), or of four rows (int8). Rows of texels run along x. Where the weight
// would be too high or too wide for a texture it is cut into strips of `width` by `height` texels, `across` of them side
// by side; where it would take more bytes than a texture may, into parts, which are textures of their own.

import type { Matrix, MatrixLayout, MatrixWriter, Value } from "../engine/backend.ts";
import type { Packing } from "./shaders_products.ts";
import type { Texture, WebglContext } from "./webgl_context.ts";

export interface MatrixPart {
  readonly texture: Texture;
  /** The part's first texel of columns, and how many it has. */
  readonly firstBlock: number;
  readonly blocks: number;
  /** Strip width, strip height, strips across, strips that the rows of one column take. */
  readonly fold: readonly [number, number, number, number];
}

export interface TextureMatrix extends Matrix {
  readonly packing: Packing;
  /** Texels along the rows. */
  readonly depth: number;
  readonly parts: readonly MatrixPart[];
  /** [outputs], of int8. */
  readonly scales: Value | null;
}

export interface TextureLimits {
  readonly bytes: number;
  /** Texels along x and y. */
  readonly side: number;
}

/** Strips are no larger: beyond it some GPUs fetch slowly. */
const MAX_STRIP = 4096;
/** Numbers that are on their way at a time. */
const STAGED = 2 ** 20;

type Extents = Pick<MatrixPart, "firstBlock" | "blocks" | "fold"> & { size: readonly [number, number] };

/** The parts that a weight is cut into, none above the limits. */
export function partsOf(depth: number, blocks: number, { bytes, side }: TextureLimits): Extents[] {
  const width = depth <= side ? depth : Math.min(MAX_STRIP, side);
  const segments = Math.ceil(depth / width);
  const mostPerPart = Math.max(4, 4 * Math.floor(bytes / (16 * width * segments * 4)));
  for (let count = Math.ceil(blocks / mostPerPart); ; count++) {
    const perPart = 4 * Math.ceil(blocks / count / 4);
    const parts: Extents[] = [];
    for (let firstBlock = 0; firstBlock < blocks; firstBlock += perPart) {
      parts.push({ firstBlock, ...folded(width, segments, Math.min(perPart, blocks - firstBlock), side) });
    }
    const fits = ({ size: [x, y] }: Extents) => 16 * x * y <= bytes && x <= side && y <= side;
    if (perPart === 4 || parts.every(fits)) return parts;
  }
}

function folded(width: number, segments: number, blocks: number, side: number): Omit<Extents, "firstBlock"> {
  const folds = Math.ceil(blocks / Math.min(MAX_STRIP, side));
  // Even, so that a tile of two texels never straddles two strips.
  const height = folds === 1 ? blocks : 4 * Math.ceil(blocks / folds / 4);
  const count = folds * segments;
  const down = Math.ceil(count / Math.floor(side / width));
  const across = Math.ceil(count / down);
  return { blocks, fold: [width, height, across, segments], size: [width * across, height * down] };
}

export class MatrixUpload implements MatrixWriter {
  readonly #context: WebglContext;
  readonly #layout: MatrixLayout;
  readonly #parts: MatrixPart[] = [];
  readonly #depth: number;
  readonly #finish: (made: Omit<TextureMatrix, "scales">) => Matrix;
  /** Rows of weights that a texel holds. */
  readonly #perTexel: 1 | 4;
  /** Rows of the file that go into a texture together. */
  readonly #group: 1 | 4;
  /** Rows of an unfinished group. */
  #left: Float32Array | Int8Array;
  #leftRows = 0;
  #row = 0;

  /** Fails: ContextLost. */
  constructor(
    context: WebglContext,
    layout: MatrixLayout,
    limits: TextureLimits,
    finish: (made: Omit<TextureMatrix, "scales">) => Matrix,
  ) {
    this.#context = context;
    this.#layout = layout;
    this.#finish = finish;
    const { inputs, outputs, transposed, scales } = layout;
    this.#perTexel = scales === null ? 1 : 4;
    this.#group = transposed ? 4 : this.#perTexel;
    this.#depth = Math.ceil(inputs / this.#perTexel);
    this.#left = this.#numbers(this.#group * (transposed ? inputs : outputs));
    try {
      for (const part of partsOf(this.#depth, Math.ceil(outputs / 4), limits)) {
        const texture = context.weightTexture(...part.size, scales === null ? "RGBA32F" : "RGBA32UI");
        this.#parts.push({ ...part, texture });
      }
    } catch (error) {
      this.abandon();
      throw error;
    }
  }

  write(rows: Float32Array | Int8Array): void {
    const { inputs, outputs, transposed } = this.#layout;
    const extent = transposed ? inputs : outputs;
    const groupsAtOnce = Math.max(1, Math.floor(STAGED / (extent * this.#group)));
    let at = 0;
    while (at < rows.length) {
      const missing = this.#group - this.#leftRows;
      const there = (rows.length - at) / extent;
      if (this.#leftRows > 0 || there < this.#group) {
        const taken = Math.min(missing, there);
        this.#left.set(rows.subarray(at, at + taken * extent), this.#leftRows * extent);
        this.#leftRows += taken;
        at += taken * extent;
        if (this.#leftRows === this.#group) this.#flush();
      } else {
        const taken = Math.min(groupsAtOnce, Math.floor(there / this.#group)) * this.#group;
        this.#put(rows.subarray(at, at + taken * extent), taken);
        at += taken * extent;
      }
    }
  }

  finish(): Matrix {
    const { inputs, outputs, scales } = this.#layout;
    if (this.#leftRows > 0) this.#flush();
    const bytes = this.#parts.reduce((sum, { texture }) => sum + texture.bytes, 0);
    const packing = scales === null ? "float32" : "int8";
    return this.#finish({ inputs, outputs, bytes, packing, depth: this.#depth, parts: this.#parts });
  }

  abandon(): void {
    for (const { texture } of this.#parts) this.#context.delete(texture);
  }

  #flush(): void {
    const { inputs, outputs, transposed } = this.#layout;
    const rows = this.#leftRows;
    this.#leftRows = 0;
    this.#put(this.#left.subarray(0, rows * (transposed ? inputs : outputs)), rows);
  }

  #numbers(count: number): Float32Array | Int8Array {
    return this.#perTexel === 1 ? new Float32Array(count) : new Int8Array(count);
  }

  /** Whole groups of rows, or the last ones. */
  #put(rows: Float32Array | Int8Array, count: number): void {
    const first = this.#row;
    this.#row += count;
    for (const part of this.#parts) {
      if (this.#layout.transposed) this.#putOutputs(part, rows, first, count);
      else this.#putInputs(part, rows, first, count);
    }
  }

  /** Rows of inputs: each fills a column of texels in every strip of its segment. */
  #putInputs(part: MatrixPart, rows: Float32Array | Int8Array, first: number, count: number): void {
    const { outputs } = this.#layout;
    const { fold, blocks, firstBlock } = part;
    const perTexel = this.#perTexel;
    const segmentRows = fold[0] * perTexel;
    for (let k = 0; k < count;) {
      const segment = Math.floor((first + k) / segmentRows);
      const many = Math.min(count - k, (segment + 1) * segmentRows - (first + k));
      const width = Math.ceil(many / perTexel);
      for (let top = 0; top < blocks; top += fold[1]) {
        const height = Math.min(fold[1], blocks - top);
        const staged = this.#numbers(width * height * 4 * perTexel);
        for (let y = 0; y < height; y++) {
          const column = 4 * (firstBlock + top + y);
          const lanes = Math.min(4, outputs - column);
          for (let i = 0; i < many; i++) {
            const from = (k + i) * outputs + column;
            const to = 4 * (y * width * perTexel + i);
            for (let lane = 0; lane < lanes; lane++) staged[to + lane] = rows[from + lane];
          }
        }
        const [x, y] = cornerOf(part, top / fold[1], segment);
        const texel = Math.floor((first + k) / perTexel) - segment * fold[0];
        this.#send(part.texture, x + texel, y, width, height, staged);
      }
      k += many;
    }
  }

  /** Rows of outputs: four of them fill a line of texels in each of their strips. */
  #putOutputs(part: MatrixPart, rows: Float32Array | Int8Array, first: number, count: number): void {
    const { inputs } = this.#layout;
    const { fold, blocks, firstBlock } = part;
    const perTexel = this.#perTexel;
    const begin = Math.max(first / 4, firstBlock);
    const end = Math.min(Math.ceil((first + count) / 4), firstBlock + blocks);
    for (let block = begin; block < end;) {
      const strip = Math.floor((block - firstBlock) / fold[1]);
      const height = Math.min(end - block, firstBlock + (strip + 1) * fold[1] - block);
      for (let segment = 0; segment < fold[3]; segment++) {
        const firstInput = segment * fold[0] * perTexel;
        const many = Math.min(fold[0] * perTexel, inputs - firstInput);
        const width = Math.ceil(many / perTexel);
        const staged = this.#numbers(width * height * 4 * perTexel);
        for (let y = 0; y < height; y++) {
          const row = 4 * (block + y) - first;
          const lanes = Math.min(4, count - row);
          for (let lane = 0; lane < lanes; lane++) {
            const from = (row + lane) * inputs + firstInput;
            const to = 4 * y * width * perTexel + lane;
            for (let i = 0; i < many; i++) staged[to + 4 * i] = rows[from + i];
          }
        }
        const [x, y] = cornerOf(part, strip, segment);
        this.#send(part.texture, x, y + block - firstBlock - strip * fold[1], width, height, staged);
      }
      block += height;
    }
  }

  #send(texture: Texture, x: number, y: number, width: number, height: number, staged: Float32Array | Int8Array): void {
    const texels = staged instanceof Int8Array ? new Uint32Array(staged.buffer) : staged;
    this.#context.write(texture, x, y, width, height, texels);
  }
}

function cornerOf({ fold: [width, height, across, segments] }: MatrixPart, strip: number, segment: number): number[] {
  const at = strip * segments + segment;
  return [width * (at % across), height * Math.floor(at / across)];
}
