// The benchmark's message measures what it names, and leaves nothing behind.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Answer, BenchmarkRequest } from "../../js_bridge/protocol.ts";
import { open } from "./opened.ts";
import { writeTiny } from "./tiny.ts";

type Rows = Extract<Answer, { kind: "benchmarked" }>["rows"];

for (const backend of ["reference", "wasm"] as const) {
  test(`passes, captures, products and decoding are timed on ${backend}, and the ledger returns`, async () => {
    const model = await open(await writeTiny(), backend);
    const start = await model.ledger();
    const timed = async (more: Partial<BenchmarkRequest>): Promise<Rows> => {
      const request = { kind: "benchmark", model: model.model, lengths: [2, 5], repetitions: 3, ...more } as const;
      const { message } = await model.session.ask(request);
      return (message as Extract<Answer, { kind: "benchmarked" }>).rows;
    };
    for (const more of [
      {},
      { capture: "plain" },
      { capture: ["blocks.0.attn.hook_pattern"] },
      { products: true },
    ] as const) {
      const rows = await timed(more);
      assert.deepEqual(
        rows.map((row) => [row.length, row.repetitions, row.decode]),
        [
          [2, 3, null],
          [5, 3, null],
        ],
      );
      for (const { least, median } of rows) assert.ok(least > 0 && median >= least, JSON.stringify(more));
    }
    for (const { decode } of await timed({ decode: 4 })) {
      assert.equal(decode?.tokens, 4);
      assert.ok((decode?.least ?? 0) > 0);
    }
    await assert.rejects(timed({ decode: 6 }), {
      name: "BadParameter",
      message: /5 tokens and 6 more: .* takes 1 to 10/,
    });
    await assert.rejects(timed({ capture: ["hook_embd"] }), { name: "UnknownHook", message: /hook_embed/ });
    assert.deepEqual(await model.ledger(), start);
  });
}
