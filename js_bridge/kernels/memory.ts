// Hands out the memory of kernels.wasm: first fit in a list of free blocks by address, neighbours joined again.
// Blocks are rounded up to 32 bytes, so that a vector read just past a row's end stays inside.

/** WebAssembly's page, and the most that 32-bit addresses reach. */
const PAGE = 65536;
const LIMIT = 2 ** 32 - PAGE;
const ROUND = 32;

interface Block {
  readonly start: number;
  readonly size: number;
}

export class Memory {
  readonly #memory: WebAssembly.Memory;
  #free: Block[];
  #end: number;

  /** Nothing is handed out below `base`, nor at address 0, which the kernels take for "none". */
  constructor(memory: WebAssembly.Memory, base: number) {
    this.#memory = memory;
    const start = rounded(base);
    if (memory.buffer.byteLength <= start) memory.grow(Math.ceil((start + 1) / PAGE));
    this.#end = memory.buffer.byteLength;
    this.#free = [{ start, size: this.#end - start }];
  }

  /** The address of a new block; what is in it is undefined. Fails: RangeError when 4 GiB are not enough. */
  allocate(bytes: number): number {
    const size = rounded(bytes);
    const index = this.#free.findIndex((block) => block.size >= size);
    if (index < 0) {
      this.#grow(size);
      return this.allocate(bytes);
    }
    const { start, size: available } = this.#free[index];
    if (available === size) this.#free.splice(index, 1);
    else this.#free[index] = { start: start + size, size: available - size };
    return start;
  }

  free(start: number, bytes: number): void {
    this.#insert({ start, size: rounded(bytes) });
  }

  /** Valid until the next `allocate`. */
  floats(start: number, count: number): Float32Array {
    return new Float32Array(this.#memory.buffer, start, count);
  }

  #insert(block: Block): void {
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#free[middle].start < block.start) low = middle + 1;
      else high = middle;
    }
    let { start, size } = block;
    const before = this.#free[low - 1];
    const after = this.#free[low];
    const joinsBefore = before !== undefined && before.start + before.size === start;
    const joinsAfter = after !== undefined && start + size === after.start;
    if (joinsBefore) {
      start = before.start;
      size += before.size;
    }
    if (joinsAfter) size += after.size;
    this.#free.splice(joinsBefore ? low - 1 : low, Number(joinsBefore) + Number(joinsAfter), { start, size });
  }

  /** By what is asked for, at least an eighth of what there is: few growths, each of which detaches all views. */
  #grow(size: number): void {
    const wanted = Math.max(size, Math.min(this.#end / 8, LIMIT - this.#end));
    const pages = Math.ceil(wanted / PAGE);
    if (this.#end + pages * PAGE > LIMIT)
      throw new RangeError(
        `WebAssembly memory would take ${this.#end + pages * PAGE} bytes, at most ${LIMIT} are possible`,
      );
    this.#memory.grow(pages);
    this.#insert({ start: this.#end, size: pages * PAGE });
    this.#end += pages * PAGE;
  }
}

function rounded(bytes: number): number {
  return Math.max(ROUND, Math.ceil(bytes / ROUND) * ROUND);
}
