/**
 * Primitives 20 to 37: arithmetic of Integers of any size, by BigInt. All are optional: where one fails, the
 * method's Smalltalk code is the implementation. Comparisons and results are exact and normalised.
 */
import { floorDivide, floorModulo, fromBigInt, toBigInt } from "../integers.ts";
import type { Interpreter } from "../interpreter.ts";
import type { PrimitiveRow } from "../primitive_table.ts";

type Operation = (a: bigint, b: bigint) => bigint | null;

const longestShift = 1 << 22; // bits; what is longer would stop the page for seconds

function operation(operate: Operation): (vm: Interpreter) => boolean {
  return (vm) => {
    const a = toBigInt(vm.memory, vm.frame[vm.sp - 1]);
    const b = toBigInt(vm.memory, vm.frame[vm.sp]);
    if (a === null || b === null) return false;
    const result = operate(a, b);
    return result === null ? false : vm.answer(1, fromBigInt(vm.memory, result));
  };
}

function comparison(compare: (a: bigint, b: bigint) => boolean): (vm: Interpreter) => boolean {
  return (vm) => {
    const a = toBigInt(vm.memory, vm.frame[vm.sp - 1]);
    const b = toBigInt(vm.memory, vm.frame[vm.sp]);
    if (a === null || b === null) return false;
    return vm.answer(1, compare(a, b) ? vm.true : vm.false);
  };
}

const divisible = (a: bigint, b: bigint): boolean => b !== 0n && a % b === 0n;

export const largeIntegerPrimitives: readonly PrimitiveRow[] = [
  [20, "primitiveRemLargeIntegers", operation((a, b) => (b === 0n ? null : a % b))],
  [21, "primitiveAddLargeIntegers", operation((a, b) => a + b)],
  [22, "primitiveSubtractLargeIntegers", operation((a, b) => a - b)],
  [23, "primitiveLessThanLargeIntegers", comparison((a, b) => a < b)],
  [24, "primitiveGreaterThanLargeIntegers", comparison((a, b) => a > b)],
  [25, "primitiveLessOrEqualLargeIntegers", comparison((a, b) => a <= b)],
  [26, "primitiveGreaterOrEqualLargeIntegers", comparison((a, b) => a >= b)],
  [27, "primitiveEqualLargeIntegers", comparison((a, b) => a === b)],
  [28, "primitiveNotEqualLargeIntegers", comparison((a, b) => a !== b)],
  [29, "primitiveMultiplyLargeIntegers", operation((a, b) => a * b)],
  [30, "primitiveDivideLargeIntegers", operation((a, b) => (divisible(a, b) ? a / b : null))],
  [31, "primitiveModLargeIntegers", operation((a, b) => (b === 0n ? null : floorModulo(a, b)))],
  [32, "primitiveDivLargeIntegers", operation((a, b) => (b === 0n ? null : floorDivide(a, b)))],
  [33, "primitiveQuoLargeIntegers", operation((a, b) => (b === 0n ? null : a / b))],
  [34, "primitiveBitAndLargeIntegers", operation((a, b) => a & b)],
  [35, "primitiveBitOrLargeIntegers", operation((a, b) => a | b)],
  [36, "primitiveBitXorLargeIntegers", operation((a, b) => a ^ b)],
  [37, "primitiveBitShiftLargeIntegers", operation((a, b) => (b > longestShift ? null : b < 0n ? a >> -b : a << b))],
];
