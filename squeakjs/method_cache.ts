/**
 * The global method cache: (selector, class) to what a send needs to know of the method found.
 * An entry is the decoded method, so that an activation reads no header. Entries are allocated anew on a
 * miss and never reused: a primitive that runs while the cache is flushed keeps a valid entry.
 */
import type { SqueakObject } from "./object.ts";
import type { Primitive } from "./primitive_table.ts";

const size = 2048; // a power of two; a working set of some hundreds of (selector, class) pairs collides rarely

export type CacheEntry = {
  readonly selector: SqueakObject;
  readonly sqClass: SqueakObject;
  readonly method: SqueakObject;
  /** The primitive's number, 0 for none. */
  readonly primitive: number;
  /** The primitive as a function, null when there is none to run. */
  readonly run: Primitive | null;
  readonly argumentCount: number;
  readonly temporaryCount: number;
  readonly large: boolean;
  readonly startPc: number;
  readonly pcBase: number;
};

export class MethodCache {
  private readonly entries: (CacheEntry | null)[] = [];

  /** Whether Array's at: and at:put: are known to be the primitives, so that the loops may index Arrays themselves. */
  plainArrayAccess = false;

  constructor() {
    this.flush();
  }

  probe(selector: SqueakObject, sqClass: SqueakObject): CacheEntry | null {
    const entry = this.entries[(selector.hash ^ (sqClass.hash << 3)) & (size - 1)];
    return entry !== null && entry.selector === selector && entry.sqClass === sqClass ? entry : null;
  }

  add(entry: CacheEntry): void {
    this.entries[(entry.selector.hash ^ (entry.sqClass.hash << 3)) & (size - 1)] = entry;
  }

  flush(): void {
    this.plainArrayAccess = false;
    for (let i = 0; i < size; i++) this.entries[i] = null;
  }

  flushSelector(selector: SqueakObject): void {
    this.flushWhere((entry) => entry.selector === selector);
  }

  flushMethod(method: SqueakObject): void {
    this.flushWhere((entry) => entry.method === method);
  }

  private flushWhere(matches: (entry: CacheEntry) => boolean): void {
    this.plainArrayAccess = false;
    for (let i = 0; i < size; i++) {
      const entry = this.entries[i];
      if (entry !== null && matches(entry)) this.entries[i] = null;
    }
  }
}
