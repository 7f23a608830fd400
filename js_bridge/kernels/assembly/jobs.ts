// Who computes what. A job is one kernel, its arguments and a count of units; JavaScript writes the arguments into the
// board, a block of memory that all threads share, and calls `run`. Units go out in portions of `grain`, to whoever
// asks next; no unit's result depends on who computes it.
//
// A helper serves for ever: it waits for the board's job number to change, enters, takes portions, leaves. `run` closes
// the job when the portions are gone and then waits only for helpers that have entered: one that still sleeps, or has
// died asleep, is not waited for and finds the job closed. Helpers spin before they sleep, since the next job mostly
// follows within microseconds.

import { activate, activateGradient } from "./activations";
import { mix, mixTransposed, scores } from "./attention";
import { binary, select, unary } from "./elementwise";
import { gather } from "./gather";
import { matmul } from "./matmul";
import { columns, fillByColumns, fillByRows, fillCodesByColumns, fillCodesByRows } from "./panels";
import { product } from "./product";
import { productInt8 } from "./product_int8";
import { productTransposed } from "./product_transposed";
import { reduce, sumExponentials } from "./reduction";
import { rotate } from "./rotary";
import { affine, norm, normalize, normScale, softmax } from "./rows";

// Places on the board: kernel, units, grain, scratch and its size at 0, 4, 8, 12, 16, then these. What several threads
// write lies on cache lines of its own.
// @ts-ignore: decorator
@inline
const ARGUMENTS = 64;
// @ts-ignore: decorator
@inline
const NUMBER = 192;
// @ts-ignore: decorator
@inline
const NEXT = 256;
// @ts-ignore: decorator
@inline
const INSIDE = 320;
// @ts-ignore: decorator
@inline
const OPEN = 384;
// @ts-ignore: decorator
@inline
const SLEEPERS = 448;
// @ts-ignore: decorator
@inline
const WAITING = 512;
// @ts-ignore: decorator
@inline
const HELPED = 576;
/** Bytes of a board, scratch of the threads not included. */
// @ts-ignore: decorator
@inline
const SIZE = 640;

/**
 * Looks at a number before a thread sleeps, at about half a nanosecond each: what a helper spends between two jobs of a
 * pass, behind kernels that one thread runs alone and what JavaScript does meanwhile, about 0.2 ms; and what `run` spends
 * on a helper's last portion, about 50 µs. Waking a thread takes as long, and a pass has a hundred jobs.
 */
// @ts-ignore: decorator
@inline
const HELPER_LOOKS = 400_000;
// @ts-ignore: decorator
@inline
const RUN_LOOKS = 100_000;
/**
 * About 8 µs, which the next product of the same layer comes within. Where other programs keep the cores busy, looking
 * longer only takes time from them, and from the thread that is waited for.
 */
// @ts-ignore: decorator
@inline
const LEAST_LOOKS = 20_000;

let board: usize = 0;
let thread: usize = 0;
let helpers: i32 = 0;
/** What this thread's next wait may spend: four times as much after each that was not in vain, a quarter after each that was. */
let allowance: i32 = LEAST_LOOKS;

export function boardSize(): i32 {
  return SIZE;
}

/** Once in each thread: the board, and which of the threads it is. */
export function attach(shared: usize, index: i32): void {
  board = shared;
  thread = <usize>index;
}

/** This thread's part of the scratch, whose address and size for each thread JavaScript keeps on the board. */
// @ts-ignore: decorator
@inline
function scratch(): usize {
  return load<usize>(board, 12) + thread * load<usize>(board, 16);
}

/** How many portions helpers have taken so far. */
export function helped(): i32 {
  return ASC_FEATURE_THREADS ? atomic.load<i32>(board + HELPED) : 0;
}

/** How many helpers there are to wake. */
export function engage(count: i32): void {
  helpers = count;
}

/**
 * Runs the job of which the arguments stand on the board. True when it is done; false when a helper that had entered
 * did not leave within `patience` tenths of a second, so that its portion may be missing.
 */
export function run(kernel: i32, units: i32, grain: i32, patience: i32): bool {
  if (!ASC_FEATURE_THREADS || helpers === 0 || units <= grain) {
    perform(kernel, 0, units);
    return true;
  }
  return share(kernel, units, grain, patience);
}

function share(kernel: i32, units: i32, grain: i32, patience: i32): bool {
  if (ASC_FEATURE_THREADS) {
    store<i32>(board, kernel);
    store<i32>(board, units, 4);
    store<i32>(board, grain, 8);
    atomic.store<i32>(board + NEXT, 0);
    const number = atomic.load<i32>(board + NUMBER) + 1;
    atomic.store<i32>(board + OPEN, number);
    atomic.store<i32>(board + NUMBER, number);
    if (atomic.load<i32>(board + SLEEPERS) > 0) atomic.notify(board + NUMBER, helpers);
    takePortions();
    atomic.store<i32>(board + OPEN, 0);
    if (sees(board + INSIDE, 0, true, RUN_LOOKS)) return true;
    atomic.store<i32>(board + WAITING, 1);
    for (let i = 0; i < patience; i++) {
      const inside = atomic.load<i32>(board + INSIDE);
      if (inside === 0) break;
      atomic.wait<i32>(board + INSIDE, inside, 100_000_000);
    }
    atomic.store<i32>(board + WAITING, 0);
    return atomic.load<i32>(board + INSIDE) === 0;
  }
  return true;
}

/** Looks until the number at a place is, or is not, as given; false if that does not come in time. */
function sees(place: usize, number: i32, is: bool, most: i32): bool {
  if (ASC_FEATURE_THREADS) {
    for (let looks = min(allowance, most); looks > 0; looks--) {
      if ((atomic.load<i32>(place) === number) === is) {
        allowance = min(4 * allowance, most);
        return true;
      }
    }
    allowance = max(allowance >> 2, LEAST_LOOKS);
  }
  return false;
}

/** How many it took. */
function takePortions(): i32 {
  let taken = 0;
  if (ASC_FEATURE_THREADS) {
    const kernel = load<i32>(board);
    const units = load<i32>(board, 4);
    const grain = load<i32>(board, 8);
    for (let at = atomic.add<i32>(board + NEXT, grain); at < units; at = atomic.add<i32>(board + NEXT, grain)) {
      perform(kernel, at, min(at + grain, units));
      taken++;
    }
  }
  return taken;
}

/** What a helper does for the rest of its life. Job numbers are never 0, which is "closed". */
export function serve(): void {
  if (ASC_FEATURE_THREADS) {
    let seen = atomic.load<i32>(board + NUMBER);
    while (true) {
      while (!sees(board + NUMBER, seen, false, HELPER_LOOKS)) {
        atomic.add<i32>(board + SLEEPERS, 1);
        atomic.wait<i32>(board + NUMBER, seen, -1);
        atomic.sub<i32>(board + SLEEPERS, 1);
      }
      seen = atomic.load<i32>(board + NUMBER);
      atomic.add<i32>(board + INSIDE, 1);
      if (atomic.load<i32>(board + OPEN) === seen) atomic.add<i32>(board + HELPED, takePortions());
      if (atomic.sub<i32>(board + INSIDE, 1) === 1 && atomic.load<i32>(board + WAITING) !== 0) {
        atomic.notify(board + INSIDE, 1);
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function int(i: i32): i32 {
  return load<i32>(board + ARGUMENTS + (<usize>i << 2));
}
// @ts-ignore: decorator
@inline
function place(i: i32): usize {
  return load<usize>(board + ARGUMENTS + (<usize>i << 2));
}
// @ts-ignore: decorator
@inline
function float(i: i32): f32 {
  return load<f32>(board + ARGUMENTS + (<usize>i << 2));
}

export const PRODUCT = 0;
export const PRODUCT_INT8 = 1;
export const PRODUCT_TRANSPOSED = 2;
export const FILL_BY_ROWS = 3;
export const FILL_BY_COLUMNS = 4;
export const FILL_CODES_BY_ROWS = 5;
export const FILL_CODES_BY_COLUMNS = 6;
export const COLUMNS = 7;
export const NORM_SCALE = 8;
export const NORMALIZE = 9;
export const AFFINE = 10;
export const NORM = 11;
export const SOFTMAX = 12;
export const ACTIVATE = 13;
export const ACTIVATE_GRADIENT = 14;
export const ROTATE = 15;
export const SCORES = 16;
export const MIX = 17;
export const MIX_TRANSPOSED = 18;
export const BINARY = 19;
export const UNARY = 20;
export const SELECT = 21;
export const GATHER = 22;
export const REDUCE = 23;
export const MATMUL = 24;
export const SUM_EXPONENTIALS = 25;

function perform(kernel: i32, from: i32, to: i32): void {
  switch (kernel) {
    case PRODUCT:
      return product(place(0), place(1), place(2), place(3), int(4), int(5), int(6), int(7), from, to);
    case PRODUCT_INT8:
      return productInt8(
        place(0),
        place(1),
        place(2),
        place(3),
        place(4),
        int(5),
        int(6),
        int(7),
        int(8),
        scratch(),
        from,
        to,
      );
    case PRODUCT_TRANSPOSED:
      return productTransposed(place(0), place(1), place(2), place(3), int(4), int(5), int(6), scratch(), from, to);
    case FILL_BY_ROWS:
      return fillByRows(place(0), int(1), int(2), place(3), int(4), int(5), from, to);
    case FILL_BY_COLUMNS:
      return fillByColumns(place(0), int(1), int(2), place(3), int(4), int(5), from, to);
    case FILL_CODES_BY_ROWS:
      return fillCodesByRows(place(0), int(1), int(2), place(3), int(4), int(5), from, to);
    case FILL_CODES_BY_COLUMNS:
      return fillCodesByColumns(place(0), int(1), int(2), place(3), int(4), int(5), from, to);
    case COLUMNS:
      return columns(place(0), place(1), place(2), place(3), int(4), from, to);
    case NORM_SCALE:
      return normScale(place(0), place(1), int(2), float(3), int(4) !== 0, from, to);
    case NORMALIZE:
      return normalize(place(0), place(1), place(2), int(3), int(4) !== 0, from, to);
    case AFFINE:
      return affine(place(0), place(1), place(2), place(3), int(4), from, to);
    case NORM:
      return norm(place(0), place(1), place(2), place(3), int(4), float(5), int(6) !== 0, from, to);
    case SOFTMAX:
      return softmax(place(0), place(1), place(2), int(3), int(4), int(5), from, to);
    case ACTIVATE:
      return activate(int(0), place(1), place(2), from, to);
    case ACTIVATE_GRADIENT:
      return activateGradient(int(0), place(1), place(2), place(3), from, to);
    case ROTATE:
      return rotate(place(0), place(1), place(2), place(3), int(4), int(5), int(6), from, to);
    case SCORES:
      return scores(
        place(0),
        place(1),
        place(2),
        int(3),
        int(4),
        int(5),
        int(6),
        int(7),
        float(8),
        float(9),
        int(10) !== 0,
        int(11),
        int(12),
        place(13),
        from,
        to,
      );
    case MIX:
      return mix(
        place(0),
        place(1),
        place(2),
        int(3),
        int(4),
        int(5),
        int(6),
        int(7),
        int(8) !== 0,
        int(9),
        int(10),
        place(11),
        from,
        to,
      );
    case MIX_TRANSPOSED:
      return mixTransposed(place(0), place(1), place(2), int(3), int(4), int(5), int(6), int(7), from, to);
    case BINARY:
      return binary(int(0), place(1), place(2), int(3), place(4), place(5), int(6), place(7), int(8), from, to);
    case UNARY:
      return unary(int(0), place(1), place(2), from, to);
    case SELECT:
      return select(place(0), place(1), place(2), place(3), from, to);
    case GATHER:
      return gather(place(0), place(1), int(2), int(3), place(4), from, to);
    case REDUCE:
      return reduce(int(0), place(1), place(2), int(3), int(4), from, to);
    case MATMUL:
      return matmul(place(0), place(1), place(2), int(3), int(4), int(5), from, to);
    case SUM_EXPONENTIALS:
      return sumExponentials(place(0), place(1), int(2), float(3), from, to);
    default:
      unreachable();
  }
}
