// An engine in a page whose graphics context is taken away, for test_lost_context.py: between two passes, or in the
// middle of one, at a given draw.

import { createEngine } from "../../js_bridge/engine/engine.ts";
import type { Answer, Request } from "../../js_bridge/protocol.ts";
import { fetchOverHttp } from "../../js_bridge/store/fetch.ts";

type Failed = { name: string; message: string; retriable?: boolean };

/** Pairs of a pass's logits or error. */
interface Found {
  before: number[];
  /** The pass that the context was lost in, or the first after it. */
  during: number[] | Failed;
  after: number[] | Failed;
  /** The ledger after each: bytes of WebGL, states of tensors, passes alive. */
  ledgers: { webgl: number | null; states: string[]; passes: number; bytes: number }[];
}

async function loseContext(
  bundle: string,
  tokens: number[][],
  atDraw: number | null,
  canComeBack: boolean,
): Promise<Found> {
  let gl: WebGL2RenderingContext | null = null;
  let openings = 0;
  const { getContext } = OffscreenCanvas.prototype;
  OffscreenCanvas.prototype.getContext = function (this: OffscreenCanvas, ...given: Parameters<typeof getContext>) {
    if (openings++ > 0 && !canComeBack) return null;
    gl = getContext.apply(this, given) as WebGL2RenderingContext;
    return gl;
  } as typeof getContext;
  const lose = () => gl?.getExtension("WEBGL_lose_context")?.loseContext();

  const waiting = new Map<
    number,
    { resolve: (answer: Answer & { numbers?: Float32Array }) => void; reject: (error: Failed) => void }
  >();
  const engine = createEngine({
    post: (message, attachments) => {
      if (!("id" in message) || message.id === undefined || message.kind === "progress") return;
      const asked = waiting.get(message.id);
      if (message.kind === "failed") asked?.reject(message.error as Failed);
      else asked?.resolve(Object.assign(message, { numbers: attachments[0] as Float32Array }));
    },
    fetchBytes: fetchOverHttp,
  });
  let next = 1;
  const ask = (request: object) =>
    new Promise<Answer & { numbers?: Float32Array }>((resolve, reject) => {
      const id = next++;
      waiting.set(id, { resolve, reject });
      engine.handle({ ...request, id } as Request);
    });
  const { model } = (await ask({ kind: "load", bundle, backend: "webgl" })) as Extract<Answer, { kind: "loaded" }>;
  const logits = async (): Promise<number[]> => {
    const [tensor, pass] = [next++, next++];
    await ask({ kind: "forward", model, pass, tokens, logits: tensor });
    const numbers = [...((await ask({ kind: "read", tensor })).numbers as Float32Array)];
    engine.handle({ kind: "release", tensors: [tensor] });
    return numbers;
  };
  const ledgers: Found["ledgers"] = [];
  const ledger = async () => {
    const { tensors, passes, backends, bytes } = (await ask({ kind: "ledger" })) as Extract<Answer, { kind: "ledger" }>;
    const webgl = backends.find(({ backend }) => backend === "webgl")?.bytes ?? null;
    ledgers.push({ webgl, states: tensors.map(({ state }) => state), passes: passes.length, bytes });
  };
  const told = (error: Failed): Failed => ({ name: error.name, message: error.message, retriable: error.retriable });

  const before = await logits();
  await ledger();
  const { drawArrays } = WebGL2RenderingContext.prototype;
  if (atDraw === null) {
    engine.handle({ kind: "create", tensor: 999, shape: [2] }, [Float32Array.of(1, 2)]);
    lose();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await ledger();
    engine.handle({ kind: "release", tensors: [999] });
  } else {
    let draws = 0;
    WebGL2RenderingContext.prototype.drawArrays = function (this: WebGL2RenderingContext, ...given) {
      if (++draws === atDraw) lose();
      drawArrays.apply(this, given);
    };
  }
  const during = await logits().catch(told);
  WebGL2RenderingContext.prototype.drawArrays = drawArrays;
  await ledger();
  const after = await logits().catch(told);
  await ledger();
  OffscreenCanvas.prototype.getContext = getContext;
  return { before, during, after, ledgers };
}

Object.assign(globalThis, { loseContext });
