// Times the tilings of products on the GPU at hand. A few milliseconds per tiling, on two shapes of a small model.

import { type Backend, laidOut } from "../engine/backend.ts";
import type { Remembered } from "../engine/backends/remembered.ts";
import type { WebglBackend } from "./webgl.ts";
import { asTilings, CANDIDATES, possible, type TimedTiling } from "./webgl_tilings.ts";

/** Products: rows, inputs, outputs. Tilings of one row are timed with one, the others with this many rows of tiles. */
const SHAPES: readonly (readonly [number, number])[] = [
  [256, 768],
  [768, 256],
];
const TILE_ROWS = 4;
/** A measurement takes at least so long, so that waiting for the GPU does not count. */
const ENOUGH = 3;

export interface TuningOptions {
  readonly remembered: Remembered | null;
  readonly now: () => number;
  readonly pause: () => Promise<void>;
}

/** Sets the backend's tilings, from an earlier visit or by measuring. */
export async function tune(
  backend: WebglBackend,
  { remembered, now, pause }: TuningOptions,
  again = false,
): Promise<void> {
  const key = `webgl tilings, ${backend.context.gpu}, ${backend.drawBuffers} draw buffers`;
  const known = again ? null : asTilings(await remembered?.recall(key), backend.drawBuffers);
  if (known !== null) {
    backend.tilings = known;
    return;
  }
  const before = backend.tilings;
  const timed: TimedTiling[] = [];
  try {
    for (const tiling of possible(CANDIDATES, backend.drawBuffers)) {
      await pause();
      backend.tilings = [{ ...tiling, cost: 1 }];
      const tileRows = tiling.rows === 1 ? 1 : TILE_ROWS;
      let total = 0;
      for (const [inputs, outputs] of SHAPES)
        total += milliseconds(backend, tileRows * tiling.rows, inputs, outputs, now);
      timed.push({ ...tiling, cost: total / tileRows });
    }
  } catch (error) {
    backend.tilings = before;
    throw error;
  }
  backend.tilings = timed;
  await remembered?.remember(key, timed);
}

/** Of one product. */
function milliseconds(backend: Backend, rows: number, inputs: number, outputs: number, now: () => number): number {
  const numbers = new Float32Array(inputs * outputs).fill(0.25);
  const matrix = laidOut(backend, numbers, { inputs, outputs, transposed: false, scales: null });
  const x = backend.upload(numbers.subarray(0, rows * inputs), [rows, inputs]);
  const run = (times: number) => {
    const began = now();
    let y = backend.product(x, matrix, null);
    for (let i = 1; i < times; i++) {
      backend.release(y);
      y = backend.product(x, matrix, null);
    }
    const one = backend.strided(y, [1], 0, [0]);
    backend.read(one);
    backend.release(one);
    backend.release(y);
    return now() - began;
  };
  run(1); // compiles
  let times = 1;
  let took = run(times);
  while (took < ENOUGH && times < 64) took = run((times *= 4));
  backend.release(x);
  backend.releaseMatrix(matrix);
  return took / times;
}
