// Helper threads of the WebAssembly backend in Node, where they come, where they don't, and where they die; and its
// memory. What only a page can show is test_threads_page.py's.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { before, describe, test } from "node:test";
import { nodeThreads } from "../../hosts/node_engine.ts";
import { laidOut } from "../../js_bridge/engine/backend.ts";
import { Memory } from "../../js_bridge/kernels/memory.ts";
import { besideKernels, type HelperTask, type ThreadHost, threadsFor } from "../../js_bridge/kernels/threads.ts";
import { openWasmBackend, type WasmBackend } from "../../js_bridge/kernels/wasm.ts";
import type { WasmOptions } from "../../js_bridge/kernels/wasm_module.ts";
import { readFiles } from "../../js_bridge/store/files.ts";
import { KERNELS, Session } from "./session.ts";
import { noise, writeTiny } from "./tiny.ts";

async function opened(options: WasmOptions): Promise<{ backend: WasmBackend; told: string[] }> {
  const told: string[] = [];
  const fetchKernels = (file: string) => readFiles(besideKernels(KERNELS, file));
  const log = (text: string) => void told.push(text);
  return { backend: await openWasmBackend({ fetchKernels, portion: 1, log, ...options }), told };
}

function product(backend: WasmBackend): Float32Array {
  const [rows, inputs, outputs] = [6, 50, 400];
  const matrix = laidOut(backend, noise(inputs * outputs, 1), { inputs, outputs, transposed: false, scales: null });
  const x = backend.upload(noise(rows * inputs, 2), [rows, inputs]);
  const y = backend.product(x, matrix, null);
  const numbers = backend.read(y);
  for (const each of [x, y]) backend.release(each);
  backend.releaseMatrix(matrix);
  return numbers;
}

let alone: Float32Array;
before(async () => {
  alone = product((await opened({})).backend);
});

describe("helper threads", () => {
  test("take a part of the work", async () => {
    const { backend } = await opened({ threads: nodeThreads(KERNELS, 3) });
    assert.equal(backend.threads, 3);
    // On a busy machine a helper may come too late for one job, not for a thousand.
    for (let i = 0; backend.helped === 0 && i < 1000; i++) assert.deepEqual(product(backend), alone);
    assert.ok(backend.helped > 0);
    // Also after they have fallen asleep.
    await new Promise((resolve) => setTimeout(resolve, 50));
    const before = backend.helped;
    for (let i = 0; backend.helped === before && i < 1000; i++) assert.deepEqual(product(backend), alone);
    assert.ok(backend.helped > before);
  });

  test("that are not ready in time are done without", async () => {
    let stopped = 0;
    const absent: ThreadHost = { count: 3, open: () => ({ start: () => undefined, stop: () => void stopped++ }) };
    const { backend, told } = await opened({ threads: absent, helpersWithin: 20 });
    assert.deepEqual([backend.threads, stopped], [1, 2]);
    assert.match(told[0], /goes on without helper thread 1: it was not ready within 20 ms/);
    assert.deepEqual(product(backend), alone);
  });

  test("that can't be started are done without", async () => {
    const nowhere = nodeThreads("/nowhere/kernels.wasm", 2);
    const { backend, told } = await opened({ threads: nowhere });
    assert.equal(backend.threads, 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(told.length, 1);
    assert.match(told[0], /without helper thread 1: .*nowhere/);
    assert.deepEqual(product(backend), alone);
  });

  test("are not asked for where the shared build is missing", async () => {
    const fetchKernels = async (file: string) =>
      file.includes("shared") ? null : readFiles(besideKernels(KERNELS, file));
    const { backend } = await opened({ threads: nodeThreads(KERNELS, 2), fetchKernels });
    assert.equal(backend.threads, 1);
    assert.deepEqual(product(backend), alone);
  });

  test("that die between two jobs are not waited for", async () => {
    const host = nodeThreads(KERNELS, 2);
    let kill = () => undefined as unknown;
    const { backend, told } = await opened({
      threads: {
        count: 2,
        open: () => {
          const helper = host.open();
          kill = () => helper.stop();
          return helper;
        },
      },
    });
    assert.equal(backend.threads, 2);
    kill();
    for (let i = 0; i < 100; i++) assert.deepEqual(product(backend), alone);
    for (let i = 0; backend.threads > 1 && i < 500; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(backend.threads, 1);
    assert.equal(told.length, 1);
    assert.match(told[0], /goes on with fewer threads: helper thread 1 died/);
    assert.deepEqual(product(backend), alone);
  });

  test("that die in the middle of a job have their part computed again", async () => {
    // Enters every job, takes its first portion and is never heard of again.
    const inside = (task: HelperTask) => {
      const board = new Int32Array(task.memory.buffer, task.board, 160);
      Atomics.add(board, 320 / 4, 1);
    };
    let stopped = 0;
    const dead: ThreadHost = {
      count: 2,
      open: () => ({ start: (task, onReady) => (inside(task), onReady()), stop: () => void stopped++ }),
    };
    const { backend, told } = await opened({ threads: dead, patience: 1 });
    assert.equal(backend.threads, 2);
    assert.deepEqual(product(backend), alone);
    assert.deepEqual([backend.threads, stopped], [1, 1]);
    assert.match(told[0], /fewer threads: a helper thread did not finish its part/);
    assert.deepEqual(product(backend), alone);
  });

  test("do not keep a process alive", () => {
    const module = (path: string) => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
    const program = `
      import { nodeThreads } from ${module("hosts/node_engine.ts")};
      import { openWasmBackend } from ${module("js_bridge/kernels/wasm.ts")};
      import { readFiles } from ${module("js_bridge/store/files.ts")};
      const kernels = ${JSON.stringify(KERNELS)};
      const fetchKernels = (file) => readFiles(kernels.replace("kernels.wasm", file));
      const backend = await openWasmBackend({ fetchKernels, threads: nodeThreads(kernels, 2) });
      console.log(backend.threads);
    `;
    const done = spawnSync(process.execPath, ["--input-type=module", "-e", program], { timeout: 30_000 });
    assert.equal(done.stderr.toString(), "");
    assert.deepEqual([done.status, done.stdout.toString()], [0, "2\n"]);
  });

  test("are one for each core", () => {
    assert.deepEqual([1, 2, 3, 4, 8, 12, 64].map(threadsFor), [1, 2, 2, 2, 4, 6, 16]);
  });

  test("change no bit of a pass, and the answer to load tells how many there are", async () => {
    const folder = await writeTiny();
    const logits: Float32Array[] = [];
    for (const threads of [null, nodeThreads(KERNELS, 2)]) {
      const session = new Session({ threads });
      const loaded = await session.load(folder, "wasm");
      assert.equal(loaded.threads, threads === null ? 1 : 2);
      const tensor = session.name();
      const tokens = [[1, 2, 3, 4, 5]];
      await session.ask({ kind: "forward", model: loaded.model, pass: 1, tokens, logits: tensor });
      logits.push((await session.read(tensor)).numbers);
    }
    assert.deepEqual(logits[1], logits[0]);
  });
});

describe("memory", () => {
  test("grows by what is needed, in shared memory too", async () => {
    for (const threads of [null, nodeThreads(KERNELS, 2)]) {
      const { backend } = await opened({ threads });
      const layout = { inputs: 256, outputs: 4096, transposed: true, scales: null };
      const row = noise(256, 1);
      const matrices = Array.from({ length: 20 }, () => {
        const writer = backend.startMatrix(layout);
        for (let i = 0; i < layout.outputs; i++) writer.write(row);
        return writer.finish();
      });
      assert.equal(backend.bytes, 20 * 4 * 256 * 4096);
      assert.ok(backend.memoryBytes < 1.08 * backend.bytes, `${backend.memoryBytes} for ${backend.bytes}`);
      const peak = backend.memoryBytes;
      for (const matrix of matrices) backend.releaseMatrix(matrix);
      backend.releaseMatrix(laidOut(backend, new Float32Array(19 * 2 ** 20), { ...layout, inputs: 19 * 256 }));
      assert.equal(backend.memoryBytes, peak, "what was freed is one block again");
    }
  });

  test("that can't be had is refused with the numbers, and nothing is left behind", async () => {
    const { backend } = await opened({});
    const layout = { inputs: 40_000, outputs: 40_000, transposed: false, scales: null };
    assert.throws(() => backend.startMatrix(layout), {
      name: "OverBudget",
      message: /6400000000 more bytes don't fit: .* holds \d+ bytes .* at most 4294901760 are possible; release/,
    });
    assert.equal(backend.bytes, 0);
    assert.deepEqual(product(backend), alone);
  });

  test("hands out what does not overlap, and joins what is given back", () => {
    const memory = new Memory(new WebAssembly.Memory({ initial: 1 }), 1000);
    const taken = new Map<number, number>();
    const dice = noise(40_000, 5);
    for (let i = 0; i < dice.length; i += 2) {
      if (taken.size < 20 || (dice[i] > 0 && taken.size < 300)) {
        const bytes = Math.floor(Math.abs(dice[i + 1]) ** 6 * 100_000);
        const start = memory.allocate(bytes);
        assert.ok(start % 64 === 0 && start >= 1000 && start + bytes <= memory.bytes);
        taken.set(start, bytes);
      } else {
        const start = [...taken.keys()][Math.floor(Math.abs(dice[i + 1]) * taken.size)];
        memory.free(start);
        taken.delete(start);
      }
    }
    const sorted = [...taken].sort(([a], [b]) => a - b);
    for (const [i, [start]] of sorted.slice(1).entries()) assert.ok(sorted[i][0] + sorted[i][1] <= start);
    for (const start of taken.keys()) memory.free(start);
    const all = memory.bytes;
    memory.allocate(all - 1024);
    assert.equal(memory.bytes, all);
    assert.throws(() => memory.free(12), RangeError);
  });
});
