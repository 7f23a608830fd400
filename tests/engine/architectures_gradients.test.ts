// Gradients through every family: at a few hook points of each kind, the slope along a random direction equals what a
// small step in that direction does to the number. The reference backend's sums are exact enough for that.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Intervention, OperationName, OperationParameters } from "../../js_bridge/protocol.ts";
import { CONFIGS, writeFamily } from "./architectures.ts";
import { Session } from "./session.ts";
import { noise } from "./tiny.ts";

const TOKENS = [
  [3, 1, 4, 1, 5],
  [27, 18, 28, 2, 8],
];
const POINTS = ["hook_embed", "blocks.0.attn.hook_k", "blocks.0.mlp.hook_pre", "blocks.1.ln1.hook_normalized"];
/** So small that hardly a kink lies within, and far above rounding. */
const STEP = 2 ** -12;
const WEIGHTS = noise(2 * 5 * 37, 3);

for (const [family, config] of Object.entries(CONFIGS)) {
  test(`${family}: slopes are what small steps do`, async () => {
    const session = new Session();
    const { model } = await session.load(await writeFamily(config));
    const operate = (op: OperationName, inputs: number[], parameters: OperationParameters = {}): number => {
      const result = session.name();
      session.post({ kind: "operate", op, inputs, parameters, result });
      return result;
    };
    const pass = async (interventions: Intervention[], names: string[]) => {
      const capture = names.map((name) => ({ name, tensor: session.name() }));
      const logits = session.name();
      const number = session.name();
      const tape = names.length > 0;
      const request = { model, pass: number, tokens: TOKENS, capture, logits, tape, interventions };
      await session.ask({ kind: "forward", ...request });
      return { logits, captured: capture.map((each) => each.tensor) };
    };
    const { logits, captured } = await pass([], POINTS);
    const weights = session.create(Array.from(WEIGHTS), [2, 5, 37]);
    const of = operate("sum", [operate("multiply", [logits, weights])]);
    const results = captured.map(() => session.name());
    session.post({ kind: "gradient", of, to: captured.map((tensor, i) => ({ tensor, result: results[i] })) });
    for (const [i, hook] of POINTS.entries()) {
      const { shape, numbers: gradient } = await session.read(results[i]);
      const direction = noise(gradient.length, 11 + i);
      const slope = gradient.reduce((sum, each, at) => sum + each * direction[at], 0);
      const moved = async (step: number): Promise<number> => {
        const tensor = session.create(
          Array.from(direction, (each) => each * step),
          shape,
        );
        const { logits: changed } = await pass([{ hook, action: "add", tensor }], []);
        const { numbers } = await session.read(changed);
        return numbers.reduce((sum, each, at) => sum + each * WEIGHTS[at], 0); // in float64
      };
      const change = ((await moved(STEP)) - (await moved(-STEP))) / (2 * STEP);
      const allowed = 0.02 * Math.max(1, Math.abs(slope));
      assert.ok(Math.abs(change - slope) <= allowed, `${hook}: slope ${slope}, ${change} by steps`);
      assert.ok(Math.hypot(...gradient) > 0.05, `${hook} is too flat to tell`);
    }
  });
}
