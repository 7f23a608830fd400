// Which token comes next: one row of logits to one token. First the temperature, then top-k, then top-p, with Hugging
// Face's meaning of each; the draw goes through the tokens in the order of their ids. Nothing here sorts a vocabulary.

import type { Sampling } from "../../protocol.ts";
import type { Backend, Value } from "../backend.ts";
import { EngineError } from "../errors.ts";
import { Random } from "./random.ts";

export interface Sample {
  readonly token: number;
  /** In the model's own distribution, whatever the filters. */
  readonly logProbability: number;
}

/** Tokens that may come next, by rising id, and their probabilities. */
export interface Candidates {
  readonly tokens: Int32Array;
  readonly probabilities: Float64Array;
}

export class Sampler {
  readonly #sampling: Sampling;
  readonly #random: Random;

  /** Fails: BadParameter. */
  constructor(sampling: Sampling) {
    checkSampling(sampling);
    this.#sampling = sampling;
    this.#random = new Random(sampling.seed ?? 0);
  }

  get isGreedy(): boolean {
    return this.#sampling.temperature === 0;
  }

  /**
   * `sumOfPowers` answers Σ e^(logit − largest), for whom has the logits where that is quicker.
   * Fails: BadParameter where no logit is a number.
   */
  next(logits: Float32Array, sumOfPowers = (largest: number) => sumExponentials(logits, largest)): Sample {
    const best = indexOfLargest(logits);
    const largest = logits[best];
    const token =
      this.isGreedy || largest === Infinity
        ? best
        : draw(candidatesOf(logits, this.#sampling), this.#random.fraction());
    const logOfSum = Number.isFinite(largest) ? largest + Math.log(sumOfPowers(largest)) : largest;
    return { token, logProbability: logits[token] - logOfSum };
  }
}

/** Fails: BadParameter. */
export function checkSampling({ temperature, topK, topP, seed }: Sampling): void {
  const refuse = (text: string): never => {
    throw new EngineError("BadParameter", text);
  };
  if (!Number.isFinite(temperature) || temperature < 0)
    refuse(`temperature ${temperature}: it must be 0 (greedy) or a positive number`);
  if (topK !== undefined && (!Number.isInteger(topK) || topK < 1))
    refuse(`topK ${topK}: it must be a positive integer; leave it out for all tokens`);
  if (topP !== undefined && !(topP > 0 && topP <= 1))
    refuse(`topP ${topP}: it must be more than 0 and at most 1; leave it out for all tokens`);
  if (seed !== undefined && !Number.isSafeInteger(seed)) refuse(`seed ${seed}: it must be an integer`);
}

/** What temperature, top-k and top-p leave, with probabilities that sum to 1. The temperature is not 0. */
export function candidatesOf(logits: Float32Array, { temperature, topK, topP = 1 }: Sampling): Candidates {
  const largest = logits[indexOfLargest(logits)];
  const least = topK === undefined || topK >= logits.length ? -Infinity : kthLargest(logits, topK);
  const tokens = new Int32Array(logits.length);
  const masses = new Float64Array(logits.length);
  let count = 0;
  let total = 0;
  for (let token = 0; token < logits.length; token++) {
    if (!(logits[token] >= least)) continue; // NaN is no candidate
    const mass = Math.exp((logits[token] - largest) / temperature);
    if (mass === 0) continue;
    tokens[count] = token;
    masses[count++] = mass;
    total += mass;
  }
  const kept = topP < 1 ? nucleus(tokens, masses, count, topP * total) : count;
  let sum = 0;
  for (let i = 0; i < kept; i++) sum += masses[i];
  for (let i = 0; i < kept; i++) masses[i] /= sum;
  return { tokens: tokens.subarray(0, kept), probabilities: masses.subarray(0, kept) };
}

/** Moves to the front the fewest largest masses that reach `wanted`, equal ones by id; answers how many they are. */
function nucleus(tokens: Int32Array, masses: Float64Array, count: number, wanted: number): number {
  const { threshold, above } = thresholdOf(masses.slice(0, count), wanted);
  let reached = above;
  let kept = 0;
  for (let i = 0; i < count; i++) {
    if (masses[i] < threshold) continue;
    if (masses[i] === threshold) {
      if (reached >= wanted) continue;
      reached += threshold;
    }
    tokens[kept] = tokens[i];
    masses[kept++] = masses[i];
  }
  return kept;
}

/**
 * The largest mass such that those at least as large sum to `wanted`, and the sum of those that are larger.
 * Quickselect by weight: each round looks only at the side where the threshold lies.
 */
function thresholdOf(masses: Float64Array, wanted: number): { threshold: number; above: number } {
  let above = 0;
  let [from, to] = [0, masses.length];
  while (to - from > 1) {
    const pivot = medianOfThree(masses[from], masses[(from + to) >> 1], masses[to - 1]);
    // [from, larger) > pivot, [larger, i) = pivot, [smaller, to) < pivot
    let [larger, i, smaller] = [from, from, to];
    let [massLarger, massEqual] = [0, 0];
    while (i < smaller) {
      const mass = masses[i];
      if (mass > pivot) {
        massLarger += mass;
        masses[i++] = masses[larger];
        masses[larger++] = mass;
      } else if (mass < pivot) {
        masses[i] = masses[--smaller];
        masses[smaller] = mass;
      } else {
        massEqual += mass;
        i++;
      }
    }
    if (above + massLarger >= wanted) to = larger;
    else if (above + massLarger + massEqual >= wanted || smaller === to)
      return { threshold: pivot, above: above + massLarger };
    else {
      above += massLarger + massEqual;
      from = smaller;
    }
  }
  return { threshold: masses[from], above };
}

/**
 * The k-th largest number; NaN counts as the least. A heap holds the k largest, the least of them on top: most numbers
 * of a vocabulary fail against it at once.
 */
function kthLargest(numbers: Float32Array, k: number): number {
  const heap = new Float32Array(k).fill(-Infinity);
  for (const x of numbers) {
    if (!(x > heap[0])) continue;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= k) break;
      if (child + 1 < k && heap[child + 1] < heap[child]) child++;
      if (heap[child] >= x) break;
      heap[place] = heap[child];
      place = child;
    }
    heap[place] = x;
  }
  return heap[0];
}

/** The token at which the rising sum of probabilities passes `fraction`. */
function draw({ tokens, probabilities }: Candidates, fraction: number): number {
  let sum = 0;
  for (let i = 0; i < tokens.length; i++) {
    sum += probabilities[i];
    if (fraction < sum) return tokens[i];
  }
  return tokens[tokens.length - 1]; // the sum fell short of 1 by rounding
}

/** The first of the largest; NaN counts as the least. */
function indexOfLargest(logits: Float32Array): number {
  let best = -1;
  let largest = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    if (logits[i] > largest || (best < 0 && logits[i] === -Infinity)) {
      largest = logits[i];
      best = i;
    }
  }
  if (best >= 0) return best;
  throw new EngineError(
    "BadParameter",
    `None of the ${logits.length} logits is a number, so no token can come next; look at what the interventions and hooks put in`,
  );
}

/** Of numbers of which `largest` is the largest. What is e⁻⁴⁰ of it adds nothing, a million times over. */
function sumExponentials(logits: Float32Array, largest: number): number {
  let sum = 0;
  for (const x of logits) if (x - largest > -40) sum += Math.exp(x - largest);
  return sum;
}

/** The next token, from a row of logits that lies in a backend. [... V] */
export function sampleFrom(backend: Backend, logits: Value, sampler: Sampler): Sample {
  const sum = backend.sumExponentials?.bind(backend);
  if (sum !== undefined && sampler.isGreedy) {
    const { token, largest } = largestOf(backend, logits);
    // NaN at the very start hides the others from a reduction.
    if (Number.isFinite(largest)) {
      return { token, logProbability: largest - (largest + Math.log(sum(logits, largest))) };
    }
  }
  return sampler.next(backend.read(logits), sum && ((largest) => sum(logits, largest)));
}

/** Without reading a vocabulary of numbers. */
function largestOf(backend: Backend, row: Value): { token: number; largest: number } {
  const place = backend.reduce("argmax", row, row.shape.length - 1);
  const [token] = backend.read(place);
  const value = backend.strided(row, [1], token, [1]);
  const [largest] = backend.read(value);
  backend.release(place);
  backend.release(value);
  return { token, largest };
}

function medianOfThree(a: number, b: number, c: number): number {
  return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
}
