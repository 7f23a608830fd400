// Puts a checkpoint's tensors into a backend, piece by piece, under the names that the decoder uses: cut into parts,
// quantised and processed on the way. A whole tensor is held only where a number depends on all of its rows: column
// maxima of a tensor that is stored by rows of inputs, means over the vocabulary.

import type { TensorPlan } from "../decoder/architecture.ts";
import { end } from "../../store/buffers.ts";
import type { Backend, Matrix, MatrixLayout, MatrixWriter, Value } from "../backend.ts";
import { elementsOf, lastOf } from "../tensors/shape.ts";
import type { Treatment } from "./processing.ts";
import { isByOutputs, type Rows, scalesIn, type StoredTensor } from "./source.ts";

/** The weights of one model in its backend, by the names of the architecture's table. */
export interface Weights {
  readonly matrices: ReadonlyMap<string, Matrix>;
  readonly vectors: ReadonlyMap<string, Value>;
}

export function releaseWeights(backend: Backend, weights: Weights): void {
  for (const matrix of weights.matrices.values()) backend.releaseMatrix(matrix);
  for (const vector of weights.vectors.values()) backend.release(vector);
}

export class WeightLoader implements Weights {
  readonly matrices = new Map<string, Matrix>();
  readonly vectors = new Map<string, Value>();
  readonly #backend: Backend;
  /** Vectors wait here until all matrices are done: folding adds to them. */
  readonly #waiting = new Map<string, Float32Array>();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  get bytes(): number {
    const parts = [...this.matrices.values(), ...[...this.vectors.values()].map((vector) => vector.storage)];
    return parts.reduce((sum, part) => sum + part.bytes, 0);
  }

  /** A tensor of numbers that are added, or looked up only: `see` looks at them, then `change` may write to each part. */
  async addVectors(
    plan: TensorPlan,
    stored: StoredTensor,
    see: (numbers: Float32Array) => void,
    change: (name: string, numbers: Float32Array, width: number) => void,
  ): Promise<void> {
    const { shape } = stored;
    const count = expertsOf(plan);
    for (let expert = 0; expert < count; expert++) {
      const numbers = await whole(stored, expert, count);
      see(numbers);
      if (plan.use === "rows") {
        change(plan.parts[0], numbers, lastOf(shape));
        this.vectors.set(plan.parts[0], this.#backend.upload(numbers, shape));
        continue;
      }
      for (const [name, part] of cut(numbers, plan, namesOf(plan, expert))) {
        change(name, part, part.length);
        // Folding may have come first: a file holds its tensors in any order.
        this.addTo(name, part);
      }
    }
  }

  /**
   * A tensor that is multiplied by, and looked up where it is a table; once per treatment. Answers the codes that it
   * was quantised to, where it `keeps` them.
   */
  async addMatrices(
    plan: TensorPlan,
    stored: StoredTensor,
    { quantises, treatments, keeps }: { quantises: boolean; treatments: readonly Treatment[]; keeps: boolean },
  ): Promise<Codes | null> {
    const count = expertsOf(plan);
    const codes = quantises && keeps && stored.scales === null ? new Codes(plan) : null;
    for (let expert = 0; expert < count; expert++) {
      const layout = layoutOf(plan, stored, expert);
      const names = namesOf(plan, expert);
      const placements: Placement[] = [];
      try {
        for (const treatment of treatments) {
          placements.push(new Placement(this.#backend, plan.sizes, names, layout, { quantises, treatment, codes }));
        }
        for await (const rows of stored.pieces(expert, count)) for (const each of placements) each.add(rows);
        for (const each of placements) {
          for (const [name, matrix] of each.finish()) this.matrices.set(name, matrix);
          for (const [name, added] of each.foldedBiases()) this.addTo(name, added);
        }
      } catch (error) {
        for (const each of placements) each.abandon();
        throw error;
      }
    }
    return codes;
  }

  /** Adds to a vector that waits; one that is not there was zero. */
  addTo(name: string, added: ArrayLike<number>): void {
    const before = this.#waiting.get(name);
    this.#waiting.set(
      name,
      Float32Array.from(added, (each, i) => each + (before?.[i] ?? 0)),
    );
  }

  /** The numbers of a vector that waits. */
  waiting(name: string): Float32Array | undefined {
    return this.#waiting.get(name);
  }

  /** Forgets a vector that nothing reads any more. */
  drop(name: string): void {
    this.#waiting.delete(name);
  }

  /** Uploads what waits. */
  finish(): void {
    for (const [name, numbers] of this.#waiting) {
      this.vectors.set(name, this.#backend.upload(numbers, [numbers.length]));
    }
    this.#waiting.clear();
  }
}

/** The codes of a tensor as its rows lie in the file, with the factors of its outputs before them. */
export class Codes {
  readonly bytes: Uint8Array<ArrayBuffer>;
  #scalesAt = 0;
  #codesAt: number;

  constructor({ stored, transposed, use }: TensorPlan) {
    const count = elementsOf(stored);
    this.#codesAt = 4 * scalesIn({ stored, transposed, use });
    this.bytes = new Uint8Array(this.#codesAt + count);
  }

  add(codes: Int8Array): void {
    this.bytes.set(new Uint8Array(codes.buffer, codes.byteOffset, codes.byteLength), this.#codesAt);
    this.#codesAt += codes.length;
  }

  addScales(scales: Float32Array): void {
    new Float32Array(this.bytes.buffer, this.#scalesAt, scales.length).set(scales);
    this.#scalesAt += 4 * scales.length;
  }
}

interface Part {
  readonly name: string;
  /** Outputs in one turn. */
  readonly size: number;
  /** Of its outputs, where it is int8; each is there before the codes that it belongs to. */
  readonly scales: Float32Array | null;
  readonly writer: MatrixWriter;
  isFinished: boolean;
}

/** Rows that are written at a time from a tensor that had to be held. */
const ROWS = 64;

/** One stored matrix on its way into its parts. */
class Placement {
  readonly #layout: MatrixLayout;
  readonly #treatment: Treatment;
  readonly #quantises: boolean;
  readonly #parts: readonly Part[];
  /** Outputs after which the parts take turns again. */
  readonly #turn: number;
  readonly #added: Float64Array | null;
  readonly #codes: Codes | null;
  /** Memory for the parts' columns. */
  readonly #dealt: (Float32Array<ArrayBuffer> | Int8Array<ArrayBuffer>)[] = [];
  #held: Float32Array<ArrayBuffer> | null;
  #row = 0;
  #written = 0;

  constructor(
    backend: Backend,
    sizes: readonly number[],
    names: readonly string[],
    layout: MatrixLayout,
    { quantises, treatment, codes }: { quantises: boolean; treatment: Treatment; codes: Codes | null },
  ) {
    const { inputs, outputs, transposed, scales } = layout;
    this.#layout = layout;
    this.#treatment = treatment;
    this.#quantises = quantises && scales === null;
    this.#codes = codes;
    this.#turn = sizes.reduce((sum, size) => sum + size);
    this.#added = treatment.bias === null ? null : new Float64Array(outputs);
    const needsAllRows = treatment.centre === (transposed ? "outputs" : "inputs") || (this.#quantises && !transposed);
    this.#held = needsAllRows ? new Float32Array(inputs * outputs) : null;
    const given = scales === null ? null : turns(scales, sizes);
    this.#parts = names.map((name, i) => {
      const own = (outputs / this.#turn) * sizes[i];
      const factors = this.#quantises ? new Float32Array(own) : (given?.[i] ?? null);
      const writer = backend.startMatrix({ inputs, outputs: own, transposed, scales: factors });
      return { name: treatment.rename ?? name, size: sizes[i], scales: factors, writer, isFinished: false };
    });
  }

  add(rows: Rows): void {
    const treated = rows instanceof Int8Array ? rows : this.#treated(rows);
    if (this.#held === null || treated instanceof Int8Array) this.#write(treated);
    else this.#held.set(treated, this.#row * this.#width);
    this.#row += rows.length / this.#width;
    if (treated !== rows) end(treated.buffer as ArrayBuffer);
  }

  finish(): [string, Matrix][] {
    const held = this.#held;
    if (held !== null) {
      if (this.#treatment.centre !== null) centreColumns(held, this.#width);
      if (this.#quantises && !this.#layout.transposed) {
        turns(columnScales(held, this.#width), this.#sizes).forEach((each, i) => this.#parts[i].scales?.set(each));
      }
      for (let at = 0; at < held.length; at += ROWS * this.#width) {
        this.#write(held.subarray(at, at + ROWS * this.#width));
      }
      end(held.buffer);
      this.#held = null;
    }
    this.#letGo();
    this.#codes?.addScales(this.#allScales());
    return this.#parts.map((part) => {
      part.isFinished = true;
      return [part.name, part.writer.finish()];
    });
  }

  /** What the norm's bias adds to the bias behind each part. */
  foldedBiases(): [string, Float64Array][] {
    if (this.#added === null) return [];
    return turns(this.#added, this.#sizes).map((each, i) => [biasOf(this.#parts[i].name), each]);
  }

  abandon(): void {
    this.#letGo();
    for (const part of this.#parts) if (!part.isFinished) part.writer.abandon();
  }

  #letGo(): void {
    for (const dealt of this.#dealt) end(dealt.buffer);
  }

  get #width(): number {
    return this.#layout.transposed ? this.#layout.inputs : this.#layout.outputs;
  }

  get #sizes(): number[] {
    return this.#parts.map((part) => part.size);
  }

  /** The rows with the norm folded in, and centred where a row is what is centred; the same where nothing is done. */
  #treated(rows: Float32Array): Float32Array {
    const { weight, bias, centre } = this.#treatment;
    const { transposed } = this.#layout;
    const centresRows = centre === (transposed ? "inputs" : "outputs");
    if (weight === null && bias === null && !centresRows) return rows;
    const width = this.#width;
    const result = rows.slice();
    const added = this.#added;
    for (let start = 0, row = this.#row; start < result.length; start += width, row++) {
      if (transposed) {
        if (added !== null && bias !== null) added[row] += dot(rows, start, bias);
        if (weight !== null) for (let i = 0; i < width; i++) result[start + i] *= weight[i];
      } else {
        if (added !== null && bias !== null) {
          const factor = bias[row];
          for (let i = 0; i < width; i++) added[i] += factor * rows[start + i];
        }
        if (weight !== null) {
          const factor = weight[row];
          for (let i = 0; i < width; i++) result[start + i] *= factor;
        }
      }
      if (centresRows) centreRow(result, start, width);
    }
    return result;
  }

  #write(rows: Rows): void {
    const codes = this.#quantises ? this.#quantised(rows as Float32Array) : rows;
    this.#codes?.add(codes as Int8Array);
    if (this.#parts.length === 1) this.#parts[0].writer.write(codes);
    else if (this.#layout.transposed) this.#dealRows(codes);
    else this.#dealColumns(codes);
    this.#written += rows.length / this.#width;
    if (codes !== rows) end(codes.buffer as ArrayBuffer);
  }

  /** Each part takes as many rows as it gets in a turn. */
  #dealRows(rows: Rows): void {
    const width = this.#width;
    const end = this.#written + rows.length / width;
    for (let row = this.#written; row < end; ) {
      let [part, place] = [0, row % this.#turn];
      while (place >= this.#parts[part].size) place -= this.#parts[part++].size;
      const taken = Math.min(this.#parts[part].size - place, end - row);
      const start = (row - this.#written) * width;
      this.#parts[part].writer.write(rows.subarray(start, start + taken * width));
      row += taken;
    }
  }

  /** Each part's columns, in memory that serves all pieces of the tensor. */
  #dealColumns(rows: Rows): void {
    for (const [i, { size, writer }] of this.#parts.entries()) {
      const count = (rows.length / this.#turn) * size;
      let dealt = this.#dealt[i];
      if (dealt === undefined || dealt.length < count) {
        if (dealt !== undefined) end(dealt.buffer);
        dealt = rows instanceof Int8Array ? new Int8Array(count) : new Float32Array(count);
        this.#dealt[i] = dealt;
      }
      const part = dealt.subarray(0, count);
      dealColumns(rows, part, this.#sizes, i);
      writer.write(part);
    }
  }

  /** Codes −127 … 127. Where a row is an output its factor comes from the row, else the factors are there. */
  #quantised(rows: Float32Array): Int8Array {
    const width = this.#width;
    const codes = new Int8Array(rows.length);
    const { transposed } = this.#layout;
    const scales = transposed ? null : this.#allScales();
    for (let start = 0, row = this.#written; start < rows.length; start += width, row++) {
      if (scales === null) this.#setScale(row, quantiseRow(rows, codes, start, width));
      else for (let i = 0; i < width; i++) codes[start + i] = rows[start + i] / scales[i] + NEAREST - NEAREST;
    }
    return codes;
  }

  /** Of all outputs, in their order. */
  #allScales(): Float32Array {
    const scales = this.#parts.map((part) => part.scales as Float32Array);
    return interleaved(scales, this.#sizes, this.#layout.outputs);
  }

  #setScale(output: number, scale: number): void {
    const round = Math.floor(output / this.#turn);
    let place = output % this.#turn;
    for (const { size, scales } of this.#parts) {
      if (place < size) {
        (scales as Float32Array)[round * size + place] = scale;
        return;
      }
      place -= size;
    }
  }
}

/** A column of zeros keeps its zeros. */
function scaleOf(most: number): number {
  return most === 0 ? 1 : Math.fround(most / 127);
}

/** Added and taken away again, it leaves the nearest integer; halves go to the even neighbour, as in NumPy. */
const NEAREST = 1.5 * 2 ** 52;

/** The codes of one row; answers its factor. */
function quantiseRow(rows: Float32Array, codes: Int8Array, start: number, width: number): number {
  let most = 0;
  for (let at = start; at < start + width; at++) most = Math.max(most, Math.abs(rows[at]));
  const scale = scaleOf(most);
  for (let at = start; at < start + width; at++) codes[at] = rows[at] / scale + NEAREST - NEAREST;
  return scale;
}

function columnScales(numbers: Float32Array, width: number): Float32Array {
  const most = new Float32Array(width);
  for (let start = 0; start < numbers.length; start += width) {
    for (let i = 0; i < width; i++) most[i] = Math.max(most[i], Math.abs(numbers[start + i]));
  }
  return most.map(scaleOf);
}

function dot(rows: Float32Array, start: number, factors: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < factors.length; i++) sum += rows[start + i] * factors[i];
  return sum;
}

function centreRow(rows: Float32Array, start: number, width: number): void {
  let sum = 0;
  for (let i = 0; i < width; i++) sum += rows[start + i];
  const mean = sum / width;
  for (let i = 0; i < width; i++) rows[start + i] -= mean;
}

function centreColumns(numbers: Float32Array, width: number): void {
  const means = new Float64Array(width);
  for (let start = 0; start < numbers.length; start += width) {
    for (let i = 0; i < width; i++) means[i] += numbers[start + i];
  }
  for (let i = 0; i < width; i++) means[i] /= numbers.length / width;
  for (let start = 0; start < numbers.length; start += width) {
    for (let i = 0; i < width; i++) numbers[start + i] -= means[i];
  }
}

type Numbers = Float32Array | Float64Array | Int8Array;

/** One row dealt to the parts in turns. */
function turns<N extends Numbers>(row: N, sizes: readonly number[]): N[] {
  const turn = sizes.reduce((sum, size) => sum + size);
  return sizes.map((size, i) => {
    const part = row.slice(0, (row.length / turn) * size) as N;
    dealColumns(row, part, sizes, i);
    return part;
  });
}

/** The columns of rows that part `index` gets where all take turns. */
function dealColumns(rows: Numbers, part: Numbers, sizes: readonly number[], index: number): void {
  const turn = sizes.reduce((sum, size) => sum + size);
  const size = sizes[index];
  const first = sizes.slice(0, index).reduce((sum, each) => sum + each, 0);
  for (let from = first, to = 0; to < part.length; from += turn, to += size) {
    if (size === 1) part[to] = rows[from];
    else part.set(rows.subarray(from, from + size), to);
  }
}

/** The other way round: the parts' numbers as one row. */
function interleaved(parts: readonly Float32Array[], sizes: readonly number[], width: number): Float32Array {
  const row = new Float32Array(width);
  const places = parts.map(() => 0);
  for (let at = 0; at < width; ) {
    for (const [i, part] of parts.entries()) {
      row.set(part.subarray(places[i], places[i] + sizes[i]), at);
      places[i] += sizes[i];
      at += sizes[i];
    }
  }
  return row;
}

/** The parts of a vector. */
function cut(
  numbers: Float32Array,
  { sizes }: Pick<TensorPlan, "sizes">,
  names: readonly string[],
): [string, Float32Array][] {
  if (names.length === 1) return [[names[0], numbers]];
  return turns(numbers, sizes).map((part, i) => [names[i], part]);
}

/** attn.W_Q ► attn.b_Q. */
function biasOf(matrix: string): string {
  return matrix.replace(/W(_\w+)?$/, "b$1");
}

function expertsOf({ parts, stored }: TensorPlan): number {
  return parts[0].includes("{expert}") ? stored[0] : 1;
}

function namesOf({ parts }: TensorPlan, expert: number): string[] {
  return parts.map((part) => part.replace("{expert}", String(expert)));
}

function layoutOf(plan: TensorPlan, { transposed, scales }: StoredTensor, expert: number): MatrixLayout {
  const [first, last] = plan.stored.slice(-2);
  const [inputs, outputs] = isByOutputs(plan) ? [last, first] : [first, last];
  return { inputs, outputs, transposed, scales: scales?.subarray(expert * outputs, (expert + 1) * outputs) ?? null };
}

async function whole(stored: StoredTensor, index: number, count: number): Promise<Float32Array> {
  const numbers = new Float32Array(elementsOf(stored.shape) / count);
  let at = 0;
  for await (const rows of stored.pieces(index, count)) {
    numbers.set(rows, at);
    at += rows.length;
  }
  return numbers;
}
