// The slow reference: every kernel of the forward pass as its formula, in plain JavaScript, sums in float64.
// It is here for good: the fast backends are compared with it, and it runs where there is no WebAssembly.

import type { Activation, Matrix, Storage, Value } from "../engine/backend.ts";
import { lastOf } from "../engine/shape.ts";
import type { Shape } from "../protocol.ts";
import { ArrayBackend } from "./array_backend.ts";

interface PlainStorage extends Storage {
  readonly numbers: Float32Array;
}

interface PlainMatrix extends Matrix {
  /** row-major [inputs, outputs] */
  readonly numbers: Float32Array;
}

export class ReferenceBackend extends ArrayBackend {
  readonly name = "reference";

  protected room(bytes: number): Storage {
    return { numbers: new Float32Array(bytes / 4), bytes, references: 1 } as PlainStorage;
  }

  protected view(value: Value): Float32Array {
    return (value.storage as PlainStorage).numbers;
  }

  /** Nothing to do: the collector sees these bytes. */
  protected free(): void {}

  matrix(numbers: Float32Array, inputs: number, outputs: number, transposed: boolean): Matrix {
    let own = numbers;
    if (transposed) {
      own = new Float32Array(numbers.length);
      for (let o = 0; o < outputs; o++) {
        for (let i = 0; i < inputs; i++) own[i * outputs + o] = numbers[o * inputs + i];
      }
    }
    this.bytes += own.byteLength;
    return { inputs, outputs, bytes: own.byteLength, numbers: own } as PlainMatrix;
  }

  releaseMatrix(matrix: Matrix): void {
    this.bytes -= matrix.bytes;
  }

  columns(table: Matrix, ids: Int32Array, lead: Shape): Value {
    const { numbers, inputs, outputs } = table as PlainMatrix;
    const result = this.allocate([...lead, inputs]);
    const to = this.view(result);
    ids.forEach((id, row) => {
      for (let i = 0; i < inputs; i++) to[row * inputs + i] = numbers[i * outputs + id];
    });
    return result;
  }

  product(x: Value, matrix: Matrix, bias: Value | null): Value {
    const { numbers, inputs, outputs } = matrix as PlainMatrix;
    const result = this.allocate([...x.shape.slice(0, -1), outputs]);
    const from = this.view(x);
    const to = this.view(result);
    const offset = bias === null ? new Float32Array(outputs) : this.view(bias);
    const sums = new Float64Array(outputs);
    for (let row = 0; row < from.length / inputs; row++) {
      sums.set(offset);
      for (let i = 0; i < inputs; i++) {
        const factor = from[row * inputs + i];
        for (let o = 0; o < outputs; o++) sums[o] += factor * numbers[i * outputs + o];
      }
      to.set(sums, row * outputs);
    }
    return result;
  }

  normScale(x: Value, epsilon: number): Value {
    const width = lastOf(x.shape);
    const result = this.allocate([...x.shape.slice(0, -1), 1]);
    const from = this.view(x);
    const to = this.view(result);
    for (let row = 0; row < to.length; row++) {
      const mean = rowMean(from, row * width, width);
      let squares = 0;
      for (let i = 0; i < width; i++) squares += (from[row * width + i] - mean) ** 2;
      to[row] = Math.sqrt(squares / width + epsilon);
    }
    return result;
  }

  normalize(x: Value, scale: Value): Value {
    const width = lastOf(x.shape);
    const result = this.allocate(x.shape);
    const [from, scales, to] = [this.view(x), this.view(scale), this.view(result)];
    for (let row = 0; row < scales.length; row++) {
      const mean = rowMean(from, row * width, width);
      for (let i = row * width; i < (row + 1) * width; i++) to[i] = (from[i] - mean) / scales[row];
    }
    return result;
  }

  affine(x: Value, weight: Value, bias: Value): Value {
    const width = lastOf(x.shape);
    const result = this.allocate(x.shape);
    const [from, w, b, to] = [this.view(x), this.view(weight), this.view(bias), this.view(result)];
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

  scores(q: Value, k: Value, factor: number): Value {
    const [batches, positions, heads, width] = q.shape;
    const result = this.allocate([batches, heads, positions, positions]);
    const [queries, keys, to] = [this.view(q), this.view(k), this.view(result)];
    for (let b = 0; b < batches; b++) {
      for (let h = 0; h < heads; h++) {
        for (let query = 0; query < positions; query++) {
          for (let key = 0; key < positions; key++) {
            let sum = 0;
            for (let i = 0; i < width; i++) {
              sum +=
                queries[((b * positions + query) * heads + h) * width + i] *
                keys[((b * positions + key) * heads + h) * width + i];
            }
            to[((b * heads + h) * positions + query) * positions + key] = this.visible(query, key)
              ? sum * factor
              : -Infinity;
          }
        }
      }
    }
    return result;
  }

  /** The causal mask. */
  protected visible(query: number, key: number): boolean {
    return key <= query;
  }

  softmax(x: Value): Value {
    const width = lastOf(x.shape);
    const result = this.allocate(x.shape);
    const from = this.view(x);
    const to = this.view(result);
    const powers = new Float64Array(width);
    for (let start = 0; start < to.length; start += width) {
      let max = -Infinity;
      for (let i = 0; i < width; i++) max = Math.max(max, from[start + i]);
      let sum = 0;
      for (let i = 0; i < width; i++) sum += powers[i] = Math.exp(from[start + i] - max);
      for (let i = 0; i < width; i++) to[start + i] = powers[i] / sum;
    }
    return result;
  }

  mix(pattern: Value, v: Value): Value {
    const [batches, positions, heads, width] = v.shape;
    const result = this.allocate(v.shape);
    const [weights, values, to] = [this.view(pattern), this.view(v), this.view(result)];
    for (let b = 0; b < batches; b++) {
      for (let h = 0; h < heads; h++) {
        for (let query = 0; query < positions; query++) {
          for (let i = 0; i < width; i++) {
            let sum = 0;
            for (let key = 0; key < positions; key++) {
              sum +=
                weights[((b * heads + h) * positions + query) * positions + key] *
                values[((b * positions + key) * heads + h) * width + i];
            }
            to[((b * positions + query) * heads + h) * width + i] = sum;
          }
        }
      }
    }
    return result;
  }
}

function rowMean(numbers: Float32Array, start: number, width: number): number {
  let sum = 0;
  for (let i = 0; i < width; i++) sum += numbers[start + i];
  return sum / width;
}

export const ACTIVATIONS: Record<Activation, (x: number) => number> = {
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  geluErf: (x) => 0.5 * x * (1 + errorFunction(x / Math.SQRT2)),
  relu: (x) => Math.max(0, x),
};

/**
 * erf, to about 1e-12: its Taylor series near 0, the continued fraction of erfc (Lentz) further out.
 * Source: Abramowitz and Stegun 7.1.6 and 7.1.14.
 */
export function errorFunction(x: number): number {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (size + fraction);
  return Math.sign(x) * (1 - Math.exp(-size * size) / (Math.sqrt(Math.PI) * (size + fraction)));
}
