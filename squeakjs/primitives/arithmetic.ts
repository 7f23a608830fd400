/** Primitives 1 to 18: SmallInteger arithmetic. A result beyond 31 bits is answered as a LargeInteger. */
import { floorDivide, fromBigInt, toBigInt } from "../integers.ts";
import type { Interpreter } from "../interpreter.ts";
import type { Oop } from "../object.ts";
import type { PrimitiveRow } from "../primitive_table.ts";

type Operation = (a: number, b: number) => number;

/** A primitive of two SmallIntegers; a result of NaN fails. */
function binary(operation: Operation): (vm: Interpreter, argCount: number) => boolean {
  return (vm) => {
    const b = vm.frame[vm.sp];
    const a = vm.frame[vm.sp - 1];
    if (typeof a !== "number" || typeof b !== "number") return false;
    const result = operation(a, b);
    if (Number.isNaN(result)) return false;
    return vm.answer(1, vm.memory.integer(result));
  };
}

function comparison(operation: (a: number, b: number) => boolean): (vm: Interpreter, argCount: number) => boolean {
  return (vm) => {
    const b = vm.frame[vm.sp];
    const a = vm.frame[vm.sp - 1];
    if (typeof a !== "number" || typeof b !== "number") return false;
    return vm.answer(1, operation(a, b) ? vm.true : vm.false);
  };
}

/** The bits of SmallIntegers and of non-negative LargeIntegers below 2^32. */
function bitwise(operation: (a: bigint, b: bigint) => bigint): (vm: Interpreter, argCount: number) => boolean {
  return (vm) => {
    const a = bits(vm, vm.frame[vm.sp - 1]);
    const b = bits(vm, vm.frame[vm.sp]);
    if (a === null || b === null) return false;
    return vm.answer(1, fromBigInt(vm.memory, operation(a, b)));
  };
}

function bits(vm: Interpreter, oop: Oop): bigint | null {
  return typeof oop !== "number" && oop.bytes?.length > 4 ? null : toBigInt(vm.memory, oop);
}

function multiply(vm: Interpreter): boolean {
  const b = vm.frame[vm.sp];
  const a = vm.frame[vm.sp - 1];
  if (typeof a !== "number" || typeof b !== "number") return false;
  const product = a * b;
  // A double holds 53 bits; what is longer is recomputed from the operands.
  if (Number.isSafeInteger(product)) return vm.answer(1, vm.memory.integer(product));
  return vm.answer(1, fromBigInt(vm.memory, BigInt(a) * BigInt(b)));
}

function bitShift(vm: Interpreter): boolean {
  const value = bits(vm, vm.frame[vm.sp - 1]);
  const by = vm.frame[vm.sp];
  if (value === null || typeof by !== "number" || by > 1 << 20) return false;
  return vm.answer(1, fromBigInt(vm.memory, by < 0 ? value >> BigInt(-by) : value << BigInt(by)));
}

function divide(vm: Interpreter): boolean {
  const b = vm.frame[vm.sp];
  const a = vm.frame[vm.sp - 1];
  if (typeof a !== "number" || typeof b !== "number" || b === 0) return false;
  return vm.answer(1, fromBigInt(vm.memory, floorDivide(BigInt(a), BigInt(b))));
}

function makePoint(vm: Interpreter): boolean {
  const y = vm.frame[vm.sp];
  const x = vm.frame[vm.sp - 1];
  if (typeof x !== "number" && x.float === undefined) return false;
  if (typeof y !== "number" && y.float === undefined) return false;
  return vm.answer(1, vm.memory.point(x, y));
}

const modulo = (a: number, b: number): number => {
  const remainder = a % b; // NaN for b = 0
  return remainder !== 0 && remainder < 0 !== b < 0 ? remainder + b : remainder;
};

export const arithmeticPrimitives: readonly PrimitiveRow[] = [
  [1, "primitiveAdd", binary((a, b) => a + b)],
  [2, "primitiveSubtract", binary((a, b) => a - b)],
  [3, "primitiveLessThan", comparison((a, b) => a < b)],
  [4, "primitiveGreaterThan", comparison((a, b) => a > b)],
  [5, "primitiveLessOrEqual", comparison((a, b) => a <= b)],
  [6, "primitiveGreaterOrEqual", comparison((a, b) => a >= b)],
  [7, "primitiveEqual", comparison((a, b) => a === b)],
  [8, "primitiveNotEqual", comparison((a, b) => a !== b)],
  [9, "primitiveMultiply", multiply],
  [10, "primitiveDivide", binary((a, b) => (a % b === 0 ? a / b : NaN))],
  [11, "primitiveMod", binary(modulo)],
  [12, "primitiveDiv", divide],
  [13, "primitiveQuo", binary((a, b) => (b === 0 ? NaN : Math.trunc(a / b)))],
  [14, "primitiveBitAnd", bitwise((a, b) => a & b)],
  [15, "primitiveBitOr", bitwise((a, b) => a | b)],
  [16, "primitiveBitXor", bitwise((a, b) => a ^ b)],
  [17, "primitiveBitShift", bitShift],
  [18, "primitiveMakePoint", makePoint],
];
