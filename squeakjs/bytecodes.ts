/**
 * The two bytecode sets as tables: first and last opcode of a row, its name, and its length in bytes.
 * The printer disassembles by them, and the tests hold the loops and the compiler against them.
 */

export type Row = { readonly first: number; readonly last: number; readonly name: string; readonly length: number };

const row = (first: number, last: number, name: string, length = 1): Row => ({ first, last, name, length });

/** The set of Squeak 3 with closures. */
export const v3Bytecodes: readonly Row[] = [
  row(0x00, 0x0f, "pushInstVar"),
  row(0x10, 0x1f, "pushTemp"),
  row(0x20, 0x3f, "pushLiteral"),
  row(0x40, 0x5f, "pushLiteralVariable"),
  row(0x60, 0x67, "popIntoInstVar"),
  row(0x68, 0x6f, "popIntoTemp"),
  row(0x70, 0x77, "pushConstant"), // self true false nil -1 0 1 2
  row(0x78, 0x7b, "returnConstant"), // self true false nil
  row(0x7c, 0x7c, "returnTop"),
  row(0x7d, 0x7d, "blockReturnTop"),
  row(0x7e, 0x7f, "unused"),
  row(0x80, 0x80, "extendedPush", 2),
  row(0x81, 0x81, "extendedStore", 2),
  row(0x82, 0x82, "extendedPopInto", 2),
  row(0x83, 0x83, "extendedSend", 2),
  row(0x84, 0x84, "doubleExtended", 3),
  row(0x85, 0x85, "extendedSuperSend", 2),
  row(0x86, 0x86, "secondExtendedSend", 2),
  row(0x87, 0x87, "pop"),
  row(0x88, 0x88, "dup"),
  row(0x89, 0x89, "pushThisContext"),
  row(0x8a, 0x8a, "pushNewArray", 2),
  row(0x8b, 0x8b, "callPrimitive", 3),
  row(0x8c, 0x8c, "pushRemoteTemp", 3),
  row(0x8d, 0x8d, "storeRemoteTemp", 3),
  row(0x8e, 0x8e, "popIntoRemoteTemp", 3),
  row(0x8f, 0x8f, "pushClosure", 4),
  row(0x90, 0x97, "jump"),
  row(0x98, 0x9f, "jumpFalse"),
  row(0xa0, 0xa7, "longJump", 2),
  row(0xa8, 0xab, "longJumpTrue", 2),
  row(0xac, 0xaf, "longJumpFalse", 2),
  row(0xb0, 0xbf, "arithmeticSend"),
  row(0xc0, 0xcf, "commonSend"),
  row(0xd0, 0xdf, "sendLiteral0"),
  row(0xe0, 0xef, "sendLiteral1"),
  row(0xf0, 0xff, "sendLiteral2"),
];

/** Sista V1, Squeak's newer set, with extension prefixes and full blocks. */
export const sistaBytecodes: readonly Row[] = [
  row(0x00, 0x0f, "pushInstVar"),
  row(0x10, 0x1f, "pushLiteralVariable"),
  row(0x20, 0x3f, "pushLiteral"),
  row(0x40, 0x4b, "pushTemp"),
  row(0x4c, 0x51, "pushConstant"), // self true false nil 0 1
  row(0x52, 0x52, "pushThisContext"), // or, with extension B 1, the active process
  row(0x53, 0x53, "dup"),
  row(0x54, 0x57, "unused"),
  row(0x58, 0x5b, "returnConstant"), // self true false nil
  row(0x5c, 0x5c, "returnTop"),
  row(0x5d, 0x5d, "blockReturnNil"),
  row(0x5e, 0x5e, "blockReturnTop"),
  row(0x5f, 0x5f, "nop"),
  row(0x60, 0x6f, "arithmeticSend"),
  row(0x70, 0x7f, "commonSend"),
  row(0x80, 0x8f, "sendLiteral0"),
  row(0x90, 0x9f, "sendLiteral1"),
  row(0xa0, 0xaf, "sendLiteral2"),
  row(0xb0, 0xb7, "jump"),
  row(0xb8, 0xbf, "jumpTrue"),
  row(0xc0, 0xc7, "jumpFalse"),
  row(0xc8, 0xcf, "popIntoInstVar"),
  row(0xd0, 0xd7, "popIntoTemp"),
  row(0xd8, 0xd8, "pop"),
  row(0xd9, 0xd9, "trap"),
  row(0xda, 0xdf, "unused"),
  row(0xe0, 0xe0, "extendA", 2),
  row(0xe1, 0xe1, "extendB", 2),
  row(0xe2, 0xe2, "longPushInstVar", 2),
  row(0xe3, 0xe3, "longPushLiteralVariable", 2),
  row(0xe4, 0xe4, "longPushLiteral", 2),
  row(0xe5, 0xe5, "longPushTemp", 2),
  row(0xe6, 0xe6, "unused", 2),
  row(0xe7, 0xe7, "pushNewArray", 2),
  row(0xe8, 0xe8, "pushInteger", 2),
  row(0xe9, 0xe9, "pushCharacter", 2),
  row(0xea, 0xea, "longSend", 2),
  row(0xeb, 0xeb, "longSuperSend", 2),
  row(0xec, 0xec, "unused", 2),
  row(0xed, 0xed, "longJump", 2),
  row(0xee, 0xee, "longJumpTrue", 2),
  row(0xef, 0xef, "longJumpFalse", 2),
  row(0xf0, 0xf0, "longPopIntoInstVar", 2),
  row(0xf1, 0xf1, "longPopIntoLiteralVariable", 2),
  row(0xf2, 0xf2, "longPopIntoTemp", 2),
  row(0xf3, 0xf3, "longStoreIntoInstVar", 2),
  row(0xf4, 0xf4, "longStoreIntoLiteralVariable", 2),
  row(0xf5, 0xf5, "longStoreIntoTemp", 2),
  row(0xf6, 0xf7, "unused", 2),
  row(0xf8, 0xf8, "callPrimitive", 3),
  row(0xf9, 0xf9, "pushFullClosure", 3),
  row(0xfa, 0xfa, "pushClosure", 3),
  row(0xfb, 0xfb, "pushRemoteTemp", 3),
  row(0xfc, 0xfc, "storeRemoteTemp", 3),
  row(0xfd, 0xfd, "popIntoRemoteTemp", 3),
  row(0xfe, 0xff, "unused", 3),
];

/** The selectors with a bytecode of their own, in the order of the special selectors array; Sista has ~~ for blockCopy:. */
export const specialSelectors = [
  "+", "-", "<", ">", "<=", ">=", "=", "~=", "*", "/", "\\\\", "@", "bitShift:", "//", "bitAnd:", "bitOr:",
  "at:", "at:put:", "size", "next", "nextPut:", "atEnd", "==", "class", "blockCopy:", "value", "value:", "do:", "new", "new:", "x", "y",
] as const;

export function rowOf(bytecodes: readonly Row[], opcode: number): Row {
  const found = bytecodes.find((each) => opcode >= each.first && opcode <= each.last);
  if (found === undefined) throw new RangeError(`opcode ${opcode} is not a byte (0 to 255)`);
  return found;
}
