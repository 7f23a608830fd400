// Fragment shaders of the products with weights, and of rows of a table. A weight lies in strips, as webgl_matrix.ts
// lays it out: float32, texel (k, n) holding row k, columns 4n … 4n+3; or int8, texel (k, n) holding rows 4k … 4k+3 of
// those columns, 16 codes.
//
// A fragment makes a tile: some rows by some texels, each in a draw buffer of its own, so that one fetch of a weight
// serves several rows. Every tiling adds up in the same order, and so gives the same bits.

import { inputOf, type Kernel, PRECISION } from "./shaders.ts";

/** Rows, and texels of four columns, that one fragment makes. */
export interface Tiling {
  readonly rows: number;
  readonly texels: number;
}

export type Packing = "float32" | "int8";
/** Over the matrix, x · W, or over its transpose, y · Wᵀ. */
export type Direction = "straight" | "transposed";
/** What is added to the sums: nothing, one row, or as many rows. */
export type Addend = "none" | "row" | "all";

/**
 * W_fold: a strip's width and height, strips across, strips that one column's rows take.
 * The texels along the rows are `depth`, the part's texels of columns `blocks`, from `firstBlock` on.
 */
const strips = (packing: Packing) => `uniform highp ${packing === "int8" ? "usampler2D" : "sampler2D"} W_texture;
uniform ivec4 W_fold;
uniform int depth, blocks, firstBlock;
ivec2 strip(int fold, int segment) {
  int at = fold * W_fold.w + segment;
  return ivec2(W_fold.x * (at % W_fold.z), W_fold.y * (at / W_fold.z));
}
${packing === "int8" ? "vec4 unpacked(uint u) { return vec4(ivec4(uvec4(u << 24, u << 16, u << 8, u)) >> 24); }" : ""}
`;

const COUNT = [0, 1, 2, 3, 4, 5, 6, 7];

/** Four rows of weights, a … d, from texel column `x` and line `y` of the strip. */
function fetched(packing: Packing, x: string, y: string): string {
  if (packing === "float32") {
    return `vec4 a = texelFetch(W_texture, ivec2(${x}, ${y}), 0), b = texelFetch(W_texture, ivec2(${x} + 1, ${y}), 0),
        c = texelFetch(W_texture, ivec2(${x} + 2, ${y}), 0), d = texelFetch(W_texture, ivec2(${x} + 3, ${y}), 0);`;
  }
  return `uvec4 u = texelFetch(W_texture, ivec2(${x}, ${y}), 0);
      vec4 a = unpacked(u.x), b = unpacked(u.y), c = unpacked(u.z), d = unpacked(u.w);`;
}

/** Declares sumRT for the tile at rows row0 … and texel n. Past the last input x is 0 and W some other weight or 0. */
function straight({ rows, texels }: Tiling, packing: Packing): string {
  const step = packing === "int8" ? 1 : 4;
  const texel = packing === "int8" ? "first + k" : "(first + k) >> 2";
  return `${declared(rows, texels)}
  for (int segment = 0; segment < W_fold.w; segment++) {
    ivec2 corner = strip(n / W_fold.y, segment);
    corner.y += n % W_fold.y;
    int first = segment * W_fold.x;
    int count = min(W_fold.x, depth - first);
    for (int k = 0; k < count; k += ${step}) {
      int at = ${texel};
      ${each(rows, (row) => `vec4 x${row} = X_line(line${row} + at);`)}
      ${each(
        texels,
        (t) => `{
      ${fetched(packing, "corner.x + k", `corner.y + ${t}`)}
      ${each(rows, (row) => `sum${row}${t} += x${row}.x * a + x${row}.y * b + x${row}.z * c + x${row}.w * d;`)}
      }`,
      )}
    }
  }
  ${packing === "int8" ? each(texels, (t) => `vec4 scale${t} = S(0, firstBlock + n + ${t});`) : ""}
  ${packing === "int8" ? tiles(rows, texels, (row, t) => `sum${row}${t} *= scale${t};`) : ""}`;
}

/** The same for the transpose: n counts texels of inputs. */
function transposed({ rows, texels }: Tiling, packing: Packing): string {
  const place = packing === "int8" ? "n" : "4 * n";
  const step = packing === "int8" ? 1 : 4;
  return `${declared(rows, texels)}
  int segment = (${place}) / W_fold.x;
  int k = (${place}) % W_fold.x;
  for (int fold = 0; fold * W_fold.y < blocks; fold++) {
    ivec2 corner = strip(fold, segment);
    int first = fold * W_fold.y;
    int count = min(W_fold.y, blocks - first);
    for (int i = 0; i < count; i++) {
      int at = firstBlock + first + i;
      ${packing === "int8" ? "vec4 scale = S(0, at);" : ""}
      ${each(rows, (row) => `vec4 x${row} = X_line(line${row} + at)${packing === "int8" ? " * scale" : ""};`)}
      ${each(
        texels,
        (t) => `{
      ${fetched(packing, `corner.x + k + ${t * step}`, "corner.y + i")}
      ${each(rows, (row) => `sum${row}${t} += vec4(dot(x${row}, a), dot(x${row}, b), dot(x${row}, c), dot(x${row}, d));`)}
      }`,
      )}
    }
  }`;
}

const each = (count: number, make: (index: number) => string) => COUNT.slice(0, count).map(make).join(" ");
const tiles = (rows: number, texels: number, make: (row: number, texel: number) => string) =>
  each(rows, (row) => each(texels, (texel) => make(row, texel)));
/** Not every compiler takes a row's place out of the loop by itself. */
const declared = (rows: number, texels: number) =>
  `${each(rows, (row) => `int line${row} = row${row} * X_texels;`)}
  ${tiles(rows, texels, (row, t) => `vec4 sum${row}${t} = vec4(0.0);`)}`;
const sumsOf = { straight, transposed };

const inputsOf = (packing: Packing) => (packing === "int8" ? ["X", "S"] : ["X"]);
const added = (addend: Addend) => ({ none: "", row: " + Y(0, texel)", all: " + Y(row, texel)" })[addend];
const addendInputs = (addend: Addend) => (addend === "none" ? [] : ["Y"]);

/** Of the result, what a draw makes: rows, and texels of each, from … up to. The rest is left alone. */
const RANGE = `uniform ivec4 out_range;
bool isOutside(int row, int texel) {
  return row < out_range.x || row >= out_range.y || texel < out_range.z || texel >= out_range.w;
}
`;

/** One row by one texel a fragment, into its place. The result is folded to a square, so one row fills a square. */
function narrow(direction: Direction, packing: Packing, addend: Addend): Kernel {
  return {
    inputs: [...inputsOf(packing), ...addendInputs(addend)],
    samplers: ["W_texture"],
    head: `${strips(packing)}${RANGE}`,
    compute: `  if (isOutside(row, texel)) discard;
  int row0 = row;
  int n = texel - out_range.z;
  ${sumsOf[direction]({ rows: 1, texels: 1 }, packing)}
  return sum00${added(addend)};`,
  };
}

/** Puts the tiles of `tileSource` into rows, and adds what is to be added. */
function assemble({ rows, texels }: Tiling, addend: Addend): Kernel {
  return {
    inputs: addendInputs(addend),
    samplers: ["tiles"],
    head: `uniform sampler2DArray tiles;\nuniform int tiles_shift, tilesPerRow;\n${RANGE}`,
    compute: `  if (isOutside(row, texel)) discard;
  int r = row - out_range.x;
  int t = texel - out_range.z;
  int tile = (r / ${rows}) * tilesPerRow + t / ${texels};
  ivec2 place = ivec2(tile & ((1 << tiles_shift) - 1), tile >> tiles_shift);
  return texelFetch(tiles, ivec3(place, (r % ${rows}) * ${texels} + t % ${texels}), 0)${added(addend)};`,
  };
}

const kernels = new Map<string, Kernel>();

function once(key: string, make: () => Kernel): Kernel {
  const known = kernels.get(key);
  if (known !== undefined) return known;
  const made = make();
  kernels.set(key, made);
  return made;
}

export function narrowKernel(direction: Direction, packing: Packing, addend: Addend): Kernel {
  return once(`${direction} ${packing} ${addend}`, () => narrow(direction, packing, addend));
}

export function assembleKernel(tiling: Tiling, addend: Addend): Kernel {
  return once(`${tiling.rows} ${tiling.texels} ${addend}`, () => assemble(tiling, addend));
}

export function tileSamplers(packing: Packing): string[] {
  return [...inputsOf(packing).map((name) => `${name}_texture`), "W_texture"];
}

const tileSources = new Map<string, string>();

/** The sums of a tile, each texel in its draw buffer; the tiles follow one another in a folded line. */
export function tileSource(tiling: Tiling, direction: Direction, packing: Packing): string {
  const { rows, texels } = tiling;
  const key = `${rows} ${texels} ${direction} ${packing}`;
  const known = tileSources.get(key);
  if (known !== undefined) return known;
  const source = `${PRECISION}
${inputsOf(packing).map(inputOf).join("")}
${strips(packing)}
uniform int out_shift, tilesPerRow, firstRow, endRow;
${tiles(rows, texels, (row, t) => `layout(location = ${row * texels + t}) out vec4 result${row}${t};`)}
void main() {
  int tile = (int(gl_FragCoord.y) << out_shift) + int(gl_FragCoord.x);
  int first = firstRow + (tile / tilesPerRow) * ${rows};
  int n = (tile % tilesPerRow) * ${texels};
  ${each(rows, (row) => `int row${row} = min(first + ${row}, endRow - 1);`)}
  ${sumsOf[direction](tiling, packing)}
  ${tiles(rows, texels, (row, t) => `result${row}${t} = sum${row}${t};`)}
}`;
  tileSources.set(key, source);
  return source;
}

const columns = (packing: Packing): Kernel => ({
  inputs: packing === "int8" ? ["I", "S"] : ["I"],
  samplers: ["W_texture"],
  head: strips(packing),
  compute: `  int id = int(I_at(row) + 0.5);
  int n = (id >> 2) - firstBlock;
  if (n < 0 || n >= blocks) discard;
  int lane = id & 3;
  int place = ${packing === "int8" ? "texel" : "4 * texel"};
  ivec2 at = strip(n / W_fold.y, place / W_fold.x) + ivec2(place % W_fold.x, n % W_fold.y);
  ${fetched(packing, "at.x", "at.y")}
  return vec4(a[lane], b[lane], c[lane], d[lane])${packing === "int8" ? " * S_at(id)" : ""};`,
});

/** A table's columns, one a row of the result: those that lie in the given part of the table. */
export const COLUMNS = { float32: columns("float32"), int8: columns("int8") };
