// transformers.js with ONNX Runtime's WebAssembly, as the rival of the engine's WebAssembly backend.

import { answerCalls } from "./answer_calls.ts";

type Library = any; // loaded by address; it is no dependency, so there are no types of it
let library: Library;
let model: Library;

function row(tokens: readonly number[]): Record<string, unknown> {
  const { Tensor } = library;
  const shape = [1, tokens.length];
  return {
    input_ids: new Tensor("int64", BigInt64Array.from(tokens, BigInt), shape),
    attention_mask: new Tensor("int64", new BigInt64Array(tokens.length).fill(1n), shape),
  };
}

answerCalls({
  async open(script: string, runtime: string, models: string, name: string, threads: number) {
    library = await import(script);
    const { env, AutoModelForCausalLM } = library;
    Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: models });
    Object.assign(env, { useBrowserCache: false, useWasmCache: false });
    const { wasm } = env.backends.onnx;
    Object.assign(wasm, { wasmPaths: runtime, numThreads: threads, proxy: false });
    model = await AutoModelForCausalLM.from_pretrained(name, { dtype: "fp32", device: "wasm" });
    return { version: env.version, threads: wasm.numThreads };
  },

  /** Milliseconds of one pass; its logits lie in this worker then, as the engine's do after a read. */
  async pass(tokens: number[]) {
    const inputs = row(tokens);
    const began = performance.now();
    await model(inputs);
    return performance.now() - began;
  },

  async logits(tokens: number[]) {
    const { logits } = await model(row(tokens));
    return [...logits.data.slice(-logits.dims[2])];
  },

  async decode(tokens: number[], count: number) {
    const times: number[] = [];
    const streamer = { put: () => times.push(performance.now()), end: () => undefined };
    const options = { max_new_tokens: count, do_sample: false, streamer };
    const made = await model.generate({ ...row(tokens), ...options });
    // the first call is of the prompt itself
    const each = times.slice(-count);
    return { tokens: [...made.data].slice(tokens.length).map(Number), gaps: each.slice(1).map((t, i) => t - each[i]) };
  },
});
