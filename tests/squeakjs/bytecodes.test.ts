/** The bytecode tables and the two loops: no gaps, no opcode that one has and the other lacks, each instruction's effect. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Oop, sistaBytecodes, specialSelectors, SqueakObject, v3Bytecodes } from "../../squeakjs/index.ts";
import { type Code, plain, TinyImage } from "./tiny_image.ts";

for (const [name, table] of [["V3", v3Bytecodes], ["Sista", sistaBytecodes]] as const) {
  test(`the ${name} table covers each opcode once`, () => {
    let next = 0;
    for (const row of table) {
      assert.equal(row.first, next);
      assert.ok(row.last >= row.first);
      next = row.last + 1;
    }
    assert.equal(next, 256);
  });

  test(`the ${name} loop refuses exactly the opcodes that the table calls unused or a trap`, () => {
    for (let opcode = 0; opcode < 256; opcode++) {
      const row = table.find((each) => opcode >= each.first && opcode <= each.last);
      const refused = row?.name === "unused" || row?.name === "trap";
      assert.equal(isRefused(opcode, name === "Sista"), refused, `0x${opcode.toString(16)} ${row?.name}`);
    }
  });
}

/** Runs one opcode with operands of zero on a stack of Arrays; true when the loop calls it none of its own. */
function isRefused(opcode: number, sista: boolean): boolean {
  const tiny = new TinyImage();
  const holder = tiny.array(Array.from({ length: 40 }, () => tiny.nil));
  const receiver = tiny.array(Array.from({ length: 300 }, () => tiny.nil));
  // a literal that serves as binding, as selector and as block
  const literal = tiny.code("Object", "none", { bytes: [0x7b], literals: ["#x"] });
  const setup = Array.from({ length: 4 }, (_, i) => (sista ? 0x21 + i : 0x21 + i)); // push literals 1 to 4
  const code: Code = { sista, temps: 12, literals: [literal, literal, holder, holder, holder, ...Array.from({ length: 30 }, () => literal)], bytes: [...setup, opcode, 0, 0, 0, 0] };
  const process = tiny.process(40, code, receiver);
  const context = process.pointers[1] as SqueakObject;
  for (let i = 0; i < 12; i++) context.pointers[6 + i] = holder;
  const { vm } = tiny.start({ bytes: [] });
  vm.loadContext(context);
  try {
    vm.step(0.01);
  } catch (error) {
    return String(error).includes("is not one this machine executes") && String(error).includes(`0x${opcode.toString(16)} at 5`);
  }
  return false;
}

test("the special selectors are those of the image", () => {
  const tiny = new TinyImage();
  const array = tiny.specials.pointers[23] as SqueakObject;
  specialSelectors.forEach((each, i) => assert.equal((array.pointers[2 * i] as SqueakObject).bytesAsString(), each));
});

/** One instruction or a few, in V3 and in Sista, and what they leave on the stack. */
const effects: readonly [name: string, v3: number[] | null, sista: number[] | null, literals: Code["literals"], expected: unknown][] = [
  ["true", [0x71], [0x4d], [], true],
  ["-1", [0x74], [0xe1, 0xff, 0xe8, 0xff], [], -1],
  ["2", [0x77], [0xe8, 2], [], 2],
  ["a literal", [0x22], [0x22], [77], 77],
  ["a negative integer of two prefixes", null, [0xe1, 0xff, 0xe1, 0x00, 0xe8, 0x01], [], -65535],
  ["an integer whose first prefix is zero", null, [0xe1, 0x00, 0xe1, 0x80, 0xe8, 0x00], [], 32768],
  ["a character's identity", null, [0xe1, 0x03, 0xe9, 0xbb, 0xe1, 0x03, 0xe9, 0xbb, 0x76], [], true],
  ["dup and pop", [0x76, 0x77, 0x88, 0x87, 0x87], [0x51, 0x50, 0x53, 0xd8, 0xd8], [], 1],
  ["an array of popped values", [0x75, 0x76, 0x77, 0x8a, 0x83], [0x50, 0x51, 0xe8, 2, 0xe7, 0x83], [], [0, 1, 2]],
  ["an array of nils", [0x8a, 2], [0xe7, 2], [], [null, null]],
  ["a jump", [0x76, 0x90, 0x77, 0x75, 0x87], [0x51, 0xb0, 0x50, 0x50, 0xd8], [], 1],
  ["a jump on false", [0x72, 0x99, 0x75, 0x90, 0x76], [0x4e, 0xc1, 0x50, 0xb0, 0x51], [], 1],
  ["a jump on true", [0x71, 0xa8, 2, 0x75, 0x90, 0x76], [0x4d, 0xb9, 0x50, 0xb0, 0x51], [], 1],
  ["identity", [0x75, 0x75, 0xc6], [0x50, 0x50, 0x76], [], true],
  ["non-identity", null, [0x50, 0x51, 0x78], [], true],
  ["a remote temporary", [0x8a, 2, 0x68, 0x77, 0x8d, 1, 0, 0x87, 0x8c, 1, 0], [0xe7, 2, 0xd0, 0xe8, 2, 0xfc, 1, 0, 0xd8, 0xfb, 1, 0], [], 2],
  ["an inline block with a copied value", [0x77, 0x8f, 0x10, 0, 2, 0x10, 0x7d, 0xc9], [0xe8, 2, 0xfa, 0x08, 2, 0x40, 0x5e, 0x79], [], 2],
  ["an inline block with an argument", [0x8f, 0x01, 0, 4, 0x10, 0x76, 0xb0, 0x7d, 0x77, 0xca], [0xfa, 0x01, 4, 0x40, 0x51, 0x60, 0x5e, 0xe8, 2, 0x7a], [], 3],
];

for (const [name, v3, sista, literals, expected] of effects) {
  for (const [set, bytes] of [["V3", v3], ["Sista", sista]] as const) {
    if (bytes === null) continue;
    test(`${set}: ${name}`, () => {
      const tiny = new TinyImage();
      tiny.method("BlockClosure", "value", { bytes: [0x7b], primitive: 201 });
      tiny.method("BlockClosure", "value:", { bytes: [0x7b], args: 1, primitive: 202 });
      const { vm, reported } = tiny.start(tiny.reporting({ bytes, literals, temps: 1, sista: set === "Sista" }));
      assert.deepEqual(vm.step(1000), { kind: "quit" });
      assert.deepEqual(plain(vm, reported[0]), expected);
    });
  }
}

/** A Sista method whose literal 2 is a block with the given bytes; the method's own bytes make and use it. */
function withFullBlock(block: Code, bytes: number[], options = 0): Oop {
  const tiny = new TinyImage();
  tiny.method("FullBlockClosure", "value", { bytes: [0x7b], primitive: 207 });
  tiny.method("FullBlockClosure", "value:", { bytes: [0x7b], args: 1, primitive: 207 });
  tiny.method("Object", "name", { bytes: [0x20, 0x7c], literals: ["'Object'"] });
  tiny.method("Pair", "name", { bytes: [0x20, 0x7c], literals: ["'Pair'"] });
  const outer = tiny.method("Pair", "make", { bytes: [], literals: ["#name", "Pair", tiny.nil], temps: 1, sista: true });
  outer.bytes = Uint8Array.from([0xf9, 2, options, 0x5c]);
  outer.pointers[3] = tiny.code("Pair", "make", { ...block, sista: true }, outer);
  const pair = tiny.object("Pair", [3, 4]);
  return plainResult(tiny, { bytes: [0x22, 0x83, ...bytes], literals: [pair, "#make"], sista: true });
}

function plainResult(tiny: TinyImage, code: Code): Oop {
  const { vm, reported } = tiny.start(tiny.reporting(code));
  vm.step(1000);
  return plain(vm, reported[0]) as Oop;
}

test("a full block reads its receiver's instance variables", () => {
  assert.equal(withFullBlock({ bytes: [0x01, 0x5e] }, [0x79]), 4);
});

test("super in a full block starts above the class of the outermost method", () => {
  assert.equal(withFullBlock({ bytes: [0x4c, 0xeb, 0x00, 0x5e], literals: ["#name"] }, [0x79]), "Object");
});

test("directed super starts above the class on the stack", () => {
  assert.equal(withFullBlock({ bytes: [0x4c, 0x11, 0xe1, 64, 0xeb, 0x00, 0x5e], literals: ["#name", "Pair"] }, [0x79]), "Object");
});

test("a clean block has no outer context but its receiver", () => {
  assert.equal(withFullBlock({ bytes: [0x00, 0x5e] }, [0x79], 0x40), 3);
});
