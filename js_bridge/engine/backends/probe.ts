// How fast a backend is at what a small model does: one block and the unembedding, for one token and for sixteen, the
// logits read back. A product alone would flatter a GPU: most of a small pass is many small kernels after one another.

import { type Backend, laidOut, type Matrix, type Value } from "../backend.ts";

const [WIDTH, INNER, HEADS, VOCABULARY] = [256, 1024, 8, 1024];
const LENGTHS = [1, 16];
const ROUNDS = 3;
/** A backend that takes so many times the best is not measured to the end. */
const HOPELESS = 4;
/** Milliseconds after which no further round begins. */
const ENOUGH = 100;

export interface ProbeOptions {
  readonly now: () => number;
  /** Lets other work go first: each round takes milliseconds, and messages wait. */
  readonly pause: () => Promise<void>;
  /** Milliseconds of the best backend so far. */
  readonly best?: number;
}

/** Milliseconds, the least of a few rounds. */
export async function probe(backend: Backend, { now, pause, best = Infinity }: ProbeOptions): Promise<number> {
  const model = new ProbeModel(backend);
  try {
    const start = now();
    let least = Infinity;
    // The first round compiles shaders and fills pools; it does not count.
    for (let round = 0; round <= ROUNDS; round++) {
      await pause();
      const began = now();
      for (const length of LENGTHS) model.run(length);
      if (round > 0) least = Math.min(least, now() - began);
      if (round > 0 && (least > HOPELESS * best || now() - start > ENOUGH)) break;
    }
    return least;
  } finally {
    model.release();
  }
}

class ProbeModel {
  readonly #backend: Backend;
  readonly #attention: Matrix;
  readonly #in: Matrix;
  readonly #out: Matrix;
  readonly #table: Matrix;
  readonly #vector: Value;

  constructor(backend: Backend) {
    this.#backend = backend;
    const matrix = (inputs: number, outputs: number) => {
      const numbers = Float32Array.from({ length: inputs * outputs }, (_, i) => ((i % 31) - 15) / 256);
      return laidOut(backend, numbers, { inputs, outputs, transposed: false, scales: null });
    };
    this.#attention = matrix(WIDTH, WIDTH);
    this.#in = matrix(WIDTH, INNER);
    this.#out = matrix(INNER, WIDTH);
    this.#table = matrix(WIDTH, VOCABULARY);
    this.#vector = backend.upload(new Float32Array(WIDTH).fill(0.5), [WIDTH]);
  }

  run(length: number): void {
    const b = this.#backend;
    const scratch: Value[] = [];
    const keep = (value: Value) => {
      scratch.push(value);
      return value;
    };
    const norm = (x: Value) => keep(b.norm(x, this.#vector, this.#vector, 1e-5, true));
    const reach = { offset: 0, window: null, starts: null };
    const heads = [1, length, HEADS, WIDTH / HEADS];
    const ids = Int32Array.from({ length }, (_, i) => (i * 97) % VOCABULARY);
    const embedded = keep(b.columns(this.#table, ids, [1, length]));
    const normed = norm(embedded);
    const [q, k, v] = [0, 1, 2].map(() => keep(b.reshape(keep(b.product(normed, this.#attention, null)), heads)));
    const scores = keep(b.scores(q, k, { factor: 0.2, softCap: null, reach }));
    const z = keep(b.mix(keep(b.softmax(scores, null)), v, reach));
    const flat = keep(b.reshape(z, embedded.shape));
    const middle = keep(b.binary("add", embedded, keep(b.product(flat, this.#attention, null)), embedded.shape));
    const inner = keep(b.activate("geluTanh", keep(b.product(norm(middle), this.#in, null))));
    const after = keep(b.binary("add", middle, keep(b.product(inner, this.#out, null)), embedded.shape));
    b.read(keep(b.product(norm(after), this.#table, null)));
    for (const value of scratch) b.release(value);
  }

  release(): void {
    for (const matrix of [this.#attention, this.#in, this.#out, this.#table]) this.#backend.releaseMatrix(matrix);
    this.#backend.release(this.#vector);
  }
}
