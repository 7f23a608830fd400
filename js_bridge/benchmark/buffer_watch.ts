// An account of the memory that a worker's scripts have asked for, kept from outside: every ArrayBuffer that a
// constructor, a copy, a stream, a blob or an answer brings forth is counted in, and is counted out only when it is
// detached; one that merely waits for the collector counts. Beside it WebAssembly's memories by their real size. Install
// it before the code that is measured. Not counted: Blobs, which are the browser's, and what other threads allocate.

export interface WatchedBytes {
  readonly buffers: number;
  readonly memories: number;
  /** The most that both were together. */
  readonly peak: number;
}

type Constructor = new (...values: never[]) => object;
type Methods = Record<string, (...values: unknown[]) => unknown>;

const ARRAYS = [
  "Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array",
  "Float16Array", "Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array",
]; // prettier-ignore

/** What answers new bytes, now or by a promise, and is found on a prototype. */
const SOURCES: readonly [string, readonly string[]][] = [
  ["ArrayBuffer", ["slice", "transfer", "transferToFixedLength"]],
  ["Blob", ["arrayBuffer", "bytes"]],
  ["Response", ["arrayBuffer", "bytes"]],
  ["ReadableStreamDefaultReader", ["read"]],
  ["ReadableStreamBYOBReader", ["read"]],
  ["TextEncoder", ["encode"]],
  ["SubtleCrypto", ["digest"]],
];
const COPIES = ["slice", "map", "filter", "with", "toSorted", "toReversed"];

export class BufferWatch {
  readonly #restore: (() => void)[] = [];
  readonly #known = new WeakSet<ArrayBuffer>();
  readonly #memories: WebAssembly.Memory[] = [];
  #live: ArrayBuffer[] = [];
  /** Bytes of those at the last look, and what has come since. */
  #bound = 0;
  #peak = 0;

  constructor() {
    const scope = globalThis as unknown as Record<string, Constructor>;
    for (const name of ["ArrayBuffer", ...ARRAYS]) {
      if (scope[name] !== undefined) this.#replace(scope, name, (made) => this.#see(made));
    }
    this.#replace(WebAssembly as unknown as typeof scope, "Memory", (made) => {
      this.#memories.push(made as WebAssembly.Memory);
    });
    for (const [name, methods] of SOURCES) {
      if (scope[name] !== undefined) for (const method of methods) this.#follow(scope[name].prototype, method);
    }
    const anyArray = Object.getPrototypeOf(Uint8Array.prototype) as Methods;
    for (const method of COPIES) this.#follow(anyArray, method);
    this.#follow(globalThis as unknown as Methods, "structuredClone");
    this.#follow(WebAssembly.Memory.prototype as unknown as Methods, "grow");
  }

  /** Looks now. */
  report(): WatchedBytes {
    const buffers = this.#count();
    return { buffers, memories: this.#memoryBytes(), peak: this.#peak };
  }

  /** Begins a new peak. */
  restart(): void {
    this.#peak = 0;
    this.#count();
  }

  /** Leaves the scope as it was. */
  end(): void {
    for (const restore of this.#restore) restore();
  }

  #replace(scope: Record<string, Constructor>, name: string, see: (made: object) => void): void {
    const original = scope[name];
    scope[name] = new Proxy(original, {
      construct(target, values, newTarget) {
        const made = Reflect.construct(target, values, newTarget) as object;
        see(made);
        return made;
      },
    });
    this.#restore.push(() => {
      scope[name] = original;
    });
  }

  #follow(owner: object, name: string): void {
    const methods = owner as Methods;
    const original = methods[name];
    if (original === undefined) return;
    const see = (made: unknown) => this.#see(made);
    methods[name] = function (this: unknown, ...values: unknown[]) {
      const made = original.apply(this, values);
      // Whoever waits for it is told after it was seen.
      return made instanceof Promise ? made.then((each) => (see(each), each)) : (see(made), made);
    };
    this.#restore.push(() => {
      methods[name] = original;
    });
  }

  /** A buffer, a view of one, or what a reader read; anything else tells only that memory may have grown. */
  #see(made: unknown): void {
    const read = typeof made === "object" && made !== null && "value" in made ? made.value : made;
    const buffer = ArrayBuffer.isView(read) ? read.buffer : read;
    const isNew = Object.prototype.toString.call(buffer) === "[object ArrayBuffer]";
    if (isNew && !this.#known.has(buffer as ArrayBuffer)) this.#add(buffer as ArrayBuffer);
    if (this.#bound + this.#memoryBytes() > this.#peak) this.#count();
  }

  #add(buffer: ArrayBuffer): void {
    if (this.#memories.some((memory) => memory.buffer === buffer)) return;
    this.#known.add(buffer);
    this.#live.push(buffer);
    this.#bound += buffer.byteLength;
  }

  #count(): number {
    this.#live = this.#live.filter(({ byteLength }) => byteLength > 0);
    this.#bound = this.#live.reduce((sum, { byteLength }) => sum + byteLength, 0);
    this.#peak = Math.max(this.#peak, this.#bound + this.#memoryBytes());
    return this.#bound;
  }

  #memoryBytes(): number {
    return this.#memories.reduce((sum, { buffer }) => sum + buffer.byteLength, 0);
  }
}
