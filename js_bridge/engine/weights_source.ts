// The tensors of a checkpoint as pieces of whole rows, so that no tensor has to be in memory at once: float32, float16
// and bfloat16 widened exactly, int8 codes with their scales, gpt_oss's MXFP4 blocks decoded.
// Source: the safetensors format; OCP Microscaling Formats (MX) 1.0 for MXFP4: 4-bit floats, 32 of which share a power of 2.

import type { Bundle } from "../store/bundle.ts";
import { readTensor, type TensorEntry } from "../store/safetensors.ts";
import { EngineError } from "./errors.ts";
import { elementsOf } from "./shape.ts";

/** Bytes that are read at a time, at least a row. */
const PIECE = 4 * 2 ** 20;

export type Rows = Float32Array | Int8Array;

/** A tensor of one or more matrices that lie behind one another. */
export interface StoredTensor {
  readonly name: string;
  readonly entry: TensorEntry;
  /** Bytes of one row. */
  readonly dtype: string;
  /** Of int8 codes: one factor per output of every matrix, in their order. */
  readonly scales: Float32Array | null;
  /** Whole rows of the matrix `index` of `count`, in their order. Int8Array where there are scales. */
  pieces(index: number, count: number): AsyncGenerator<Rows>;
}

/** Fails: BundleRefused for a dtype that is none of F32, F16, BF16 and, with NAME.scale beside it, I8. */
export async function openTensor(
  bundle: Bundle,
  name: string,
  entry: TensorEntry,
  entries: ReadonlyMap<string, TensorEntry>,
): Promise<StoredTensor> {
  const { dtype } = entry;
  if (dtype !== "I8") {
    return { name, entry, dtype, scales: null, pieces: (index, count) => floatPieces(bundle, name, entry, index, count) };
  }
  const scale = entries.get(`${name}.scale`);
  if (scale === undefined) {
    throw new EngineError(
      "BundleRefused",
      `Tensor ${name} holds int8 codes, but the checkpoint has no ${name}.scale; export it again`,
      { tensor: name },
    );
  }
  const scales = await readTensor(bundle, `${name}.scale`, scale);
  return { name, entry, dtype, scales, pieces: (index, count) => codePieces(bundle, entry, index, count) };
}

/** A tensor held in MXFP4: per matrix [outputs, inputs], as blocks [… outputs, inputs/32, 16] and scales [… outputs, inputs/32]. */
export function openPacked(
  bundle: Bundle,
  name: string,
  blocks: TensorEntry,
  scales: TensorEntry,
): StoredTensor {
  const entry = { ...blocks, shape: [...blocks.shape.slice(0, -2), blocks.shape[blocks.shape.length - 2] * 32] };
  return {
    name,
    entry,
    dtype: "MXFP4",
    scales: null,
    pieces: (index, count) => packedPieces(bundle, blocks, scales, index, count),
  };
}

async function* floatPieces(
  bundle: Bundle,
  name: string,
  entry: TensorEntry,
  index: number,
  count: number,
): AsyncGenerator<Float32Array> {
  for (const [begin, end, rows] of ranges(entry, index, count)) {
    yield await readTensor(bundle, name, { ...entry, begin, end, shape: [rows, entry.shape[entry.shape.length - 1]] });
  }
}

async function* codePieces(
  bundle: Bundle,
  entry: TensorEntry,
  index: number,
  count: number,
): AsyncGenerator<Int8Array> {
  for (const [begin, end] of ranges(entry, index, count)) {
    const bytes = await bundle.read(entry.file, begin, end);
    yield new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}

/** The values of the four bits, sign first: E2M1. */
const HALF_BYTES = Float32Array.of(0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6);

async function* packedPieces(
  bundle: Bundle,
  blocks: TensorEntry,
  scales: TensorEntry,
  index: number,
  count: number,
): AsyncGenerator<Float32Array> {
  const groups = blocks.shape[blocks.shape.length - 2];
  const rowBytes = groups * 16;
  const rows = (blocks.end - blocks.begin) / rowBytes / count;
  const step = Math.max(1, Math.floor(PIECE / (8 * rowBytes)));
  for (let row = 0; row < rows; row += step) {
    const taken = Math.min(step, rows - row);
    const first = index * rows + row;
    const begin = blocks.begin + first * rowBytes;
    const codes = await bundle.read(blocks.file, begin, begin + taken * rowBytes);
    const from = scales.begin + first * groups;
    const exponents = await bundle.read(scales.file, from, from + taken * groups);
    const numbers = new Float32Array(taken * groups * 32);
    for (let group = 0; group < exponents.length; group++) {
      const scale = 2 ** (exponents[group] - 127);
      for (let i = 0; i < 16; i++) {
        const byte = codes[group * 16 + i];
        numbers[group * 32 + 2 * i] = HALF_BYTES[byte & 15] * scale;
        numbers[group * 32 + 2 * i + 1] = HALF_BYTES[byte >> 4] * scale;
      }
    }
    yield numbers;
  }
}

/** Where the rows of one of `count` matrices lie in the file, a few at a time: begin, end, rows. */
function* ranges(entry: TensorEntry, index: number, count: number): Generator<[number, number, number]> {
  const size = (entry.end - entry.begin) / count;
  const rows = elementsOf(entry.shape.slice(0, -1)) / count;
  const rowBytes = size / rows;
  const step = Math.max(1, Math.floor(PIECE / rowBytes));
  const start = entry.begin + index * size;
  for (let row = 0; row < rows; row += step) {
    const end = Math.min(row + step, rows);
    yield [start + row * rowBytes, start + end * rowBytes, end - row];
  }
}
