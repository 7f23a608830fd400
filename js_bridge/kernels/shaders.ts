// The frame of a fragment shader: a kernel is a GLSL function `compute(row, texel)` that makes four neighbouring columns
// of a row of the result; the frame finds row and texel and writes 0 beyond the row's last column. The kernels
// themselves are in shaders_elements, shaders_rows, shaders_attention and shaders_products.
//
// GLSL ES promises no infinities: MASKED stands for −∞ inside textures, and is written as −∞ on read-back.

/** Stands for −∞; every number below READ_AS_INFINITE reads as −∞. */
export const MASKED = -3.0e38;
export const READ_AS_INFINITE = -1.0e37;

/** The same two as GLSL. */
export const MASKED_TEXT = MASKED.toExponential();
export const INFINITE_TEXT = READ_AS_INFINITE.toExponential();

export interface Kernel {
  /** Names of the tensors it reads: NAME(row, texel) gives four columns, NAME_at(element) one number. */
  readonly inputs: readonly string[];
  /** Other samplers, declared in `head`; their textures follow those of the inputs. */
  readonly samplers?: readonly string[];
  /** Declarations of its own uniforms, and functions. */
  readonly head?: string;
  /** The body of vec4 compute(int row, int texel); it may discard what it must leave alone. */
  readonly compute: string;
}

/** Rank of every index in generic shaders; shorter shapes are padded with extents of 1 in front. */
export const RANK = 6;

export const PRECISION = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp usampler2D;
precision highp sampler2DArray;
`;

/** NAME_layout: the fold's shift, texels of a row, columns, the fold's width less one. NAME_line counts texels. */
export function inputOf(name: string): string {
  return `uniform sampler2D ${name}_texture;
uniform ivec4 ${name}_layout;
#define ${name}_texels ${name}_layout.y
#define ${name}_columns ${name}_layout.z
vec4 ${name}_line(int index) {
  return texelFetch(${name}_texture, ivec2(index & ${name}_layout.w, index >> ${name}_layout.x), 0);
}
vec4 ${name}(int row, int texel) { return ${name}_line(row * ${name}_texels + texel); }
float ${name}_at(int element) {
  int row = element / ${name}_columns;
  int column = element - row * ${name}_columns;
  return ${name}(row, column >> 2)[column & 3];
}
`;
}

export function samplersOf({ inputs, samplers = [] }: Kernel): string[] {
  return [...inputs.map((name) => `${name}_texture`), ...samplers];
}

const sources = new Map<Kernel, string>();

export function sourceOf(kernel: Kernel): string {
  const known = sources.get(kernel);
  if (known !== undefined) return known;
  const source = `${PRECISION}
uniform ivec4 out_layout;
#define out_texels out_layout.y
#define out_columns out_layout.z
${kernel.inputs.map(inputOf).join("")}
${kernel.head ?? ""}
vec4 compute(int row, int texel) {
${kernel.compute}
}
out vec4 result;
void main() {
  int index = (int(gl_FragCoord.y) << out_layout.x) + int(gl_FragCoord.x);
  int row = index / out_texels;
  int texel = index - row * out_texels;
  vec4 value = compute(row, texel);
  int left = out_columns - 4 * texel;
  result = vec4(value.x, left > 1 ? value.y : 0.0, left > 2 ? value.z : 0.0, left > 3 ? value.w : 0.0);
}`;
  sources.set(kernel, source);
  return source;
}

/** Four numbers, each from its element's index in the result. */
export function eachElement(statements: string): string {
  return `  vec4 value;
  for (int lane = 0; lane < 4; lane++) {
    int element = row * out_columns + min(4 * texel + lane, out_columns - 1);
    ${statements}
  }
  return value;`;
}
