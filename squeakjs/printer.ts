/** Text for people: an object in a few words, the stack of a context, the bytecodes of a method. */
import { rowOf, sistaBytecodes, v3Bytecodes } from "./bytecodes.ts";
import { usesSista } from "./header.ts";
import type { Interpreter } from "./interpreter.ts";
import { isMethod, type Oop, type SqueakObject } from "./object.ts";
import { associationSlots, blockContextSlots, contextSlots } from "./special_objects.ts";

const longestText = 60;

export function describeObject(vm: Interpreter, oop: Oop): string {
  if (typeof oop === "number") return String(oop);
  if (oop.isNil || oop.isTrue || oop.isFalse) return String(oop.aux);
  if (oop.float !== undefined) return String(oop.float);
  const code = vm.memory.codePoint(oop);
  if (code >= 0) return `$${String.fromCodePoint(code)}`;
  const name = vm.memory.className(oop.sqClass);
  if (name.includes("String") || name.includes("Symbol")) {
    if (oop.bytes !== null) return `'${oop.bytesAsString().slice(0, longestText)}'`;
  }
  if (name.endsWith("class") || name === "Metaclass") return vm.memory.className(oop);
  return `${/^[AEIOU]/.test(name) ? "an" : "a"} ${name}`;
}

/** The class that a method belongs to: the value of its last literal; a block's is its outer code's. */
function methodClass(vm: Interpreter, method: SqueakObject): string {
  let last = method.pointers[method.pointers.length - 1];
  while (isMethod(last)) last = last.pointers[last.pointers.length - 1];
  if (typeof last === "number" || last.pointers === null) return "?";
  const owner = last.pointers[associationSlots.value];
  return typeof owner === "object" && owner.pointers !== null ? vm.memory.className(owner) : "?";
}

function describeActivation(vm: Interpreter, context: SqueakObject): string {
  const slots = context.pointers;
  const isBlockContext = typeof slots[contextSlots.method] === "number";
  const home = isBlockContext ? (slots[blockContextSlots.home] as SqueakObject).pointers : slots;
  const isBlock = isBlockContext || slots[contextSlots.closure] !== vm.nil;
  let method = home[contextSlots.method] as SqueakObject;
  for (let last = method.pointers[method.pointers.length - 1]; isMethod(last); last = method.pointers[method.pointers.length - 1]) method = last;
  const receiver = home[contextSlots.receiver];
  const owner = methodClass(vm, method);
  const receiverClass = vm.memory.className(vm.memory.classOf(receiver));
  const where = owner === receiverClass ? owner : `${receiverClass}(${owner})`;
  return `${isBlock ? "[] in " : ""}${where}>>${vm.selectorOf(method)}`;
}

/** One line for each context, innermost first; the middle of a long stack is left out. */
export function stackTrace(vm: Interpreter, context: SqueakObject = vm.exposeContext(), limit = 60): string {
  const lines: string[] = [];
  for (let each: Oop = context; typeof each !== "number" && each !== vm.nil; each = each.pointers[contextSlots.sender]) {
    lines.push(describeActivation(vm, each));
  }
  if (lines.length <= limit) return lines.join("\n");
  const half = limit >> 1;
  return [...lines.slice(0, half), `… ${lines.length - 2 * half} more …`, ...lines.slice(-half)].join("\n");
}

/** A method's bytecodes, one line each: offset, bytes, name. */
export function disassemble(method: SqueakObject, end = method.bytes.length): string {
  const rows = usesSista(method) ? sistaBytecodes : v3Bytecodes;
  const lines: string[] = [];
  for (let pc = 0; pc < end; ) {
    const row = rowOf(rows, method.bytes[pc]);
    const bytes = Array.from(method.bytes.subarray(pc, pc + row.length), (byte) => byte.toString(16).padStart(2, "0"));
    lines.push(`${String(pc).padStart(5)}  ${bytes.join(" ").padEnd(12)} ${row.name}`);
    pc += row.length;
  }
  return lines.join("\n");
}
