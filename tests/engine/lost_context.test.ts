// A backend that goes away, at every moment of a pass: what fails, what comes back, and that nothing stays behind.
// Real contexts are lost in test_lost_context.py; here the backend is the reference, told to lose everything.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import type { Answer, ForwardRequest, HookEvent } from "../../js_bridge/protocol.ts";
import { readFiles } from "../../js_bridge/store/files.ts";
import { Losable } from "./faulty_backend.ts";
import { Session } from "./session.ts";
import { writeTiny } from "./tiny.ts";

const TOKENS = [[1, 2, 3, 4]];
const LOST = { name: "ContextLost", retriable: true, message: /run the pass again/ };
const settled = () => new Promise((resolve) => setTimeout(resolve, 5));

let folder: string;
before(async () => {
  folder = await writeTiny();
});

async function opened() {
  const losable = new Losable();
  const fetched: string[] = [];
  const session = new Session({
    openers: { webgl: losable.open },
    fetchBytes: (url, ...rest) => {
      fetched.push(url.split("/").pop() as string);
      return readFiles(url, ...rest);
    },
  });
  const { model, bytes } = await session.load(folder, "webgl");
  const forward = (request: Partial<ForwardRequest> = {}) =>
    session.ask({ kind: "forward", model, pass: session.name(), tokens: TOKENS, ...request });
  const logits = async (request: Partial<ForwardRequest> = {}) => {
    const tensor = session.name();
    await forward({ ...request, logits: tensor });
    const { numbers } = await session.read(tensor);
    session.post({ kind: "release", tensors: [tensor] });
    return numbers;
  };
  const ledger = async () => (await session.ask({ kind: "ledger" })).message as Extract<Answer, { kind: "ledger" }>;
  return { session, losable, model, bytes, forward, logits, ledger, fetched };
}

describe("when a backend is lost", () => {
  test("tensors in it are poisoned, those made since are not, and the ledger says so", async () => {
    const { session, losable, logits, ledger } = await opened();
    await logits();
    const tensor = session.create([1, 2], [2]);
    losable.lose();
    const after = session.create([3, 4], [2]);
    await assert.rejects(session.read(tensor), LOST);
    assert.deepEqual([...(await session.read(after)).numbers], [3, 4]);
    const { tensors, bytes, passes, backends } = await ledger();
    assert.deepEqual(
      tensors.map(({ tensor: id, state, bytes: size }) => [id, state, size]),
      [
        [tensor, "poisoned", 0],
        [after, "ready", 8],
      ],
    );
    assert.deepEqual([bytes, passes, backends.map(({ backend }) => backend)], [8, [], ["reference"]]);
  });

  test("a pass that waits at a hook fails, and its captures with it", async () => {
    const { session, losable, forward, ledger } = await opened();
    let seen: (event: HookEvent) => void = () => undefined;
    const hooked = new Promise<HookEvent>((resolve) => {
      seen = resolve;
    });
    session.onHook = (event) => seen(event);
    const [early, late] = [session.name(), session.name()];
    const capture = [
      { name: "hook_embed", tensor: early },
      { name: "ln_final.hook_scale", tensor: late },
    ];
    const running = forward({ capture, hooks: ["blocks.0.hook_resid_mid"] });
    running.catch(() => undefined);
    const { tensor } = await hooked;
    losable.lose();
    await assert.rejects(running, LOST);
    for (const id of [early, late, tensor]) await assert.rejects(session.read(id), LOST);
    assert.deepEqual((await ledger()).passes, []);
  });

  test("the next pass loads the weights anew, and gives the same numbers; what is posted behind it waits", async () => {
    const { session, losable, logits, forward, ledger, bytes, fetched } = await opened();
    const before = await logits();
    const whole = (await ledger()).backends.find(({ backend }) => backend === "webgl")?.bytes;
    losable.lose();
    fetched.length = 0;
    const [made, doubled] = [session.name(), session.name()];
    const done = forward({ logits: made });
    session.post({ kind: "operate", op: "add", inputs: [made, made], result: doubled });
    const { numbers } = await session.read(doubled);
    await done;
    assert.deepEqual(
      numbers,
      before.map((x) => 2 * x),
    );
    assert.equal(losable.openings, 2);
    assert.equal(fetched.filter((name) => name === "model.safetensors").length > 0, true);
    session.post({ kind: "release", tensors: [made, doubled] });
    const { models, backends } = await ledger();
    assert.deepEqual(
      models.map((each) => each.bytes),
      [bytes],
    );
    assert.equal(backends.find(({ backend }) => backend === "webgl")?.bytes, whole);
    assert.deepEqual(await logits(), before);
    assert.equal(losable.openings, 2);
  });

  test("passes that begin together share one reload; one that is cancelled meanwhile ends as cancelled", async () => {
    const { session, losable, logits, forward } = await opened();
    const before = await logits();
    losable.lose();
    const pass = session.name();
    const cancelled = session.ask({ kind: "forward", model: 1, pass, tokens: TOKENS });
    const all = [logits(), logits(), forward()];
    session.post({ kind: "cancel", pass });
    await assert.rejects(cancelled, { name: "PassCancelled" });
    assert.deepEqual((await Promise.all(all)).slice(0, 2), [before, before]);
    assert.equal(losable.openings, 2);
  });

  test("a pass in the middle of its kernels fails, and may be run again", async () => {
    const { session, losable, logits } = await opened();
    const before = await logits();
    session.onHook = ({ pass }) => {
      // The loss is noticed by the next kernel, before anybody is told of it.
      losable.lose();
      session.post({ kind: "hookAnswer", pass, replacement: null });
    };
    await assert.rejects(logits({ hooks: ["blocks.1.attn.hook_z"] }), { name: "ContextLost", retriable: true });
    assert.deepEqual(await logits(), before);
  });

  test("a generation is ended, and another one works", async () => {
    const { session, losable, model } = await opened();
    const generate = () =>
      session.ask({
        kind: "generate",
        model,
        pass: session.name(),
        tokens: TOKENS[0],
        maxTokens: 3,
        sampling: { temperature: 0 },
      });
    const tokens = ({ message }: { message: Answer }) => (message as Extract<Answer, { kind: "generated" }>).tokens;
    const before = tokens(await generate());
    losable.lose();
    assert.deepEqual(tokens(await generate()), before);
    assert.equal(before.length, 3);
  });

  test("what a cache held is gone, and it says so; an empty one goes on", async () => {
    const { session, losable, model, forward, logits, ledger } = await opened();
    for (const cache of [1, 2]) session.post({ kind: "createCache", cache, model });
    await forward({ cache: 1 });
    losable.lose();
    await assert.rejects(forward({ cache: 1, tokens: [[5]] }), { name: "ContextLost", message: /cache 1.*new cache/ });
    const filled = await logits({ cache: 2 });
    assert.deepEqual(await logits(), filled);
    const { caches } = await ledger();
    assert.deepEqual(
      caches.map(({ cache, length }) => [cache, length]),
      [
        [1, 0],
        [2, 4],
      ],
    );
  });

  test("where no new context can be had the pass says why, and what to do; a later one tries again", async () => {
    const { losable, logits } = await opened();
    const before = await logits();
    losable.lose();
    losable.refusal = "the GPU process crashed";
    await assert.rejects(logits(), {
      name: "ContextLost",
      retriable: false,
      message: /GPU process crashed.*backend wasm/,
    });
    losable.refusal = null;
    assert.deepEqual(await logits(), before);
  });

  test("a model that is unloaded while its weights come again leaves nothing behind", async () => {
    const { session, losable, model, forward, ledger } = await opened();
    losable.lose();
    const running = forward();
    running.catch(() => undefined);
    await session.ask({ kind: "unload", model });
    await assert.rejects(running, { name: "PassCancelled" });
    const held = async () => (await ledger()).backends.find(({ backend }) => backend === "webgl")?.bytes ?? 0;
    for (let i = 0; losable.openings < 2 && i < 400; i++) await settled();
    assert.equal(losable.openings, 2);
    // Nothing tells when the weights are there, and let go again: they are, once nothing is held for a while.
    let calm = 0;
    for (let i = 0; calm < 20 && i < 400; i++) {
      calm = (await held()) === 0 ? calm + 1 : 0;
      await settled();
    }
    assert.deepEqual([await held(), (await ledger()).models], [0, []]);
  });

  test("benchmark and parity bring the weights back too", async () => {
    const { session, losable, model } = await opened();
    losable.lose();
    const { message } = await session.ask({ kind: "benchmark", model, lengths: [2], repetitions: 1 });
    assert.equal((message as Extract<Answer, { kind: "benchmarked" }>).backend, "webgl");
    losable.lose();
    await assert.rejects(
      session.ask({ kind: "parity", id: 0, model } as never),
      (error: Error) => error.name !== "ContextLost",
    );
    assert.equal(losable.openings, 3);
  });
});
