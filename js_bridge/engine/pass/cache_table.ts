// The key-value caches that the image can name, and those that generations make for themselves (negative ids). A cache
// is used by one pass at a time, and by none but its model's. What lies in one, key_value_cache.ts knows.

import type { CacheId, LedgerAnswer, ModelId, PassId } from "../../protocol.ts";
import type { Backend } from "../backend.ts";
import { EngineError } from "../errors.ts";
import { KeyValueCache } from "../decoder/key_value_cache.ts";
import type { Model } from "../model.ts";
import { type CachedPadding, cachedWithin } from "./padding.ts";
import type { Stretch } from "./watch.ts";

export interface NamedCache {
  readonly id: CacheId;
  readonly model: ModelId;
  values: KeyValueCache;
  padding: CachedPadding | null;
  /** The pass that uses it. */
  user: PassId | null;
  isReleased: boolean;
  /** What it held went with its backend. */
  isLost: boolean;
}

export class CacheTable {
  readonly #caches = new Map<CacheId, NamedCache>();
  readonly #given = new Set<CacheId>();
  #nextOwn = -1;

  /** Fails: BadMessage for a name that is or was in use. */
  create(id: CacheId, model: Model): void {
    if (!Number.isSafeInteger(id) || id <= 0)
      throw new EngineError("BadMessage", `Cache name ${id}: it must be a positive integer`);
    if (this.#given.has(id))
      throw new EngineError("BadMessage", `Cache ${id} is or was in use; names are never given twice`);
    this.#given.add(id);
    this.#add(id, model);
  }

  /** A cache for one pass, in its hands already. */
  createFor(pass: PassId, model: Model): NamedCache {
    const cache = this.#add(this.#nextOwn--, model);
    cache.user = pass;
    cache.isReleased = true;
    return cache;
  }

  /** Puts a cache into a pass's hands until `giveBack`. Fails: UnknownCache, CacheMismatch. */
  claim(id: CacheId, pass: PassId, model: Model): NamedCache {
    const cache = this.#caches.get(id);
    if (cache === undefined || cache.isReleased) {
      const what = this.#given.has(id)
        ? "was released, by itself or with its model"
        : "was never made; createCache makes one";
      throw new EngineError("UnknownCache", `Cache ${id} ${what}`, { cache: id });
    }
    if (cache.model !== model.id)
      throw new EngineError(
        "CacheMismatch",
        `Cache ${id} holds keys and values of model ${cache.model}, the pass is of model ${model.id} (${model.name}); make one for it`,
        { cache: id },
      );
    if (cache.isLost)
      throw new EngineError(
        "ContextLost",
        `The keys and values of cache ${id} went with the graphics context that they were in; make a new cache, and run its tokens again`,
        { cache: id, retriable: false },
      );
    if (cache.user !== null)
      throw new EngineError(
        "CacheMismatch",
        `Cache ${id} is in the hands of pass ${cache.user}, and only one pass may use it at a time; let that one end first, or make a second cache`,
        { cache: id, pass: cache.user },
      );
    cache.user = pass;
    return cache;
  }

  giveBack(cache: NamedCache): void {
    cache.user = null;
    if (cache.isReleased) this.#drop(cache);
  }

  /** Frees a cache, at the end of its pass if one uses it. */
  release(id: CacheId): void {
    const cache = this.#caches.get(id);
    if (cache === undefined) return;
    cache.isReleased = true;
    if (cache.user === null) this.#drop(cache);
  }

  releaseOf(model: ModelId): void {
    for (const cache of [...this.#caches.values()]) if (cache.model === model) this.release(cache.id);
  }

  /** Empties what lay in a backend that is gone; whoever uses such a cache again is told. */
  loseAllIn(backend: Backend): void {
    for (const cache of this.#caches.values()) {
      if (cache.values.backend !== backend) continue;
      cache.isLost ||= cache.values.batch !== null;
      cache.values.release();
      cache.padding = null;
    }
  }

  /** Puts a model's caches, all of them empty, into the backend that it has come back in. */
  move(model: Model): void {
    for (const cache of this.#caches.values()) {
      if (cache.model === model.id) cache.values = new KeyValueCache(model.backend, model.architecture.dimensions.L);
    }
  }

  get bytes(): number {
    return [...this.#caches.values()].reduce((sum, each) => sum + each.values.bytes, 0);
  }

  ledger(): LedgerAnswer["caches"] {
    return [...this.#caches.values()].map(({ id, model, values, user }) => ({
      cache: id,
      model,
      length: values.length,
      bytes: values.bytes,
      pass: user,
    }));
  }

  #add(id: CacheId, model: Model): NamedCache {
    const values = new KeyValueCache(model.backend, model.architecture.dimensions.L);
    const cache: NamedCache = {
      id,
      model: model.id,
      values,
      padding: null,
      user: null,
      isReleased: false,
      isLost: false,
    };
    this.#caches.set(id, cache);
    return cache;
  }

  #drop(cache: NamedCache): void {
    this.#caches.delete(cache.id);
    cache.values.release();
  }
}

/** How many positions come before those of a pass over these blocks. Fails: BadParameter, CacheMismatch. */
export function offsetIn(cache: NamedCache, keep: number | undefined, { first, last }: Stretch): number {
  const lengths = Array.from({ length: last - first }, (_, i) => cache.values.lengthAt(first + i));
  const least = Math.min(...lengths);
  if (keep === undefined) {
    const most = Math.max(...lengths);
    if (least !== most)
      throw new EngineError(
        "CacheMismatch",
        `The layers ${first} … ${last - 1} of cache ${cache.id} hold ${least} to ${most} positions, because partial passes filled them; keep at most ${least}`,
        { cache: cache.id, least, most },
      );
    return least;
  }
  if (!Number.isInteger(keep) || keep < 0 || keep > least)
    throw new EngineError(
      "BadParameter",
      `keep ${keep}: cache ${cache.id} holds ${least} positions, so it must lie in 0 … ${least}`,
      { given: keep, allowed: least },
    );
  return keep;
}

/** Drops what comes after the first `count` positions. */
export function cutBack(cache: NamedCache, count: number): void {
  cache.values.keep(count);
  cache.padding = cachedWithin(cache.padding, count);
}
