// A tiny random checkpoint of every family, made from the engine's own table of tensors: what tests of passes and of
// loading need where no oracle is asked. The numbers of a family are the same in every run.

import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { architectureOf, type Config } from "../../js_bridge/engine/decoder/architecture.ts";
import type { Backend, Value } from "../../js_bridge/engine/backend.ts";
import { forward, type ForwardOptions, WHOLE_PASS } from "../../js_bridge/engine/decoder/decoder.ts";
import { loadModel, type Model, readCheckpoint } from "../../js_bridge/engine/model.ts";
import type { WeightOptions } from "../../js_bridge/engine/weights/load.ts";
import { ReferenceBackend } from "../../js_bridge/kernels/reference.ts";
import { openWasmBackend } from "../../js_bridge/kernels/wasm.ts";
import { Bundle } from "../../js_bridge/store/bundle.ts";
import type { ChunkStore } from "../../js_bridge/store/chunk_store.ts";
import { readFiles } from "../../js_bridge/store/files.ts";
import { KERNELS } from "./session.ts";
import { noise, safetensors } from "./tiny.ts";

export type Tensors = Map<string, { shape: number[]; numbers: Float32Array }>;

const GPT = { vocab_size: 37, hidden_size: 12, max_position_embeddings: 24 };
const ROTARY = {
  ...GPT,
  num_hidden_layers: 3,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 4,
  intermediate_size: 14,
};
const LAYERS = ["sliding_attention", "full_attention", "sliding_attention"];
const neox = { ...ROTARY, num_attention_heads: 3 };
const opt = { ...GPT, num_hidden_layers: 2, num_attention_heads: 3, ffn_dim: 10 };

export const CONFIGS: Record<string, Config> = {
  gpt2: { model_type: "gpt2", vocab_size: 37, n_layer: 2, n_embd: 12, n_head: 3, n_inner: 10, n_positions: 24 },
  gpt_neo: {
    ...GPT,
    model_type: "gpt_neo",
    num_layers: 2,
    num_heads: 3,
    intermediate_size: 10,
    attention_layers: ["global", "local"],
    window_size: 3,
  },
  gpt_neox: { ...neox, model_type: "gpt_neox", rotary_pct: 0.5 },
  gpt_neox_sequential: { ...neox, model_type: "gpt_neox", rotary_pct: 1, use_parallel_residual: false },
  opt: { ...opt, model_type: "opt" },
  opt_after: { ...opt, model_type: "opt", do_layer_norm_before: false, word_embed_proj_dim: 8 },
  llama: { ...ROTARY, model_type: "llama", attention_bias: true, mlp_bias: true },
  mistral: { ...ROTARY, model_type: "mistral", sliding_window: 3 },
  qwen2: { ...ROTARY, model_type: "qwen2", tie_word_embeddings: true },
  qwen3: { ...ROTARY, model_type: "qwen3" },
  phi3: { ...ROTARY, model_type: "phi3", partial_rotary_factor: 0.5 },
  gemma2: { ...ROTARY, model_type: "gemma2", sliding_window: 3, layer_types: LAYERS, attn_logit_softcapping: 2 },
  gemma3: { model_type: "gemma3", text_config: { ...ROTARY, sliding_window: 3, layer_types: LAYERS } },
  gpt_oss: {
    ...ROTARY,
    model_type: "gpt_oss",
    sliding_window: 3,
    layer_types: LAYERS,
    num_local_experts: 5,
    num_experts_per_tok: 2,
    swiglu_limit: 0.5,
  },
};

/** Numbers for every tensor that the architecture asks for; norms near 1, or near 0 where 1 is added. */
export function tensorsOf(config: Config): Tensors {
  const { tensors, decoder } = architectureOf(config);
  const result: Tensors = new Map();
  for (const { sources, stored, parts } of tensors) {
    const count = stored.reduce((a, b) => a * b);
    const numbers = noise(count, result.size + 1).map((x) => x / 2);
    if (parts[0].endsWith(".w")) numbers.forEach((x, i) => (numbers[i] = x / 4 + 1 - decoder.normWeightOffset));
    result.set(sources[0], { shape: [...stored], numbers });
  }
  return result;
}

/** A new folder with the checkpoint; a function may change the bytes of its weights. */
export async function writeFamily(config: Config, bytes = safetensors(tensorsOf(config))): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "family-"));
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeFile(join(folder, "model.safetensors"), bytes);
  return folder;
}

export async function openFamily(
  folder: string,
  backend: Backend,
  options: Partial<WeightOptions> = {},
  store: ChunkStore | null = null,
): Promise<Model> {
  const host = { fetchBytes: readFiles, store, onProgress: () => undefined };
  const bundle = await Bundle.open(folder, host, { keep: store === null ? "files" : "prepared" });
  const checkpoint = await readCheckpoint(bundle);
  const model = await loadModel(1, "family", bundle, checkpoint, backend, options);
  await bundle.close();
  return model;
}

export const BACKENDS: Record<string, () => Promise<Backend>> = {
  reference: async () => new ReferenceBackend(),
  wasm: () => openWasmBackend({ fetchKernels: async () => new Uint8Array(await readFile(KERNELS)) }),
};

export type Parts = Partial<ForwardOptions> & {
  rows: readonly (readonly number[])[];
  /** What takes a hook's value's place, made of it. */
  change?: (name: string, value: Value) => Value | undefined;
};

/** The result of a pass and the names of the points it stopped at; it asserts nothing. */
export function pass(
  { backend, architecture, weights }: Model,
  { rows, change, ...options }: Parts,
): { result: Value; names: string[] } {
  const ids = Int32Array.from(rows.flat());
  const steps = forward(backend, architecture, weights, {
    ...WHOLE_PASS,
    ids,
    batch: rows.length,
    positions: rows[0].length,
    ...options,
  });
  const names: string[] = [];
  let step = steps.next();
  while (step.done !== true) {
    let sent: Value | undefined;
    if (step.value !== null) {
      names.push(step.value.name);
      sent = change?.(step.value.name, step.value.value);
    }
    step = steps.next(sent);
  }
  return { result: step.value, names };
}
