// Generation: over a cache it is what passes over the whole text say, token by token; hooks, interventions, captures
// and cancelling work in all of its passes. That its tokens are transformers', test_engine_generation.py says.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { TextStream } from "../../js_bridge/engine/generation/text_stream.ts";
import type { Intervention } from "../../js_bridge/protocol.ts";
import { Tokenizer } from "../../js_bridge/tokenizer/tokenizer.ts";
import { assertClose, type GenerateParts, open, type Opened, range, rowsOf } from "./opened.ts";
import { noise, TINY, writeTiny } from "./tiny.ts";

const PROMPT = [1, 2, 3];
const DEMO_MODEL = fileURLToPath(new URL("../../demo_model", import.meta.url));

let folder: string;
before(async () => {
  folder = await writeTiny();
});

/** What passes over the whole text, without a cache, would go on with; interventions as for the text so far. */
async function greedily(
  model: Opened,
  prompt: readonly number[],
  count: number,
  at: (length: number) => Intervention[] = () => [],
) {
  const tokens = [...prompt];
  const rows: Float32Array[] = [];
  for (let i = 0; i < count; i++) {
    const { logits } = await model.forward({
      tokens: [tokens],
      logits: true,
      logitPositions: [-1],
      interventions: at(tokens.length),
    });
    rows.push(logits.numbers);
    tokens.push(logits.numbers.indexOf(Math.max(...logits.numbers)));
  }
  return { tokens: tokens.slice(prompt.length), rows };
}

function logSoftmax(row: Float32Array): number[] {
  const largest = Math.max(...row);
  const sum = row.reduce((total, x) => total + Math.exp(x - largest), 0);
  return [...row].map((x) => x - largest - Math.log(sum));
}

for (const backend of ["reference", "wasm"] as const) {
  describe(`generation on ${backend}`, () => {
    let model: Opened;
    let names: string[];
    before(async () => {
      model = await open(folder, backend);
      names = [
        "hook_embed",
        "blocks.1.attn.hook_k",
        "blocks.0.attn.hook_attn_scores",
        "blocks.1.attn.hook_pattern",
        "blocks.1.hook_resid_post",
        "unembed.hook_out",
      ];
    });

    test("goes on as passes over the whole text do, and tells each token's probability", async () => {
      const whole = await greedily(model, PROMPT, 7);
      const { tokens, events, reason } = await model.generate({ tokens: PROMPT, maxTokens: 7 });
      assert.deepEqual([...tokens], whole.tokens);
      assert.deepEqual(
        events.map(({ token, index, position }) => [token, index, position]),
        whole.tokens.map((token, i) => [token, i, 3 + i]),
      );
      for (const [i, { logProbability, token }] of events.entries())
        assert.ok(Math.abs(logProbability - logSoftmax(whole.rows[i])[token]) < 1e-5, `token ${i}`);
      assert.equal(reason, "length");
    });

    test("ends at a stop token, which it tells, and at the model's last position", async () => {
      const { tokens: all } = await model.generate({ tokens: PROMPT, maxTokens: 100 });
      assert.equal(all.length, TINY.positions - PROMPT.length);
      const stop = all[2];
      const first = all.indexOf(stop);
      const stopped = await model.generate({ tokens: PROMPT, maxTokens: 100, stop: [stop] });
      assert.deepEqual([stopped.tokens, stopped.reason], [all.slice(0, first + 1), "stop"]);
      assert.equal((await model.generate({ tokens: PROMPT, maxTokens: 100 })).reason, "positions");
    });

    test("captures what one pass over the whole text shows, all positions or some", async () => {
      const { tokens, captured } = await model.generate({ tokens: PROMPT, maxTokens: 4, capture: names });
      const text = [...PROMPT, ...tokens.slice(0, -1)];
      const whole = await model.forward({ tokens: [text], capture: names });
      for (const name of names) {
        assert.deepEqual(captured[name].shape, whole[name].shape, name);
        assertClose(captured[name].numbers, whole[name].numbers, 1e-5, name);
      }
      for (const positions of [
        [5, 1],
        [-1, 0],
      ]) {
        const capture = names.map((name) => ({ name, positions }));
        const some = await model.generate({ tokens: PROMPT, maxTokens: 4, capture });
        const wanted = await model.forward({ tokens: [text], capture });
        for (const name of names) {
          assert.deepEqual(some.captured[name].shape, wanted[name].shape, name);
          assertClose(some.captured[name].numbers, wanted[name].numbers, 1e-5, `${name} at ${positions}`);
        }
      }
    });

    test("intervenes at absolute positions, also at those that come later", async () => {
      const hook = "blocks.0.hook_resid_post";
      const pattern = "blocks.1.attn.hook_pattern";
      const direction = model.session.create([...noise(TINY.width, 4)], [TINY.width]);
      const rows = model.session.create([...noise(3 * TINY.width, 8)], [3, TINY.width]);
      const from = model.session.create([...noise(6 * TINY.width, 9)], [1, 6, TINY.width]);
      /** In a pass over the whole text: the positions that are there already. */
      const cases: [string, Intervention[], (length: number) => Intervention[]][] = [
        [
          "everywhere",
          [{ hook, action: "projectOut", tensor: direction }],
          () => [{ hook, action: "projectOut", tensor: direction }],
        ],
        [
          "a position of the prompt, and one of later",
          [{ hook, action: "zero", at: { position: [1, 5] } }],
          (length) => [{ hook, action: "zero", at: { position: [1, 5].filter((each) => each < length) } }],
        ],
        [
          "rows of a tensor",
          [{ hook, action: "set", tensor: rows, at: { position: [2, 3, 4] } }],
          (length) =>
            [2, 3, 4]
              .filter((each) => each < length)
              .map((each) => ({
                hook,
                action: "set",
                tensor: rowTensor(each - 2),
                at: { position: each },
              })),
        ],
        [
          "a patch that is shorter than the text",
          [{ hook, action: "patch", tensor: from }],
          (length) =>
            range(0, Math.min(length, 6)).map((each) => ({
              hook,
              action: "set",
              tensor: patchTensor(each),
              at: { position: each },
            })),
        ],
        [
          "a key",
          [{ hook: pattern, action: "zero", at: { key: [0, 4] } }],
          (length) => [{ hook: pattern, action: "zero", at: { key: [0, 4].filter((each) => each < length) } }],
        ],
      ];
      const rowTensor = (row: number) =>
        model.session.create(
          [...noise(3 * TINY.width, 8).subarray(row * TINY.width, (row + 1) * TINY.width)],
          [TINY.width],
        );
      const patchTensor = (row: number) =>
        model.session.create(
          [...noise(6 * TINY.width, 9).subarray(row * TINY.width, (row + 1) * TINY.width)],
          [TINY.width],
        );
      const plain = (await model.generate({ tokens: PROMPT, maxTokens: 6 })).events;
      for (const [what, interventions, at] of cases) {
        const { tokens, events } = await model.generate({ tokens: PROMPT, maxTokens: 6, interventions });
        const whole = await greedily(model, PROMPT, 6, at);
        assert.deepEqual([...tokens], whole.tokens, what);
        for (const [i, { logProbability, token }] of events.entries())
          assert.ok(Math.abs(logProbability - logSoftmax(whole.rows[i])[token]) < 1e-5, `${what}, token ${i}`);
        const moved = events.filter((event, i) => Math.abs(event.logProbability - plain[i].logProbability) > 1e-3);
        assert.ok(moved.length >= 3, `${what} changes something`);
      }
    });

    test("takes the newest position of each pass for -1", async () => {
      const hook = "blocks.1.hook_resid_mid";
      const newest = await model.generate({
        tokens: PROMPT,
        maxTokens: 5,
        interventions: [{ hook, action: "scale", by: 3, at: { position: -1 } }],
      });
      const each = await model.generate({
        tokens: PROMPT,
        maxTokens: 5,
        interventions: [{ hook, action: "scale", by: 3, at: { position: [2, 3, 4, 5, 6] } }],
      });
      assert.deepEqual([...newest.tokens], [...each.tokens]);
    });

    test("shows hooks in every pass, with the absolute position of its first token, and goes on with their answers", async () => {
      const hook = "blocks.0.hook_resid_post";
      const seen: unknown[] = [];
      const { session } = model;
      const before = session.onHook;
      session.onHook = (event) => {
        seen.push([event.offset, event.shape]);
        const replacement = session.name();
        session.post({
          kind: "operate",
          op: "multiply",
          inputs: [event.tensor],
          parameters: { scalar: 2 },
          result: replacement,
        });
        session.post({ kind: "hookAnswer", pass: event.pass, replacement });
        session.post({ kind: "release", tensors: [event.tensor, replacement] });
      };
      const hooked = await model.generate({ tokens: PROMPT, maxTokens: 4, hooks: [hook] });
      session.onHook = before;
      assert.deepEqual(seen, [[0, [1, 3, TINY.width]], ...[3, 4, 5].map((offset) => [offset, [1, 1, TINY.width]])]);
      const scaled = await model.generate({
        tokens: PROMPT,
        maxTokens: 4,
        interventions: [{ hook, action: "scale", by: 2 }],
      });
      assert.deepEqual([...hooked.tokens], [...scaled.tokens]);
    });

    test("samples the same tokens for the same seed, others for another, and only those that the filters leave", async () => {
      const sampled = async (sampling: GenerateParts["sampling"]) => [
        ...(await model.generate({ tokens: PROMPT, maxTokens: 7, sampling })).tokens,
      ];
      const hot = { temperature: 4 };
      const runs = await Promise.all(range(0, 6).map((seed) => sampled({ ...hot, seed })));
      assert.deepEqual(await sampled({ ...hot, seed: 3 }), runs[3]);
      assert.equal(new Set(runs.map(String)).size, 6);
      const greedy = await sampled({ temperature: 0 });
      assert.deepEqual(await sampled({ ...hot, topK: 1, seed: 1 }), greedy);
      assert.deepEqual(await sampled({ ...hot, topP: 1e-9, seed: 2 }), greedy);
    });

    test("goes on in a cache that passes filled, and leaves it to them", async () => {
      const cache = model.cache();
      await model.forward({ tokens: [PROMPT.slice(0, 2)], cache });
      const whole = await model.generate({ tokens: PROMPT, maxTokens: 3 });
      const rest = await model.generate({ tokens: PROMPT.slice(2), maxTokens: 3, cache });
      assert.deepEqual(rest.tokens, whole.tokens);
      assert.equal(rest.events[0].position, 3);
      const last = whole.tokens[2];
      const { logits } = await model.forward({ tokens: [[last]], cache, logits: true });
      const direct = await model.forward({
        tokens: [[...PROMPT, ...whole.tokens]],
        logits: true,
        logitPositions: [-1],
      });
      assertClose(logits.numbers, direct.logits.numbers, 1e-5, "behind the generated text");
      model.session.post({ kind: "releaseCache", cache });
    });
  });
}

describe("a generation", () => {
  test("is refused before anything is computed, with value and bound", async () => {
    const model = await open(folder);
    const cases: [GenerateParts, { name: string; message: RegExp }][] = [
      [{ tokens: [] }, { name: "TooManyTokens", message: /0 tokens/ }],
      [
        { tokens: new Array<number>(10).fill(1) },
        { name: "TooManyTokens", message: /10 positions are taken .* has 10; shorten/ },
      ],
      [{ tokens: [23] }, { name: "TokenOutOfVocabulary", message: /23/ }],
      [{ stop: [-1] }, { name: "TokenOutOfVocabulary", message: /-1/ }],
      [{ maxTokens: 0 }, { name: "BadParameter", message: /maxTokens 0/ }],
      [{ sampling: { temperature: -1 } }, { name: "BadParameter", message: /temperature -1/ }],
      [{ sampling: { temperature: 1, topK: 0 } }, { name: "BadParameter", message: /topK 0/ }],
      [{ sampling: { temperature: 1, topP: 1.5 } }, { name: "BadParameter", message: /topP 1.5/ }],
      [{ sampling: { temperature: 1, seed: 0.5 } }, { name: "BadParameter", message: /seed 0.5/ }],
      [{ hooks: ["blocks.0.hook_nothing"] }, { name: "UnknownHook", message: /hook_nothing/ }],
      [
        { interventions: [{ hook: "hook_embed", action: "zero", at: { position: 5 } }] },
        { name: "BadParameter", message: /Index 5 .* -5 … 4/ },
      ],
      [{ capture: [{ name: "hook_embed", positions: [5] }] }, { name: "BadParameter", message: /Index 5/ }],
      [
        {
          interventions: [
            { hook: "hook_embed", action: "add", tensor: model.session.create(new Array(36).fill(0), [3, 12]) },
          ],
        },
        { name: "ShapeMismatch", message: /\[3 12\]/ },
      ],
    ];
    const start = await model.ledger();
    for (const [request, error] of cases) await assert.rejects(model.generate(request), error, JSON.stringify(request));
    assert.deepEqual(await model.ledger(), start);
  });

  test("that is cancelled in the middle releases everything, and other passes go on", async () => {
    const model = await open(folder, "wasm");
    const start = await model.ledger();
    const captured = model.session.name();
    let shown = 0;
    model.session.onHook = (event) => {
      model.session.post({ kind: "release", tensors: [event.tensor] });
      if (++shown === 3) model.session.post({ kind: "cancel", pass: event.pass });
      else model.session.post({ kind: "hookAnswer", pass: event.pass, replacement: null });
    };
    const cancelled = model.session.ask({
      kind: "generate",
      model: model.model,
      pass: 1000,
      tokens: PROMPT,
      maxTokens: 7,
      sampling: { temperature: 0 },
      hooks: ["blocks.1.hook_resid_pre"],
      capture: [{ name: "hook_embed", tensor: captured }],
    });
    await assert.rejects(cancelled, { name: "PassCancelled", message: /after 2 tokens/ });
    await assert.rejects(model.session.read(captured), { name: "PassCancelled" });
    model.session.post({ kind: "release", tensors: [captured] });
    assert.deepEqual(await model.ledger(), start);
  });

  test("lets cancel in without any hook, between its slices", async () => {
    // Every look at the clock costs 5 ms here, so that a slice is over after a block or two.
    let clock = 0;
    const model = await open(folder, "reference", { now: () => (clock += 5) });
    const start = await model.ledger();
    const endless = model.session.ask({
      kind: "generate",
      model: model.model,
      pass: 1,
      tokens: PROMPT,
      maxTokens: 7,
      sampling: { temperature: 0 },
    });
    const told = model.forward({ tokens: [PROMPT], logits: true });
    model.session.post({ kind: "cancel", pass: 1 });
    await assert.rejects(endless, { name: "PassCancelled" });
    await told;
    assert.deepEqual(await model.ledger(), start);
  });

  test("beside others gives what it gives alone", async () => {
    let clock = 0;
    const model = await open(folder, "wasm", { now: () => (clock += 5) });
    const prompts = [[1], [5, 6, 7], [22, 0]];
    const alone = [];
    for (const tokens of prompts) alone.push([...(await model.generate({ tokens, maxTokens: 6 })).tokens]);
    const together = await Promise.all(
      prompts.map(async (tokens) => [...(await model.generate({ tokens, maxTokens: 6 })).tokens]),
    );
    assert.deepEqual(together, alone);
  });

  test("holds its cache until it ends; passes beside it, nested in its hooks, go on", async () => {
    const model = await open(folder);
    const cache = model.cache();
    const alone = await model.forward({ tokens: [PROMPT], logits: true });
    const plain = await model.generate({ tokens: PROMPT, maxTokens: 3 });
    const nested: unknown[] = [];
    model.session.onHook = async (event) => {
      model.session.post({ kind: "release", tensors: [event.tensor] });
      nested.push(await model.forward({ tokens: [[4]], cache }).catch((error: { name: string }) => error.name));
      nested.push((await model.forward({ tokens: [PROMPT], logits: true })).logits);
      model.session.post({ kind: "hookAnswer", pass: event.pass, replacement: null });
    };
    const hooked = await model.generate({ tokens: PROMPT, maxTokens: 3, cache, hooks: ["blocks.0.hook_resid_mid"] });
    assert.deepEqual(hooked.tokens, plain.tokens);
    assert.deepEqual(
      nested,
      range(0, 3).flatMap(() => ["CacheMismatch", alone.logits]),
    );
    const { caches } = await model.ledger();
    assert.deepEqual(
      caches.map((each) => [each.cache, each.length, each.pass]),
      [[cache, PROMPT.length + 2, null]],
    );
  });

  test("goes with its model", async () => {
    const model = await open(folder, "wasm");
    model.session.onHook = () => void model.session.ask({ kind: "unload", model: model.model });
    await assert.rejects(model.generate({ tokens: PROMPT, hooks: ["hook_embed"] }), { name: "PassCancelled" });
    const { tensors, caches, backends } = await model.ledger();
    assert.deepEqual([tensors.length, caches], [1, []], "only the tensor that its hook showed");
    model.session.post({ kind: "release", tensors: tensors.map((each) => each.tensor) });
    assert.equal(
      (await model.ledger()).backends.find((each) => each.backend === "wasm")?.bytes,
      0,
      JSON.stringify(backends),
    );
  });

  test("of logits that are no numbers says so", async () => {
    const model = await open(folder);
    const interventions = [{ hook: "unembed.hook_out", action: "set", value: NaN } as const];
    await assert.rejects(model.generate({ interventions }), {
      name: "BadParameter",
      message: /None of the 23 logits is a number/,
    });
  });
});

describe("the text of tokens", () => {
  test("comes in whole characters, and joined is the text of all", async () => {
    const read = async (name: string) =>
      JSON.parse(await readFile(join(DEMO_MODEL, name), "utf8")) as Record<string, unknown>;
    const tokenizer = new Tokenizer(await read("tokenizer.json"), await read("tokenizer_config.json"));
    for (const text of ["When Mary gave a drink to John.", "naïve 日本語 🎉🎉 é", "\n\n a  b"]) {
      const ids = tokenizer.encode(text);
      for (const before of [[], tokenizer.encode("The")]) {
        const stream = new TextStream(tokenizer, before);
        const pieces = [...ids.map((id) => stream.add(id)), stream.end()];
        assert.equal(pieces.join(""), text);
        assert.equal(stream.text, text);
        assert.ok(!pieces.some((piece) => piece.includes("\uFFFD")), JSON.stringify(pieces));
        if (/[^ -~\n]/.test(text)) assert.ok(ids.length > [...text].length, "some character lies in several tokens");
      }
    }
    const cut = new TextStream(tokenizer, []);
    assert.equal(
      cut.add(tokenizer.encode("日")[0]) + cut.end(),
      "\uFFFD",
      "what never becomes whole is told at the end",
    );
  });
});
