// Hands out the memory of the kernels. Free blocks lie in bins by size, eight to a power of two, and know their
// neighbours: taking and giving back cost the same however many there are, and what is given back joins what is free
// beside it. Blocks are rounded up to 64 bytes, so that a vector read or written just past a tensor's end stays inside,
// and two threads never write to one cache line of two tensors.
// Source: M. Masmano et al., TLSF: a new dynamic memory allocator for real-time systems (2004).

/** WebAssembly's page, and the most that 32-bit addresses reach. */
const PAGE = 65536;
const LIMIT = 2 ** 32 - PAGE;
const ROUND = 64;

/** Blocks of a bin that are tried before those of the next, of which any is large enough. */
const TRIES = 8;

/** Least growth: few growths, each of which detaches all views, but little more than what is needed. */
const STEP = 2 ** 20;
const SHARE = 1 / 32;

interface Block {
  start: number;
  size: number;
  isFree: boolean;
  /** Neighbours in memory. */
  left: Block | null;
  right: Block | null;
  /** Neighbours in the bin. */
  before: Block | null;
  after: Block | null;
}

export class Memory {
  readonly #memory: WebAssembly.Memory;
  readonly #limit: number;
  readonly #bins: (Block | null)[] = [];
  readonly #taken = new Map<number, Block>();
  #last: Block;

  /** Nothing is handed out below `base`, nor at address 0, which the kernels take for "none". */
  constructor(memory: WebAssembly.Memory, base: number, limit = LIMIT) {
    this.#memory = memory;
    this.#limit = Math.min(limit, LIMIT);
    const start = rounded(base);
    if (memory.buffer.byteLength <= start)
      memory.grow(Math.ceil((start + ROUND - memory.buffer.byteLength) / PAGE));
    this.#last = block(start, memory.buffer.byteLength - start, null);
    this.#insert(this.#last);
  }

  /** What the memory takes, in use or free. */
  get bytes(): number {
    return this.#memory.buffer.byteLength;
  }

  get buffer(): ArrayBuffer {
    return this.#memory.buffer;
  }

  /** The address of a new block; what is in it is undefined. Fails: RangeError when the memory can't grow so far. */
  allocate(bytes: number): number {
    const size = rounded(bytes);
    const found = this.#find(size) ?? this.#grow(size);
    this.#remove(found);
    if (found.size > size) {
      const rest = block(found.start + size, found.size - size, found);
      rest.right = found.right;
      if (rest.right === null) this.#last = rest;
      else rest.right.left = rest;
      found.right = rest;
      found.size = size;
      this.#insert(rest);
    }
    found.isFree = false;
    this.#taken.set(found.start, found);
    return found.start;
  }

  free(start: number): void {
    const freed = this.#taken.get(start);
    if (freed === undefined) throw new RangeError(`No block begins at ${start}`);
    this.#taken.delete(start);
    let joined = freed;
    if (freed.left?.isFree) joined = this.#join(freed.left, freed);
    if (joined.right?.isFree) joined = this.#join(joined, joined.right);
    this.#insert(joined);
  }

  /** Valid until the next `allocate`. */
  floats(start: number, count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#memory.buffer, start, count);
  }

  #find(size: number): Block | null {
    const bin = binOf(size);
    let candidate = this.#bins[bin] ?? null;
    for (let i = 0; candidate !== null && i < TRIES; i++, candidate = candidate.after) {
      if (candidate.size >= size) return candidate;
    }
    for (let larger = bin + 1; larger < this.#bins.length; larger++) {
      const first = this.#bins[larger];
      if (first) return first;
    }
    return null;
  }

  /** The left one, larger; both leave their bins. */
  #join(left: Block, right: Block): Block {
    if (left.isFree) this.#remove(left);
    if (right.isFree) this.#remove(right);
    left.size += right.size;
    left.right = right.right;
    if (left.right === null) this.#last = left;
    else left.right.left = left;
    return left;
  }

  #insert(free: Block): void {
    const bin = binOf(free.size);
    while (this.#bins.length <= bin) this.#bins.push(null);
    free.isFree = true;
    free.before = null;
    free.after = this.#bins[bin];
    if (free.after !== null) free.after.before = free;
    this.#bins[bin] = free;
  }

  #remove(free: Block): void {
    if (free.before === null) this.#bins[binOf(free.size)] = free.after;
    else free.before.after = free.after;
    if (free.after !== null) free.after.before = free.before;
    free.isFree = false;
    free.before = free.after = null;
  }

  /** By what the free end lacks, at least by a step. */
  #grow(size: number): Block {
    const end = this.bytes;
    const lacking = size - (this.#last.isFree ? this.#last.size : 0);
    if (end + lacking > this.#limit) {
      throw new RangeError(
        `WebAssembly memory holds ${end} bytes and would take ${end + lacking}, at most ${this.#limit} are possible`,
      );
    }
    const pages = Math.ceil(Math.max(lacking, Math.min(Math.max(STEP, end * SHARE), this.#limit - end)) / PAGE);
    this.#memory.grow(pages);
    let added = block(end, pages * PAGE, this.#last);
    this.#last.right = added;
    if (this.#last.isFree) added = this.#join(this.#last, added);
    this.#last = added;
    this.#insert(added);
    return added;
  }
}

function block(start: number, size: number, left: Block | null): Block {
  return { start, size, isFree: false, left, right: null, before: null, after: null };
}

function rounded(bytes: number): number {
  return Math.max(ROUND, Math.ceil(bytes / ROUND) * ROUND);
}

/** Eight bins to a power of two. */
function binOf(size: number): number {
  const units = size / ROUND;
  const power = 31 - Math.clz32(units);
  return power * 8 + Math.floor((units / 2 ** power - 1) * 8);
}
