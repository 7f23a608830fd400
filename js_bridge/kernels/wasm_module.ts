// kernels.wasm, opened: the variant that this machine can run, its memory, its helper threads, and `run`, through which
// every kernel is called. It knows addresses and units of work, not tensors.

import { EngineError } from "../engine/errors.ts";
import { Memory } from "./memory.ts";
import type { Helper, ThreadHost } from "./threads.ts";

/** The file of that name beside kernels.wasm, or null when it is not there. */
export type FetchKernels = (file: string) => Promise<Uint8Array | null>;

export interface WasmOptions {
  readonly fetchKernels?: FetchKernels;
  readonly threads?: ThreadHost | null;
  readonly log?: (text: string) => void;
  /** Milliseconds that helpers have to come. */
  readonly helpersWithin?: number;
  /** Multiplications that are worth handing to another thread. */
  readonly portion?: number;
  /** Tenths of a second after which a helper in the middle of a portion counts as dead. */
  readonly patience?: number;
}

/** The numbers of the kernels, which the file exports; assembly/jobs.ts has them with their arguments. */
const KERNELS = [
  "PRODUCT",
  "PRODUCT_INT8",
  "PRODUCT_TRANSPOSED",
  "FILL_BY_ROWS",
  "FILL_BY_COLUMNS",
  "FILL_CODES_BY_ROWS",
  "FILL_CODES_BY_COLUMNS",
  "COLUMNS",
  "NORM_SCALE",
  "NORMALIZE",
  "AFFINE",
  "NORM",
  "SOFTMAX",
  "ACTIVATE",
  "ACTIVATE_GRADIENT",
  "ROTATE",
  "SCORES",
  "MIX",
  "MIX_TRANSPOSED",
  "BINARY",
  "UNARY",
  "SELECT",
  "GATHER",
  "REDUCE",
  "MATMUL",
  "SUM_EXPONENTIALS",
] as const;

const FUNCTIONS = ["attach", "boardSize", "engage", "heapBase", "helped", "run", "serve"] as const;

export type KernelName = (typeof KERNELS)[number];

type Exports = Record<KernelName, WebAssembly.Global> & {
  attach(board: number, index: number): void;
  boardSize(): number;
  engage(helpers: number): void;
  heapBase(): number;
  helped(): number;
  run(kernel: number, units: number, grain: number, patience: number): number;
};

const PAGES = 65536;
const PAGE = 65536;

/** Where the arguments stand on the board, and how many there are at most; a table of numbers follows the board. */
const ARGUMENTS = 64;
const MOST_ARGUMENTS = 32;
const TABLE = 32;

/** Some ten microseconds. */
const PORTION = 2 ** 17;

/** Ten seconds, in turns: a machine that was asleep has used up one of them. */
const PATIENCE = 100;

/** Scratch of a thread, until a kernel needs more. */
const SCRATCH = 64;

/** (module (func (param v128 v128 v128) (result v128) local.get 0 1 2 f32x4.relaxed_madd)) */
const RELAXED_PROBE = Uint8Array.of(
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 8, 1, 0x60, 3, 0x7b, 0x7b, 0x7b, 1, 0x7b, 3, 2, 1, 0, 10, 13, 1, 11, 0, 0x20, 0,
  0x20, 1, 0x20, 2, 0xfd, 0x85, 2, 0x0b,
); // prettier-ignore

/**
 * Shared memory where there are threads to share it with, fused multiplication where the machine has it.
 * Fails: BackendUnavailable without the file, without SIMD, or with a file of another build.
 */
export async function openKernels(options: WasmOptions): Promise<Kernels> {
  const relaxed = WebAssembly.validate(RELAXED_PROBE) ? [".relaxed", ""] : [""];
  const { threads = null, log = () => undefined } = options;
  if (threads !== null && threads.count > 1) {
    for (const variant of relaxed) {
      try {
        const kernels = await openVariant(options, `kernels.shared${variant}.wasm`, true);
        if (kernels === null) continue;
        await kernels.recruit(threads, log, options.helpersWithin ?? 3000);
        return kernels;
      } catch (error) {
        log(`backend wasm has no threads: ${(error as Error).message}`);
        break;
      }
    }
  }
  for (const variant of relaxed) {
    const kernels = await openVariant(options, `kernels${variant}.wasm`, false);
    if (kernels !== null) return kernels;
  }
  throw unavailable("kernels.wasm is not there");
}

async function openVariant(options: WasmOptions, file: string, shared: boolean): Promise<Kernels | null> {
  const bytes = (await options.fetchKernels?.(file)) ?? null;
  if (bytes === null) return null;
  if (!WebAssembly.validate(bytes as Uint8Array<ArrayBuffer>))
    throw unavailable(`${file} is damaged, or WebAssembly has no SIMD here`);
  const module = await WebAssembly.compile(bytes as Uint8Array<ArrayBuffer>);
  const { memory, pages } = shared ? sharedMemory() : { memory: new WebAssembly.Memory({ initial: 1 }), pages: PAGES };
  const abort = () => {
    throw new Error("a kernel was given what it can't compute");
  };
  const { exports } = await WebAssembly.instantiate(module, { env: { memory, abort } });
  const missing = [...KERNELS, ...FUNCTIONS].filter((name) => !(name in exports));
  if (missing.length > 0) throw unavailable(`${file} is from another build, it lacks ${missing.join(", ")}`);
  return new Kernels(module, exports as unknown as Exports, memory, pages * PAGE, options);
}

/** As large as the machine lets it become: some refuse to set aside 4 GiB of addresses. */
function sharedMemory(): { memory: WebAssembly.Memory; pages: number } {
  for (let pages = PAGES; ; pages /= 2) {
    try {
      return { memory: new WebAssembly.Memory({ initial: 1, maximum: pages, shared: true }), pages };
    } catch (error) {
      if (pages <= 4096) throw error;
    }
  }
}

function unavailable(text: string): EngineError {
  const remedy = "build it with: node js_bridge/kernels/build.ts";
  return new EngineError("BackendUnavailable", `Backend wasm: ${text}; ${remedy}`, { backend: "wasm" });
}

export class Kernels {
  readonly memory: Memory;
  readonly #module: WebAssembly.Module;
  readonly #exports: Exports;
  readonly #raw: WebAssembly.Memory;
  readonly #numbers: Record<KernelName, number>;
  readonly #board: number;
  readonly #portion: number;
  readonly #patience: number;
  #ints: Int32Array;
  #helpers: Helper[] = [];
  #scratch = { start: 0, size: 0, threads: 1 };
  #log: (text: string) => void = () => undefined;

  constructor(
    module: WebAssembly.Module,
    exports: Exports,
    memory: WebAssembly.Memory,
    limit: number,
    { portion = PORTION, patience = PATIENCE }: WasmOptions,
  ) {
    this.#portion = portion;
    this.#patience = patience;
    this.#module = module;
    this.#exports = exports;
    this.#raw = memory;
    this.memory = new Memory(memory, exports.heapBase() >>> 0, limit);
    this.#numbers = Object.fromEntries(KERNELS.map((name) => [name, exports[name].value as number])) as Record<
      KernelName,
      number
    >;
    const size = exports.boardSize();
    this.#board = this.memory.allocate(size + 4 * TABLE);
    this.#ints = new Int32Array(memory.buffer, this.#board, size / 4 + TABLE);
    this.#ints.fill(0);
    exports.attach(this.#board, 0);
    this.#arrangeScratch(SCRATCH, 1);
  }

  get threads(): number {
    return this.#helpers.length + 1;
  }

  /** Portions of work that helpers have done so far. */
  get helped(): number {
    return this.#exports.helped();
  }

  /** Starts helpers; those that are not ready in time are sent away. */
  async recruit(host: ThreadHost, log: (text: string) => void, within: number): Promise<void> {
    this.#log = log;
    const wanted = host.count - 1;
    this.#arrangeScratch(this.#scratch.size, host.count);
    const ready = await Promise.all(Array.from({ length: wanted }, (_, i) => this.#enlist(host, i + 1, within)));
    this.#helpers.push(...ready.filter((helper) => helper !== null));
    this.#exports.engage(this.#helpers.length);
  }

  /** A helper that serves, or null. */
  #enlist(host: ThreadHost, index: number, within: number): Promise<Helper | null> {
    return new Promise((resolve) => {
      let helper: Helper | null = null;
      let isSettled = false;
      const settle = (reason: string | null) => {
        clearTimeout(timer);
        if (isSettled) {
          if (reason !== null && helper !== null) this.#lose([helper], `helper thread ${index} died: ${reason}`);
          return;
        }
        isSettled = true;
        if (reason === null) return resolve(helper);
        this.#log(`backend wasm goes on without helper thread ${index}: ${reason}`);
        helper?.stop();
        helper = null;
        resolve(null);
      };
      const timer = setTimeout(() => settle(`it was not ready within ${within} ms`), within);
      try {
        helper = host.open();
        const task = { module: this.#module, memory: this.#raw, board: this.#board, index };
        helper.start(task, () => settle(null), settle);
      } catch (error) {
        settle((error as Error).message);
      }
    });
  }

  /** Those that are still counted go; `reason` is told once. */
  #lose(lost: readonly Helper[], reason: string): void {
    if (!lost.some((helper) => this.#helpers.includes(helper))) return;
    this.#log(`backend wasm goes on with fewer threads: ${reason}`);
    for (const helper of lost) helper.stop();
    this.#helpers = this.#helpers.filter((helper) => !lost.includes(helper));
    this.#exports.engage(this.#helpers.length);
  }

  /**
   * Runs a kernel over `units` of about `cost` multiplications each, on as many threads as are worth it. Arguments are
   * integers, addresses, or the `bitsOf` a float.
   */
  run(kernel: KernelName, units: number, cost: number, ...given: number[]): void {
    if (given.length > MOST_ARGUMENTS) throw new RangeError(`${kernel} is given ${given.length} arguments`);
    const ints = this.#onBoard();
    for (let i = 0; i < given.length; i++) ints[ARGUMENTS / 4 + i] = given[i];
    const grain = Math.max(1, Math.ceil(this.#portion / cost));
    const number = this.#numbers[kernel];
    if (this.#exports.run(number, units, grain, this.#patience) !== 0) return;
    // Kernels read their inputs and write their results, so all of it is simply computed again.
    this.#lose(this.#helpers, "a helper thread did not finish its part");
    this.#exports.run(number, units, units, this.#patience);
  }

  /** The address of a few numbers, for one `run`. */
  table(numbers: readonly number[]): number {
    const size = this.#exports.boardSize();
    if (numbers.length > TABLE) throw new RangeError(`A table of ${numbers.length} numbers`);
    this.#onBoard().set(numbers, size / 4);
    return this.#board + size;
  }

  /** Scratch for a kernel that needs so many bytes in each thread. */
  reserve(bytes: number): void {
    if (bytes > this.#scratch.size) this.#arrangeScratch(bytes, this.#scratch.threads);
  }

  #arrangeScratch(bytes: number, threads: number): void {
    if (this.#scratch.start !== 0) this.memory.free(this.#scratch.start);
    const size = Math.ceil(bytes / 64) * 64;
    this.#scratch = { start: this.memory.allocate(size * threads), size, threads };
    const ints = this.#onBoard();
    ints[3] = this.#scratch.start;
    ints[4] = size;
  }

  #onBoard(): Int32Array {
    if (this.#ints.byteLength === 0) // unshared memory has grown
      this.#ints = new Int32Array(this.#raw.buffer, this.#board, this.#exports.boardSize() / 4 + TABLE);
    return this.#ints;
  }
}

const float = new Float32Array(1);
const bits = new Int32Array(float.buffer);

/** A float as the argument of a kernel. */
export function bitsOf(x: number): number {
  float[0] = x;
  return bits[0];
}
