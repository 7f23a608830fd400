// Which backend an engine runs on: those that compute wrongly are refused, the fastest is chosen and remembered.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { rememberedHere } from "../../js_bridge/engine/backends/remembered.ts";
import { selfCheck } from "../../js_bridge/engine/backends/self_check.ts";
import { ReferenceBackend } from "../../js_bridge/kernels/reference.ts";
import { asTilings, tilingFor, UNTIMED } from "../../js_bridge/kernels/webgl_tilings.ts";
import { partsOf } from "../../js_bridge/kernels/webgl_matrix.ts";
import type { Answer } from "../../js_bridge/protocol.ts";
import { Losable, openWrong } from "./faulty_backend.ts";
import { Session } from "./session.ts";
import { writeTiny } from "./tiny.ts";

type BackendsAnswer = Extract<Answer, { kind: "backends" }>;

let folder: string;
before(async () => {
  folder = await writeTiny();
});

const asked = async (session: Session, measure = false) =>
  (await session.ask({ kind: "backends", measure })).message as BackendsAnswer;

/** Counts its openings, and may be slow. */
const counted = (delay: number) => {
  const losable = new Losable();
  const open = async (onLost: () => void) => {
    const backend = await losable.open(onLost);
    const { read, product } = backend;
    // The reference takes long for what a probe multiplies; only the delay is to be measured.
    backend.product = (x, matrix, bias) =>
      matrix.inputs < 256
        ? product.call(backend, x, matrix, bias)
        : backend.upload(new Float32Array((x.storage.bytes / 4 / matrix.inputs) * matrix.outputs), [
            ...x.shape.slice(0, -1),
            matrix.outputs,
          ]);
    backend.read = (value) => {
      for (const end = performance.now() + delay; performance.now() < end;);
      return read.call(backend, value);
    };
    return backend;
  };
  return { losable, open };
};

describe("a backend that computes wrongly", () => {
  test("is found by its self-check, which names the kernel", async () => {
    assert.match(
      String(await selfCheck(await openWrong(), new ReferenceBackend())),
      /^product of 1 row is off by 0.01/,
    );
    assert.equal(await selfCheck(new ReferenceBackend(), new ReferenceBackend()), null);
  });

  test("is refused by name, with the reason", async () => {
    const session = new Session({ openers: { wasm: openWrong } });
    await assert.rejects(session.load(folder, "wasm"), {
      name: "BackendUnavailable",
      message: /product of 1 row.*use /,
    });
  });

  test("is passed over by auto, and `loaded` and `backends` say why", async () => {
    const session = new Session({ openers: { wasm: openWrong, webgl: counted(0).open } });
    const loaded = await session.load(folder, "auto");
    assert.equal(loaded.backend, "webgl");
    assert.deepEqual(
      loaded.refused.map(({ backend }) => backend),
      ["wasm"],
    );
    assert.match(loaded.refused[0].reason, /product of 1 row/);
    const { chosen, refused, names, probe } = await asked(session);
    assert.deepEqual([chosen, refused, Object.keys(probe)], ["webgl", loaded.refused, ["webgl"]]);
    assert.deepEqual(names, ["reference", "wasm", "webgl"]);
  });

  test("leaves the reference, where there is no other", async () => {
    const session = new Session({ openers: { wasm: openWrong } });
    assert.equal((await session.load(folder, "auto")).backend, "reference");
  });
});

describe("what was measured", () => {
  test("chooses, and is remembered by the next engine, which opens only the chosen one", async () => {
    const remembered = rememberedHere();
    const slow = counted(20);
    const first = new Session({ openers: { webgl: slow.open }, remembered });
    const { chosen, probe } = await asked(first);
    assert.equal(chosen, "wasm");
    assert.ok((probe.wasm as number) < (probe.webgl as number));
    const again = counted(20);
    const next = new Session({ openers: { webgl: again.open }, remembered });
    assert.deepEqual(await asked(next).then((answer) => [answer.chosen, answer.probe]), [chosen, probe]);
    assert.equal(again.losable.openings, 0);
  });

  test("is not waited for by a bundle that is there sooner", async () => {
    const slow = counted(20);
    const small = await writeTiny({ chunk: 4096 });
    const session = new Session({ openers: { webgl: slow.open } });
    const loaded = await session.load(small, "auto");
    assert.deepEqual([loaded.backend, loaded.probe, slow.losable.openings], ["wasm", {}, 0]);
    const whole = await session.load(folder, "auto");
    assert.deepEqual([whole.backend, Object.keys(whole.probe)], ["wasm", ["wasm", "webgl"]]);
  });

  test("is measured anew on request, or where it makes no sense or the chosen backend is gone", async () => {
    const remembered = rememberedHere();
    await asked(new Session({ openers: { webgl: counted(20).open }, remembered }));
    const fresh = counted(20);
    const session = new Session({ openers: { webgl: fresh.open }, remembered });
    const before = await asked(session);
    assert.notDeepEqual((await asked(session, true)).probe, before.probe);
    assert.equal(fresh.losable.openings, 1);
    const without = new Session({ openers: { webgl: counted(20).open, wasm: openWrong }, remembered });
    assert.equal((await asked(without)).chosen, "webgl");
    const nonsense = { recall: async () => ({ wasm: "fast" }), remember: async () => undefined };
    assert.equal(
      (await asked(new Session({ openers: { webgl: counted(20).open }, remembered: nonsense }))).chosen,
      "wasm",
    );
  });
});

describe("tilings", () => {
  test("the one that takes least for so many rows", () => {
    assert.deepEqual(
      [1, 2, 4, 64].map((rows) => tilingFor(rows, UNTIMED).rows),
      [1, 4, 4, 4],
    );
    const narrow = [...UNTIMED.slice(1).map((each) => ({ ...each, cost: 100 })), UNTIMED[0]];
    assert.equal(tilingFor(64, narrow).rows, 1);
  });

  test("what was remembered for another GPU or by another version is not used", () => {
    assert.deepEqual(asTilings(UNTIMED, 8), UNTIMED);
    assert.equal(asTilings(UNTIMED, 4)?.length, 2);
    for (const wrong of [undefined, [], "4x8", [{ rows: 3, texels: 1, cost: 1 }], [{ rows: 4, texels: 2, cost: 1 }]])
      assert.equal(asTilings(wrong, 8), null);
  });
});

describe("weights in textures", () => {
  const limits = { bytes: 2 ** 28, side: 8192 };
  for (const [what, depth, outputs] of [
    ["GPT-2's embedding", 768, 50257],
    ["a vocabulary of 128 thousand", 2048, 128256],
    ["the same in int8", 512, 128256],
    ["more inputs than a texture has texels a side", 14336, 4096],
    ["a vector", 1, 1],
  ] as const) {
    test(`${what}: every block once, no part above the limits, little waste`, () => {
      const blocks = Math.ceil(outputs / 4);
      const parts = partsOf(depth, blocks, limits);
      let next = 0;
      let bytes = 0;
      for (const {
        firstBlock,
        blocks: count,
        fold: [width, height, across, segments],
        size,
      } of parts) {
        assert.equal(firstBlock, next);
        next += count;
        bytes += 16 * size[0] * size[1];
        assert.ok(16 * size[0] * size[1] <= limits.bytes && Math.max(...size) <= limits.side);
        assert.ok(width * segments >= depth && Math.ceil(count / height) * segments <= across * (size[1] / height));
      }
      assert.equal(next, blocks);
      assert.ok(bytes <= 1.3 * 16 * depth * blocks, `${bytes} bytes for ${16 * depth * blocks}`);
    });
  }
});
