// What the parts of the decoder share: the pass that they belong to, and the scratch of one stretch of it, which is
// freed at its end however it ends.

import type { Architecture, DecoderSettings } from "./architecture.ts";
import type { Backend, Matrix, Reach, Value } from "../backend.ts";
import type { ForwardOptions, HookPoint } from "./decoder.ts";
import { EngineError } from "../errors.ts";
import { type Rotation, turned } from "./rotary.ts";
import type { Weights } from "../weights/weights.ts";

/** A stretch of the pass that stops at hook points and ends with a value, which the caller then owns. */
export type Stretch = Generator<HookPoint, Value, Value | undefined>;

/** One run of the decoder. */
export class PassContext {
  readonly backend: Backend;
  readonly decoder: DecoderSettings;
  readonly dimensions: Architecture["dimensions"];
  readonly weights: Weights;
  readonly options: ForwardOptions;
  /** Positions before this pass's. */
  readonly offset: number;
  /** Of each of B*T tokens, among the real ones of its row. */
  readonly positions: Int32Array;
  readonly #starts: readonly number[] | null;
  readonly #angles = new Map<Rotation, { cosines: Value; sines: Value }>();

  constructor(
    backend: Backend,
    { decoder, dimensions }: Architecture,
    weights: Weights,
    options: ForwardOptions,
    offset: number,
  ) {
    const { batch, positions, padding } = options;
    this.backend = backend;
    this.decoder = decoder;
    this.dimensions = dimensions;
    this.weights = weights;
    this.options = options;
    this.offset = offset;
    this.#starts = padding?.side === "left" ? padding.lengths.map((length) => offset + positions - length) : null;
    this.positions = Int32Array.from({ length: batch * positions }, (_, i) =>
      Math.max(0, offset + (i % positions) - (this.#starts?.[Math.floor(i / positions)] ?? 0)),
    );
  }

  /** Which keys the queries of a layer see. */
  reach(window: number | null): Reach {
    return { offset: this.offset, window, starts: this.#starts };
  }

  /** For `rotate`, worked out once per pass; borrowed. [B T R/2] Fails: CacheMismatch where cached keys turned otherwise. */
  angles(rotation: Rotation): { cosines: Value; sines: Value } {
    const known = this.#angles.get(rotation);
    if (known !== undefined) return known;
    const { batch, positions } = this.options;
    const total = this.offset + positions;
    if (rotation.long !== null && this.offset > 0 && this.offset <= rotation.original && total > rotation.original) {
      throw new EngineError(
        "CacheMismatch",
        `The cache's ${this.offset} positions turned by the factors for up to ${rotation.original}, and with ${total} all turn by others; run these tokens with an empty cache`,
        { cached: this.offset, allowed: rotation.original },
      );
    }
    const { cosines, sines } = turned(rotation, this.positions, total);
    const shape = [batch, positions, rotation.width / 2];
    const angles = { cosines: this.backend.upload(cosines, shape), sines: this.backend.upload(sines, shape) };
    this.#angles.set(rotation, angles);
    return angles;
  }

  free(): void {
    for (const { cosines, sines } of this.#angles.values()) {
      this.backend.release(cosines);
      this.backend.release(sines);
    }
    this.#angles.clear();
  }
}

/**
 * By the beginning, whole names by their ends. A string that has just been joined is hashed anew wherever it is looked
 * up, and a decoded token looks up hundreds.
 */
const joined = new Map<string, Map<string, string>>();

/** One stretch: its names begin with `at`, its values live until it is freed. */
export class Frame {
  readonly context: PassContext;
  readonly backend: Backend;
  readonly at: string;
  readonly #values: Value[] = [];
  readonly #names: Map<string, string>;

  constructor(context: PassContext, at: string) {
    this.context = context;
    this.backend = context.backend;
    this.at = at;
    let names = joined.get(at);
    if (names === undefined) joined.set(at, (names = new Map()));
    this.#names = names;
  }

  get decoder(): DecoderSettings {
    return this.context.decoder;
  }

  keep(value: Value): Value {
    this.#values.push(value);
    return value;
  }

  /** A number that broadcasts. */
  number(x: number): Value {
    return this.keep(this.backend.upload(Float32Array.of(x), [1]));
  }

  /** Stops at a hook point that somebody wants; takes over the value, and the one that is sent back. */
  *point(name: string, value: Value): Stretch {
    this.keep(value);
    if (!this.isWanted(name)) return value;
    const next = yield { name: this.#whole(name), value };
    return next === undefined ? value : this.keep(next);
  }

  isWanted(name: string): boolean {
    return this.context.options.isWanted(this.#whole(name));
  }

  /** Whether an optional point is switched on, and wanted. */
  isOn(name: string): boolean {
    return this.context.options.isOn(this.#whole(name)) && this.isWanted(name);
  }

  matrix(name: string): Matrix {
    return this.context.weights.matrices.get(this.#whole(name)) as Matrix;
  }

  /** Null where the model has none. */
  vector(name: string): Value | null {
    return this.context.weights.vectors.get(this.#whole(name)) ?? null;
  }

  #whole(name: string): string {
    let whole = this.#names.get(name);
    if (whole === undefined) this.#names.set(name, (whole = this.at + name));
    return whole;
  }

  free(): void {
    for (const value of this.#values) this.backend.release(value);
    this.#values.length = 0;
  }
}
