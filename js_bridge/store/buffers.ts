// The memory that bytes are read into: few large buffers, taken, given back and taken again. A fresh buffer of 16 MiB
// costs as much time as what is read into it, for its pages have to be found; and one that waits for the collector is
// memory that nobody has. So what is given back is either lent anew or ends at once, and whoever still holds a view of
// it finds the view empty, never another's bytes.

/** Buffers that wait to be lent again. */
const KEPT = 2;
/** Smaller ones are not worth keeping. */
const LEAST = 2 ** 20;

export class Buffers {
  readonly #lent = new Set<ArrayBufferLike>();
  #free: ArrayBuffer[] = [];
  #isClosed = false;

  /** Bytes of all buffers that are lent, or wait. */
  get bytes(): number {
    return [...this.#lent, ...this.#free].reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** So many bytes, whatever is in them. */
  take(bytes: number): Uint8Array<ArrayBuffer> {
    // One that is twice as large would be held for half of nothing.
    const at = this.#free.findIndex(({ byteLength }) => byteLength >= bytes && byteLength <= 2 * bytes);
    const buffer = at < 0 ? new ArrayBuffer(bytes) : this.#free.splice(at, 1)[0];
    this.#lent.add(buffer);
    return new Uint8Array(buffer, 0, bytes);
  }

  /** Counts what a browser or a host has made as lent here. */
  adopt(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    this.#lent.add(bytes.buffer);
    return bytes;
  }

  /** Tells that a reader has moved what was lent to another buffer, or lost it. */
  moved(from: ArrayBufferLike, to: ArrayBufferLike | null): void {
    if (this.#lent.delete(from) && to !== null) this.#lent.add(to);
  }

  /** Ends a loan. What was not lent here is its owner's, and stays. */
  give({ buffer }: Uint8Array): void {
    if (!this.#lent.delete(buffer)) return;
    const given = buffer as ArrayBuffer;
    const isKept = !this.#isClosed && this.#free.length < KEPT && given.byteLength >= LEAST;
    if (isKept) this.#free.push(moved(given));
    else end(given);
  }

  /** From now on nothing is kept. */
  close(): void {
    this.#isClosed = true;
    for (const buffer of this.#free) end(buffer);
    this.#free = [];
  }
}

/** Frees a buffer now; its views are empty from then on. */
export function end(buffer: ArrayBuffer): void {
  if (typeof buffer.transfer === "function") buffer.transfer(0);
  else moved(buffer);
}

/** The same memory under another name. V8's `transfer` to the same length would copy it into fresh memory. */
function moved(buffer: ArrayBuffer): ArrayBuffer {
  return structuredClone(buffer, { transfer: [buffer] });
}
