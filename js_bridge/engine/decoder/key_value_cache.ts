// The keys and values of positions that earlier passes have computed, layer by layer: what lets a pass compute only
// the positions that are new. It holds no tokens and checks no models; whoever names caches does (pass.ts).

import type { Backend, Value } from "../backend.ts";
import { EngineError } from "../errors.ts";

interface Layer {
  /** After the rotation, as the scores read them. [B S KV K] */
  readonly k: Value;
  readonly v: Value;
  /** Positions that count; there may be more behind them. */
  readonly length: number;
}

export class KeyValueCache {
  readonly backend: Backend;
  readonly #layers: (Layer | null)[];
  #isInUse = false;

  constructor(backend: Backend, layers: number) {
    this.backend = backend;
    this.#layers = new Array<Layer | null>(layers).fill(null);
  }

  /** Positions that every layer has. */
  get length(): number {
    return Math.min(...this.#layers.map((_, layer) => this.lengthAt(layer)));
  }

  /** Rows of the batch; null while it is empty. */
  get batch(): number | null {
    return this.#layers.find((layer) => layer !== null)?.k.shape[0] ?? null;
  }

  get bytes(): number {
    return this.#layers.reduce(
      (sum, layer) => sum + (layer === null ? 0 : layer.k.storage.bytes + layer.v.storage.bytes),
      0,
    );
  }

  get isInUse(): boolean {
    return this.#isInUse;
  }

  lengthAt(layer: number): number {
    return this.#layers[layer]?.length ?? 0;
  }

  /**
   * A pass over the layers `from` up to `to` begins; answers how many positions come before its own.
   * Fails: CacheMismatch while another pass uses it, for another batch, where its layers have different lengths.
   */
  begin(batch: number, from: number, to: number): number {
    if (this.#isInUse) {
      throw new EngineError(
        "CacheMismatch",
        "A pass uses this cache already, and only one may at a time; let that pass end first, or make a second cache",
      );
    }
    if (this.batch !== null && this.batch !== batch) {
      throw new EngineError(
        "CacheMismatch",
        `The cache holds ${this.batch} rows, the pass has ${batch}; give it the same batch, or an empty cache`,
        { cached: this.batch, given: batch },
      );
    }
    const lengths = [...new Set(this.#layers.slice(from, to).map((_, layer) => this.lengthAt(from + layer)))];
    if (lengths.length > 1) {
      throw new EngineError(
        "CacheMismatch",
        `The cache's layers ${from} to ${to - 1} hold ${lengths.join(" and ")} positions, because partial passes filled them; cut it back to ${Math.min(...lengths)}`,
        { lengths },
      );
    }
    this.#isInUse = true;
    return lengths[0] ?? 0;
  }

  /** The layer's keys and values with the new ones behind them; borrowed. [B S KV K] */
  append(layer: number, k: Value, v: Value): { k: Value; v: Value } {
    const before = this.#layers[layer];
    const length = this.lengthAt(layer);
    const after = {
      k: this.backend.extend(before?.k ?? null, length, k),
      v: this.backend.extend(before?.v ?? null, length, v),
      length: length + k.shape[1],
    };
    if (before !== null) this.#free(before);
    this.#layers[layer] = after;
    return after;
  }

  /** The pass has ended; one that did not finish leaves the cache as it found it, with `length` positions. */
  end(isFinished: boolean, length: number): void {
    this.#isInUse = false;
    if (!isFinished) this.keep(length);
  }

  /** Drops what comes after the first `count` positions. */
  keep(count: number): void {
    for (const [at, layer] of this.#layers.entries()) {
      if (layer === null || layer.length <= count) continue;
      if (count === 0) this.#free(layer);
      this.#layers[at] = count === 0 ? null : { ...layer, length: count };
    }
  }

  release(): void {
    this.keep(0);
  }

  #free(layer: Layer): void {
    this.backend.release(layer.k);
    this.backend.release(layer.v);
  }
}
