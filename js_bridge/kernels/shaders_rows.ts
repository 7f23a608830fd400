// Fragment shaders over whole rows: norms and softmax, each in two draws: what a row has in common, then its numbers.
//
// The fused norm and its parts give the same bits because they run the same programs: one makes mean and scale for
// both, and `normalize` and `affine` compute with the expressions that `norm` joins.

import { INFINITE_TEXT, type Kernel } from "./shaders.ts";

const LANES = "ivec4(0, 1, 2, 3)";

/**
 * (mean, scale) of each row; `wanted` 0 leaves (scale), 1 (mean), 2 both.
 * Numbers beyond a row's last column are 0, so the sum may run over whole texels.
 */
export const ROW_STATISTICS: Kernel = {
  inputs: ["X"],
  head: "uniform int wanted, centred;\nuniform float epsilon;",
  compute: `  float mean = 0.0;
  if (centred == 1) {
    vec4 sum = vec4(0.0);
    for (int i = 0; i < X_texels; i++) sum += X(row, i);
    mean = dot(sum, vec4(1.0)) / float(X_columns);
  }
  if (wanted == 1) return vec4(mean);
  vec4 sum = vec4(0.0);
  for (int i = 0; i < X_texels; i++) {
    vec4 d = X(row, i) - mean;
    if (4 * i + 4 > X_columns) d *= vec4(lessThan(ivec4(4 * i) + ${LANES}, ivec4(X_columns)));
    sum += d * d;
  }
  float scale = sqrt(dot(sum, vec4(1.0)) / float(X_columns) + epsilon);
  return wanted == 0 ? vec4(scale) : vec4(mean, scale, 0.0, 0.0);`,
};

export const NORMALIZE: Kernel = {
  inputs: ["X", "M", "S"],
  compute: "  return (X(row, texel) - M(row, 0).x) / S(row, 0).x;",
};

/** Of rows that are not centred. */
export const DIVIDE_ROWS: Kernel = {
  inputs: ["X", "S"],
  compute: "  return X(row, texel) / S(row, 0).x;",
};

/** What ROW_STATISTICS leaves. */
export const WANTED = { scale: 0, mean: 1, both: 2 };

export type Terms = "both" | "weight" | "bias";

const AFTERWARDS = {
  both: { inputs: ["W", "B"], expression: "x * W(0, texel) + B(0, texel)" },
  weight: { inputs: ["W"], expression: "x * W(0, texel)" },
  bias: { inputs: ["B"], expression: "x + B(0, texel)" },
  none: { inputs: [], expression: "x" },
};

function byTerms(inputs: readonly string[], statements: string): Record<Terms | "none", Kernel> {
  const kernel = (terms: Terms | "none"): Kernel => ({
    inputs: [...inputs, ...AFTERWARDS[terms].inputs],
    compute: `  ${statements}\n  return ${AFTERWARDS[terms].expression};`,
  });
  return { both: kernel("both"), weight: kernel("weight"), bias: kernel("bias"), none: kernel("none") };
}

export const AFFINE = byTerms(["X"], "vec4 x = X(row, texel);");

/** `S` is ROW_STATISTICS' mean and scale. */
export const NORM = byTerms(["X", "S"], "vec4 s = S(row, 0);\n  vec4 x = (X(row, texel) - s.x) / s.y;");
export const NORM_DIVIDED = byTerms(["X", "S"], "vec4 x = X(row, texel) / S(row, 0).x;");

/** The row's greatest number, and the sum of exponentials below it; two columns. With a sink, one more of each head. */
const sums = (hasSinks: boolean): Kernel => ({
  inputs: hasSinks ? ["X", "K"] : ["X"],
  head: hasSinks ? "uniform int positions, heads;" : "",
  compute: `  float most = ${hasSinks ? "K_at((row / positions) % heads)" : `2.0 * ${INFINITE_TEXT}`};
  float sink = most;
  for (int i = 0; i < X_texels; i++) {
    vec4 x = X(row, i);
    int left = X_columns - 4 * i;
    most = max(most, x.x);
    if (left > 1) most = max(most, x.y);
    if (left > 2) most = max(most, x.z);
    if (left > 3) most = max(most, x.w);
  }
  vec4 sum = vec4(0.0);
  for (int i = 0; i < X_texels; i++) {
    vec4 x = X(row, i);
    vec4 powers = exp(max(x - most, -100.0));
    if (4 * i + 4 > X_columns) powers *= vec4(lessThan(ivec4(4 * i) + ${LANES}, ivec4(X_columns)));
    sum += mix(powers, vec4(0.0), lessThan(x, vec4(${INFINITE_TEXT})));
  }
  float total = dot(sum, vec4(1.0));
  ${hasSinks ? `if (sink > ${INFINITE_TEXT}) total += exp(max(sink - most, -100.0));` : ""}
  return vec4(most, total, 0.0, 0.0);`,
});

export const SOFTMAX_SUMS = { plain: sums(false), sinks: sums(true) };

/** A row that is all −∞ gives 0. */
export const SOFTMAX: Kernel = {
  inputs: ["X", "S"],
  compute: `  vec4 x = X(row, texel);
  vec2 s = S(row, 0).xy;
  if (s.x < ${INFINITE_TEXT}) return vec4(0.0);
  return mix(exp(max(x - s.x, -100.0)) / s.y, vec4(0.0), lessThan(x, vec4(${INFINITE_TEXT})));`,
};
