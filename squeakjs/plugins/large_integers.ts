/**
 * LargeIntegers: the digit primitives that Squeak's Integer classes call by name, by BigInt. Arguments are Integers of
 * any size; as in the original, comparison, addition and subtraction work on magnitudes; the sign is the receiver's.
 */
import { fromBigInt, toBigInt } from "../integers.ts";
import type { ExternalModule } from "../modules.ts";
import type { Oop } from "../object.ts";
import type { InterpreterProxy } from "../proxy.ts";

const absolute = (value: bigint): bigint => (value < 0n ? -value : value);

export function largeIntegersPlugin(): ExternalModule {
  let proxy: InterpreterProxy;

  const integer = (depth: number): bigint | null => toBigInt(proxy.vm.memory, proxy.stackValue(depth));
  const answer = (argCount: number, value: Oop): boolean => {
    proxy.popthenPush(argCount + 1, value);
    return true;
  };
  const signedLike = (sign: bigint, magnitude: bigint): Oop => fromBigInt(proxy.vm.memory, sign < 0n ? -magnitude : magnitude);

  /** A function of the receiver and the first of `argCount` arguments. */
  const binary = (compute: (a: bigint, b: bigint) => Oop | null) => (argCount: number): boolean => {
    const a = integer(argCount);
    const b = integer(argCount - 1);
    if (a === null || b === null) return false;
    const result = compute(a, b);
    return result === null ? false : answer(argCount, result);
  };
  const bits = (compute: (a: bigint, b: bigint) => bigint) => binary((a, b) => fromBigInt(proxy.vm.memory, compute(a, b)));

  const add = binary((a, b) => signedLike(a, absolute(a) + absolute(b)));
  const subtract = binary((a, b) => {
    const difference = absolute(a) - absolute(b);
    return fromBigInt(proxy.vm.memory, a < 0n ? -difference : difference);
  });
  const compare = binary((a, b) => (absolute(a) === absolute(b) ? 0 : absolute(a) < absolute(b) ? -1 : 1));
  const negative = (): boolean => proxy.booleanValueOf(proxy.stackValue(0));
  const multiply = (argCount: number): boolean => {
    const isNegative = negative();
    return binary((a, b) => signedLike(isNegative ? -1n : 1n, absolute(a) * absolute(b)))(argCount);
  };
  const divide = (argCount: number): boolean => {
    const isNegative = negative();
    return binary((a, b) => {
      if (b === 0n) return null;
      const quotient = signedLike(isNegative ? -1n : 1n, absolute(a) / absolute(b));
      return proxy.vm.memory.array([quotient, signedLike(a, absolute(a) % absolute(b))]);
    })(argCount);
  };
  const shiftMagnitude = binary((a, b) => {
    if (b > 1n << 22n) return null;
    return signedLike(a, b < 0n ? absolute(a) >> -b : absolute(a) << b);
  });
  const normalize = (argCount: number): boolean => {
    const value = integer(argCount);
    return value === null ? false : answer(argCount, fromBigInt(proxy.vm.memory, value));
  };

  return {
    getModuleName: () => "LargeIntegers",
    setInterpreter(interpreterProxy: InterpreterProxy) {
      proxy = interpreterProxy;
      return true;
    },
    primDigitAdd: add,
    primDigitSubtract: subtract,
    primDigitMultiplyNegative: multiply,
    primDigitDivNegative: divide,
    primDigitBitAnd: bits((a, b) => a & b),
    primDigitBitOr: bits((a, b) => a | b),
    primDigitBitXor: bits((a, b) => a ^ b),
    primDigitBitShiftMagnitude: shiftMagnitude,
    primDigitCompare: compare,
    primNormalizePositive: normalize,
    primNormalizeNegative: normalize,
  } as ExternalModule;
}
