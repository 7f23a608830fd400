// Fragment shaders that make each number from the numbers at its place: activations, arithmetic, broadcasting,
// slices, and reductions along one axis.

import type { Activation } from "../engine/backend.ts";
import type { BinaryOperation, Reduction, UnaryOperation } from "../protocol.ts";
import { eachElement, type Kernel, RANK } from "./shaders.ts";

/** The index of an element of the result, as its place in a broadcast or permuted input. */
function placesOf(names: readonly string[]): string {
  const placeOf = (name: string) => `uniform int ${name}_strides[${RANK}], ${name}_offset;
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
  return `uniform int extents[${RANK}];\n${names.map(placeOf).join("")}`;
}

const mapped = (expression: string, head = ""): Kernel => ({
  inputs: ["X"],
  head,
  compute: `  vec4 x = X(row, texel);\n  return ${expression};`,
});

/** tanh's argument is clamped: beyond about 13 some drivers answer NaN. */
export const TANH = `vec4 safeTanh(vec4 x) { return tanh(clamp(x, -15.0, 15.0)); }\n`;

/** x / (1 + exp(−x)), whose exponential must not overflow. */
const SIGMOID = `vec4 sigmoid(vec4 x) { return 1.0 / (1.0 + exp(clamp(-x, -80.0, 80.0))); }\n`;

/** x is clamped before it is cubed, which could overflow; beyond 100 the tanh is 1 anyway. */
const GELU_TANH = `${TANH}
vec4 tanhTerm(vec4 y) { return safeTanh(0.7978845608028654 * (y + 0.044715 * y * y * y)); }
vec4 gelu(vec4 x) { return 0.5 * x * (1.0 + tanhTerm(clamp(x, -100.0, 100.0))); }
vec4 slope(vec4 x) {
  vec4 y = clamp(x, -100.0, 100.0);
  vec4 t = tanhTerm(y);
  return 0.5 * (1.0 + t) + 0.5 * y * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * y * y);
}
`;

/** erf with an absolute error below 1.5e-7. Source: Abramowitz and Stegun 7.1.26. */
const GELU_ERF = `vec4 normalBelow(vec4 x) {
  vec4 z = min(abs(x) * 0.7071067811865476, 9.0);
  vec4 t = 1.0 / (1.0 + 0.3275911 * z);
  vec4 p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return 0.5 * (1.0 + sign(x) * (1.0 - p * exp(-z * z)));
}
vec4 gelu(vec4 x) { return x * normalBelow(x); }
vec4 slope(vec4 x) {
  vec4 y = clamp(x, -13.0, 13.0);
  return normalBelow(x) + y * exp(-0.5 * y * y) * 0.3989422804014327;
}
`;

const SILU = `${SIGMOID}
vec4 slope(vec4 x) {
  vec4 s = sigmoid(x);
  return s * (1.0 + clamp(x, -80.0, 80.0) * (1.0 - s));
}
`;

const RELU = "vec4 slope(vec4 x) { return vec4(greaterThan(x, vec4(0.0))); }\n";

export const ACTIVATIONS: Record<Activation, Kernel> = {
  geluTanh: mapped("gelu(x)", GELU_TANH),
  geluErf: mapped("gelu(x)", GELU_ERF),
  relu: mapped("max(x, 0.0)"),
  silu: mapped("x * sigmoid(x)", SIGMOID),
};

const sloped = (head: string): Kernel => ({
  inputs: ["X", "G"],
  head,
  compute: "  return G(row, texel) * slope(X(row, texel));",
});

export const ACTIVATION_GRADIENTS: Record<Activation, Kernel> = {
  geluTanh: sloped(GELU_TANH),
  geluErf: sloped(GELU_ERF),
  relu: sloped(RELU),
  silu: sloped(SILU),
};

export const UNARY: Record<UnaryOperation, Kernel> = {
  negate: mapped("-x"),
  exp: mapped("exp(x)"),
  log: mapped("log(x)"),
  sqrt: mapped("sqrt(x)"),
  tanh: mapped("safeTanh(x)", TANH),
  absolute: mapped("abs(x)"),
  square: mapped("x * x"),
};

const OPERATORS: Record<BinaryOperation, string> = {
  add: "a + b",
  subtract: "a - b",
  multiply: "a * b",
  divide: "a / b",
  minimum: "min(a, b)",
  maximum: "max(a, b)",
};

const kernelsOf = (make: (expression: string) => Kernel) =>
  Object.fromEntries(Object.entries(OPERATORS).map(([name, expression]) => [name, make(expression)])) as Record<
    BinaryOperation,
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

/**
 * The element of X that a strided view puts at a place, else 0. `extents` and `strides` are the view's, the largest
 * stride first, so that division finds the only index that leads to a place.
 */
export const STRIDED_TRANSPOSED: Kernel = {
  inputs: ["X"],
  head: `uniform int extents[${RANK}], strides[${RANK}], own[${RANK}], X_offset;\n`,
  compute: eachElement(`int rest = element - X_offset;
    int place = 0;
    bool isThere = rest >= 0;
    for (int axis = 0; axis < ${RANK}; axis++) {
      int index = rest / strides[axis];
      isThere = isThere && index < extents[axis];
      place += index * own[axis];
      rest -= index * strides[axis];
    }
    value[lane] = 0.0;
    if (isThere && rest == 0) value[lane] = X_at(place);`),
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

/** The same with whole rows of texels, along any axis but the last. */
export const TAKE_ROWS: Kernel = {
  inputs: ["X", "I"],
  head: "uniform int extent, taken, inner;",
  compute: `  int outer = row / (taken * inner);
  int rest = row - outer * taken * inner;
  int place = int(I_at(rest / inner) + 0.5);
  return X((outer * extent + place) * inner + rest % inner, texel);`,
};

export const TAKE_TRANSPOSED: Kernel = {
  inputs: ["X", "I"],
  head: "uniform int extent, taken, inner;",
  compute: eachElement(`int outer = element / (extent * inner);
    int rest = element - outer * extent * inner;
    int place = rest / inner;
    value[lane] = 0.0;
    for (int i = 0; i < taken; i++) {
      if (int(I_at(i) + 0.5) == place) value[lane] += X_at((outer * taken + i) * inner + rest % inner);
    }`),
};

/** The result has `parts` places where X has `extent`; each is made from `chunk` of them. */
const reduction = (start: string, step: string): Kernel => ({
  inputs: ["X"],
  head: "uniform int extent, inner, parts, chunk;\nuniform float divisor;",
  compute: eachElement(`int line = element / inner;
    int begin = (line % parts) * chunk;
    int end = min(begin + chunk, extent);
    int first = (line / parts) * extent * inner + element % inner;
    float best = X_at(first + begin * inner);
    float most = ${start};
    for (int i = begin; i < end; i++) {
      float x = X_at(first + i * inner);
      ${step}
    }
    value[lane] = most / divisor;`),
});

export const REDUCE: Record<Reduction, Kernel> = {
  sum: reduction("0.0", "most += x;"),
  mean: reduction("0.0", "most += x;"),
  max: reduction("best", "most = max(most, x);"),
  min: reduction("best", "most = min(most, x);"),
  argmax: reduction("float(begin)", "if (x > best) { best = x; most = float(i); }"),
};

/** Of the places that the parts of an axis chose, the one with the largest number. */
export const ARGMAX_OF_PARTS: Kernel = {
  inputs: ["X", "I"],
  head: "uniform int extent, inner, parts;",
  compute: eachElement(`int outer = element / inner;
    int column = element % inner;
    float most = I_at(outer * parts * inner + column);
    float best = X_at((outer * extent + int(most + 0.5)) * inner + column);
    for (int part = 1; part < parts; part++) {
      float there = I_at((outer * parts + part) * inner + column);
      float x = X_at((outer * extent + int(there + 0.5)) * inner + column);
      if (x > best) { best = x; most = there; }
    }
    value[lane] = most;`),
};

export const MATMUL: Kernel = {
  inputs: ["A", "B"],
  head: "uniform int rows, depth;",
  compute: `  int batch = row / rows;
  int first = batch * depth;
  vec4 sum = vec4(0.0);
  for (int k = 0; k < depth; k += 4) {
    vec4 a = A(row, k >> 2);
    for (int lane = 0; lane < min(4, depth - k); lane++) sum += a[lane] * B(first + k + lane, texel);
  }
  return sum;`,
};
