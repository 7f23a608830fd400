// A GPT-2 checkpoint small enough for a test to write: fixed pseudo-random weights, in a folder of its own.

import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const TINY = { layers: 2, width: 12, heads: 3, inner: 20, vocabulary: 23, positions: 10 };

export type Dtype = "F32" | "F16" | "BF16";

/** Numbers in (-1, 1) that every run repeats. */
export function noise(count: number, seed: number): Float32Array {
  let state = (seed * 2654435761) >>> 0 || 1;
  return Float32Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 31 - 1;
  });
}

export function tinyTensors(): Map<string, { shape: number[]; numbers: Float32Array }> {
  const { layers, width, inner, vocabulary, positions } = TINY;
  const tensors = new Map<string, { shape: number[]; numbers: Float32Array }>();
  const add = (name: string, ...shape: number[]) =>
    tensors.set(name, {
      shape,
      numbers: noise(
        shape.reduce((a, b) => a * b),
        tensors.size + 1,
      ),
    });
  add("wte.weight", vocabulary, width);
  add("wpe.weight", positions, width);
  for (let layer = 0; layer < layers; layer++) {
    const at = `h.${layer}.`;
    for (const norm of ["ln_1", "ln_2"]) {
      add(`${at}${norm}.weight`, width);
      add(`${at}${norm}.bias`, width);
    }
    for (const [name, from, to] of [
      ["attn.c_attn", width, 3 * width],
      ["attn.c_proj", width, width],
      ["mlp.c_fc", width, inner],
      ["mlp.c_proj", inner, width],
    ] as const) {
      add(`${at}${name}.weight`, from, to);
      add(`${at}${name}.bias`, to);
    }
  }
  add("ln_f.weight", width);
  add("ln_f.bias", width);
  return tensors;
}

export function tinyConfig(): Record<string, unknown> {
  const { layers, width, heads, inner, vocabulary, positions } = TINY;
  return {
    model_type: "gpt2",
    n_layer: layers,
    n_embd: width,
    n_head: heads,
    n_inner: inner,
    vocab_size: vocabulary,
    n_positions: positions,
  };
}

/** Two bytes of a number: bfloat16 cuts the last sixteen bits, float16 goes through the platform's own rounding. */
function halfBits(x: number, dtype: Dtype): number {
  if (dtype === "BF16") return new Uint32Array(Float32Array.of(x).buffer)[0] >>> 16;
  const view = new DataView(new ArrayBuffer(2));
  view.setFloat16(0, x);
  return view.getUint16(0);
}

export function safetensors(tensors: ReturnType<typeof tinyTensors>, dtype: Dtype = "F32"): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  const pieces: Uint8Array[] = [];
  let offset = 0;
  for (const [name, { shape, numbers }] of tensors) {
    const bytes =
      dtype === "F32"
        ? new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength)
        : new Uint8Array(Uint16Array.from(numbers, (x) => halfBits(x, dtype)).buffer);
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    pieces.push(bytes);
    offset += bytes.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...pieces]);
}

export interface TinyOptions {
  tensors?: ReturnType<typeof tinyTensors>;
  config?: Record<string, unknown>;
  dtype?: Dtype;
  /** Writes bundle.json too, in chunks of this many bytes. */
  chunk?: number;
}

/** A new folder with the checkpoint. */
export async function writeTiny({
  tensors = tinyTensors(),
  config = tinyConfig(),
  dtype,
  chunk,
}: TinyOptions = {}): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tiny-"));
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeFile(join(folder, "model.safetensors"), safetensors(tensors, dtype));
  if (chunk !== undefined) await writeManifest(folder, chunk);
  return folder;
}

export async function writeManifest(folder: string, chunk: number): Promise<void> {
  const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
  const files = [];
  for (const name of (await readdir(folder)).sort()) {
    const bytes = await readFile(join(folder, name));
    const chunks = [];
    for (let offset = 0; offset < bytes.length; offset += chunk) {
      const piece = bytes.subarray(offset, offset + chunk);
      chunks.push({ offset, bytes: piece.length, sha256: digest(piece) });
    }
    files.push({ name, bytes: bytes.length, sha256: digest(bytes), chunks });
  }
  const manifest = {
    format: 1,
    id: "tiny",
    source: "tiny",
    revision: null,
    dtype: "float32",
    license: null,
    architecture: "gpt2",
    files,
  };
  await writeFile(join(folder, "bundle.json"), JSON.stringify(manifest));
}
