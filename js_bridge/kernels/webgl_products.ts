// Products with weights in textures: over each part of the matrix, in the tiling that is fastest for so many rows.

import type { Value } from "../engine/backend.ts";
import { elementsOf } from "../engine/tensors/shape.ts";
import {
  type Addend,
  assembleKernel,
  type Direction,
  narrowKernel,
  type Tiling,
  tileSamplers,
  tileSource,
} from "./shaders_products.ts";
import type { MatrixPart, TextureMatrix } from "./webgl_matrix.ts";
import { type TimedTiling, tilingFor } from "./webgl_tilings.ts";
import { layoutOf, storageOf, texelsOf, type TextureValues, type Uniforms } from "./webgl_values.ts";

/** Tiles wait for their assembly in textures of at most so many texels per layer: longer products go slab by slab. */
const MOST_TILES = 2 ** 18;

export class Products {
  tilings: readonly TimedTiling[];
  readonly #values: TextureValues;

  constructor(values: TextureValues, tilings: readonly TimedTiling[]) {
    this.#values = values;
    this.tilings = tilings;
  }

  /** x · matrix + bias. */
  straight(x: Value, matrix: TextureMatrix, bias: Value | null): Value {
    const result = this.#values.allocate([...x.shape.slice(0, -1), matrix.outputs]);
    for (const part of matrix.parts) {
      const range = [part.firstBlock, part.firstBlock + part.blocks] as const;
      this.#multiply("straight", x, matrix, part, result, range, bias === null ? "none" : "row", bias);
    }
    return result;
  }

  /** y · matrixᵀ; the parts' sums add up. */
  transposed(y: Value, matrix: TextureMatrix): Value {
    let result: Value | null = null;
    for (const part of matrix.parts) {
      const before: Value | null = result;
      result = this.#values.allocate([...y.shape.slice(0, -1), matrix.inputs]);
      const range = [0, texelsOf(matrix.inputs)] as const;
      this.#multiply("transposed", y, matrix, part, result, range, before === null ? "none" : "all", before);
      if (before !== null) this.#values.release(before);
    }
    return result as Value;
  }

  /** The result's texels of the given range, from one part of the matrix. */
  #multiply(
    direction: Direction,
    x: Value,
    matrix: TextureMatrix,
    part: MatrixPart,
    result: Value,
    [firstTexel, endTexel]: readonly [number, number],
    addend: Addend,
    added: Value | null,
  ): void {
    const rows = elementsOf(x.shape) / (direction === "straight" ? matrix.inputs : matrix.outputs);
    const tiling = tilingFor(rows, this.tilings);
    const more = added === null ? [] : [added];
    const inputs = matrix.scales === null ? [x] : [x, matrix.scales];
    const uniforms = {
      W_fold: part.fold,
      depth: matrix.depth,
      blocks: part.blocks,
      firstBlock: part.firstBlock,
    };
    const perRow = texelsOf(direction === "straight" ? matrix.outputs : matrix.inputs);
    if (tiling.rows * tiling.texels === 1) {
      const kernel = narrowKernel(direction, matrix.packing, addend);
      const range = [0, rows, firstTexel, endTexel];
      this.#values.runInto(result, kernel, 0, rows * perRow, [...inputs, ...more], { ...uniforms, out_range: range }, [
        part.texture,
      ]);
      return;
    }
    const tilesPerRow = Math.ceil((endTexel - firstTexel) / tiling.texels);
    const rowsAtOnce = tiling.rows * Math.max(1, Math.floor(MOST_TILES / tilesPerRow));
    for (let row = 0; row < rows; row += rowsAtOnce) {
      const end = Math.min(rows, row + rowsAtOnce);
      const tiles = this.#tiles(direction, matrix, part, inputs, tiling, tilesPerRow, row, end, uniforms);
      const range = [row, end, firstTexel, endTexel];
      const places = { out_range: range, tiles_shift: tiles.shift, tilesPerRow };
      const kernel = assembleKernel(tiling, addend);
      this.#values.runInto(result, kernel, row * perRow, end * perRow, more, places, [tiles]);
      this.#values.context.recycle(tiles);
    }
  }

  #tiles(
    direction: Direction,
    matrix: TextureMatrix,
    part: MatrixPart,
    inputs: readonly Value[],
    tiling: Tiling,
    tilesPerRow: number,
    firstRow: number,
    endRow: number,
    uniforms: Uniforms,
  ) {
    const { context } = this.#values;
    const count = Math.ceil((endRow - firstRow) / tiling.rows) * tilesPerRow;
    const tiles = context.lineTexture(count, tiling.rows * tiling.texels);
    const values: Uniforms = { ...uniforms, X_layout: layoutOf(inputs[0]) };
    if (matrix.scales !== null) values.S_layout = layoutOf(matrix.scales);
    Object.assign(values, { out_shift: tiles.shift, tilesPerRow, firstRow, endRow });
    const program = context.program(tileSource(tiling, direction, matrix.packing), tileSamplers(matrix.packing));
    const textures = [...inputs.map((input) => storageOf(input).texture), part.texture];
    const band = { top: 0, bottom: Math.ceil(count / tiles.width) };
    context.draw(program, tiles, band, textures, values);
    return tiles;
  }
}
