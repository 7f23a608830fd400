// Partial passes: what a pass over some layers, some positions or padded rows computes is what the whole pass computes.
// On one backend the same row goes through the same arithmetic, so equality is bit by bit unless a case says why not.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import type { Padding } from "../../js_bridge/protocol.ts";
import { assertClose, type ForwardParts, type Numbers, open, type Opened, range, realOf, rowsOf } from "./opened.ts";
import { noise, TINY, writeTiny } from "./tiny.ts";

const TOKENS = [
  [1, 2, 3, 4, 5, 6, 7],
  [9, 8, 7, 22, 0, 3, 3],
];
const STREAM = "blocks.1.hook_resid_pre";
const BACKENDS = ["reference", "wasm"] as const;

let folder: string;
before(async () => {
  folder = await writeTiny();
});

for (const backend of BACKENDS) {
  describe(`a partial pass on ${backend}`, () => {
    let model: Opened;
    let names: string[];
    before(async () => {
      model = await open(folder, backend);
      const { message } = await model.session.ask({ kind: "load", bundle: folder, backend });
      names = (message as unknown as { hooks: { name: string; on: boolean }[] }).hooks
        .filter((each) => each.on)
        .map((each) => each.name);
    });

    test("that starts at a layer from the residual stream there is the rest of the whole pass", async () => {
      const streams = [
        ...range(0, TINY.layers).map((layer) => `blocks.${layer}.hook_resid_pre`),
        "blocks.1.hook_resid_post",
      ];
      const whole = await model.forward({
        tokens: TOKENS,
        logits: true,
        capture: [...streams, "blocks.1.attn.hook_pattern"],
      });
      for (const [layer, stream] of streams.entries()) {
        const tensor = model.session.create([...whole[stream].numbers], whole[stream].shape);
        const capture = layer < TINY.layers ? ["blocks.1.attn.hook_pattern"] : [];
        for (const tokens of [TOKENS, undefined]) {
          const rest = await model.forward({ tokens, start: { layer, tensor }, logits: true, capture });
          assert.deepEqual(rest.logits, whole.logits, `from layer ${layer}`);
          for (const name of capture) assert.deepEqual(rest[name], whole[name], `from layer ${layer}`);
        }
      }
    });

    test("that stops at a layer names the residual stream there", async () => {
      const whole = await model.forward({
        tokens: TOKENS,
        capture: ["blocks.0.hook_resid_pre", STREAM, "blocks.1.hook_resid_post"],
      });
      for (const [stop, name] of ["blocks.0.hook_resid_pre", STREAM, "blocks.1.hook_resid_post"].entries()) {
        const { residual } = await model.forward({ tokens: TOKENS, stop, residual: true });
        assert.deepEqual(residual, whole[name], `before layer ${stop}`);
      }
    });

    test("behind cached positions is the rest of the whole pass, however the text is cut", async () => {
      const whole = await model.forward({ tokens: TOKENS, logits: true, capture: names });
      for (const cut of [1, 4, 6]) {
        const cache = model.cache();
        const head = TOKENS.map((row) => row.slice(0, cut));
        const tail = TOKENS.map((row) => row.slice(cut));
        const first = await model.forward({ tokens: head, cache, logits: true });
        const rest = await model.forward({ tokens: tail, cache, logits: true, capture: names });
        for (const row of [0, 1]) {
          // The products' rows are summed alike; kernels that take several rows at once may round otherwise.
          assertClose(
            rowsOf(first.logits, row, range(0, cut)),
            rowsOf(whole.logits, row, range(0, cut)),
            1e-5,
            `${cut} first`,
          );
          for (const name of ["logits", ...names.filter((each) => !/scores|pattern/.test(each))]) {
            const wanted = rowsOf(whole[name], row, range(cut, 7));
            assertClose(rowsOf(rest[name], row, range(0, 7 - cut)), wanted, 1e-5, `${name}, cut at ${cut}`);
          }
        }
        for (const name of names.filter((each) => /scores|pattern/.test(each))) {
          assert.deepEqual(rest[name].shape, [2, TINY.heads, 7 - cut, 7]);
          assertClose(rest[name].numbers, queriesFrom(whole[name], cut), 1e-5, `${name}, cut at ${cut}`);
        }
        model.session.post({ kind: "releaseCache", cache });
      }
    });

    test("recomputes positions from p on, as often as wanted, against the same cached ones", async () => {
      const cache = model.cache();
      const changed = TOKENS.map((row) => [...row.slice(0, 3), 11, ...row.slice(4)]);
      await model.forward({ tokens: TOKENS, cache });
      for (const tokens of [changed, TOKENS, changed]) {
        const whole = await model.forward({ tokens, logits: true });
        const rest = await model.forward({ tokens: tokens.map((row) => row.slice(3)), cache, keep: 3, logits: true });
        for (const row of [0, 1])
          assertClose(
            rowsOf(rest.logits, row, range(0, 4)),
            rowsOf(whole.logits, row, range(3, 7)),
            1e-5,
            "recomputed",
          );
      }
      assert.equal((await model.ledger()).caches.find((each) => each.cache === cache)?.length, 7);
      model.session.post({ kind: "releaseCache", cache });
    });

    for (const side of ["right", "left"] as const) {
      const padding: Padding = { side, lengths: [4, 7] };
      const short = [5, 6, 7, 8];

      test(`of rows padded on the ${side} is each row's own pass, whatever lies at the padding`, async () => {
        const alone = await model.forward({ tokens: [short], logits: true, capture: names });
        const full = await model.forward({ tokens: [TOKENS[1]], logits: true, capture: names });
        for (const filling of [0, 17, NaN]) {
          const { tokens, interventions } = padded(short, side, filling);
          const batch = await model.forward({ tokens, padding, interventions, logits: true, capture: names });
          for (const name of ["logits", ...names.filter((each) => !/scores|pattern/.test(each))]) {
            const what = `${name}, filled with ${filling}`;
            assertClose(rowsOf(batch[name], 0, realOf(padding, 0, 7)), rowsOf(alone[name], 0, range(0, 4)), 1e-5, what);
            assertClose(rowsOf(batch[name], 1, range(0, 7)), rowsOf(full[name], 0, range(0, 7)), 1e-5, what);
          }
          for (const name of names.filter((each) => each.endsWith("hook_pattern"))) {
            const seen = patternAt(batch[name], 0, realOf(padding, 0, 7));
            assertClose(seen, patternAt(alone[name], 0, range(0, 4)), 1e-5, `${name}, filled with ${filling}`);
          }
        }
      });
    }

    test("goes on behind left padding as the cache remembers it, also without naming it again", async () => {
      const short = [5, 6, 7, 8];
      const alone = await model.forward({ tokens: [[...short, 11, 12]], logits: true });
      const next = [
        [11, 12],
        [4, 5],
      ];
      const [long, lengths] = [TOKENS[1], [6, 9]];
      const full = await model.forward({ tokens: [[...long, 4, 5]], logits: true });
      for (const padding of [undefined, { side: "left", lengths } as const]) {
        const cache = model.cache();
        const { tokens } = padded(short, "left", 0);
        await model.forward({ tokens, padding: { side: "left", lengths: [4, 7] }, cache });
        const { logits } = await model.forward({ tokens: next, padding, cache, logits: true });
        assertClose(rowsOf(logits, 0, [0, 1]), rowsOf(alone.logits, 0, [4, 5]), 1e-5, "short row");
        assertClose(rowsOf(logits, 1, [0, 1]), rowsOf(full.logits, 0, [7, 8]), 1e-5, "long row");
        model.session.post({ kind: "releaseCache", cache });
      }
    });

    test("recomputes the end of rows that are padded on the right", async () => {
      const { tokens } = padded([5, 6, 7, 8], "right", 0);
      const padding: Padding = { side: "right", lengths: [4, 7] };
      const whole = await model.forward({ tokens, padding, logits: true });
      const cache = model.cache();
      await model.forward({ tokens, padding, cache });
      for (const keep of [5, 2]) {
        const rest = { tokens: tokens.map((row) => row.slice(keep)), padding, cache, keep, logits: true };
        const { logits } = await model.forward(rest);
        assertClose(
          rowsOf(logits, 1, range(0, 7 - keep)),
          rowsOf(whole.logits, 1, range(keep, 7)),
          1e-5,
          `keep ${keep}`,
        );
        if (keep < 4) assertClose(rowsOf(logits, 0, [0, 1]), rowsOf(whole.logits, 0, [2, 3]), 1e-5, `keep ${keep}`);
      }
      model.session.post({ kind: "releaseCache", cache });
    });

    test("keeps of a capture only the positions that are named", async () => {
      const all = await model.forward({ tokens: TOKENS, capture: names });
      const positions = [6, 0, -2];
      const some = await model.forward({ tokens: TOKENS, capture: names.map((name) => ({ name, positions })) });
      for (const name of names.filter((each) => !/scores|pattern/.test(each))) {
        for (const row of [0, 1])
          assert.deepEqual(rowsOf(some[name], row, [0, 1, 2]), rowsOf(all[name], row, [6, 0, 5]), name);
      }
      const name = "blocks.1.attn.hook_pattern";
      assert.deepEqual(some[name].shape, [2, TINY.heads, 3, 7]);
      const wanted = [6, 0, 5].map((query) => queriesFrom(all[name], query).subarray(0, 7));
      assert.deepEqual(some[name].numbers.slice(0, 21), Float32Array.from(wanted.flatMap((each) => [...each])));
    });

    test("computes the logits of chosen positions only, in the order that is asked for", async () => {
      const whole = await model.forward({ tokens: TOKENS, logits: true, capture: ["unembed.hook_out"] });
      for (const capture of [[], ["unembed.hook_out"]]) {
        const some = await model.forward({ tokens: TOKENS, logits: true, logitPositions: [-1, 2], capture });
        assert.deepEqual(some.logits.shape, [2, 2, TINY.vocabulary]);
        for (const row of [0, 1])
          assertClose(rowsOf(some.logits, row, [0, 1]), rowsOf(whole.logits, row, [6, 2]), 1e-5, "logits");
        if (capture.length > 0) assert.deepEqual(some["unembed.hook_out"], whole["unembed.hook_out"]);
      }
    });

    test("counts positions of captures, logits and regions from the text's beginning, also behind a cache", async () => {
      const at = { position: [5, -1] };
      const hook = "blocks.0.hook_resid_post";
      const patched = model.session.create([...noise(2 * 7 * TINY.width, 3)], [2, 7, TINY.width]);
      const cut = model.session.create(
        [...noise(2 * 7 * TINY.width, 3)].filter((_, i) => Math.floor(i / TINY.width) % 7 >= 4),
        [2, 3, TINY.width],
      );
      const set = model.session.create([...noise(2 * TINY.width, 5)], [2, TINY.width]);
      const cases: [string, ForwardParts["interventions"], ForwardParts["interventions"]?][] = [
        ["zero", [{ hook, action: "zero", at }]],
        ["set to rows", [{ hook, action: "set", tensor: set, at }]],
        ["patch", [{ hook, action: "patch", tensor: patched, at }], [{ hook, action: "patch", tensor: cut, at }]],
        ["a key", [{ hook: "blocks.1.attn.hook_pattern", action: "zero", at: { key: [1, -1], position: 6 } }]],
      ];
      const cache = model.cache();
      await model.forward({ tokens: TOKENS.map((row) => row.slice(0, 4)), cache });
      const tokens = TOKENS.map((row) => row.slice(4));
      const plain = await model.forward({ tokens: TOKENS, logits: true });
      for (const [what, interventions, other] of cases) {
        const whole = await model.forward({ tokens: TOKENS, interventions, logits: true });
        assert.notDeepEqual(whole.logits, plain.logits, `${what} changes something`);
        for (const each of [interventions, ...(other === undefined ? [] : [other])]) {
          const capture = [{ name: hook, positions: [4, -1] }];
          const rest = await model.forward({
            tokens,
            cache,
            keep: 4,
            interventions: each,
            logits: true,
            logitPositions: [5, -1],
            capture,
          });
          assert.deepEqual(rest[hook].shape, [2, 2, TINY.width]);
          for (const row of [0, 1])
            assertClose(rowsOf(rest.logits, row, [0, 1]), rowsOf(whole.logits, row, [5, 6]), 1e-5, what);
        }
      }
      model.session.post({ kind: "releaseCache", cache });
    });

    test("is the same whether anybody looks or not", async () => {
      const looked = await model.forward({ tokens: TOKENS, logits: true, capture: names });
      assert.deepEqual((await model.forward({ tokens: TOKENS, logits: true })).logits, looked.logits);
      const some = await model.forward({ tokens: TOKENS, capture: [STREAM] });
      assert.deepEqual(some[STREAM], looked[STREAM]);
    });
  });
}

describe("a pass is refused before anything is computed", () => {
  test("with what happened, the value, what is allowed and what to do", async () => {
    const model = await open(folder);
    const residual = (shape: number[]) => model.session.create(new Array(shape.reduce((a, b) => a * b)).fill(0), shape);
    const right = residual([2, 7, TINY.width]);
    const cache = model.cache();
    await model.forward({ tokens: TOKENS.map((row) => row.slice(0, 5)), cache });
    const partly = model.cache();
    await model.forward({ tokens: TOKENS, cache: partly, stop: 1, residual: true });
    const released = model.cache();
    model.session.post({ kind: "releaseCache", cache: released });
    const other = await model.session.load(folder);
    const foreign = 77;
    model.session.post({ kind: "createCache", cache: foreign, model: other.model });
    const padCache = model.cache();
    await model.forward({ tokens: [[1, 2, 3]], padding: { side: "right", lengths: [2] }, cache: padCache });
    const cases: [ForwardParts, { name: string; message: RegExp }][] = [
      [
        { start: { layer: 3, tensor: right } },
        { name: "BadParameter", message: /layer 3: .* 0 … 1, and 2 is the final norm/ },
      ],
      [
        { start: { layer: 1, tensor: residual([2, 7, 5]) } },
        { name: "ShapeMismatch", message: /\[2 7 5\]: it must be \[2 7 12\]/ },
      ],
      [
        { tokens: undefined, start: { layer: 1, tensor: residual([7, 12]) } },
        { name: "ShapeMismatch", message: /it must be \[B T 12\]/ },
      ],
      [{ start: { layer: 1, tensor: 9999 } }, { name: "UnknownTensor", message: /9999/ }],
      [{ stop: 3 }, { name: "BadParameter", message: /layer 3: it must lie in 0 … 2/ }],
      [
        { start: { layer: 1, tensor: right }, stop: 0 },
        { name: "BadParameter", message: /it must lie in 1 … 2/ },
      ],
      [
        { stop: 1, logits: true },
        { name: "BadMessage", message: /no logits/ },
      ],
      [{ residual: true }, { name: "BadMessage", message: /without "stop"/ }],
      [
        { stop: 1, capture: ["blocks.1.hook_resid_pre"] },
        { name: "UnreachedHook", message: /resid_pre is not reached: .* ends before block 1/ },
      ],
      [
        { stop: 1, capture: ["unembed.hook_out"] },
        { name: "UnreachedHook", message: /ends before block 1/ },
      ],
      [
        { start: { layer: 1, tensor: right }, capture: ["blocks.0.hook_resid_pre"] },
        { name: "UnreachedHook", message: /begins at block 1/ },
      ],
      [
        { start: { layer: 0, tensor: right }, hooks: ["hook_embed"] },
        { name: "UnreachedHook", message: /hook_embed/ },
      ],
      [
        { logits: true, logitPositions: [7] },
        { name: "BadParameter", message: /Index 7 .* -7 … 6/ },
      ],
      [
        { logits: true, logitPositions: [] },
        { name: "BadParameter", message: /empty/ },
      ],
      [{ capture: [{ name: "hook_embed", positions: [-8] }] }, { name: "BadParameter", message: /Index -8 .* -7 … 6/ }],
      [{ capture: [{ name: "hook_embed", positions: [] }] }, { name: "BadParameter", message: /at least one/ }],
      [{ padding: { side: "right", lengths: [7] } }, { name: "BadParameter", message: /1 lengths for 2 rows/ }],
      [
        { padding: { side: "right", lengths: [7, 8] } },
        { name: "BadParameter", message: /row 1 has 8 tokens: .* 1 … 7/ },
      ],
      [{ padding: { side: "left", lengths: [0, 7] } }, { name: "BadParameter", message: /row 0 has 0 tokens/ }],
      [{ padding: { side: "both" as "left", lengths: [7, 7] } }, { name: "BadMessage", message: /"left" or "right"/ }],
      [
        { cache },
        { name: "TooManyTokens", message: /7 tokens were given after 5 cached .* 1 to 5 more, 10 in all; keep fewer/ },
      ],
      [
        { cache, keep: 6 },
        { name: "BadParameter", message: /keep 6: cache 1 holds 5 positions, so it must lie in 0 … 5/ },
      ],
      [{ keep: 1 }, { name: "BadMessage", message: /without a cache/ }],
      [
        { tokens: [[1, 2]], cache },
        { name: "CacheMismatch", message: /holds 2 rows, the pass has 1/ },
      ],
      [
        { tokens: [[1], [2]], cache: partly },
        { name: "CacheMismatch", message: /0 … 1 of cache 2 hold 0 to 7 .* keep at most 0/ },
      ],
      [{ cache: released }, { name: "UnknownCache", message: /was released/ }],
      [{ cache: 99 }, { name: "UnknownCache", message: /never made/ }],
      [{ cache: foreign }, { name: "CacheMismatch", message: /of model \d+, the pass is of model/ }],
      [
        { tokens: [[4]], cache: padCache },
        { name: "CacheMismatch", message: /Row 0 has only 2 real tokens among the 3 .* keep 2/ },
      ],
      [
        { tokens: [[4], [5]], cache, padding: { side: "left", lengths: [4, 6] } },
        { name: "CacheMismatch", message: /begin at \[2 0\]; in the cache they begin at \[0 0\]/ },
      ],
      [
        {
          tokens: TOKENS.map((row) => row.slice(5)),
          cache,
          interventions: [{ hook: "hook_embed", action: "zero", at: { position: 4 } }],
        },
        { name: "BadParameter", message: /Index 4 .* the pass computes 5 … 6, behind 5 cached positions/ },
      ],
      [
        { cache, keep: 0, tape: true },
        { name: "BadMessage", message: /taped pass with a cache/ },
      ],
    ];
    const before = await model.ledger();
    for (const [request, error] of cases) {
      await assert.rejects(model.forward({ tokens: TOKENS, ...request }), error, JSON.stringify(request));
    }
    assert.deepEqual(await model.ledger(), before);
  });

  test("when its captures cannot fit, with the numbers, and the image is asked to collect", async () => {
    const model = await open(folder, "reference", { budget: 8000 });
    const names = ["blocks.0.attn.hook_pattern", "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "hook_embed"];
    const message = await model.session.ask({ kind: "forecast", model: model.model, batch: 2, positions: 7, names });
    const { bytes, fits, hooks, budget } = message.message as unknown as {
      bytes: number;
      fits: boolean;
      budget: number;
      hooks: { bytes: number }[];
    };
    assert.deepEqual(
      hooks.map((each) => each.bytes),
      [4 * 2 * 3 * 7 * 7, 4 * 2 * 7 * 12, 4 * 2 * 7 * 12, 4 * 2 * 7 * 12],
    );
    assert.equal(bytes, hooks[0].bytes + 2 * hooks[1].bytes, "the stream between two blocks is one");
    assert.deepEqual([fits, budget], [true, 8000]);
    await model.forward({ tokens: TOKENS, capture: names });
    const plain = model.session.create(new Array(1500).fill(1), [1500]);
    await assert.rejects(
      model.forward({ tokens: TOKENS, capture: names }),
      (error: { name: string; message: string; needed: number }) => {
        assert.equal(error.name, "OverBudget");
        assert.equal(error.needed, bytes);
        assert.match(
          error.message,
          /2520 for 4 captures.*would take 2520 bytes; 2000 are free, 6000 of the 8000 allowed/,
        );
        return true;
      },
    );
    assert.equal(model.session.events.filter((event) => event.kind === "collect").length, 1);
    model.session.post({ kind: "release", tensors: [plain] });
    await model.forward({ tokens: TOKENS, capture: names });
  });
});

describe("a cache", () => {
  test("is in one pass's hands at a time, and other passes go on beside it", async () => {
    const model = await open(folder);
    const cache = model.cache();
    const tokens = [[1, 2, 3]];
    const alone = await model.forward({ tokens, logits: true });
    const nested: unknown[] = [];
    model.session.onHook = async (event) => {
      nested.push(await model.forward({ tokens: [[4]], cache }).catch((error: { name: string }) => error.name));
      nested.push((await model.forward({ tokens, logits: true })).logits);
      assert.equal((await model.ledger()).caches[0].pass, event.pass);
      model.session.post({ kind: "releaseCache", cache });
      model.session.post({ kind: "hookAnswer", pass: event.pass, replacement: null });
      model.session.post({ kind: "release", tensors: [event.tensor] });
    };
    const outer = await model.forward({ tokens, cache, hooks: ["blocks.1.hook_resid_pre"], logits: true });
    assert.deepEqual(nested, ["CacheMismatch", alone.logits]);
    assert.deepEqual(outer.logits, alone.logits);
    assert.deepEqual((await model.ledger()).caches, [], "released while in use, it goes with the pass");
    await assert.rejects(model.forward({ tokens, cache }), { name: "UnknownCache" });
  });

  test("keeps what it had when a pass over it fails or is cancelled", async () => {
    const model = await open(folder);
    const cache = model.cache();
    const whole = await model.forward({ tokens: [[1, 2, 3, 4]], logits: true });
    await model.forward({ tokens: [[1, 2]], cache });
    model.session.onHook = (event) => model.session.post({ kind: "cancel", pass: event.pass });
    await assert.rejects(model.forward({ tokens: [[9, 9]], cache, hooks: ["blocks.1.hook_resid_pre"] }), {
      name: "PassCancelled",
    });
    const { logits } = await model.forward({ tokens: [[3, 4]], cache, logits: true });
    assertClose(rowsOf(logits, 0, [0, 1]), rowsOf(whole.logits, 0, [2, 3]), 1e-5, "after a cancelled pass");
  });

  test("goes with its model; the ledger returns to where it was", async () => {
    const model = await open(folder);
    const start = await model.ledger();
    const cache = model.cache();
    await model.forward({ tokens: TOKENS, cache });
    const full = await model.ledger();
    assert.equal(full.caches[0].length, 7);
    assert.ok(full.caches[0].bytes >= 2 * 4 * TINY.layers * 2 * 7 * TINY.width, "keys and values of two layers");
    assert.equal(full.bytes, 0, "they are no tensors");
    model.session.post({ kind: "releaseCache", cache });
    assert.deepEqual(await model.ledger(), start);
    const again = model.cache();
    await model.forward({ tokens: TOKENS, cache: again });
    await model.session.ask({ kind: "unload", model: model.model });
    const end = await model.ledger();
    assert.deepEqual([end.caches, end.backends.map((each) => each.bytes)], [[], [0]]);
  });
});

/** Two rows, the first padded to the second's length; the padding's embeddings are `filling` where that is NaN. */
function padded(short: readonly number[], side: Padding["side"], filling: number) {
  const id = Number.isNaN(filling) ? 0 : filling;
  const fill = new Array<number>(7 - short.length).fill(id);
  const tokens = [side === "right" ? [...short, ...fill] : [...fill, ...short], TOKENS[1]];
  const position = side === "right" ? range(short.length, 7) : range(0, 7 - short.length);
  const interventions: ForwardParts["interventions"] = Number.isNaN(filling)
    ? [{ hook: "blocks.0.hook_resid_pre", action: "set", value: NaN, at: { batch: 0, position } }]
    : [];
  return { tokens, interventions };
}

/** The queries from one on: [B H T S] → numbers of [B H T-from S]. */
function queriesFrom({ shape, numbers }: Numbers, from: number): Float32Array {
  const [batch, heads, queries, keys] = shape;
  const kept = range(0, batch * heads).flatMap((head) => [
    ...numbers.subarray((head * queries + from) * keys, (head + 1) * queries * keys),
  ]);
  return Float32Array.from(kept);
}

/** One row's pattern among some positions, as queries and as keys. */
function patternAt({ shape, numbers }: Numbers, row: number, positions: readonly number[]): Float32Array {
  const [, heads, queries, keys] = shape;
  const seen = range(0, heads).flatMap((head) =>
    positions.flatMap((query) =>
      positions.map((key) => numbers[((row * heads + head) * queries + query) * keys + key]),
    ),
  );
  return Float32Array.from(seen);
}
