// Fragment shaders, one kernel each: a GLSL function `compute(row, texel)` that makes four neighbouring columns of a
// row of the result. The frame around it finds row and texel and writes 0 beyond the row's last column.
//
// GLSL ES promises no infinities: MASKED stands for −∞ inside textures, and is written as −∞ on read-back.

/** Stands for −∞; every number below READ_AS_INFINITE reads as −∞. */
export const MASKED = -3.0e38;
export const READ_AS_INFINITE = -1.0e37;

export interface Kernel {
  /** Names of the tensors it reads: NAME(row, texel) gives four columns, NAME_at(element) one number. */
  readonly inputs: readonly string[];
  /** Declarations of its own uniforms, and functions. */
  readonly head?: string;
  /** The body of vec4 compute(int row, int texel). */
  readonly compute: string;
}

/** Rank of every index in generic shaders; shorter shapes are padded with extents of 1 in front. */
export const RANK = 6;

const PRECISION = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp sampler2DArray;
`;

function inputOf(name: string): string {
  return `uniform sampler2D ${name}_texture;
uniform int ${name}_shift, ${name}_texels, ${name}_columns;
vec4 ${name}(int row, int texel) {
  int index = row * ${name}_texels + texel;
  return texelFetch(${name}_texture, ivec2(index & ((1 << ${name}_shift) - 1), index >> ${name}_shift), 0);
}
float ${name}_at(int element) {
  int row = element / ${name}_columns;
  int column = element - row * ${name}_columns;
  return ${name}(row, column >> 2)[column & 3];
}
`;
}

const sources = new Map<Kernel, string>();

export function sourceOf(kernel: Kernel): string {
  const known = sources.get(kernel);
  if (known !== undefined) return known;
  const source = `${PRECISION}
uniform int out_shift, out_texels, out_columns;
${kernel.inputs.map(inputOf).join("")}
${kernel.head ?? ""}
vec4 compute(int row, int texel) {
${kernel.compute}
}
out vec4 result;
void main() {
  int index = (int(gl_FragCoord.y) << out_shift) + int(gl_FragCoord.x);
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
function eachElement(expression: string): string {
  return `  vec4 value;
  for (int lane = 0; lane < 4; lane++) {
    int element = row * out_columns + min(4 * texel + lane, out_columns - 1);
    ${expression}
  }
  return value;`;
}

/** Where a broadcast or permuted input has the element of a result's index. */
function placeOf(name: string): string {
  return `uniform int ${name}_strides[${RANK}];
int ${name}_place(int element) {
  int place = ${name}_offset;
  for (int axis = ${RANK - 1}; axis >= 0; axis--) {
    int rest = element / extents[axis];
    place += (element - rest * extents[axis]) * ${name}_strides[axis];
    element = rest;
  }
  return place;
}
`;
}

function placesOf(names: readonly string[]): string {
  return `uniform int extents[${RANK}];\n${names.map((name) => `uniform int ${name}_offset;\n${placeOf(name)}`).join("")}`;
}

const mapped = (expression: string, head = ""): Kernel => ({
  inputs: ["X"],
  head,
  compute: `  vec4 x = X(row, texel);\n  return ${expression};`,
});

/** tanh's argument is clamped: beyond about 13 some drivers answer NaN. */
const GELU_TANH = `vec4 gelu(vec4 x) {
  vec4 u = clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), -15.0, 15.0);
  return 0.5 * x * (1.0 + tanh(u));
}`;

/** erf with an absolute error below 1.5e-7. Source: Abramowitz and Stegun 7.1.26. */
const GELU_ERF = `vec4 gelu(vec4 x) {
  vec4 z = min(abs(x) * 0.7071067811865476, 9.0);
  vec4 t = 1.0 / (1.0 + 0.3275911 * z);
  vec4 p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return 0.5 * x * (1.0 + sign(x) * (1.0 - p * exp(-z * z)));
}`;

export const ACTIVATIONS = {
  geluTanh: mapped("gelu(x)", GELU_TANH),
  geluErf: mapped("gelu(x)", GELU_ERF),
  relu: mapped("max(x, 0.0)"),
};

export const UNARY = {
  negate: mapped("-x"),
  exp: mapped("exp(x)"),
  log: mapped("log(x)"),
  sqrt: mapped("sqrt(x)"),
  tanh: mapped("tanh(clamp(x, -15.0, 15.0))"),
  absolute: mapped("abs(x)"),
  square: mapped("x * x"),
};

const OPERATORS = {
  add: "a + b",
  subtract: "a - b",
  multiply: "a * b",
  divide: "a / b",
  minimum: "min(a, b)",
  maximum: "max(a, b)",
};

type Operator = keyof typeof OPERATORS;
const kernelsOf = (make: (expression: string) => Kernel) =>
  Object.fromEntries(Object.entries(OPERATORS).map(([name, expression]) => [name, make(expression)])) as Record<
    Operator,
    Kernel
  >;

/** Two tensors of one shape. */
export const BINARY = kernelsOf((expression) => ({
  inputs: ["A", "B"],
  compute: `  vec4 a = A(row, texel);\n  vec4 b = B(row, texel);\n  return ${expression};`,
}));

export const BROADCAST = kernelsOf((expression) => ({
  inputs: ["A", "B"],
  head: placesOf(["A", "B"]),
  compute: eachElement(
    `float a = A_at(A_place(element));\n    float b = B_at(B_place(element));\n    value[lane] = ${expression};`,
  ),
}));

export const SELECT: Kernel = {
  inputs: ["M", "A", "B"],
  head: placesOf(["M", "A", "B"]),
  compute: eachElement(
    "value[lane] = M_at(M_place(element)) != 0.0 ? A_at(A_place(element)) : B_at(B_place(element));",
  ),
};

export const STRIDED: Kernel = {
  inputs: ["X"],
  head: placesOf(["X"]),
  compute: eachElement("value[lane] = X_at(X_place(element));"),
};

/** Places along one axis; `inner` elements lie together, `extent` places in X, `taken` in the result. */
export const TAKE: Kernel = {
  inputs: ["X", "I"],
  head: "uniform int extent, taken, inner;",
  compute: eachElement(`int outer = element / (taken * inner);
    int rest = element - outer * taken * inner;
    int place = int(I_at(rest / inner) + 0.5);
    value[lane] = X_at((outer * extent + place) * inner + rest % inner);`),
};

/** Each element of the result finds the one of X that `strided` would read there: `steps` fall, and none overlaps. */
export const STRIDED_TRANSPOSED: Kernel = {
  inputs: ["X"],
  head: `uniform int X_offset, extents[${RANK}], steps[${RANK}], X_strides[${RANK}];`,
  compute: eachElement(`int rest = max(element - X_offset, 0);
    bool isRead = element >= X_offset;
    int place = 0;
    for (int axis = 0; axis < ${RANK}; axis++) {
      int index = min(rest / steps[axis], extents[axis] - 1);
      rest -= index * steps[axis];
      place += index * X_strides[axis];
    }
    value[lane] = isRead && rest == 0 ? X_at(place) : 0.0;`),
};

/** Sums what goes to each place along an axis of `extent`. */
export const TAKE_TRANSPOSED: Kernel = {
  inputs: ["X", "I"],
  head: "uniform int extent, taken, inner;",
  compute: eachElement(`int outer = element / (extent * inner);
    int rest = element - outer * extent * inner;
    float sum = 0.0;
    for (int i = 0; i < taken; i++) {
      if (int(I_at(i) + 0.5) == rest / inner) sum += X_at((outer * taken + i) * inner + rest % inner);
    }
    value[lane] = sum;`),
};

const reduction = (start: string, step: string, end = ""): Kernel => ({
  inputs: ["X"],
  head: "uniform int extent, inner;",
  compute: eachElement(`int outer = element / inner;
    int first = outer * extent * inner + (element - outer * inner);
    float best = X_at(first);
    float most = ${start};
    for (int i = 0; i < extent; i++) {
      float x = X_at(first + i * inner);
      ${step}
    }
    ${end}
    value[lane] = most;`),
});

export const REDUCE = {
  sum: reduction("0.0", "most += x;"),
  mean: reduction("0.0", "most += x;", "most /= float(extent);"),
  max: reduction("best", "most = max(most, x);"),
  min: reduction("best", "most = min(most, x);"),
  argmax: reduction("0.0", "if (x > best) { best = x; most = float(i); }"),
};

/** Numbers beyond a row's last column are 0, so a sum may run over whole texels. */
export const ROW_MEAN: Kernel = {
  inputs: ["X"],
  compute: `  vec4 sum = vec4(0.0);
  for (int i = 0; i < X_texels; i++) sum += X(row, i);
  return vec4(dot(sum, vec4(1.0)) / float(X_columns));`,
};

export const NORM_SCALE: Kernel = {
  inputs: ["X", "M"],
  head: "uniform float epsilon;",
  compute: `  float mean = M(row, 0).x;
  vec4 sum = vec4(0.0);
  for (int i = 0; i < X_texels; i++) {
    vec4 there = vec4(lessThan(ivec4(4 * i) + ivec4(0, 1, 2, 3), ivec4(X_columns)));
    vec4 d = (X(row, i) - mean) * there;
    sum += d * d;
  }
  return vec4(sqrt(dot(sum, vec4(1.0)) / float(X_columns) + epsilon));`,
};

export const NORMALIZE: Kernel = {
  inputs: ["X", "M", "S"],
  compute: "  return (X(row, texel) - M(row, 0).x) / S(row, 0).x;",
};

export const AFFINE: Kernel = {
  inputs: ["X", "W", "B"],
  compute: "  return X(row, texel) * W(0, texel) + B(0, texel);",
};

/** The row's greatest number, and the sum of exponentials below it; two columns. */
export const SOFTMAX_SUMS: Kernel = {
  inputs: ["X"],
  compute: `  float most = X(row, 0).x;
  for (int i = 0; i < X_columns; i++) most = max(most, X(row, i >> 2)[i & 3]);
  vec4 sum = vec4(0.0);
  for (int i = 0; i < X_texels; i++) {
    vec4 x = X(row, i);
    vec4 there = vec4(lessThan(ivec4(4 * i) + ivec4(0, 1, 2, 3), ivec4(X_columns)));
    there *= vec4(greaterThan(x, vec4(${READ_AS_INFINITE.toExponential()})));
    sum += there * exp(max(x - most, -100.0));
  }
  return vec4(most, dot(sum, vec4(1.0)), 0.0, 0.0);`,
};

export const SOFTMAX: Kernel = {
  inputs: ["X", "S"],
  compute: `  vec4 x = X(row, texel);
  vec4 sums = S(row, 0);
  vec4 there = vec4(greaterThan(x, vec4(${READ_AS_INFINITE.toExponential()})));
  return there * exp(max(x - sums.x, -100.0)) / sums.y;`,
};

/** Rows of the result are (batch, head, query), its columns keys; rows of Q and K are (batch, position, head). */
export const SCORES: Kernel = {
  inputs: ["Q", "K"],
  head: "uniform int positions, heads;\nuniform float factor;",
  compute: `  int query = row % positions;
  int head = (row / positions) % heads;
  int batch = row / (positions * heads);
  int left = (batch * positions + query) * heads + head;
  vec4 value = vec4(${MASKED.toExponential()});
  for (int lane = 0; lane < 4; lane++) {
    int key = 4 * texel + lane;
    if (key > query) break;
    int right = (batch * positions + key) * heads + head;
    float sum = 0.0;
    for (int i = 0; i < Q_texels; i++) sum += dot(Q(left, i), K(right, i));
    value[lane] = sum * factor;
  }
  return value;`,
};

export const MIX: Kernel = {
  inputs: ["P", "V"],
  head: "uniform int positions, heads;",
  compute: `  int head = row % heads;
  int query = (row / heads) % positions;
  int batch = row / (positions * heads);
  int weights = (batch * heads + head) * positions + query;
  vec4 sum = vec4(0.0);
  for (int key = 0; key < positions; key++) {
    sum += P(weights, key >> 2)[key & 3] * V((batch * positions + key) * heads + head, texel);
  }
  return sum;`,
};

export const MATMUL: Kernel = {
  inputs: ["A", "B"],
  head: "uniform int rows, depth;",
  compute: `  int batch = row / rows;
  vec4 sum = vec4(0.0);
  for (int k = 0; k < depth; k++) sum += A(row, k >> 2)[k & 3] * B(batch * depth + k, texel);
  return sum;`,
};

/** A weight's texel (k + inputs·(n >> 12), n & 4095) holds row k, columns 4n … 4n+3. */
export const FOLD_BITS = 12;
const WEIGHT = `uniform sampler2D W_texture;
uniform int inputs;
vec4 W(int k, int n) { return texelFetch(W_texture, ivec2(k + inputs * (n >> ${FOLD_BITS}), n & ${2 ** FOLD_BITS - 1}), 0); }
`;

export const COLUMNS: Kernel = {
  inputs: ["I"],
  head: WEIGHT,
  compute: `  int id = int(I_at(row) + 0.5);
  vec4 value = vec4(0.0);
  for (int lane = 0; lane < 4; lane++) {
    int k = 4 * texel + lane;
    if (k < inputs) value[lane] = W(k, id >> 2)[id & 3];
  }
  return value;`,
};

const withBias = (hasBias: boolean) => (hasBias ? " + Y(0, texel)" : "");

/** One row by four columns a fragment. Past the last input x is 0 and W some other weight or 0. The result is folded, so one row fills a square. */
const narrow = (hasBias: boolean): Kernel => ({
  inputs: hasBias ? ["X", "Y"] : ["X"],
  head: WEIGHT,
  compute: `  vec4 sum = vec4(0.0);
  for (int k = 0; k < inputs; k += 4) {
    vec4 x = X(row, k >> 2);
    sum += x.x * W(k, texel) + x.y * W(k + 1, texel) + x.z * W(k + 2, texel) + x.w * W(k + 3, texel);
  }
  return sum${withBias(hasBias)};`,
});

/** Puts the blocks of `blockSource` into rows, and adds the bias. */
const assemble = (hasBias: boolean, blockTexels: number): Kernel => ({
  inputs: hasBias ? ["Y"] : [],
  head: "uniform sampler2DArray blocks;\nuniform int blocks_shift, blocksPerRow;",
  compute: `  int block = (row >> 2) * blocksPerRow + texel / ${blockTexels};
  ivec2 place = ivec2(block & ((1 << blocks_shift) - 1), block >> blocks_shift);
  return texelFetch(blocks, ivec3(place, (row & 3) * ${blockTexels} + texel % ${blockTexels}), 0)${withBias(hasBias)};`,
});

export const NARROW = { bare: narrow(false), biased: narrow(true) };
export const ASSEMBLE = {
  1: { bare: assemble(false, 1), biased: assemble(true, 1) },
  2: { bare: assemble(false, 2), biased: assemble(true, 2) },
};

/** Four rows by `blockTexels`·4 columns a fragment, each texel in a draw buffer of its own: four products per fetch. */
export function blockSource(blockTexels: 1 | 2): string {
  const rows = [0, 1, 2, 3];
  const texels = Array.from({ length: blockTexels }, (_, i) => i);
  const each = (make: (row: number, texel: number) => string) =>
    rows.flatMap((row) => texels.map((texel) => make(row, texel))).join("\n");
  return `${PRECISION}
${inputOf("X")}
${WEIGHT}
uniform int out_shift, blocksPerRow, rows;
${each((row, texel) => `layout(location = ${row * blockTexels + texel}) out vec4 result${row}${texel};`)}
void main() {
  int block = (int(gl_FragCoord.y) << out_shift) + int(gl_FragCoord.x);
  int first = (block / blocksPerRow) * 4;
  int n = (block % blocksPerRow) * ${blockTexels};
  ${rows.map((row) => `int row${row} = min(first + ${row}, rows - 1);`).join(" ")}
  ${each((row, texel) => `vec4 sum${row}${texel} = vec4(0.0);`)}
  for (int k = 0; k < inputs; k += 4) {
    ${rows.map((row) => `vec4 x${row} = X(row${row}, k >> 2);`).join(" ")}
    ${texels
      .map(
        (texel) => `{
      vec4 a = W(k, n + ${texel}), b = W(k + 1, n + ${texel}), c = W(k + 2, n + ${texel}), d = W(k + 3, n + ${texel});
      ${rows.map((row) => `sum${row}${texel} += x${row}.x * a + x${row}.y * b + x${row}.z * c + x${row}.w * d;`).join(" ")}
    }`,
      )
      .join("\n")}
  }
  ${each((row, texel) => `result${row}${texel} = sum${row}${texel};`)}
}`;
}
