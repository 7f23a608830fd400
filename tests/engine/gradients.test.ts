// The `gradient` message and taped passes: what has a gradient, whose past is kept and how long, what is refused.
// That the numbers are PyTorch's is test_gradients.py's, that each kernel's rule is its slope gradient_rules.test.ts's.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import type {
  Answer,
  ForwardRequest,
  LoadRequest,
  OperationName,
  OperationParameters,
} from "../../js_bridge/protocol.ts";
import { Losable } from "./faulty_backend.ts";
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

type Backend = "reference" | "wasm" | "webgl";

async function opened(
  backend: Backend = "reference",
  options: ConstructorParameters<typeof Session>[0] = {},
  dtype: LoadRequest["dtype"] = "stored",
) {
  const session = new Session(options);
  const { message } = await session.ask({ kind: "load", bundle: folder, backend, dtype });
  const { model } = message as Extract<Answer, { kind: "loaded" }>;
  const operate = (op: OperationName, inputs: number[], parameters: OperationParameters = {}): number => {
    const result = session.name();
    session.post({ kind: "operate", op, inputs, parameters, result });
    return result;
  };
  /** Runs a taped pass; answers the names of the captured values and of the logits. */
  const taped = async (names: string[], more: Partial<ForwardRequest> = {}) => {
    const capture = names.map((name) => ({ name, tensor: session.name() }));
    const logits = session.name();
    const pass = session.name();
    await session.ask({ kind: "forward", model, pass, tokens: TOKENS, capture, logits, tape: true, ...more });
    return { captured: capture.map(({ tensor }) => tensor), logits };
  };
  /** A number made of logits, at their last position. */
  const difference = (logits: number): number => {
    const last = operate("take", [logits], { axis: 1, indices: [-1] });
    const [a, b] = [5, 3].map((token) => operate("take", [last], { axis: 2, indices: [token] }));
    return operate("mean", [operate("subtract", [a, b])]);
  };
  const gradients = (of: number, to: number[]): number[] => {
    const asked = to.map((tensor) => ({ tensor, result: session.name() }));
    session.post({ kind: "gradient", of, to: asked, origin: "a test" });
    return asked.map(({ result }) => result);
  };
  const numbers = async (tensor: number) => (await session.read(tensor)).numbers;
  const ledger = async () => (await session.ask({ kind: "ledger" })).message as Extract<Answer, { kind: "ledger" }>;
  return { session, model, operate, taped, difference, gradients, numbers, ledger };
}

function near(ours: Float32Array, wanted: ArrayLike<number>, tolerance = 1e-5): void {
  assert.equal(ours.length, wanted.length);
  const scale = Math.max(1e-3, ...Array.from(wanted, Math.abs));
  for (const [i, x] of ours.entries())
    assert.ok(Math.abs(x - wanted[i]) <= tolerance * scale, `element ${i}: ${x} and ${wanted[i]} of ${scale}`);
}

const isZero = (numbers: Float32Array) => numbers.every((x) => x === 0);

describe("a gradient", () => {
  test("is to the value that the model went on with: a hook's answer, with its own past or with none", async () => {
    const { session, taped, difference, gradients, numbers, operate } = await opened();
    const names = ["hook_embed", "blocks.1.hook_resid_pre"];
    const plain = await taped(names);
    const [embedded, stream] = gradients(difference(plain.logits), plain.captured);
    const wanted = await numbers(stream);

    let shown = 0;
    session.onHook = ({ pass, tensor }) => {
      shown = tensor;
      session.post({ kind: "hookAnswer", pass, replacement: operate("multiply", [tensor], { scalar: 1 }) });
    };
    const made = await taped(names, { hooks: ["blocks.1.hook_resid_pre"] });
    const [through, at, before] = gradients(difference(made.logits), [...made.captured, shown]);
    near(await numbers(through), await numbers(embedded));
    near(await numbers(at), wanted);
    near(await numbers(before), wanted);

    const { shape, numbers: stored } = await session.read(plain.captured[1]);
    session.onHook = ({ pass }) =>
      session.post({ kind: "hookAnswer", pass, replacement: session.create([...stored], shape) });
    const cut = await taped(names, { hooks: ["blocks.1.hook_resid_pre"] });
    const [nothing, leaf] = gradients(difference(cut.logits), cut.captured);
    near(await numbers(leaf), wanted);
    assert.ok(isZero(await numbers(nothing)), "a value made outside the pass has a past");
  });

  test("goes back into another pass through what was patched from it", async () => {
    const { taped, difference, gradients, numbers } = await opened();
    const hook = "blocks.0.hook_resid_post";
    const clean = await taped(["hook_embed", hook]);
    const patched = await taped([hook], {
      tokens: TOKENS.toReversed(),
      interventions: [{ hook, action: "patch", tensor: clean.captured[1], at: { position: [1, 4] } }],
    });
    const results = gradients(difference(patched.logits), [clean.captured[1], patched.captured[0]]);
    const [source, target] = await Promise.all(results.map(numbers));
    const expected = target.map((x, i) => ([1, 4].includes(Math.floor(i / TINY.width) % 5) ? x : 0));
    assert.ok(!isZero(source));
    near(source, expected);
  });

  test("of what was captured at some positions is cut from the whole", async () => {
    const { session, taped, difference, gradients, numbers } = await opened();
    const name = "blocks.1.attn.hook_pattern";
    const [part, whole] = [session.name(), session.name()];
    const { logits } = await taped([], {
      capture: [
        { name, tensor: part, positions: [4, 1] },
        { name, tensor: whole },
      ],
    });
    const [some, all] = gradients(difference(logits), [part, whole]);
    const { shape, numbers: ours } = await session.read(some);
    assert.deepEqual(shape, [2, TINY.heads, 2, 5]);
    const full = await numbers(all);
    assert.ok(!isZero(full));
    const rows = Array.from({ length: 2 * TINY.heads }, (_, i) => [4, 1].map((query) => 25 * i + 5 * query));
    near(ours, rows.flat().flatMap((start) => [...full.subarray(start, start + 5)]));
  });

  test("of operations alone, and to what operations made on the way", async () => {
    const { session, taped, gradients, numbers, operate } = await opened();
    const { captured } = await taped(["hook_embed"]);
    const square = operate("square", captured);
    const copy = operate("copy", [square]);
    const total = operate("sum", [operate("multiply", [copy], { scalar: 3 })]);
    const [first, second, third, self] = gradients(total, [captured[0], square, copy, total]);
    const embedding = await numbers(captured[0]);
    near(await numbers(first), embedding.map((x) => 6 * x));
    assert.ok((await numbers(second)).every((x) => x === 3));
    assert.ok((await numbers(third)).every((x) => x === 3));
    assert.deepEqual([...(await numbers(self))], [1]);
    assert.deepEqual((await session.read(self)).shape, []);
  });

  test("is 0 for what the number does not rest on, in the same pass", async () => {
    const { taped, gradients, numbers, operate } = await opened();
    const { captured } = await taped(["blocks.0.hook_resid_pre", "blocks.1.mlp.hook_post"]);
    const [later] = gradients(operate("sum", [captured[0]]), [captured[1]]);
    const result = await numbers(later);
    assert.equal(result.length, 2 * 5 * TINY.inner);
    assert.ok(isZero(result));
  });

  test("of a partial pass from a residual stream is that of the whole pass", async () => {
    const { taped, difference, gradients, numbers } = await opened();
    const names = ["blocks.1.hook_resid_pre", "blocks.1.attn.hook_k"];
    const whole = await taped(names);
    const start = { layer: 1, tensor: whole.captured[0] };
    const part = await taped(names, { start });
    const wanted = gradients(difference(whole.logits), whole.captured);
    const ours = gradients(difference(part.logits), [...part.captured, whole.captured[0]]);
    for (const [i, tensor] of wanted.entries()) near(await numbers(ours[i]), await numbers(tensor));
    near(await numbers(ours[2]), await numbers(wanted[0])); // the stream that it began with has its past
  });

  for (const [backend, dtype] of [
    ["reference", "stored"],
    ["reference", "int8"],
    ["wasm", "int8"],
  ] as const) {
    test(`predicts what a small change does, weights ${dtype} in ${backend}: attribution patching`, async () => {
      const { taped, difference, gradients, numbers, operate } = await opened(backend, {}, dtype);
      const hook = "blocks.0.hook_resid_post";
      const clean = await taped([hook]);
      const corrupt = await taped([hook], { tokens: TOKENS.toReversed() });
      const of = difference(corrupt.logits);
      const [gradient] = gradients(of, corrupt.captured);
      const step = operate("subtract", [clean.captured[0], corrupt.captured[0]]);
      const [slope] = await numbers(operate("sum", [operate("multiply", [gradient, step])]));
      const [base] = await numbers(of);
      const rests = [];
      for (const share of [1 / 16, 1 / 32]) {
        const moved = await taped([], {
          tokens: TOKENS.toReversed(),
          interventions: [{ hook, action: "add", tensor: step, times: share }],
        });
        const [value] = await numbers(difference(moved.logits));
        rests.push(Math.abs(value - base - share * slope));
        const predicted = share * slope;
        assert.ok(rests[rests.length - 1] < 0.2 * Math.abs(predicted), `${value - base}, predicted ${predicted}`);
      }
      assert.ok(rests[1] < 0.35 * rests[0], `what is left does not fall with the square: ${rests}`);
    });
  }

  for (const backend of ["reference", "wasm"] as const) {
    test(`has the same bits in ${backend}, whatever is captured beside`, async () => {
      const { taped, difference, gradients, numbers } = await opened(backend);
      const name = "blocks.0.hook_resid_pre";
      const one = await taped([name]);
      const parts = ["ln1.hook_scale", "ln1.hook_normalized", "attn.hook_pattern", "hook_resid_mid", "ln2.hook_scale"];
      const beside = [0, 1].flatMap((layer) => parts.map((part) => `blocks.${layer}.${part}`));
      const many = await taped([name, ...beside, "ln_final.hook_scale", "unembed.hook_in"]);
      const [a] = gradients(difference(one.logits), one.captured);
      const [b] = gradients(difference(many.logits), many.captured);
      assert.deepEqual(await numbers(a), await numbers(b));
    });
  }

  for (const backend of ["reference", "wasm"] as const) {
    test(`is not touched by NaN in the padding, in ${backend}`, async () => {
      const { taped, difference, gradients, numbers, operate } = await opened(backend);
      const names = ["hook_embed", "blocks.0.attn.hook_k", "blocks.1.hook_resid_mid"];
      const rows = [TOKENS[0].slice(0, 3), TOKENS[1]];
      const alone = [];
      for (const row of rows) {
        const { captured, logits } = await taped(names, { tokens: [row] });
        alone.push(await Promise.all(gradients(difference(logits), captured).map(numbers)));
      }
      for (const side of ["right", "left"] as const) {
        const padded = side === "right" ? [...rows[0], 0, 0] : [0, 0, ...rows[0]];
        const first = side === "right" ? 0 : 2;
        const at = { batch: 0, position: side === "right" ? [3, 4] : [0, 1] };
        const { captured, logits } = await taped(names, {
          tokens: [padded, rows[1]],
          padding: { side, lengths: [3, 5] },
          interventions: [{ hook: "hook_embed", action: "set", value: NaN, at }],
        });
        // The mean of the rows' own differences, each after its last token.
        const parts = [0, 1].map((row) => {
          const own = operate("take", [logits], { axis: 0, indices: [row] });
          const indices = row === 0 ? [first, first + 1, first + 2] : [0, 1, 2, 3, 4];
          return difference(operate("take", [own], { axis: 1, indices }));
        });
        const results = await Promise.all(gradients(operate("add", parts), captured).map(numbers));
        for (const [i, result] of results.entries()) {
          const width = result.length / 10;
          near(result.subarray(first * width, (first + 3) * width), alone[0][i]);
          near(result.subarray(5 * width), alone[1][i]);
        }
      }
      });
  }
});

describe("what can't be done is an error that tells what to do", () => {
  test("tensors without a past", async () => {
    const { session, model, taped, difference, gradients, operate, numbers } = await opened();
    const outside = session.create([1, 2], [2]);
    const { captured, logits } = await taped(["hook_embed"]);
    const [untaped] = [session.name()];
    await session.ask({ kind: "forward", model, pass: session.name(), tokens: TOKENS, logits: untaped });
    const of = difference(logits);
    const wrong = {
      name: "NotTaped",
      message: /has no past .* run its pass with "tape"/,
      operation: "gradient",
      origin: "a test",
    };
    const [bad, good] = gradients(of, [outside, captured[0]]);
    await assert.rejects(session.read(bad), wrong);
    assert.ok(!isZero(await numbers(good)), "one that fails must not spoil the others");
    await assert.rejects(session.read(gradients(difference(untaped), captured)[0]), wrong);
    await assert.rejects(session.read(gradients(operate("argmax", [logits]), captured)[0]), wrong);
  });

  test("a number of one pass, a tensor of another", async () => {
    const { session, taped, difference, gradients } = await opened();
    const first = await taped(["hook_embed"]);
    const second = await taped(["hook_embed"]);
    const [result] = gradients(difference(first.logits), second.captured);
    await assert.rejects(session.read(result), { name: "NotTaped", message: /does not rest on pass \d+, which made/ });
  });

  test("more than one number, names that are unknown, released or poisoned", async () => {
    const { session, taped, difference, gradients, operate } = await opened();
    const { captured, logits } = await taped(["hook_embed"]);
    const many = gradients(logits, captured)[0];
    await assert.rejects(session.read(many), { name: "ShapeMismatch", message: /must hold one number/ });
    await assert.rejects(session.read(gradients(difference(logits), [987654])[0]), { name: "UnknownTensor" });
    await assert.rejects(session.read(gradients(987654, captured)[0]), { name: "UnknownTensor" });
    const poisoned = operate("reshape", [logits], { shape: [1] });
    await assert.rejects(session.read(gradients(poisoned, captured)[0]), { name: "ShapeMismatch" });
    await assert.rejects(session.read(gradients(difference(logits), [poisoned])[0]), { name: "ShapeMismatch" });
    session.post({ kind: "gradient", of: logits, to: [{ tensor: captured[0], result: captured[0] }] });
    assert.equal((session.events.at(-1) as Extract<Answer, { kind: "failed" }>).error.name, "BadMessage");
  });

  test("a model that is unloaded, also while the way back is waiting its turn", async () => {
    const waiting: (() => void)[] = [];
    let isHeld = false;
    let time = 0;
    const { session, model, taped, difference, gradients } = await opened("wasm", {
      now: () => (time += 100),
      defer: (action) => {
        if (isHeld) waiting.push(action);
        else queueMicrotask(action);
      },
    });
    const { captured, logits } = await taped(["hook_embed"]);
    isHeld = true;
    const [late] = gradients(difference(logits), captured);
    assert.equal(waiting.length, 1);
    await session.ask({ kind: "unload", model });
    isHeld = false;
    for (const action of waiting) action();
    const gone = { name: "NotTaped", message: /weights of its model are gone/ };
    await assert.rejects(session.read(late), gone);
    await assert.rejects(session.read(gradients(difference(logits), captured)[0]), gone);
  });

  test("a backend that is lost on the way; the next taped pass has gradients again", async () => {
    const waiting: (() => void)[] = [];
    const losable = new Losable();
    let isHeld = false;
    let time = 0;
    const { session, taped, difference, gradients, numbers, ledger } = await opened("webgl", {
      openers: { webgl: losable.open },
      now: () => (time += 100),
      defer: (action) => {
        if (isHeld) waiting.push(action);
        else queueMicrotask(action);
      },
    });
    const before = await taped(["hook_embed"]);
    isHeld = true;
    const [late] = gradients(difference(before.logits), before.captured);
    assert.equal(waiting.length, 1);
    losable.lose();
    isHeld = false;
    for (const action of waiting) action();
    await assert.rejects(session.read(late), { name: "ContextLost", retriable: true });
    assert.equal((await ledger()).tapes, 0);
    const after = await taped(["hook_embed"]);
    assert.ok(!isZero(await numbers(gradients(difference(after.logits), after.captured)[0])));
  });

  test("a tape that does not fit the budget fails its pass, and leaves nothing behind", async () => {
    const { session, taped, ledger } = await opened("wasm", { budget: 5_000 });
    const before = await ledger();
    await assert.rejects(taped(["hook_embed"]), { name: "OverBudget", message: /of them on tapes/ });
    session.post({ kind: "release", tensors: (await ledger()).tensors.map(({ tensor }) => tensor) });
    const after = await ledger();
    assert.deepEqual([after.tapes, after.bytes], [0, 0]);
    assert.deepEqual(after.backends, before.backends);
  });
});

describe("a tape is freed with the last tensor that rests on it", () => {
  for (const backend of ["reference", "wasm"] as const) {
    test(`in ${backend}, in whatever order they go`, async () => {
      const { session, taped, difference, gradients, numbers, ledger } = await opened(backend);
      const start = await ledger();
      for (const order of [0, 1, 2]) {
        const names = ["hook_embed", "blocks.1.hook_resid_pre", "blocks.1.attn.hook_pattern"];
        const { captured, logits } = await taped(names);
        const of = difference(logits);
        const results = gradients(of, captured);
        await numbers(results[0]);
        const held = await ledger();
        assert.ok(held.tapes > 0);
        assert.ok(held.bytes > held.tapes);
        const all = held.tensors.map(({ tensor }) => tensor);
        assert.ok(all.includes(of));
        if (order === 0) {
          // What the number rests on goes with the number, though the captured values stay.
          session.post({ kind: "release", tensors: all.filter((each) => !captured.includes(each)) });
          const rest = await ledger();
          assert.ok(rest.tapes < held.tapes);
        }
        session.post({ kind: "release", tensors: order === 1 ? all.toReversed() : all });
        const end = await ledger();
        assert.deepEqual([end.tapes, end.bytes, end.tensors], [0, 0, []]);
        assert.deepEqual(end.backends, start.backends);
      }
    });
  }

  test("also when the pass is cancelled at a hook, fails, or nobody waits for the gradients any more", async () => {
    const { session, model, taped, difference, gradients, ledger, operate } = await opened("wasm");
    const start = await ledger();
    let pass = 0;
    const waiting = new Promise<void>((resolve) => {
      session.onHook = (event) => {
        pass = event.pass;
        session.post({ kind: "release", tensors: [operate("square", [event.tensor]), event.tensor] });
        resolve();
      };
    });
    const cancelled = taped(["hook_embed"], { hooks: ["blocks.1.hook_resid_mid"] });
    await waiting;
    session.post({ kind: "cancel", pass });
    await assert.rejects(cancelled, { name: "PassCancelled" });
    session.onHook = (event) =>
      session.post({ kind: "hookAnswer", pass: event.pass, replacement: session.create([1], [1]) });
    await assert.rejects(taped(["hook_embed"], { hooks: ["blocks.1.hook_resid_mid"] }), { name: "ShapeMismatch" });
    const { captured, logits } = await taped(["hook_embed"]);
    session.post({ kind: "release", tensors: gradients(difference(logits), captured) });
    await session.ask({ kind: "synchronize" });
    session.post({ kind: "release", tensors: (await ledger()).tensors.map(({ tensor }) => tensor) });
    const end = await ledger();
    assert.deepEqual([end.tapes, end.bytes], [0, 0]);
    assert.deepEqual(end.backends, start.backends);
    assert.equal(end.models[0].model, model);
  });
});
