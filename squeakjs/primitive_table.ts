/**
 * The one table of numbered primitives: number, name, family, and the function that runs it.
 * A primitive's family names the file that has it. Rows without a function fail on purpose: their method's
 * Smalltalk code is the implementation, and the number is only a mark.
 *
 * A primitive finds its receiver and arguments on the stack, answers true and leaves its result in the receiver's
 * place, or answers false and leaves the stack as it was. It keeps no JavaScript state across a send.
 */
import { arithmeticPrimitives } from "./primitives/arithmetic.ts";
import { blockPrimitives } from "./primitives/blocks.ts";
import { controlPrimitives } from "./primitives/control.ts";
import { floatPrimitives } from "./primitives/float.ts";
import { largeIntegerPrimitives } from "./primitives/large_integer.ts";
import { memoryPrimitives } from "./primitives/memory.ts";
import { processPrimitives } from "./primitives/process.ts";
import { storagePrimitives } from "./primitives/storage.ts";
import { systemPrimitives } from "./primitives/system.ts";
import type { Interpreter } from "./interpreter.ts";

export type Primitive = (vm: Interpreter, argCount: number) => boolean;

/** One row of a family; `run` is null for the primitives that fail on purpose. */
export type PrimitiveRow = readonly [number: number, name: string, run: Primitive | null];

export type PrimitiveEntry = {
  readonly number: number;
  readonly name: string;
  readonly family: string;
  readonly run: Primitive | null;
};

const families: Readonly<Record<string, readonly PrimitiveRow[]>> = {
  arithmetic: arithmeticPrimitives,
  largeInteger: largeIntegerPrimitives,
  float: floatPrimitives,
  storage: storagePrimitives,
  memory: memoryPrimitives,
  control: controlPrimitives,
  blocks: blockPrimitives,
  process: processPrimitives,
  system: systemPrimitives,
};

export const primitiveTable: ReadonlyMap<number, PrimitiveEntry> = new Map(
  Object.entries(families).flatMap(([family, rows]) =>
    rows.map(([number, name, run]): [number, PrimitiveEntry] => [number, { number, name, family, run }]),
  ),
);

/** The function of a number; null when it fails on purpose, undefined when there is no such primitive. */
export function primitiveFunction(number: number): Primitive | null | undefined {
  return primitiveTable.get(number)?.run;
}
