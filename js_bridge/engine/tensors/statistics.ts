// What is said of a tensor without showing its numbers, and its largest entries. Sums in float64.

export interface Statistics {
  readonly elements: number;
  readonly nonFinite: number;
  readonly mean: number | null;
  readonly standardDeviation: number | null;
  readonly norm: number | null;
  readonly min: number | null;
  readonly max: number | null;
}

/** Over the finite numbers; the deviation is the population's, in two passes so that a large mean costs no digits. */
export function statisticsOf(numbers: Float32Array): Statistics {
  let finite = 0;
  let sum = 0;
  let squares = 0;
  let min = Infinity;
  let max = -Infinity;
  for (const x of numbers) {
    if (!Number.isFinite(x)) continue;
    finite++;
    sum += x;
    squares += x * x;
    if (x < min) min = x;
    if (x > max) max = x;
  }
  const nonFinite = numbers.length - finite;
  if (finite === 0)
    return {
      elements: numbers.length,
      nonFinite,
      mean: null,
      standardDeviation: null,
      norm: null,
      min: null,
      max: null,
    };
  const mean = sum / finite;
  let deviations = 0;
  for (const x of numbers) if (Number.isFinite(x)) deviations += (x - mean) ** 2;
  return {
    elements: numbers.length,
    nonFinite,
    mean,
    standardDeviation: Math.sqrt(deviations / finite),
    norm: Math.sqrt(squares),
    min,
    max,
  };
}

/** The k largest of each row, largest first, equal ones by index; NaN comes last. Both results [rows k]. */
export function topOf(
  numbers: Float32Array,
  width: number,
  k: number,
): { values: Float32Array; indices: Float32Array } {
  const rows = numbers.length / width;
  const values = new Float32Array(rows * k);
  const indices = new Float32Array(rows * k);
  const order = new Int32Array(k);
  for (let row = 0; row < rows; row++) {
    const at = (index: number) =>
      Number.isNaN(numbers[row * width + index]) ? -Infinity : numbers[row * width + index];
    let filled = 0;
    for (let index = 0; index < width; index++) {
      if (filled === k && at(order[k - 1]) >= at(index)) continue;
      let place = filled < k ? filled++ : k - 1;
      for (; place > 0 && at(order[place - 1]) < at(index); place--) order[place] = order[place - 1];
      order[place] = index;
    }
    for (let i = 0; i < k; i++) {
      values[row * k + i] = numbers[row * width + order[i]];
      indices[row * k + i] = order[i];
    }
  }
  return { values, indices };
}
