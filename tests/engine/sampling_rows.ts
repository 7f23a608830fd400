// What sampling.ts and random.ts say, for the tests in Python: JSON on standard input and output.

import { Random } from "../../js_bridge/engine/generation/random.ts";
import { candidatesOf, Sampler } from "../../js_bridge/engine/generation/sampling.ts";
import type { Sampling } from "../../js_bridge/protocol.ts";

interface Question {
  /** Little-endian float32, base64. */
  rows: string[];
  samplings: Sampling[];
  /** Of the first row and the first sampling, so many draws from one seed. */
  draws: number;
  seeds: number[];
}

const pieces: Buffer[] = [];
for await (const piece of process.stdin) pieces.push(piece);
const { rows, samplings, draws, seeds } = JSON.parse(Buffer.concat(pieces).toString()) as Question;

const logits = rows.map((row) => new Float32Array(Uint8Array.from(Buffer.from(row, "base64")).buffer));
const candidates = logits.map((row) =>
  samplings.map((sampling) => {
    const { tokens, probabilities } = candidatesOf(row, sampling);
    return { tokens: [...tokens], probabilities: [...probabilities] };
  }),
);
const sampler = new Sampler({ ...samplings[0], seed: 7 });
const drawn = Array.from({ length: draws }, () => sampler.next(logits[0]).token);
const words = seeds.map((seed) => {
  const random = new Random(seed);
  return Array.from({ length: 8 }, () => random.word());
});
process.stdout.write(JSON.stringify({ candidates, drawn, words }));
