// The tensors of a checkpoint as pieces of whole rows, so that no tensor has to be in memory at once: float32, float16
// and bfloat16 widened exactly, int8 codes with their scales, gpt_oss's MXFP4 blocks decoded.
// Source: the safetensors format; OCP Microscaling Formats (MX) 1.0 for MXFP4, 4-bit floats of which 32 share a power
// of two.

import type { Bundle } from "../../store/bundle.ts";
import { end as endBuffer } from "../../store/buffers.ts";
import { asNumbers, readTensor, type TensorEntry } from "../../store/safetensors.ts";
import type { TensorPlan } from "../decoder/architecture.ts";
import { EngineError } from "../errors.ts";
import { elementsOf } from "../tensors/shape.ts";

/** Bytes that are read at a time, at least a row: a piece that lies in two chunks is copied, so it should not be large. */
const PIECE = 2 ** 20;

export type Rows = Float32Array | Int8Array;

/** A tensor of one or more matrices that lie behind one another. */
export interface StoredTensor {
  readonly dtype: "F32" | "F16" | "BF16" | "I8" | "MXFP4";
  /** Its extents, as the pieces have them. */
  readonly shape: readonly number[];
  /** Of a matrix: rows of outputs. */
  readonly transposed: boolean;
  /** Of int8 codes: one factor per output of every matrix, in their order. */
  readonly scales: Float32Array | null;
  /**
   * Whole rows of the matrix `index` of `count`, in their order. Int8Array where there are scales. A piece is gone when
   * the next one is asked for.
   */
  pieces(index: number, count: number): AsyncGenerator<Rows>;
}

/** Whether a float tensor is stored by rows of outputs. */
export function isByOutputs({ transposed, use }: Pick<TensorPlan, "transposed" | "use">): boolean {
  return transposed || use === "table";
}

/** How many outputs all matrices of a tensor have. */
export function scalesIn(plan: Pick<TensorPlan, "stored" | "transposed" | "use">): number {
  const { stored } = plan;
  const outputs = stored[stored.length - (isByOutputs(plan) ? 2 : 1)];
  return stored.length === 3 ? stored[0] * outputs : outputs;
}

/** Fails: BundleRefused for a dtype that is none of F32, F16, BF16 and, with NAME.scale beside it, I8. */
export async function openTensor(
  bundle: Bundle,
  plan: TensorPlan,
  name: string,
  entry: TensorEntry,
  entries: ReadonlyMap<string, TensorEntry>,
): Promise<StoredTensor> {
  const { dtype, shape } = entry;
  if (dtype === "F32" || dtype === "F16" || dtype === "BF16") {
    return {
      dtype,
      shape,
      transposed: isByOutputs(plan),
      scales: null,
      pieces: (index, count) => floatPieces(bundle, entry, index, count),
    };
  }
  if (dtype !== "I8") {
    throw new EngineError(
      "BundleRefused",
      `Tensor ${name} has dtype ${dtype}; F32, F16, BF16, I8 with scales and the MXFP4 blocks of gpt_oss can be read; convert the checkpoint to one of them`,
      { tensor: name },
    );
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
  if (scales.length !== scalesIn(plan)) {
    throw new EngineError(
      "BundleRefused",
      `Tensor ${name}.scale has ${scales.length} numbers; ${name} has ${scalesIn(plan)} outputs; export it again`,
      { tensor: name },
    );
  }
  // A table lies as in a float checkpoint, every other matrix [inputs, outputs].
  const [first, last] = plan.stored.slice(-2);
  const inputs = isByOutputs(plan) ? last : first;
  const transposed = plan.use === "table" || shape[shape.length - 2] !== inputs;
  return { dtype, shape, transposed, scales, pieces: (index, count) => codePieces(bundle, entry, index, count) };
}

/**
 * A tensor held in MXFP4: per matrix [outputs, inputs], as blocks [… outputs, inputs/32, 16] and scales
 * [… outputs, inputs/32].
 */
export function openPacked(bundle: Bundle, blocks: TensorEntry, scales: TensorEntry): StoredTensor {
  return {
    dtype: "MXFP4",
    shape: [...blocks.shape.slice(0, -2), blocks.shape[blocks.shape.length - 2] * 32],
    transposed: true,
    scales: null,
    pieces: (index, count) => packedPieces(bundle, blocks, scales, index, count),
  };
}

/** A tensor that an earlier load quantised: the factors of its outputs, then its codes, in the rows of the file. */
export function openCodes(plan: TensorPlan, bytes: Uint8Array, transposed: boolean): StoredTensor {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const scales = new Float32Array(aligned.buffer, aligned.byteOffset, scalesIn(plan));
  const codes = new Int8Array(aligned.buffer, aligned.byteOffset + scales.byteLength, elementsOf(plan.stored));
  return {
    dtype: "I8",
    shape: plan.stored,
    transposed,
    scales,
    pieces: async function* (index, count) {
      const size = codes.length / count;
      yield codes.subarray(index * size, (index + 1) * size);
    },
  };
}

/** Numbers that an earlier load kept as they are. */
export function openNumbers(plan: TensorPlan, bytes: Uint8Array): StoredTensor {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const numbers = new Float32Array(aligned.buffer, aligned.byteOffset, elementsOf(plan.stored));
  return {
    dtype: "F32",
    shape: plan.stored,
    transposed: false,
    scales: null,
    pieces: async function* (index, count) {
      const size = numbers.length / count;
      yield numbers.subarray(index * size, (index + 1) * size);
    },
  };
}

async function* floatPieces(
  bundle: Bundle,
  entry: TensorEntry,
  index: number,
  count: number,
): AsyncGenerator<Float32Array> {
  for (const [begin, end] of ranges(entry, index, count)) {
    const { bytes, giveBack } = await bundle.borrow(entry.file, begin, end);
    const numbers = asNumbers(entry.dtype, bytes);
    try {
      yield numbers;
    } finally {
      // Widened, they were not borrowed but made here.
      if (numbers.buffer !== bytes.buffer) endBuffer(numbers.buffer as ArrayBuffer);
      giveBack();
    }
  }
}

async function* codePieces(
  bundle: Bundle,
  entry: TensorEntry,
  index: number,
  count: number,
): AsyncGenerator<Int8Array> {
  for (const [begin, end] of ranges(entry, index, count)) {
    const { bytes, giveBack } = await bundle.borrow(entry.file, begin, end);
    try {
      yield new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    } finally {
      giveBack();
    }
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
    const from = scales.begin + first * groups;
    const exponents = await bundle.read(scales.file, from, from + taken * groups);
    const { bytes: codes, giveBack } = await bundle.borrow(blocks.file, begin, begin + taken * rowBytes);
    const numbers = new Float32Array(taken * groups * 32);
    for (let group = 0; group < exponents.length; group++) {
      const scale = 2 ** (exponents[group] - 127);
      for (let i = 0; i < 16; i++) {
        const byte = codes[group * 16 + i];
        numbers[group * 32 + 2 * i] = HALF_BYTES[byte & 15] * scale;
        numbers[group * 32 + 2 * i + 1] = HALF_BYTES[byte >> 4] * scale;
      }
    }
    giveBack();
    endBuffer(exponents.buffer as ArrayBuffer);
    try {
      yield numbers;
    } finally {
      endBuffer(numbers.buffer);
    }
  }
}

/** Where the rows of one of `count` matrices lie in the file, a few at a time: begin, end. */
function* ranges(entry: TensorEntry, index: number, count: number): Generator<[number, number]> {
  const size = (entry.end - entry.begin) / count;
  const rows = elementsOf(entry.shape.slice(0, -1)) / count;
  const rowBytes = size / rows;
  const step = Math.max(1, Math.floor(PIECE / rowBytes));
  const start = entry.begin + index * size;
  for (let row = 0; row < rows; row += step) {
    const end = Math.min(row + step, rows);
    yield [start + row * rowBytes, start + end * rowBytes];
  }
}
