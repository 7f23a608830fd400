// Fragment shaders of attention. Rows of queries, and of what mix makes, are (batch, position, head), rows of keys and
// values (batch, key position, key-value head), rows of scores and patterns (batch, head, query), their columns keys.
// Masks are branches: what lies at a hidden key may be NaN.

import { type Kernel, MASKED_TEXT } from "./shaders.ts";
import { TANH } from "./shaders_elements.ts";

const EXTENTS = "uniform int positions, keyPositions, heads, keyHeads;\n";

/** Query `query` sees the keys from `firstKey` up to `query + offset`; T holds the batch rows' first keys. */
const REACH = `uniform int offset, window, hasStarts;
int firstKey(int batch, int query) {
  int first = hasStarts == 1 ? int(T_at(batch) + 0.5) : 0;
  return window > 0 ? max(first, offset + query - window + 1) : first;
}
`;

const scores = (isMasked: boolean): Kernel => ({
  inputs: isMasked ? ["Q", "K", "T"] : ["Q", "K"],
  head: `${EXTENTS}uniform float factor, softCap;\n${isMasked ? REACH : ""}${TANH}`,
  compute: `  int query = row % positions;
  int head = (row / positions) % heads;
  int batch = row / (positions * heads);
  int key = 4 * texel;
  int first = ${isMasked ? "firstKey(batch, query)" : "0"};
  int last = ${isMasked ? "min(offset + query, keyPositions - 1)" : "keyPositions - 1"};
  if (key > last || key + 3 < first) return vec4(${MASKED_TEXT});
  int left = (batch * positions + query) * heads + head;
  ivec4 keys = min(ivec4(key) + ivec4(0, 1, 2, 3), ivec4(keyPositions - 1));
  ivec4 rows = (batch * keyPositions + keys) * keyHeads + (head * keyHeads) / heads;
  vec4 sum = vec4(0.0);
  for (int i = 0; i < Q_texels; i++) {
    vec4 q = Q(left, i);
    sum += vec4(dot(q, K(rows.x, i)), dot(q, K(rows.y, i)), dot(q, K(rows.z, i)), dot(q, K(rows.w, i)));
  }
  sum *= factor;
  if (softCap > 0.0) sum = softCap * safeTanh(sum / softCap);
  bvec4 hidden = bvec4(key < first, key + 1 < first || key + 1 > last, key + 2 < first || key + 2 > last, key + 3 > last);
  return mix(sum, vec4(${MASKED_TEXT}), hidden);`,
});

export const SCORES = { plain: scores(false), masked: scores(true) };

const mixed = (isMasked: boolean): Kernel => ({
  inputs: isMasked ? ["P", "V", "T"] : ["P", "V"],
  head: `${EXTENTS}${isMasked ? REACH : ""}`,
  compute: `  int head = row % heads;
  int query = (row / heads) % positions;
  int batch = row / (positions * heads);
  int weights = (batch * heads + head) * positions + query;
  int values = batch * keyPositions * keyHeads + (head * keyHeads) / heads;
  int first = ${isMasked ? "firstKey(batch, query)" : "0"};
  int last = ${isMasked ? "min(offset + query, keyPositions - 1)" : "keyPositions - 1"};
  vec4 sum = vec4(0.0);
  for (int i = first >> 2; 4 * i <= last; i++) {
    vec4 p = P(weights, i);
    int key = 4 * i;
    if (p.x != 0.0 && key >= first) sum += p.x * V(values + key * keyHeads, texel);
    if (p.y != 0.0 && key + 1 >= first && key + 1 <= last) sum += p.y * V(values + (key + 1) * keyHeads, texel);
    if (p.z != 0.0 && key + 2 >= first && key + 2 <= last) sum += p.z * V(values + (key + 2) * keyHeads, texel);
    if (p.w != 0.0 && key + 3 <= last) sum += p.w * V(values + (key + 3) * keyHeads, texel);
  }
  return sum;`,
});

export const MIX = { plain: mixed(false), masked: mixed(true) };

export const MIX_TRANSPOSED: Kernel = {
  inputs: ["P", "X"],
  head: EXTENTS,
  compute: `  int keyHead = row % keyHeads;
  int key = (row / keyHeads) % keyPositions;
  int batch = row / (keyPositions * keyHeads);
  vec4 sum = vec4(0.0);
  for (int head = 0; head < heads; head++) {
    if ((head * keyHeads) / heads != keyHead) continue;
    for (int query = 0; query < positions; query++) {
      float p = P((batch * heads + head) * positions + query, key >> 2)[key & 3];
      if (p != 0.0) sum += p * X((batch * positions + query) * heads + head, texel);
    }
  }
  return sum;`,
};

/** Pairs (i, i + turned) of each head, where `turned` is half of what is turned; C and S have a row per position. */
export const ROTATE: Kernel = {
  inputs: ["X", "C", "S"],
  head: "uniform int heads, turned;",
  compute: `  vec4 x = X(row, texel);
  int angles = row / heads;
  for (int lane = 0; lane < 4; lane++) {
    int i = 4 * texel + lane;
    if (i >= 2 * turned) break;
    bool isFirst = i < turned;
    int other = isFirst ? i + turned : i - turned;
    int angle = isFirst ? i : other;
    float c = C(angles, angle >> 2)[angle & 3];
    float s = S(angles, angle >> 2)[angle & 3];
    float partner = X(row, other >> 2)[other & 3];
    x[lane] = isFirst ? x[lane] * c - partner * s : x[lane] * c + partner * s;
  }
  return x;`,
};

/** The first `count` positions of A, then those of B; `heads` rows each. */
export const EXTEND: Kernel = {
  inputs: ["A", "B"],
  head: "uniform int count, positions, before, heads;",
  compute: `  int head = row % heads;
  int position = (row / heads) % (count + positions);
  int batch = row / (heads * (count + positions));
  if (position < count) return A((batch * before + position) * heads + head, texel);
  return B((batch * positions + position - count) * heads + head, texel);`,
};

/** B behind what a texture already holds, which is left alone. */
export const APPEND: Kernel = {
  inputs: ["B"],
  head: "uniform int firstRow, rows;",
  compute: `  if (row < firstRow || row >= firstRow + rows) discard;
  return B(row - firstRow, texel);`,
};
