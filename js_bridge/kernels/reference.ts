// The slow reference: every kernel as its formula, in plain JavaScript, sums in float64.
// It is here for good: the fast backends are compared with it, and it runs where there is no WebAssembly.

import type { Matrix, MatrixLayout, MatrixWriter, Storage, Value } from "../engine/backend.ts";
import type { Shape } from "../protocol.ts";
import { ArrayKernels } from "./array_kernels.ts";

interface PlainStorage extends Storage {
  readonly numbers: Float32Array;
}

interface PlainMatrix extends Matrix {
  /** row-major [inputs, outputs] */
  readonly numbers: Float32Array;
}

export class ReferenceBackend extends ArrayKernels {
  readonly name = "reference";

  protected room(bytes: number): Storage {
    return { numbers: new Float32Array(bytes / 4), bytes, references: 1 } as PlainStorage;
  }

  protected view(value: Value): Float32Array {
    return (value.storage as PlainStorage).numbers;
  }

  /** Nothing to do: the collector sees these bytes. */
  protected free(): void {}

  startMatrix({ inputs, outputs, transposed, scales }: MatrixLayout): MatrixWriter {
    const numbers = new Float32Array(inputs * outputs);
    let written = 0;
    return {
      write: (rows) => {
        for (const x of rows) {
          const [i, o] = transposed
            ? [written % inputs, Math.floor(written / inputs)]
            : [Math.floor(written / outputs), written % outputs];
          numbers[i * outputs + o] = scales === null ? x : x * scales[o];
          written++;
        }
      },
      finish: () => {
        this.bytes += numbers.byteLength;
        return { inputs, outputs, bytes: numbers.byteLength, numbers } as PlainMatrix;
      },
      abandon: () => undefined,
    };
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

  productTransposed(y: Value, matrix: Matrix): Value {
    const { numbers, inputs, outputs } = matrix as PlainMatrix;
    const result = this.allocate([...y.shape.slice(0, -1), inputs]);
    const [from, to] = [this.view(y), this.view(result)];
    for (let row = 0; row < from.length / outputs; row++) {
      for (let i = 0; i < inputs; i++) {
        let sum = 0;
        for (let o = 0; o < outputs; o++) sum += from[row * outputs + o] * numbers[i * outputs + o];
        to[row * inputs + i] = sum;
      }
    }
    return result;
  }
}
