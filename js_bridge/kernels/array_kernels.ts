// The decoder's kernels that touch no weights, as their formulas over flat Float32Arrays: what `reference` runs, and
// what the fast backends are compared with. Sums are kept in float64.

import type { Activation, Reach, ScoreOptions, Value } from "../engine/backend.ts";
import { lastOf } from "../engine/tensors/shape.ts";
import { ACTIVATIONS, SLOPES } from "./activations.ts";
import { ArrayBackend } from "./array_backend.ts";

export abstract class ArrayKernels extends ArrayBackend {
  normScale(x: Value, epsilon: number, centred: boolean): Value {
    const width = lastOf(x.shape);
    const result = this.allocate([...x.shape.slice(0, -1), 1]);
    const [from, to] = [this.view(x), this.view(result)];
    for (let row = 0; row < to.length; row++) {
      const mean = centred ? rowMean(from, row * width, width) : 0;
      let squares = 0;
      for (let i = 0; i < width; i++) squares += (from[row * width + i] - mean) ** 2;
      to[row] = Math.sqrt(squares / width + epsilon);
    }
    return result;
  }

  normalize(x: Value, scale: Value, centred: boolean): Value {
    const width = lastOf(x.shape);
    const result = this.allocate(x.shape);
    const [from, scales, to] = [this.view(x), this.view(scale), this.view(result)];
    for (let row = 0; row < scales.length; row++) {
      const mean = centred ? rowMean(from, row * width, width) : 0;
      for (let i = row * width; i < (row + 1) * width; i++) to[i] = (from[i] - mean) / scales[row];
    }
    return result;
  }

  affine(x: Value, weight: Value | null, bias: Value | null): Value {
    const width = lastOf(x.shape);
    const result = this.allocate(x.shape);
    const [from, to] = [this.view(x), this.view(result)];
    const w = weight === null ? new Float32Array(width).fill(1) : this.view(weight);
    const b = bias === null ? new Float32Array(width) : this.view(bias);
    for (let i = 0; i < to.length; i++) to[i] = from[i] * w[i % width] + b[i % width];
    return result;
  }

  activate(kind: Activation, x: Value): Value {
    const result = this.allocate(x.shape);
    const from = this.view(x);
    const to = this.view(result);
    const apply = ACTIVATIONS[kind];
    for (let i = 0; i < to.length; i++) to[i] = apply(from[i]);
    return result;
  }

  scores(q: Value, k: Value, { factor, softCap, reach }: ScoreOptions): Value {
    const [batches, positions, heads, width] = q.shape;
    const [, keyPositions, keyHeads] = k.shape;
    const result = this.allocate([batches, heads, positions, keyPositions]);
    const [queries, keys, to] = [this.view(q), this.view(k), this.view(result)];
    let at = 0;
    for (let b = 0; b < batches; b++) {
      for (let h = 0; h < heads; h++) {
        const shared = Math.floor((h * keyHeads) / heads);
        for (let query = 0; query < positions; query++) {
          for (let key = 0; key < keyPositions; key++, at++) {
            if (reach !== null && !this.visible(reach, b, query, key)) {
              to[at] = -Infinity;
              continue;
            }
            let sum = 0;
            for (let i = 0; i < width; i++) {
              sum +=
                queries[((b * positions + query) * heads + h) * width + i] *
                keys[((b * keyPositions + key) * keyHeads + shared) * width + i];
            }
            to[at] = softCap === null ? sum * factor : softCap * Math.tanh((sum * factor) / softCap);
          }
        }
      }
    }
    return result;
  }

  protected visible({ offset, window, starts }: Reach, row: number, query: number, key: number): boolean {
    const own = offset + query;
    return key <= own && (window === null || key > own - window) && key >= (starts?.[row] ?? 0);
  }

  softmax(x: Value, sinks: Value | null): Value {
    const width = lastOf(x.shape);
    const result = this.allocate(x.shape);
    const [from, to] = [this.view(x), this.view(result)];
    const sink = sinks === null ? null : this.view(sinks);
    const powers = new Float64Array(width);
    for (let start = 0; start < to.length; start += width) {
      const extra = sink === null ? -Infinity : sink[Math.floor(start / width / x.shape[2]) % sink.length];
      let max = extra;
      for (let i = 0; i < width; i++) max = Math.max(max, from[start + i]);
      if (max === -Infinity) {
        to.fill(0, start, start + width);
        continue;
      }
      let sum = Math.exp(extra - max);
      for (let i = 0; i < width; i++) sum += powers[i] = Math.exp(from[start + i] - max);
      for (let i = 0; i < width; i++) to[start + i] = powers[i] / sum;
    }
    return result;
  }

  mix(pattern: Value, v: Value, reach: Reach | null): Value {
    const [batches, heads, positions, keyPositions] = pattern.shape;
    const [, , keyHeads, width] = v.shape;
    const result = this.allocate([batches, positions, heads, width]);
    const [weights, values, to] = [this.view(pattern), this.view(v), this.view(result)];
    const sums = new Float64Array(width);
    for (let b = 0; b < batches; b++) {
      for (let h = 0; h < heads; h++) {
        const shared = Math.floor((h * keyHeads) / heads);
        for (let query = 0; query < positions; query++) {
          sums.fill(0);
          for (let key = 0; key < keyPositions; key++) {
            const weight = weights[((b * heads + h) * positions + query) * keyPositions + key];
            if (weight === 0 || (reach !== null && !this.visible(reach, b, query, key))) continue;
            const start = ((b * keyPositions + key) * keyHeads + shared) * width;
            for (let i = 0; i < width; i++) sums[i] += weight * values[start + i];
          }
          to.set(sums, ((b * positions + query) * heads + h) * width);
        }
      }
    }
    return result;
  }

  norm(x: Value, weight: Value | null, bias: Value | null, epsilon: number, centred: boolean): Value {
    const scale = this.normScale(x, epsilon, centred);
    const normalized = this.normalize(x, scale, centred);
    const result = this.affine(normalized, weight, bias);
    this.release(scale);
    this.release(normalized);
    return result;
  }

  activateGradient(kind: Activation, x: Value, gradient: Value): Value {
    const result = this.allocate(x.shape);
    const [from, factors, to] = [this.view(x), this.view(gradient), this.view(result)];
    const slope = SLOPES[kind];
    for (let i = 0; i < to.length; i++) to[i] = factors[i] * slope(from[i]);
    return result;
  }

  rotate(x: Value, cosines: Value, sines: Value): Value {
    const [, , heads, width] = x.shape;
    const half = lastOf(cosines.shape);
    const result = this.allocate(x.shape);
    const [from, to] = [this.view(x), this.view(result)];
    const [cos, sin] = [this.view(cosines), this.view(sines)];
    to.set(from);
    for (let row = 0; row < from.length / width; row++) {
      const angles = Math.floor(row / heads) * half;
      for (let i = 0; i < half; i++) {
        const [a, b] = [from[row * width + i], from[row * width + half + i]];
        to[row * width + i] = a * cos[angles + i] - b * sin[angles + i];
        to[row * width + half + i] = b * cos[angles + i] + a * sin[angles + i];
      }
    }
    return result;
  }

  mixTransposed(pattern: Value, x: Value, keyValueHeads: number): Value {
    const [batches, heads, queries, keys] = pattern.shape;
    const width = lastOf(x.shape);
    const result = this.allocate([batches, keys, keyValueHeads, width]);
    const [weights, from, to] = [this.view(pattern), this.view(x), this.view(result)];
    const sums = new Float64Array(to.length);
    for (let b = 0; b < batches; b++) {
      for (let h = 0; h < heads; h++) {
        const shared = Math.floor((h * keyValueHeads) / heads);
        for (let query = 0; query < queries; query++) {
          const source = ((b * queries + query) * heads + h) * width;
          for (let key = 0; key < keys; key++) {
            const factor = weights[((b * heads + h) * queries + query) * keys + key];
            const target = ((b * keys + key) * keyValueHeads + shared) * width;
            if (factor !== 0) for (let i = 0; i < width; i++) sums[target + i] += factor * from[source + i];
          }
        }
      }
    }
    to.set(sums);
    return result;
  }

  extend(before: Value | null, count: number, fresh: Value): Value {
    const [batches, positions, heads, width] = fresh.shape;
    const result = this.allocate([batches, count + positions, heads, width]);
    const to = this.view(result);
    const row = heads * width;
    for (let b = 0; b < batches; b++) {
      const target = b * (count + positions) * row;
      if (before !== null) {
        const source = b * before.shape[1] * row;
        to.set(this.view(before).subarray(source, source + count * row), target);
      }
      const source = b * positions * row;
      to.set(this.view(fresh).subarray(source, source + positions * row), target + count * row);
    }
    return result;
  }
}

function rowMean(numbers: Float32Array, start: number, width: number): number {
  let sum = 0;
  for (let i = 0; i < width; i++) sum += numbers[start + i];
  return sum / width;
}
