// The tensors that the image can name: pending until computed, then ready or poisoned, until released.
// Actions that need tensors still pending wait here, in the order in which they were asked for.

import type { LedgerLine, TensorId } from "../../protocol.ts";
import type { Backend, Storage, Value } from "../backend.ts";
import { EngineError } from "../errors.ts";
import { elementsOf } from "./shape.ts";
import { plainOf, Tape } from "../gradient/tape.ts";
import { type Keeper, stepOf } from "../gradient/tape_step.ts";

export interface Tensor {
  readonly id: TensorId;
  readonly origin: string;
  state: "pending" | "ready" | "poisoned";
  value: Value | null;
  backend: Backend | null;
  error: unknown;
  released: boolean;
  /** Uses that were asked for before a release and have still to come. */
  uses: number;
  readonly waiters: (() => void)[];
}

/** Share of the budget at which the image is asked to collect. */
const COLLECT_AT = 0.75;

export class TensorTable implements Keeper {
  readonly budget: number;
  /** Of the tensors and of what tapes keep, shared storage counted once. */
  bytes = 0;
  readonly #tensors = new Map<TensorId, Tensor>();
  /** How many tensors and steps of tapes hold each, and how many of those are steps. */
  readonly #storages = new Map<Storage, number>();
  readonly #kept = new Map<Storage, number>();
  readonly #askToCollect: (bytes: number, budget: number) => void;
  #asked = false;
  #highest = 0;
  #lowest = 0;

  constructor(budget: number, askToCollect: (bytes: number, budget: number) => void) {
    this.budget = budget;
    this.#askToCollect = askToCollect;
  }

  /** The next name for a tensor that the engine makes itself. */
  nextOwnId(): TensorId {
    return this.#lowest - 1;
  }

  /** Names a tensor whose value is to come. Fails: BadMessage for a name that is or was in use. */
  promise(id: TensorId, origin: string): Tensor {
    if (!Number.isSafeInteger(id) || id === 0)
      throw new EngineError("BadMessage", `Tensor name ${id}: it must be an integer other than 0`);
    if (this.#tensors.has(id))
      throw new EngineError("BadMessage", `Tensor ${id} is already in use; names are never given twice`);
    this.#highest = Math.max(this.#highest, id);
    this.#lowest = Math.min(this.#lowest, id);
    const tensor: Tensor = {
      id,
      origin,
      state: "pending",
      value: null,
      backend: null,
      error: null,
      released: false,
      uses: 0,
      waiters: [],
    };
    this.#tensors.set(id, tensor);
    return tensor;
  }

  /** Poisons a name that was announced for a tensor that will not come; one already in use stays what it is. */
  refuse(id: TensorId, error: unknown): void {
    if (Number.isSafeInteger(id) && id !== 0 && !this.#tensors.has(id)) this.poison(this.promise(id, "refused"), error);
  }

  /** Fails: UnknownTensor, ReleasedTensor. */
  at(id: TensorId): Tensor {
    const tensor = this.#tensors.get(id);
    if (tensor !== undefined) return tensor;
    const wasGiven = Number.isSafeInteger(id) && id !== 0 && id <= this.#highest && id >= this.#lowest;
    throw wasGiven
      ? new EngineError(
          "ReleasedTensor",
          `Tensor ${id} was released; keep a reference to it for as long as it is used`,
          { tensor: id },
        )
      : new EngineError("UnknownTensor", `Tensor ${id} was never made`, { tensor: id });
  }

  /**
   * Gives a pending tensor its value, and takes the value over. Over budget it becomes poisoned instead, with the error
   * that `blame` makes of it.
   */
  fulfil(tensor: Tensor, value: Value, backend: Backend, blame = (error: EngineError): EngineError => error): void {
    tensor.backend = backend;
    tensor.value = value;
    tensor.state = "ready";
    this.#count(value.storage);
    if (this.bytes > this.budget) {
      const error = blame(this.#overBudget(this.bytes));
      this.#drop(tensor);
      this.poison(tensor, error);
      return;
    }
    this.#collectSoon();
    this.#settle(tensor);
  }

  /** Fails: OverBudget where so many more bytes do not fit; `elsewhere` are bytes that live but are no tensors. */
  checkRoom(needed: number, what: string, elsewhere = 0): void {
    const bytes = this.bytes + elsewhere;
    if (needed === 0 || bytes + needed <= this.budget) return;
    this.#collect();
    const free = Math.max(0, this.budget - bytes);
    throw new EngineError(
      "OverBudget",
      `${what} would take ${needed} bytes; ${free} are free, ${bytes} of the ${this.budget} allowed are taken; ask for fewer names or positions, or release tensors: the largest are in the ledger`,
      { needed, bytes, budget: this.budget, ledger: this.#largest() },
    );
  }

  /** Counts what a tape keeps beside the tensors. Fails: OverBudget, and then it is not counted. */
  keep(value: Value): void {
    const { storage } = value;
    if (!this.#storages.has(storage) && this.bytes + storage.bytes > this.budget)
      throw this.#overBudget(this.bytes + storage.bytes);
    this.#count(storage);
    this.#kept.set(storage, (this.#kept.get(storage) ?? 0) + 1);
    this.#collectSoon();
  }

  drop(value: Value): void {
    const { storage } = value;
    const steps = (this.#kept.get(storage) as number) - 1;
    if (steps === 0) this.#kept.delete(storage);
    else this.#kept.set(storage, steps);
    this.#uncount(storage);
  }

  /** Of `bytes`, what tapes keep and no tensor names. */
  get tapeBytes(): number {
    let sum = 0;
    for (const [storage, steps] of this.#kept) if (this.#storages.get(storage) === steps) sum += storage.bytes;
    return sum;
  }

  /** Poisons what lay in a backend that is gone. */
  poisonAllIn(backend: Backend, error: unknown): void {
    for (const tensor of [...this.#tensors.values()]) {
      if (tensor.state !== "ready" || plainOf(tensor.backend as Backend) !== backend) continue;
      this.#drop(tensor);
      this.poison(tensor, error);
    }
  }

  /** Ends a pending tensor with an error, which every use of it repeats. */
  poison(tensor: Tensor, error: unknown): void {
    tensor.state = "poisoned";
    tensor.error = error;
    this.#settle(tensor);
  }

  /** Runs an action once all these tensors are settled: at once if they are. */
  whenSettled(tensors: readonly Tensor[], action: () => void): void {
    this.hold(tensors);
    const pending = new Set(tensors.filter((tensor) => tensor.state === "pending"));
    let missing = pending.size;
    const run = () => {
      try {
        action();
      } finally {
        this.letGo(tensors);
      }
    };
    if (missing === 0) return run();
    for (const tensor of pending) {
      tensor.waiters.push(() => {
        if (--missing === 0) run();
      });
    }
  }

  /** Keeps tensors usable after their release, until `letGo`. */
  hold(tensors: readonly Tensor[]): void {
    for (const tensor of tensors) tensor.uses++;
  }

  letGo(tensors: readonly Tensor[]): void {
    for (const tensor of tensors) {
      tensor.uses--;
      this.#freeIfUnused(tensor);
    }
  }

  /** The value of a settled tensor in a backend, where it is moved if it lies in another. Fails: what poisoned it. */
  valueOf(tensor: Tensor, backend?: Backend): Value {
    if (tensor.state === "poisoned") throw tensor.error;
    const value = tensor.value as Value;
    const home = tensor.backend as Backend;
    if (backend === undefined || plainOf(backend) === plainOf(home)) return value;
    let target = plainOf(backend);
    let moved = target.upload(home.read(value), value.shape);
    const past = stepOf(value);
    if (past !== null) {
      const tape = new Tape(target, past.recording, this);
      moved = tape.moved(moved, value);
      target = tape;
    }
    this.#drop(tensor);
    this.#count(moved.storage);
    tensor.backend = target;
    tensor.value = moved;
    return moved;
  }

  release(ids: readonly TensorId[]): void {
    for (const id of ids) {
      const tensor = this.#tensors.get(id);
      if (tensor === undefined) continue;
      this.#tensors.delete(id);
      tensor.released = true;
      this.#freeIfUnused(tensor);
    }
  }

  pending(): Tensor[] {
    return [...this.#tensors.values()].filter((tensor) => tensor.state === "pending");
  }

  ledger(): LedgerLine[] {
    return [...this.#tensors.values()].map(({ id, value, state, origin }) => ({
      tensor: id,
      shape: value?.shape ?? [],
      bytes: value === null ? 0 : 4 * elementsOf(value.shape),
      state,
      origin,
    }));
  }

  #settle(tensor: Tensor): void {
    const waiters = tensor.waiters.splice(0);
    for (const waiter of waiters) waiter();
    this.#freeIfUnused(tensor);
  }

  #freeIfUnused(tensor: Tensor): void {
    if (tensor.released && tensor.uses === 0 && tensor.state !== "pending") this.#drop(tensor);
  }

  #count(storage: Storage): void {
    const holders = this.#storages.get(storage) ?? 0;
    if (holders === 0) this.bytes += storage.bytes;
    this.#storages.set(storage, holders + 1);
  }

  #drop(tensor: Tensor): void {
    if (tensor.value === null) return;
    this.#uncount(tensor.value.storage);
    (tensor.backend as Backend).release(tensor.value);
    tensor.value = null;
  }

  #uncount(storage: Storage): void {
    const holders = (this.#storages.get(storage) as number) - 1;
    if (holders === 0) {
      this.#storages.delete(storage);
      this.bytes -= storage.bytes;
    } else {
      this.#storages.set(storage, holders);
    }
    if (this.bytes < COLLECT_AT * this.budget) this.#asked = false;
  }

  #collectSoon(): void {
    if (this.bytes > COLLECT_AT * this.budget) this.#collect();
  }

  #collect(): void {
    if (this.#asked) return;
    this.#asked = true;
    this.#askToCollect(this.bytes, this.budget);
  }

  #largest(): LedgerLine[] {
    return this.ledger()
      .sort((a, b) => b.bytes - a.bytes)
      .slice(0, 20);
  }

  #overBudget(bytes: number): EngineError {
    const tapes = this.tapeBytes === 0 ? "" : `, ${this.tapeBytes} of them on tapes`;
    return new EngineError(
      "OverBudget",
      `Tensors would take ${bytes} bytes of the ${this.budget} allowed${tapes}; release some, the largest are in the ledger`,
      { bytes, budget: this.budget, ledger: this.#largest() },
    );
  }
}
