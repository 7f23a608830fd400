// The engine's messages: passes, hooks, tensors, errors. What the numbers are is test_parity.py's.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import type { Answer, ForwardRequest, HookEvent } from "../../js_bridge/protocol.ts";
import { Session } from "./session.ts";
import { TINY, writeTiny } from "./tiny.ts";

const TOKENS = [
  [1, 2, 3, 4, 5],
  [9, 8, 7, 22, 0],
];

let folder: string;
before(async () => {
  folder = await writeTiny();
});

async function opened(options: ConstructorParameters<typeof Session>[0] = {}, backend: "reference" | "wasm" = "wasm") {
  const session = new Session(options);
  const { model } = await session.load(folder, backend);
  const forward = (request: Partial<ForwardRequest> = {}) =>
    session.ask({ kind: "forward", model, pass: session.name(), tokens: TOKENS, ...request });
  const logits = async (request: Partial<ForwardRequest> = {}) => {
    const tensor = session.name();
    await forward({ ...request, logits: tensor });
    return (await session.read(tensor)).numbers;
  };
  const ledger = async () => (await session.ask({ kind: "ledger" })).message as Extract<Answer, { kind: "ledger" }>;
  return { session, model, forward, logits, ledger };
}

describe("loading", () => {
  test("loaded says what the model is and which hooks it has", async () => {
    const session = new Session();
    const loaded = await session.load(folder);
    assert.deepEqual(loaded.dimensions, { L: 2, D: 12, H: 3, K: 4, F: 20, V: 23, P: 10 });
    assert.equal(loaded.hooks.filter((hook) => hook.on).length, 17 * TINY.layers + 6);
    assert.deepEqual(loaded.basis, {
      model: loaded.name,
      revision: null,
      weights: "raw",
      dtype: "float32",
      backend: "reference",
    });
    assert.equal(loaded.tokenizer, null);
  });

  test("a backend that is missing is refused by name", async () => {
    const without = new Session({ fetchKernels: async () => null });
    await assert.rejects(without.load(folder, "wasm"), {
      name: "BackendUnavailable",
      message: /kernels.wasm is not there.*build it with/,
    });
    const damaged = new Session({ fetchKernels: async () => Uint8Array.of(1, 2, 3) });
    await assert.rejects(damaged.load(folder, "wasm"), { name: "BackendUnavailable", message: /damaged/ });
    await assert.rejects(new Session().load(folder, "webgl"), { name: "BackendUnavailable", message: /WebGL2/ });
    await assert.rejects(new Session().load(folder, "cuda" as "wasm"), {
      name: "BackendUnavailable",
      message: /"cuda" does not exist/,
    });
  });

  test("auto measures, and falls back to what there is", async () => {
    const measured = await new Session().load(folder, "auto");
    assert.equal(measured.backend, "wasm");
    assert.ok((measured.probe.wasm as number) > 0);
    const fallen = await new Session({ fetchKernels: async () => null }).load(folder, "auto");
    assert.equal(fallen.backend, "reference");
  });

  test("a model that is unloaded is unknown, and its passes are cancelled", async () => {
    const { session, model, forward } = await opened();
    const waiting = new Promise<void>((resolve) => {
      session.onHook = () => resolve();
    });
    const pass = forward({ hooks: ["hook_embed"] });
    pass.catch(() => undefined);
    await waiting;
    await session.ask({ kind: "unload", model });
    await assert.rejects(pass, { name: "PassCancelled" });
    await assert.rejects(forward(), { name: "UnknownModel", message: /loaded are: none/ });
  });
});

describe("forward", () => {
  test("is refused before anything runs, with value and bound", async () => {
    const { forward, session } = await opened();
    const cases: [Partial<ForwardRequest>, { name: string; message: RegExp }][] = [
      [{ tokens: [[1, 2], [3]] }, { name: "RaggedBatch", message: /rows have 2, 1 tokens/ }],
      [{ tokens: [] }, { name: "RaggedBatch", message: /no tokens/ }],
      [{ tokens: [new Array<number>(11).fill(0)] }, { name: "TooManyTokens", message: /11 tokens .* 1 to 10/ }],
      [{ tokens: [[]] }, { name: "TooManyTokens", message: /0 tokens/ }],
      [{ tokens: [[3, 23]] }, { name: "TokenOutOfVocabulary", message: /23 is outside .* 0 … 22/ }],
      [{ tokens: [[3, -1]] }, { name: "TokenOutOfVocabulary", message: /-1/ }],
      [
        { hooks: ["blocks.0.hook_resid_pst"] },
        { name: "UnknownHook", message: /near it are blocks.0.hook_resid_post/ },
      ],
      [
        { capture: [{ name: "hook_q", tensor: session.name() }] },
        { name: "UnknownHook", message: /blocks.0.attn.hook_q/ },
      ],
      [{ hooks: ["blocks.7.hook_resid_post"] }, { name: "UnknownHook", message: /blocks.1.hook_resid_post/ }],
      [{ hooks: ["blocks.1.attn.hook_result"] }, { name: "DisabledHook", message: /naming it in the pass's "enable"/ }],
      [{ enable: ["blocks.1.attn.hook_resul"] }, { name: "UnknownHook", message: /hook_result/ }],
      [
        { interventions: [{ hook: "hook_embed", action: "zero", at: { head: 1 } }] },
        { name: "BadParameter", message: /no axis "head"; it has batch, position, neuron/ },
      ],
      [
        { interventions: [{ hook: "hook_embed", action: "zero", at: { position: 5 } }] },
        { name: "BadParameter", message: /Index 5 along position .* -5 … 4/ },
      ],
      [
        { interventions: [{ hook: "hook_embed", action: "set", tensor: 999 }] },
        { name: "UnknownTensor", message: /999/ },
      ],
      [
        { interventions: [{ hook: "hook_embed", action: "patch", tensor: session.create([1, 2], [2]) }] },
        { name: "ShapeMismatch", message: /\[2\]: it must be \[2 5 12\]/ },
      ],
    ];
    for (const [request, error] of cases) await assert.rejects(forward(request), error);
  });

  test("that is refused poisons the tensors that it was to make", async () => {
    const { forward, session } = await opened();
    const [captured, logits, sum] = [session.name(), session.name(), session.name()];
    const refused = forward({ tokens: [[99]], logits, capture: [{ name: "hook_embed", tensor: captured }] });
    session.post({ kind: "operate", op: "add", inputs: [captured, logits], result: sum });
    await assert.rejects(refused, { name: "TokenOutOfVocabulary" });
    await assert.rejects(session.read(sum), { name: "TokenOutOfVocabulary" });
  });

  test("is done with the shapes of what was asked for, in that order", async () => {
    const { forward, session } = await opened();
    const [pattern, embed, logits] = [session.name(), session.name(), session.name()];
    const { message } = await forward({
      logits,
      capture: [
        { name: "blocks.1.attn.hook_pattern", tensor: pattern },
        { name: "hook_embed", tensor: embed },
      ],
    });
    assert.deepEqual((message as Extract<Answer, { kind: "done" }>).shapes, [
      { tensor: pattern, shape: [2, 3, 5, 5] },
      { tensor: embed, shape: [2, 5, 12] },
      { tensor: logits, shape: [2, 5, 23] },
    ]);
  });

  test("gives the same bits again, alone and in a batch", async () => {
    const { logits } = await opened();
    const batch = await logits();
    assert.deepEqual(await logits(), batch);
    const first = await logits({ tokens: [TOKENS[0]] });
    assert.deepEqual(first, batch.slice(0, first.length));
  });

  test("gives the same bits whatever is captured, hooked or enabled without an edit", async () => {
    const { logits, session } = await opened();
    const plain = await logits();
    const capture = ["blocks.0.attn.hook_pattern", "blocks.1.ln2.hook_scale"].map((name) => ({
      name,
      tensor: session.name(),
    }));
    assert.deepEqual(await logits({ capture, hooks: ["blocks.0.hook_resid_post"] }), plain);
  });

  for (const backend of ["reference", "wasm"] as const) {
    test(`frees all of its scratch in ${backend}, also when it fails, is cancelled or replaced`, async () => {
      const { session, forward, ledger } = await opened({}, backend);
      const before = await ledger();
      const row = session.create(new Array<number>(12).fill(1), [12]);
      const enable = [
        "blocks.0.attn.hook_result",
        "blocks.0.hook_q_input",
        "blocks.0.hook_attn_in",
        "blocks.1.hook_mlp_in",
      ];
      await forward({ enable });
      await forward({
        interventions: [
          { hook: "hook_embed", action: "add", tensor: row, times: 2, at: { position: [1, 2] } },
          { hook: "hook_embed", action: "projectOut", tensor: row },
        ],
      });
      const hooks = ["blocks.0.attn.hook_z", "blocks.1.hook_resid_mid"];
      await forward({ hooks });
      session.onHook = ({ pass, tensor }) => {
        session.post({ kind: "release", tensors: [tensor] });
        session.post({ kind: "cancel", pass });
      };
      await assert.rejects(forward({ hooks, interventions: [{ hook: "blocks.0.attn.hook_z", action: "zero" }] }));
      session.onHook = ({ pass, tensor }) => {
        const copy = session.name();
        session.post({ kind: "operate", op: "negate", inputs: [tensor], result: copy });
        session.post({ kind: "hookAnswer", pass, replacement: copy });
        session.post({ kind: "release", tensors: [tensor, copy] });
      };
      await forward({ hooks });
      session.post({ kind: "release", tensors: [row, ...(await ledger()).tensors.map((each) => each.tensor)] });
      const after = await ledger();
      assert.deepEqual(after, { ...before, id: after.id });
    });
  }
});

describe("hooks", () => {
  test("come in the order of the computation, each with the value at its point", async () => {
    const { session, forward } = await opened();
    const seen: string[] = [];
    session.onHook = ({ pass, name, tensor, shape }) => {
      seen.push(`${name} ${shape.join(" ")}`);
      assert.ok(tensor < 0);
      session.post({ kind: "hookAnswer", pass, replacement: null });
    };
    await forward({ hooks: ["blocks.1.hook_resid_post", "hook_embed", "blocks.0.attn.hook_z"] });
    assert.deepEqual(seen, ["hook_embed 2 5 12", "blocks.0.attn.hook_z 2 5 3 4", "blocks.1.hook_resid_post 2 5 12"]);
  });

  test("a replacement of another shape fails the pass and names both shapes", async () => {
    const { session, forward, ledger } = await opened();
    const wrong = session.create([1, 2, 3], [3]);
    session.onHook = ({ pass, tensor }) => {
      session.post({ kind: "hookAnswer", pass, replacement: wrong });
      session.post({ kind: "release", tensors: [tensor, wrong] });
    };
    await assert.rejects(forward({ hooks: ["hook_embed"] }), {
      name: "ShapeMismatch",
      message: /shape \[3\]; its value has shape \[2 5 12\]/,
    });
    assert.equal((await ledger()).bytes, 0);
  });

  test("a pass may run inside the hook of another", async () => {
    const { session, logits } = await opened();
    const plain = await logits({ tokens: [TOKENS[1]] });
    let inner: Float32Array | null = null;
    session.onHook = async ({ pass }: HookEvent) => {
      inner = await logits({ tokens: [TOKENS[1]] });
      session.post({ kind: "hookAnswer", pass, replacement: null });
    };
    await logits({ hooks: ["blocks.0.hook_resid_mid"] });
    assert.deepEqual(inner, plain);
  });

  test("many passes wait at hooks at once and end in any order", async () => {
    const { session, logits } = await opened();
    const plain = await Promise.all(TOKENS.map((row) => logits({ tokens: [row] })));
    const waiting: HookEvent[] = [];
    session.onHook = (event) => void waiting.push(event);
    const passes = TOKENS.map((row) => logits({ tokens: [row], hooks: ["blocks.0.attn.hook_q"] }));
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(waiting.length, 2);
    for (const { pass } of waiting.reverse()) session.post({ kind: "hookAnswer", pass, replacement: null });
    assert.deepEqual(await Promise.all(passes), plain);
  });

  test("the value at a hook outlives its pass until it is released", async () => {
    const { session, forward, ledger } = await opened();
    let kept = 0;
    session.onHook = ({ pass, tensor }) => {
      kept = tensor;
      session.post({ kind: "hookAnswer", pass, replacement: null });
    };
    await forward({ hooks: ["blocks.0.hook_mlp_out"] });
    assert.deepEqual((await session.read(kept)).shape, [2, 5, 12]);
    session.post({ kind: "release", tensors: [kept] });
    assert.equal((await ledger()).bytes, 0);
    await assert.rejects(session.read(kept), {
      name: "ReleasedTensor",
      message: new RegExp(`Tensor ${kept} was released`),
    });
  });

  test("a cancelled pass fails, poisons what it has not reached and frees the rest", async () => {
    const { session, forward, ledger } = await opened();
    const [early, late] = [session.name(), session.name()];
    session.onHook = ({ pass, tensor }) => {
      session.post({ kind: "cancel", pass });
      session.post({ kind: "release", tensors: [tensor] });
    };
    const capture = [
      { name: "hook_embed", tensor: early },
      { name: "blocks.1.hook_resid_post", tensor: late },
    ];
    await assert.rejects(forward({ capture, hooks: ["blocks.0.hook_mlp_out"] }), { name: "PassCancelled" });
    assert.deepEqual((await session.read(early)).shape, [2, 5, 12]);
    await assert.rejects(session.read(late), { name: "PassCancelled" });
    session.post({ kind: "release", tensors: [early, late] });
    assert.equal((await ledger()).bytes, 0);
  });

  test("an answer to a pass that does not wait is an error", async () => {
    const { session } = await opened();
    session.post({ kind: "hookAnswer", pass: 77, replacement: null });
    const failed = session.events.at(-1) as Extract<Answer, { kind: "failed" }>;
    assert.deepEqual([failed.kind, failed.pass, failed.error.name], ["failed", 77, "UnknownPass"]);
  });
});

describe("tensors", () => {
  test("an operation on a capture waits for its pass", async () => {
    const { session, model } = await opened();
    const [captured, doubled] = [session.name(), session.name()];
    const other = session.name();
    session.onHook = ({ pass }) =>
      void setTimeout(() => session.post({ kind: "hookAnswer", pass, replacement: null }), 5);
    const done = session.ask({
      kind: "forward",
      model,
      pass: 1,
      tokens: TOKENS,
      hooks: ["hook_embed"],
      capture: [{ name: "blocks.0.attn.hook_z", tensor: captured }],
    });
    session.post({ kind: "operate", op: "multiply", inputs: [captured], parameters: { scalar: 2 }, result: doubled });
    session.post({ kind: "release", tensors: [captured] });
    const reading = session.read(doubled);
    await done;
    const { numbers } = await reading;
    await session.ask({
      kind: "forward",
      model,
      pass: 2,
      tokens: TOKENS,
      capture: [{ name: "blocks.0.attn.hook_z", tensor: other }],
    });
    assert.deepEqual(
      numbers,
      (await session.read(other)).numbers.map((x) => 2 * x),
    );
  });

  test("synchronize is answered when all that was posted is computed", async () => {
    const { session, model } = await opened();
    const captured = session.name();
    const order: string[] = [];
    session.onHook = ({ pass }) =>
      void setTimeout(() => (order.push("answer"), session.post({ kind: "hookAnswer", pass, replacement: null })), 5);
    const done = session.ask({
      kind: "forward",
      model,
      pass: 1,
      tokens: TOKENS,
      hooks: ["hook_embed"],
      logits: captured,
    });
    await session.ask({ kind: "synchronize" });
    order.push("synchronized");
    await done;
    assert.deepEqual(order, ["answer", "synchronized"]);
  });

  test("a failed operation poisons its result, and each use of it says what failed first", async () => {
    const { session } = await opened();
    const [a, b] = [session.create([1, 2, 3], [3]), session.create([1, 2], [2])];
    const [sum, next] = [session.name(), session.name()];
    session.post({ kind: "operate", op: "add", inputs: [a, b], result: sum, origin: "Tensor>>+ line 3" });
    session.post({ kind: "operate", op: "exp", inputs: [sum], result: next, origin: "later" });
    await assert.rejects(session.read(next), {
      name: "ShapeMismatch",
      operation: "add",
      origin: "Tensor>>+ line 3",
      message: /\[3\] and \[2\] don't broadcast/,
    });
    await assert.rejects(session.ask({ kind: "statistics", tensor: sum }), { name: "ShapeMismatch" });
  });

  test("a name is never given twice, and an unknown one is unknown", async () => {
    const { session } = await opened();
    const tensor = session.create([1], [1]);
    session.post({ kind: "create", tensor, shape: [1] }, [Float32Array.of(2)]);
    assert.match((session.events.at(-1) as { error: { message: string } }).error.message, /already in use/);
    await assert.rejects(session.read(4711), { name: "UnknownTensor" });
    await assert.rejects(session.read(-4711), { name: "UnknownTensor" });
  });

  test("a created tensor of the wrong size is poisoned", async () => {
    const { session } = await opened();
    await assert.rejects(session.read(session.create([1, 2, 3], [2, 2])), {
      name: "ShapeMismatch",
      message: /\[2 2\] came with 3 float32 numbers; it needs 4/,
    });
    await assert.rejects(session.read(session.create([], [0])), { name: "BadParameter" });
  });

  test("statistics are the population's, over the finite numbers", async () => {
    const { session } = await opened();
    const { message } = await session.ask({ kind: "statistics", tensor: session.create([1, 2, 3, 6, -Infinity], [5]) });
    const { mean, standardDeviation, norm, min, max, nonFinite, elements } = message as Extract<
      Answer,
      { kind: "statistics" }
    >;
    assert.deepEqual(
      [mean, standardDeviation, norm, min, max, nonFinite, elements],
      [3, Math.sqrt(3.5), Math.sqrt(50), 1, 6, 1, 5],
    );
  });

  test("topK is by value, then by index", async () => {
    const { session } = await opened();
    const { message, attachments } = await session.ask({
      kind: "topK",
      tensor: session.create([3, 9, 9, 1, 0, -1, NaN, 5], [2, 4]),
      k: 3,
    });
    assert.deepEqual((message as Extract<Answer, { kind: "top" }>).shape, [2, 3]);
    assert.deepEqual([...(attachments[0] as Float32Array)], [9, 9, 3, 5, 0, -1]);
    assert.deepEqual([...(attachments[1] as Float32Array)], [1, 2, 0, 3, 0, 1]);
    await assert.rejects(session.ask({ kind: "topK", tensor: session.create([1], [1]), k: 2 }), {
      name: "BadParameter",
      message: /1 … 1/,
    });
  });

  test("near the budget the image is asked to collect, past it tensors are refused with the ledger", async () => {
    const { session, ledger } = await opened({ budget: 4000 });
    const kept = session.create(new Array<number>(800).fill(1), [800]);
    assert.deepEqual(session.events.at(-1), { kind: "collect", bytes: 3200, budget: 4000 });
    const refused = session.create(new Array<number>(300).fill(1), [300]);
    await assert.rejects(session.read(refused), { name: "OverBudget", message: /4400 bytes of the 4000/ });
    const sum = session.name();
    session.post({ kind: "operate", op: "add", inputs: [kept, kept], result: sum, origin: "Foo>>bar" });
    await assert.rejects(session.read(sum), { name: "OverBudget", operation: "add", origin: "Foo>>bar" });
    session.post({ kind: "release", tensors: [kept] });
    assert.equal((await ledger()).bytes, 0);
    assert.equal((await session.read(session.create(new Array<number>(300).fill(1), [300]))).numbers.length, 300);
  });

  test("shared storage counts once", async () => {
    const { session, ledger } = await opened();
    const tensor = session.create([1, 2, 3, 4], [4]);
    const view = session.name();
    session.post({ kind: "operate", op: "reshape", inputs: [tensor], parameters: { shape: [2, 2] }, result: view });
    assert.equal((await ledger()).bytes, 16);
    session.post({ kind: "release", tensors: [tensor] });
    assert.deepEqual([...(await session.read(view)).numbers], [1, 2, 3, 4]);
  });
});

test("a message of an unknown kind is answered with an error", () => {
  const session = new Session();
  session.post({ kind: "fly", id: 3 } as never);
  assert.match((session.events[0] as { error: { message: string } }).error.message, /"fly"/);
});
