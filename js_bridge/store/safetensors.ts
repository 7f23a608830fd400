// Reads safetensors files: the header, and single tensors as float32. It reads ranges, never a whole file.
// Source: the safetensors format; a header of JSON after its length in 8 bytes, then the tensors' bytes, little endian.

import { EngineError } from "../engine/errors.ts";
import type { Bundle } from "./bundle.ts";

export interface TensorEntry {
  readonly file: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** in the file, not in its data part */
  readonly begin: number;
  readonly end: number;
}

const BYTES: Record<string, number> = { F32: 4, F16: 2, BF16: 2 };

/** A header longer than this is damage, not a header. */
const MAX_HEADER = 100 * 2 ** 20;

/** Fails: BundleRefused for a header that does not describe its file. */
export async function readHeader(bundle: Bundle, file: string): Promise<Map<string, TensorEntry>> {
  const lengthOf = (first: Uint8Array): number => {
    const length = Number(new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true));
    if (length > MAX_HEADER)
      throw refusal(file, `its header would take ${length} bytes; at most ${MAX_HEADER} are allowed`);
    return length;
  };
  const start = await bundle.readStart(file, (first) => 8 + lengthOf(first));
  const length = lengthOf(start);
  const text = new TextDecoder().decode(start.subarray(8));
  let header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  try {
    header = JSON.parse(text);
  } catch (error) {
    throw refusal(file, `its header is no JSON (${(error as Error).message})`);
  }
  const entries = new Map<string, TensorEntry>();
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [begin, end] = offsets;
    const size = shape.reduce((product, extent) => product * extent, 1) * (BYTES[dtype] ?? NaN);
    if (dtype in BYTES && end - begin !== size)
      throw refusal(
        file,
        `tensor ${name} takes ${end - begin} bytes, its shape [${shape.join(" ")}] and dtype ${dtype} need ${size}`,
      );
    entries.set(name, { file, dtype, shape, begin: 8 + length + begin, end: 8 + length + end });
  }
  bundle.learnSize(file, Math.max(8 + length, ...[...entries.values()].map((entry) => entry.end)));
  return entries;
}

/** A tensor's numbers, row-major. Fails: BundleRefused for a dtype that is none of F32, F16 and BF16. */
export async function readTensor(bundle: Bundle, name: string, entry: TensorEntry): Promise<Float32Array> {
  if (!(entry.dtype in BYTES))
    throw refusal(entry.file, `tensor ${name} has dtype ${entry.dtype}; ${Object.keys(BYTES).join(", ")} can be read`);
  return asNumbers(entry.dtype, await bundle.read(entry.file, entry.begin, entry.end));
}

/** Bytes of one of these dtypes as float32: a view where they are that, float16 and bfloat16 widened exactly. */
export function asNumbers(dtype: string, bytes: Uint8Array): Float32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  if (dtype === "F32") return new Float32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 4);
  const halves = new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 2);
  return dtype === "F16" ? widenFloat16(halves) : widenBfloat16(halves);
}

function refusal(file: string, text: string): EngineError {
  return new EngineError("BundleRefused", `${file}: ${text}`, { file });
}

export function widenBfloat16(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) words[i] = halves[i] << 16;
  return new Float32Array(words.buffer);
}

/** All 65,536 values at once: a table is faster than branches on subnormals, and exact. */
export function widenFloat16(halves: Uint16Array): Float32Array {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size =
      exponent === 0
        ? fraction * 2 ** -24
        : exponent === 31
          ? fraction === 0
            ? Infinity
            : NaN
          : (1 + fraction / 1024) * 2 ** (exponent - 15);
    table[bits] = bits & 0x8000 ? -size : size;
  }
  return Float32Array.from(halves, (bits) => table[bits]);
}
