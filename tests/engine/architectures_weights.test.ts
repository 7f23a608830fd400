// How weights come in: cut into parts as the tables say, rounded to int8 while they stream, decoded from MXFP4; read in
// pieces, and refused by name. The oracle is the same arithmetic on whole tensors, written plainly here.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { architectureOf, type TensorPlan } from "../../js_bridge/engine/decoder/architecture.ts";
import type { Matrix, MatrixLayout, MatrixWriter } from "../../js_bridge/engine/backend.ts";
import { ReferenceBackend } from "../../js_bridge/kernels/reference.ts";
import { openMemoryChunks } from "../../js_bridge/store/memory_chunks.ts";
import { BACKENDS, CONFIGS, openFamily, pass, type Tensors, tensorsOf, writeFamily } from "./architectures.ts";
import { noise, safetensors, writeManifest } from "./tiny.ts";

const ROWS = [[3, 1, 4, 1, 5, 9, 2, 6]];

/** Any tensors as a safetensors file: bytes as they are, under the dtype that is told. */
function file(tensors: Map<string, { dtype: string; shape: readonly number[]; bytes: Uint8Array }>): Uint8Array {
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...[...tensors.values()].map((each) => each.bytes)]);
}

function bytesOf(numbers: Float32Array | Int8Array): Uint8Array {
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
}

function isMatrix({ use }: TensorPlan): boolean {
  return use === "matrix" || use === "table";
}

/** The outputs of a stored tensor, one list of places per output. */
function outputsOf({ stored, transposed, use }: TensorPlan): number[][] {
  const [rows, columns] = stored.slice(-2);
  const count = stored.length === 3 ? stored[0] : 1;
  const isByOutputs = transposed || use === "table";
  const outputs: number[][] = [];
  for (let index = 0; index < count; index++) {
    for (let output = 0; output < (isByOutputs ? rows : columns); output++) {
      outputs.push(
        Array.from({ length: isByOutputs ? columns : rows }, (_, input) =>
          isByOutputs ? (index * rows + output) * columns + input : (index * rows + input) * columns + output,
        ),
      );
    }
  }
  return outputs;
}

/** Each number as its code times its output's factor, and the factors and codes themselves. */
function rounded(
  plan: TensorPlan,
  numbers: Float32Array,
): { widened: Float32Array; codes: Int8Array; scales: Float32Array } {
  const [widened, codes] = [new Float32Array(numbers.length), new Int8Array(numbers.length)];
  const outputs = outputsOf(plan);
  const scales = Float32Array.from(outputs, (places) => Math.max(...places.map((at) => Math.abs(numbers[at]))) / 127);
  for (const [output, places] of outputs.entries()) {
    for (const at of places) {
      codes[at] = Math.round(numbers[at] / scales[output]);
      widened[at] = codes[at] * scales[output];
    }
  }
  return { widened, codes, scales };
}

async function logitsOf(
  folder: string,
  backend = "reference",
  options = {},
): Promise<{ logits: Float32Array; dtype: string }> {
  const home = await BACKENDS[backend]();
  const model = await openFamily(folder, home, options);
  const { result } = pass(model, { rows: ROWS });
  return { logits: home.read(result), dtype: model.dtype };
}

function assertNear(ours: Float32Array, theirs: Float32Array, tolerance: number, what: string): void {
  const far = ours.reduce((most, each, i) => Math.max(most, Math.abs(each - theirs[i])), 0);
  assert.ok(far <= tolerance, `${what}: ${far}`);
}

/** The checkpoint with every matrix rounded and widened again. */
function widened(plans: readonly TensorPlan[], tensors: Tensors): Tensors {
  const result: Tensors = new Map(tensors);
  for (const plan of plans.filter(isMatrix)) {
    const { shape, numbers } = tensors.get(plan.sources[0]) as { shape: number[]; numbers: Float32Array };
    result.set(plan.sources[0], { shape, numbers: rounded(plan, numbers).widened });
  }
  return result;
}

describe("int8", () => {
  for (const family of ["gpt2", "gpt_neox", "llama", "phi3", "gemma3", "gpt_oss"]) {
    const config = CONFIGS[family];
    const plans = architectureOf(config).tensors;
    const tensors = tensorsOf(config);

    test(`${family}: rounded while it streams, it equals its rounded weights widened`, async () => {
      const oracle = await logitsOf(await writeFamily(config, safetensors(widened(plans, tensors))));
      const raw = await logitsOf(await writeFamily(config, safetensors(tensors)));
      for (const backend of ["reference", "wasm"]) {
        const ours = await logitsOf(await writeFamily(config, safetensors(tensors)), backend, { quantises: true });
        assert.equal(ours.dtype, "int8");
        assertNear(ours.logits, oracle.logits, 1e-5, backend);
        assert.ok(ours.logits.some((each, i) => Math.abs(each - raw.logits[i]) > 1e-4), "rounding is seen");
      }
    });

    test(`${family}: stored as codes [inputs, outputs] with their factors, it equals them widened`, async () => {
      const oracle = await logitsOf(await writeFamily(config, safetensors(widened(plans, tensors))));
      const stored = new Map<string, { dtype: string; shape: readonly number[]; bytes: Uint8Array }>();
      for (const plan of plans) {
        const [name] = plan.sources;
        const { shape, numbers } = tensors.get(name) as { shape: number[]; numbers: Float32Array };
        if (!isMatrix(plan)) {
          stored.set(name, { dtype: "F32", shape, bytes: bytesOf(numbers) });
          continue;
        }
        const { codes, scales } = rounded(plan, numbers);
        const isTable = plan.use === "table";
        const places = outputsOf(plan);
        const outputs = scales.length / (shape.length === 3 ? shape[0] : 1);
        const flipped = new Int8Array(codes.length);
        for (const [output, each] of places.entries()) {
          const start = Math.floor(output / outputs) * outputs * each.length;
          for (const [input, at] of each.entries()) {
            flipped[isTable ? output * each.length + input : start + input * outputs + (output % outputs)] = codes[at];
          }
        }
        const lying = isTable ? shape : [...shape.slice(0, -2), places[0].length, outputs];
        stored.set(name, { dtype: "I8", shape: lying, bytes: bytesOf(flipped) });
        stored.set(`${name}.scale`, { dtype: "F32", shape: [scales.length], bytes: bytesOf(scales) });
      }
      const folder = await writeFamily(config, file(stored));
      for (const backend of ["reference", "wasm"]) {
        const ours = await logitsOf(folder, backend);
        assert.equal(ours.dtype, "int8");
        assertNear(ours.logits, oracle.logits, 1e-5, backend);
      }
      await assert.rejects(logitsOf(folder, "reference", { processing: { foldNorms: true } }), {
        name: "BadParameter",
        message: /round it again/,
      });
    });
  }
});

test("what a load made of weights is kept, and the next load reads no weights", async () => {
  const store = openMemoryChunks();
  for (const family of ["gpt2", "llama", "gpt_oss"]) {
    const folder = await writeFamily(CONFIGS[family]);
    await writeManifest(folder, 1024);
    const opened = async () => {
      const backend = new ReferenceBackend();
      const model = await openFamily(folder, backend, { quantises: true }, store);
      assert.equal(model.dtype, "int8");
      return backend.read(pass(model, { rows: ROWS }).result);
    };
    const first = await opened();
    const weights = join(folder, "model.safetensors");
    await writeFile(weights, new Uint8Array((await readFile(weights)).length));
    assert.deepEqual(await opened(), first, family);
  }
});

describe("MXFP4", () => {
  const config = {
    ...CONFIGS.gpt_oss,
    hidden_size: 64,
    intermediate_size: 32,
    num_local_experts: 3,
    num_hidden_layers: 1,
    layer_types: ["full_attention"],
  };
  const VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

  test("blocks are decoded, low half first, each 32 by their power of two", async () => {
    const tensors = tensorsOf(config);
    const stored = new Map<string, { dtype: string; shape: readonly number[]; bytes: Uint8Array }>();
    for (const plan of architectureOf(config).tensors) {
      const [name] = plan.sources;
      const { shape, numbers } = tensors.get(name) as { shape: number[]; numbers: Float32Array };
      if (plan.packed.length === 0) {
        stored.set(name, { dtype: "F32", shape, bytes: bytesOf(numbers) });
        continue;
      }
      const [experts, inputs, outputs] = shape;
      const groups = inputs / 32;
      const random = noise(experts * outputs * inputs, 7);
      const exponents = Uint8Array.from({ length: experts * outputs * groups }, (_, i) => 124 + (i % 3));
      const blocks = new Uint8Array(random.length / 2);
      for (let at = 0; at < random.length; at++) {
        const code = Math.floor((random[at] + 1) * 8);
        blocks[at >> 1] |= at % 2 === 0 ? code : code << 4;
        const [row, input] = [Math.floor(at / inputs), at % inputs];
        const [expert, output] = [Math.floor(row / outputs), row % outputs];
        const scale = 2 ** (exponents[Math.floor(at / 32)] - 127);
        numbers[(expert * inputs + input) * outputs + output] = (code < 8 ? 1 : -1) * VALUES[code % 8] * scale;
      }
      stored.set(`${name}_blocks`, { dtype: "U8", shape: [experts, outputs, groups, 16], bytes: blocks });
      stored.set(`${name}_scales`, { dtype: "U8", shape: [experts, outputs, groups], bytes: exponents });
    }
    const packed = await logitsOf(await writeFamily(config, file(stored)));
    assert.equal(packed.dtype, "float32+mxfp4");
    assert.deepEqual(packed.logits, (await logitsOf(await writeFamily(config, safetensors(tensors)))).logits);
  });
});

describe("a checkpoint", () => {
  const config = CONFIGS.llama;

  test("comes in pieces of whole rows, of 1 MiB at most, each row once", async () => {
    const pieces: number[] = [];
    class Watched extends ReferenceBackend {
      override startMatrix(layout: MatrixLayout): MatrixWriter {
        const writer = super.startMatrix(layout);
        const width = layout.transposed ? layout.inputs : layout.outputs;
        let rows = 0;
        return {
          ...writer,
          write: (numbers) => {
            pieces.push(numbers.byteLength);
            rows += numbers.length / width;
            writer.write(numbers);
          },
          finish: (): Matrix => {
            assert.equal(rows, layout.transposed ? layout.outputs : layout.inputs);
            return writer.finish();
          },
        };
      }
    }
    await openFamily(await writeFamily({ ...config, vocab_size: 100_000, num_hidden_layers: 1 }), new Watched());
    assert.ok(Math.max(...pieces) <= 2 ** 20);
    const sizes = pieces.filter((bytes) => bytes > 100_000).sort((a, b) => a - b);
    const row = 12 * 4;
    const whole = Math.floor(2 ** 20 / row) * row;
    const full = Math.floor((100_000 * row) / whole);
    const rest = 100_000 * row - full * whole;
    assert.deepEqual(sizes, [rest, rest, ...Array(2 * full).fill(whole)], "table and unembedding");
  });

  test("of another dtype, or with codes that lack their factors, is refused with the tensor's name", async () => {
    const tensors = new Map<string, { dtype: string; shape: readonly number[]; bytes: Uint8Array }>();
    for (const [name, { shape, numbers }] of tensorsOf(config)) {
      tensors.set(name, { dtype: "F32", shape, bytes: bytesOf(numbers) });
    }
    const name = "model.layers.1.mlp.up_proj.weight";
    const shape = tensors.get(name)?.shape as readonly number[];
    const bytes = new Uint8Array(shape[0] * shape[1]);
    tensors.set(name, { dtype: "F8_E4M3", shape, bytes });
    await assert.rejects(logitsOf(await writeFamily(config, file(tensors))), {
      name: "BundleRefused",
      message: /layers\.1\.mlp\.up_proj\.weight has dtype F8_E4M3; F32, F16, BF16/,
    });
    tensors.set(name, { dtype: "I8", shape, bytes });
    await assert.rejects(logitsOf(await writeFamily(config, file(tensors))), {
      name: "BundleRefused",
      message: /no model\.layers\.1\.mlp\.up_proj\.weight\.scale/,
    });
  });

  test("that cannot be used leaves nothing behind in the backend", async () => {
    const tensors = tensorsOf(config);
    tensors.delete("lm_head.weight");
    const backend = await BACKENDS.wasm();
    const before = backend.bytes;
    await assert.rejects(openFamily(await writeFamily(config, safetensors(tensors)), backend), {
      name: "BundleRefused",
      message: /no tensor lm_head\.weight/,
    });
    assert.equal(backend.bytes, before);
  });
});
