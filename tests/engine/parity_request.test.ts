// The `parity` message: that a right engine is found right and a wrong one wrong, by name; without a reference, or
// with changed weights, it says so; it can be cancelled, and passes run beside it. The oracle is the demo model's
// reference.safetensors, which PyTorch made.

import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Activation, Value } from "../../js_bridge/engine/backend.ts";
import { compare, readReference } from "../../js_bridge/engine/parity.ts";
import { ReferenceBackend } from "../../js_bridge/kernels/reference.ts";
import type { Answer, BackendName, ParityAnswer } from "../../js_bridge/protocol.ts";
import { Session } from "./session.ts";
import { writeTiny } from "./tiny.ts";

const DEMO = fileURLToPath(new URL("../../demo_model", import.meta.url));

let copy: string;
before(async () => {
  copy = await mkdtemp(join(tmpdir(), "parity-"));
  await cp(DEMO, copy, { recursive: true });
});
after(() => rm(copy, { recursive: true }));

async function parityOf(session: Session, bundle: string, backend: BackendName): Promise<ParityAnswer> {
  const { model } = await session.load(bundle, backend);
  return (await session.ask({ kind: "parity", model })).message as ParityAnswer;
}

const offNames = ({ rows }: ParityAnswer) => rows.filter(({ isOff }) => isOff).map(({ hook }) => hook);

/** Its activation is right to three digits. */
class RoughBackend extends ReferenceBackend {
  override activate(kind: Activation, x: Value): Value {
    const right = super.activate(kind, x);
    const numbers = this.view(right);
    for (let i = 0; i < numbers.length; i++) numbers[i] = Number(numbers[i].toPrecision(3));
    return right;
  }
}

/** One number in thousands is wrong, at a place that no sample shows. */
class HoleyBackend extends ReferenceBackend {
  override activate(kind: Activation, x: Value): Value {
    const right = super.activate(kind, x);
    const numbers = this.view(right);
    if (numbers.length > 5000) numbers[1] += 5;
    return right;
  }
}

describe("a parity run", () => {
  for (const backend of ["reference", "wasm"] as const) {
    test(`finds every plain hook point of the demo model right in ${backend}`, async () => {
      const session = new Session();
      const loaded = await session.load(DEMO, backend);
      const { message } = await session.ask({ kind: "parity", model: loaded.model });
      const found = message as ParityAnswer;
      assert.deepEqual(
        found.rows.map(({ hook }) => hook),
        loaded.hooks.filter(({ on }) => on).map(({ name }) => name),
      );
      assert.deepEqual(offNames(found), []);
      assert.equal(found.backend, backend);
      assert.match(found.madeWith, /^torch .* transformers/);
      assert.ok(found.rows.every(({ compared, allowed }) => compared > 0 && allowed >= 1e-4));
      assert.ok(found.rows.some(({ difference }) => (difference ?? 0) > 0), "nothing was compared");
    });
  }

  test("names the first hook point that a rough kernel spoils, and those behind it", async () => {
    const session = new Session({ openers: { reference: async () => new RoughBackend() } });
    const found = await parityOf(session, DEMO, "reference");
    const off = offNames(found);
    assert.equal(off[0], "blocks.0.mlp.hook_post");
    assert.ok(off.includes("unembed.hook_out"));
    assert.ok(!off.includes("blocks.0.attn.hook_pattern"));
  });

  test("notices by the norm what lies between the samples", async () => {
    const session = new Session({ openers: { reference: async () => new HoleyBackend() } });
    const found = await parityOf(session, DEMO, "reference");
    const row = found.rows.find(({ hook }) => hook === "blocks.0.mlp.hook_post");
    assert.ok(row?.isOff && row.normDifference > row.normAllowed, JSON.stringify(row));
    assert.ok((row.difference as number) <= row.allowed);
  });

  test("notices weights that are not those of the reference", async () => {
    const file = join(copy, "model.safetensors");
    const bytes = await readFile(file);
    bytes[bytes.length - 2] ^= 0x40; // an exponent of the last number
    await writeFile(file, bytes);
    assert.notDeepEqual(offNames(await parityOf(new Session(), copy, "wasm")), []);
  });

  test("says that there is no reference, or that it belongs to other weights", async () => {
    const session = new Session();
    const noReference = { name: "NoReference" };
    await assert.rejects(parityOf(session, await writeTiny(), "reference"), {
      ...noReference,
      message: /came without reference.safetensors.*PyTorch/,
    });
    const { message } = await session.ask({
      kind: "load",
      bundle: DEMO,
      backend: "reference",
      processing: { foldNorms: true },
    });
    const { model } = message as Extract<Answer, { kind: "loaded" }>;
    await assert.rejects(session.ask({ kind: "parity", model }), { ...noReference, message: /belongs to the weights/ });
    const damaged = await mkdtemp(join(tmpdir(), "parity-"));
    await cp(DEMO, damaged, { recursive: true });
    await writeFile(join(damaged, "reference.safetensors"), Uint8Array.of(1, 2, 3));
    await assert.rejects(parityOf(session, damaged, "reference"), { name: "BundleRefused", message: /damaged/ });
    await rm(damaged, { recursive: true });
    await assert.rejects(session.ask({ kind: "parity", model: 99 }), { name: "UnknownModel" });
  });

  test("leaves nothing behind, also when it is cancelled or its model goes; a pass runs beside it", async () => {
    const deferred: (() => void)[] = [];
    let time = 0;
    const session = new Session({ now: () => (time += 5), defer: (action) => void deferred.push(action) });
    const step = async () => {
      deferred.shift()?.();
      await new Promise((resolve) => setImmediate(resolve));
    };
    const until = async <T>(promise: Promise<T>): Promise<T> => {
      let isOver = false;
      const ended = promise.finally(() => (isOver = true));
      ended.catch(() => undefined);
      while (!isOver) await step();
      return promise;
    };
    const { model } = await until(session.load(DEMO, "wasm"));
    const bytes = async () => {
      const { message } = await session.ask({ kind: "ledger" });
      return (message as Extract<Answer, { kind: "ledger" }>).backends;
    };
    const before = await bytes();
    const tokens = [[1, 2, 3]];
    const pass = async () => {
      const logits = session.name();
      await until(session.ask({ kind: "forward", model, pass: session.name(), tokens, logits }));
      const { numbers } = await session.read(logits);
      session.post({ kind: "release", tensors: [logits] });
      return numbers;
    };
    const alone = await pass();

    const id = 10_000; // beyond those that the session gives
    session.post({ kind: "parity", id, model });
    for (let i = 0; i < 5000 && deferred.length === 0; i++) await step(); // until it lets others go first
    assert.notDeepEqual(await bytes(), before, "the run is not under way");
    assert.deepEqual(await pass(), alone, "a pass beside a parity run gives other numbers");
    session.post({ kind: "cancelParity", parity: id });
    for (let i = 0; i < 3; i++) await step();
    const answers = session.events.filter((event) => "id" in event && event.id === id);
    assert.deepEqual(
      answers.map((event) => event.kind === "failed" && event.error.name),
      ["PassCancelled"],
    );
    assert.deepEqual(await bytes(), before);

    await until(session.ask({ kind: "parity", model }));
    assert.deepEqual(await bytes(), before);

    const orphan = assert.rejects(session.ask({ kind: "parity", model }), { name: "UnknownModel" });
    for (let i = 0; i < 5000 && deferred.length === 0; i++) await step();
    await session.ask({ kind: "unload", model });
    await until(orphan);
  });
});

describe("the comparison is that of neuroscope verify", () => {
  const infinite = { norm: 5, places: [0, 2, 3], samples: Float32Array.of(3, -Infinity, 4) };

  test("infinities must be the same, and nothing else may be", () => {
    const right = compare("scores", infinite, Float32Array.of(3, 0, -Infinity, 4));
    assert.deepEqual([right.difference, right.isOff, right.compared], [0, false, 3]);
    assert.equal(compare("scores", infinite, Float32Array.of(3, 0, 7, 4)).difference, null);
    assert.equal(compare("scores", infinite, Float32Array.of(NaN, 0, -Infinity, 4)).isOff, true);
    assert.equal(compare("scores", infinite, Float32Array.of(3, 0)).difference, null);
  });

  test("what is allowed grows with the largest reference number above 1", () => {
    const reference = { norm: 300, places: [0], samples: Float32Array.of(300) };
    assert.ok(Math.abs(compare("stream", reference, Float32Array.of(300)).allowed - 0.03) < 1e-9);
    const small = { ...reference, samples: Float32Array.of(0.5) };
    assert.equal(compare("stream", small, Float32Array.of(0.5)).allowed, 1e-4);
  });

  test("the reference of the demo model has two prompts, and all hook points of both", async () => {
    const { prompts } = readReference(new Uint8Array(await readFile(join(DEMO, "reference.safetensors"))));
    assert.deepEqual(
      prompts.map(({ tokens, hooks }) => [tokens.length, hooks.size]),
      [
        [15, 74],
        [40, 74],
      ],
    );
  });
});
