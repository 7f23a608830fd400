// What every family keeps whatever it is made of: a pass in two halves, over a cache, beside padding, looked at or not,
// gives the numbers of the whole pass; and it gives back all that it took.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Backend, Value } from "../../js_bridge/engine/backend.ts";
import { KeyValueCache } from "../../js_bridge/engine/decoder/key_value_cache.ts";
import type { Model } from "../../js_bridge/engine/model.ts";
import { BACKENDS, CONFIGS, openFamily, type Parts, pass, writeFamily } from "./architectures.ts";

const ROWS = [
  [3, 1, 4, 1, 5, 9, 2, 6],
  [27, 18, 28, 18, 2, 8, 4, 5],
];

/** Positions along the second axis of [B T …]. */
function positionsOf({ shape }: Value, numbers: Float32Array, row: number, from: number, to: number): Float32Array {
  const width = numbers.length / (shape[0] * shape[1]);
  return numbers.subarray((row * shape[1] + from) * width, (row * shape[1] + to) * width);
}

function assertNear(ours: Float32Array, theirs: Float32Array, tolerance: number, what: string): void {
  assert.equal(ours.length, theirs.length, what);
  const distance = (each: number, i: number) => (Number.isNaN(each) ? Infinity : Math.abs(each - theirs[i]));
  const far = ours.reduce((most, each, i) => Math.max(most, distance(each, i)), 0);
  assert.ok(far <= tolerance, `${what}: ${far}`);
}

for (const [name, open] of Object.entries(BACKENDS)) {
  describe(`in ${name}`, () => {
    for (const [family, config] of Object.entries(CONFIGS)) {
      test(`${family}: halves, caches, padding and glances change nothing`, async () => {
        const backend = await open();
        const model = await openFamily(await writeFamily(config), backend);
        const layers = model.architecture.dimensions.L;
        const empty = backend.bytes;
        const run = (parts: Partial<Parts>) => {
          const { result, names } = pass(model, { rows: ROWS, ...parts });
          const numbers = backend.read(result);
          return { result, names, numbers, release: () => backend.release(result) };
        };
        const whole = run({});
        assert.ok(whole.numbers.every(Number.isFinite));
        whole.release();
        looks(model, run, whole.numbers);
        halves(run, whole.numbers, layers);
        cached(backend, run, whole, layers);
        padded(backend, run, whole);
        assert.equal(backend.bytes, empty, "all scratch is free again");
      });
    }
  });
}

type Run = (parts: Partial<Parts>) => { result: Value; names: string[]; numbers: Float32Array; release: () => void };

function looks(model: Model, run: Run, whole: Float32Array): void {
  const everywhere = run({ isWanted: () => true });
  assert.deepEqual(everywhere.numbers, whole, "with a glance at every point");
  const on = model.architecture.hooks.filter((hook) => hook.on).map((hook) => hook.name);
  assert.deepEqual([...everywhere.names].sort(), on.sort());
  everywhere.release();
  const chosen = run({ logitPositions: [6, 0] });
  for (const row of [0, 1]) {
    for (const [at, position] of [6, 0].entries()) {
      assert.deepEqual(
        positionsOf(chosen.result, chosen.numbers, row, at, at + 1),
        positionsOf(everywhere.result, whole, row, position, position + 1),
      );
    }
  }
  chosen.release();
}

function halves(run: Run, whole: Float32Array, layers: number): void {
  for (let layer = 0; layer <= layers; layer++) {
    const first = run({ stop: layer });
    const second = run({ start: { layer, residual: first.result } });
    assert.deepEqual(second.numbers, whole, `stopped and started at ${layer}`);
    first.release();
    second.release();
  }
}

function cached(backend: Backend, run: Run, whole: ReturnType<Run>, layers: number): void {
  const cache = new KeyValueCache(backend, layers);
  for (const [from, to] of [
    [0, 3],
    [3, 4],
    [4, 8],
  ]) {
    const piece = run({ rows: ROWS.map((row) => row.slice(from, to)), cache });
    for (const row of [0, 1]) {
      const theirs = positionsOf(whole.result, whole.numbers, row, from, to);
      assertNear(positionsOf(piece.result, piece.numbers, row, 0, to - from), theirs, 1e-5, `positions ${from} to ${to}`);
    }
    piece.release();
    assert.equal(cache.length, to);
  }
  cache.keep(5);
  const again = run({ rows: ROWS.map((row) => row.slice(5)), cache });
  for (const row of [0, 1]) {
    const theirs = positionsOf(whole.result, whole.numbers, row, 5, 8);
    assertNear(positionsOf(again.result, again.numbers, row, 0, 3), theirs, 1e-5, "again from 5 on");
  }
  again.release();
  cache.release();
}

function padded(backend: Backend, run: Run, whole: ReturnType<Run>): void {
  const lengths = [8, 5];
  for (const side of ["left", "right"] as const) {
    const rows = ROWS.map((row, i) => {
      const padding = new Array<number>(8 - lengths[i]).fill(0);
      return side === "left" ? [...padding, ...row.slice(0, lengths[i])] : [...row.slice(0, lengths[i]), ...padding];
    });
    const spoilt = run({
      rows,
      padding: { side, lengths },
      isWanted: (name) => name === "hook_embed",
      change: (_, value) => {
        const [, positions, width] = value.shape;
        const numbers = backend.read(value);
        for (let position = 0; position < positions; position++) {
          const isPadding = side === "left" ? position < 3 : position >= 5;
          if (isPadding) numbers.fill(NaN, (positions + position) * width, (positions + position + 1) * width);
        }
        return backend.upload(numbers, value.shape);
      },
    });
    const first = positionsOf(spoilt.result, spoilt.numbers, 0, 0, 8);
    assertNear(first, positionsOf(whole.result, whole.numbers, 0, 0, 8), 1e-5, `${side}, the full row`);
    const [from, to] = side === "left" ? [3, 8] : [0, 5];
    const second = positionsOf(spoilt.result, spoilt.numbers, 1, from, to);
    assertNear(second, positionsOf(whole.result, whole.numbers, 1, 0, 5), 1e-5, `${side}, the padded row`);
    spoilt.release();
  }
}
