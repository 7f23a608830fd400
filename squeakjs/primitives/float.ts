/** Primitives 38 to 59 and 541 to 559: Floats. A SmallInteger argument is accepted and converted, a Fraction is not. */
import type { Interpreter } from "../interpreter.ts";
import { isSmallInteger, type Oop } from "../object.ts";
import type { Primitive, PrimitiveRow } from "../primitive_table.ts";

/** The number of a Float or SmallInteger; NaN is a Float's value, too, so absence is `undefined`. */
function floatValue(oop: Oop): number | undefined {
  return typeof oop === "number" ? oop : oop.float;
}

function binary(operation: (a: number, b: number) => number): Primitive {
  return (vm) => {
    const a = floatValue(vm.frame[vm.sp - 1]);
    const b = floatValue(vm.frame[vm.sp]);
    if (a === undefined || b === undefined) return false;
    return vm.answer(1, vm.memory.float(operation(a, b)));
  };
}

function comparison(compare: (a: number, b: number) => boolean): Primitive {
  return (vm) => {
    const a = floatValue(vm.frame[vm.sp - 1]);
    const b = floatValue(vm.frame[vm.sp]);
    if (a === undefined || b === undefined) return false;
    return vm.answer(1, compare(a, b) ? vm.true : vm.false);
  };
}

function unary(operation: (a: number) => number): Primitive {
  return (vm) => {
    const a = floatValue(vm.frame[vm.sp]);
    return a === undefined ? false : vm.answer(0, vm.memory.float(operation(a)));
  };
}

function divide(vm: Interpreter): boolean {
  const a = floatValue(vm.frame[vm.sp - 1]);
  const b = floatValue(vm.frame[vm.sp]);
  if (a === undefined || b === undefined || b === 0) return false;
  return vm.answer(1, vm.memory.float(a / b));
}

function asFloat(vm: Interpreter): boolean {
  const value = vm.frame[vm.sp];
  return typeof value === "number" ? vm.answer(0, vm.memory.float(value)) : false;
}

function truncated(vm: Interpreter): boolean {
  const value = floatValue(vm.frame[vm.sp]);
  if (value === undefined) return false;
  const whole = Math.trunc(value);
  return isSmallInteger(whole) ? vm.answer(0, whole + 0) : false;
}

/** The power of two of the leading bit: 0 for 1.0, -1 for 0.5. Denormal numbers count their true exponent. */
export function exponentOf(value: number): number {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  const biased = (view.getUint32(0) >>> 20) & 0x7ff;
  if (biased !== 0) return biased - 1023;
  return exponentOf(value * 2 ** 64) - 64;
}

function exponent(vm: Interpreter): boolean {
  const value = floatValue(vm.frame[vm.sp]);
  if (value === undefined || value === 0 || !Number.isFinite(value)) return false;
  return vm.answer(0, exponentOf(value));
}

/**
 * value * 2^power with one rounding, where 2^power alone may overflow or vanish. Downwards it goes in steps that leave
 * 53 bits for the last one: an intermediate that rounds to a denormal then belongs to a result that is zero.
 */
export function timesPowerOfTwo(value: number, power: number): number {
  let result = value;
  let rest = Math.max(-4000, Math.min(4000, power));
  for (; rest > 1023; rest -= 1023) result *= 2 ** 1023;
  for (; rest < -1022; rest += 969) result *= 2 ** -969;
  return result * 2 ** rest;
}

function timesTwoPower(vm: Interpreter): boolean {
  const value = floatValue(vm.frame[vm.sp - 1]);
  const power = vm.frame[vm.sp];
  if (value === undefined || typeof power !== "number") return false;
  return vm.answer(1, vm.memory.float(timesPowerOfTwo(value, power)));
}

const view = new DataView(new ArrayBuffer(8));

/** Word 1 is the high one, whatever the machine. */
function wordAt(vm: Interpreter): boolean {
  const float = floatValue(vm.frame[vm.sp - 1]);
  const index = vm.frame[vm.sp];
  if (float === undefined || (index !== 1 && index !== 2)) return false;
  view.setFloat64(0, float);
  return vm.answer(1, vm.memory.integer(view.getUint32(index === 1 ? 0 : 4)));
}

function wordAtPut(vm: Interpreter): boolean {
  const float = vm.frame[vm.sp - 2];
  const index = vm.frame[vm.sp - 1];
  const word = vm.memory.safeIntegerValue(vm.frame[vm.sp]);
  if (typeof float === "number" || float.float === undefined || (index !== 1 && index !== 2)) return false;
  if (!(word >= 0 && word <= 0xffffffff)) return false;
  view.setFloat64(0, float.float);
  view.setUint32(index === 1 ? 0 : 4, word);
  float.float = view.getFloat64(0);
  return vm.answer(2, vm.frame[vm.sp]);
}

const rows: readonly PrimitiveRow[] = [
  [40, "primitiveAsFloat", asFloat],
  [41, "primitiveFloatAdd", binary((a, b) => a + b)],
  [42, "primitiveFloatSubtract", binary((a, b) => a - b)],
  [43, "primitiveFloatLessThan", comparison((a, b) => a < b)],
  [44, "primitiveFloatGreaterThan", comparison((a, b) => a > b)],
  [45, "primitiveFloatLessOrEqual", comparison((a, b) => a <= b)],
  [46, "primitiveFloatGreaterOrEqual", comparison((a, b) => a >= b)],
  [47, "primitiveFloatEqual", comparison((a, b) => a === b)],
  [48, "primitiveFloatNotEqual", comparison((a, b) => a !== b)],
  [49, "primitiveFloatMultiply", binary((a, b) => a * b)],
  [50, "primitiveFloatDivide", divide],
  [51, "primitiveTruncated", truncated],
  [52, "primitiveFractionalPart", unary((a) => a - Math.trunc(a))],
  [53, "primitiveExponent", exponent],
  [54, "primitiveTimesTwoPower", timesTwoPower],
  [55, "primitiveSquareRoot", unary(Math.sqrt)],
  [56, "primitiveSine", unary(Math.sin)],
  [57, "primitiveArctan", unary(Math.atan)],
  [58, "primitiveLogN", unary(Math.log)],
  [59, "primitiveExp", unary(Math.exp)],
];

/** The same operations again, for images that give their immediate Floats numbers of their own. */
const smallFloatRows = rows
  .filter(([number]) => number >= 41)
  .map(([number, name, run]): PrimitiveRow => [number + 500, name.replace("primitive", "primitiveSmall"), run]);

export const floatPrimitives: readonly PrimitiveRow[] = [
  [38, "primitiveFloatAt", wordAt],
  [39, "primitiveFloatAtPut", wordAtPut],
  ...rows,
  ...smallFloatRows,
];
