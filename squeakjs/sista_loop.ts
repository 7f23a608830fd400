/**
 * The loop that runs methods in Sista V1 bytecodes: extension prefixes, full blocks, wider operands.
 * It is made like the V3 loop. `extA` and `extB` hold the prefixes' values until the bytecode that takes them.
 * Inline primitives (callPrimitive with its top bit set), traps and branches by class belong to an optimiser and are refused.
 */
import { Interpreter } from "./interpreter.ts";
import { maxSmallInteger, minSmallInteger, type Oop, type SqueakObject } from "./object.ts";
import { pause } from "./scheduler.ts";
import { specialObjects } from "./special_objects.ts";

const firstTemp = 6;
const shift = Interpreter.shift;

export function interpretSista(vm: Interpreter): void {
  const yes = vm.true;
  const no = vm.false;
  const nil = vm.nil;
  const cache = vm.cache;
  const arrayClass = vm.memory.classArray;
  const blockClosureClass = vm.memory.special(specialObjects.classBlockClosure);
  let literals = vm.method.pointers;
  if ((literals[0] as number) >= 0) return; // a V3 method
  let frame = vm.frame;
  let home = vm.home;
  let receiver = vm.receiver;
  let code = vm.method.bytes;
  let pc = vm.pc;
  let sp = vm.sp;
  let extA = 0;
  let extB = 0;
  for (;;) {
    const opcode = code[pc++];
    switch (opcode) {
      case 0x00: case 0x01: case 0x02: case 0x03: case 0x04: case 0x05: case 0x06: case 0x07:
      case 0x08: case 0x09: case 0x0a: case 0x0b: case 0x0c: case 0x0d: case 0x0e: case 0x0f:
        frame[++sp] = (receiver as SqueakObject).pointers[opcode];
        continue;
      case 0x10: case 0x11: case 0x12: case 0x13: case 0x14: case 0x15: case 0x16: case 0x17:
      case 0x18: case 0x19: case 0x1a: case 0x1b: case 0x1c: case 0x1d: case 0x1e: case 0x1f:
        frame[++sp] = (literals[1 + (opcode & 15)] as SqueakObject).pointers[1];
        continue;
      case 0x20: case 0x21: case 0x22: case 0x23: case 0x24: case 0x25: case 0x26: case 0x27:
      case 0x28: case 0x29: case 0x2a: case 0x2b: case 0x2c: case 0x2d: case 0x2e: case 0x2f:
      case 0x30: case 0x31: case 0x32: case 0x33: case 0x34: case 0x35: case 0x36: case 0x37:
      case 0x38: case 0x39: case 0x3a: case 0x3b: case 0x3c: case 0x3d: case 0x3e: case 0x3f:
        frame[++sp] = literals[1 + (opcode & 31)];
        continue;
      case 0x40: case 0x41: case 0x42: case 0x43: case 0x44: case 0x45: case 0x46: case 0x47:
      case 0x48: case 0x49: case 0x4a: case 0x4b:
        frame[++sp] = home[firstTemp + (opcode & 15)];
        continue;
      case 0x4c:
        frame[++sp] = receiver;
        continue;
      case 0x4d:
        frame[++sp] = yes;
        continue;
      case 0x4e:
        frame[++sp] = no;
        continue;
      case 0x4f:
        frame[++sp] = nil;
        continue;
      case 0x50: case 0x51:
        frame[++sp] = opcode - 0x50;
        continue;
      case 0x52:
        vm.pc = pc;
        vm.sp = sp;
        frame[++sp] = extB === 1 ? vm.scheduler.activeProcess : vm.exposeContext();
        extB = 0;
        continue;
      case 0x53:
        sp++;
        frame[sp] = frame[sp - 1];
        continue;
      case 0x58: case 0x59: case 0x5a: case 0x5b: case 0x5c:
        vm.pc = pc;
        vm.sp = sp;
        vm.returnFromMethod(opcode === 0x5c ? frame[vm.sp--] : opcode === 0x58 ? receiver : opcode === 0x59 ? yes : opcode === 0x5a ? no : nil);
        break;
      case 0x5d:
        vm.pc = pc;
        vm.sp = sp;
        vm.returnToSender(nil);
        break;
      case 0x5e:
        if (extA !== 0) throw vm.illegalBytecode(opcode, pc);
        vm.pc = pc;
        vm.sp = sp - 1;
        vm.returnToSender(frame[sp]);
        break;
      case 0x5f:
        continue;
      case 0x60: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          const sum = a + b;
          if (sum <= maxSmallInteger && sum >= minSmallInteger) {
            frame[--sp] = sum;
            continue;
          }
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(0);
        break;
      }
      case 0x61: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          const difference = a - b;
          if (difference <= maxSmallInteger && difference >= minSmallInteger) {
            frame[--sp] = difference;
            continue;
          }
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(1);
        break;
      }
      case 0x62: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          frame[--sp] = a < b ? yes : no;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(2);
        break;
      }
      case 0x63: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          frame[--sp] = a > b ? yes : no;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(3);
        break;
      }
      case 0x64: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          frame[--sp] = a <= b ? yes : no;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(4);
        break;
      }
      case 0x65: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          frame[--sp] = a >= b ? yes : no;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(5);
        break;
      }
      case 0x66: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          frame[--sp] = a === b ? yes : no;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(6);
        break;
      }
      case 0x67: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          frame[--sp] = a !== b ? yes : no;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(7);
        break;
      }
      case 0x68: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          const product = a * b; // exact within 53 bits, so the comparison is right; the rest is the primitive's
          if (product <= maxSmallInteger && product >= minSmallInteger) {
            frame[--sp] = product | 0; // not -0
            continue;
          }
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(8);
        break;
      }
      case 0x69: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number" && b !== 0 && a % b === 0) {
          const quotient = a / b;
          if (quotient <= maxSmallInteger) {
            frame[--sp] = quotient | 0;
            continue;
          }
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendArithmetic(9);
        break;
      }
      case 0x6a: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number" && b !== 0) {
          const remainder = a % b;
          frame[--sp] = (remainder !== 0 && remainder < 0 !== b < 0 ? remainder + b : remainder) | 0;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(10);
        break;
      }
      case 0x6b: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          frame[--sp] = vm.memory.point(a, b);
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(11);
        break;
      }
      case 0x6c: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          const shifted = shift(a, b);
          if (shifted === shifted) {
            frame[--sp] = shifted;
            continue;
          }
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(12);
        break;
      }
      case 0x6d: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number" && b !== 0) {
          const quotient = Math.floor(a / b);
          if (quotient <= maxSmallInteger) {
            frame[--sp] = quotient | 0;
            continue;
          }
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(13);
        break;
      }
      case 0x6e: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          frame[--sp] = a & b;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(14);
        break;
      }
      case 0x6f: {
        const a = frame[sp - 1];
        const b = frame[sp];
        if (typeof a === "number" && typeof b === "number") {
          frame[--sp] = a | b;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(15);
        break;
      }
      case 0x76:
        sp--;
        frame[sp] = frame[sp] === frame[sp + 1] ? yes : no;
        continue;
      case 0x77: {
        const object: Oop = frame[sp];
        frame[sp] = typeof object === "number" ? vm.classSmallInteger : object.sqClass;
        continue;
      }
      case 0x78:
        sp--;
        frame[sp] = frame[sp] === frame[sp + 1] ? no : yes;
        continue;
      case 0x79: {
        const closure = frame[sp] as SqueakObject;
        if (closure.sqClass === blockClosureClass) {
          vm.pc = pc;
          vm.sp = sp;
          if (vm.activateClosure(closure, 0)) break;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(25);
        break;
      }
      case 0x7a: {
        const closure = frame[sp - 1] as SqueakObject;
        if (closure.sqClass === blockClosureClass) {
          vm.pc = pc;
          vm.sp = sp;
          if (vm.activateClosure(closure, 1)) break;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(26);
        break;
      }
      case 0x70: {
        const index = frame[sp];
        const array = frame[sp - 1];
        if (typeof index === "number" && typeof array !== "number" && array.sqClass === arrayClass && cache.plainArrayAccess) {
          const slots = array.pointers;
          if (index >= 1 && index <= slots.length) {
            frame[--sp] = slots[index - 1];
            continue;
          }
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(16);
        break;
      }
      case 0x71: {
        const index = frame[sp - 1];
        const array = frame[sp - 2];
        if (typeof index === "number" && typeof array !== "number" && array.sqClass === arrayClass && cache.plainArrayAccess) {
          const slots = array.pointers;
          if (index >= 1 && index <= slots.length) {
            sp -= 2;
            frame[sp] = slots[index - 1] = frame[sp + 2];
            continue;
          }
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(17);
        break;
      }
      case 0x72: case 0x73: case 0x74: case 0x75:
      case 0x7b: case 0x7c: case 0x7d: case 0x7e: case 0x7f:
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(opcode - 0x60);
        break;
      case 0x80: case 0x81: case 0x82: case 0x83: case 0x84: case 0x85: case 0x86: case 0x87:
      case 0x88: case 0x89: case 0x8a: case 0x8b: case 0x8c: case 0x8d: case 0x8e: case 0x8f:
        vm.pc = pc;
        vm.sp = sp;
        vm.send(literals[1 + (opcode & 15)] as SqueakObject, 0);
        break;
      case 0x90: case 0x91: case 0x92: case 0x93: case 0x94: case 0x95: case 0x96: case 0x97:
      case 0x98: case 0x99: case 0x9a: case 0x9b: case 0x9c: case 0x9d: case 0x9e: case 0x9f:
        vm.pc = pc;
        vm.sp = sp;
        vm.send(literals[1 + (opcode & 15)] as SqueakObject, 1);
        break;
      case 0xa0: case 0xa1: case 0xa2: case 0xa3: case 0xa4: case 0xa5: case 0xa6: case 0xa7:
      case 0xa8: case 0xa9: case 0xaa: case 0xab: case 0xac: case 0xad: case 0xae: case 0xaf:
        vm.pc = pc;
        vm.sp = sp;
        vm.send(literals[1 + (opcode & 15)] as SqueakObject, 2);
        break;
      case 0xb0: case 0xb1: case 0xb2: case 0xb3: case 0xb4: case 0xb5: case 0xb6: case 0xb7:
        pc += (opcode & 7) + 1;
        continue;
      case 0xb8: case 0xb9: case 0xba: case 0xbb: case 0xbc: case 0xbd: case 0xbe: case 0xbf:
      case 0xee: {
        const by = opcode < 0xc0 ? (opcode & 7) + 1 : extB * 256 + code[pc++];
        extB = 0;
        const condition = frame[sp];
        if (condition === yes) {
          sp--;
          pc += by;
          continue;
        }
        if (condition === no) {
          sp--;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendMustBeBoolean();
        break;
      }
      case 0xc0: case 0xc1: case 0xc2: case 0xc3: case 0xc4: case 0xc5: case 0xc6: case 0xc7:
      case 0xef: {
        const by = opcode < 0xc8 ? (opcode & 7) + 1 : extB * 256 + code[pc++];
        extB = 0;
        const condition = frame[sp];
        if (condition === no) {
          sp--;
          pc += by;
          continue;
        }
        if (condition === yes) {
          sp--;
          continue;
        }
        vm.pc = pc;
        vm.sp = sp;
        vm.sendMustBeBoolean();
        break;
      }
      case 0xc8: case 0xc9: case 0xca: case 0xcb: case 0xcc: case 0xcd: case 0xce: case 0xcf:
        (receiver as SqueakObject).pointers[opcode & 7] = frame[sp--];
        continue;
      case 0xd0: case 0xd1: case 0xd2: case 0xd3: case 0xd4: case 0xd5: case 0xd6: case 0xd7:
        home[firstTemp + (opcode & 7)] = frame[sp--];
        continue;
      case 0xd8:
        sp--;
        continue;
      case 0xe0:
        extA = extA * 256 + code[pc++];
        continue;
      case 0xe1:
        // the first prefix is signed; those that follow lengthen the number
        extB = (code[pc++] << 24) >> 24;
        for (; code[pc] === 0xe1; pc += 2) extB = extB * 256 + code[pc + 1];
        continue;
      case 0xe2:
        frame[++sp] = (receiver as SqueakObject).pointers[extA * 256 + code[pc++]];
        extA = 0;
        continue;
      case 0xe3:
        frame[++sp] = (literals[1 + extA * 256 + code[pc++]] as SqueakObject).pointers[1];
        extA = 0;
        continue;
      case 0xe4:
        frame[++sp] = literals[1 + extA * 256 + code[pc++]];
        extA = 0;
        continue;
      case 0xe5:
        frame[++sp] = home[firstTemp + code[pc++]];
        continue;
      case 0xe7: {
        const operand = code[pc++];
        const size = operand & 127;
        const array = vm.memory.array(vm.memory.nilSlots(size));
        if (operand > 127) {
          for (let i = 0; i < size; i++) array.pointers[i] = frame[sp - size + 1 + i];
          sp -= size;
        }
        frame[++sp] = array;
        continue;
      }
      case 0xe8:
        frame[++sp] = extB * 256 + code[pc++];
        extB = 0;
        continue;
      case 0xe9:
        frame[++sp] = vm.memory.character(extB * 256 + code[pc++]);
        extB = 0;
        continue;
      case 0xea: {
        const operand = code[pc++];
        const selector = literals[1 + (operand >> 3) + extA * 32] as SqueakObject;
        vm.pc = pc;
        vm.sp = sp;
        vm.send(selector, (operand & 7) + extB * 8);
        break;
      }
      case 0xeb: {
        const operand = code[pc++];
        const selector = literals[1 + (operand >> 3) + extA * 32] as SqueakObject;
        vm.pc = pc;
        vm.sp = sp;
        if (extB >= 64) vm.sendDirectedSuper(selector, (operand & 7) + (extB - 64) * 8);
        else vm.sendSuper(selector, (operand & 7) + extB * 8);
        break;
      }
      case 0xed: {
        const by = extB * 256 + code[pc++];
        extB = 0;
        pc += by;
        if (by < 0 && --vm.sendsLeft <= 0) {
          vm.pc = pc;
          vm.sp = sp;
          vm.checkForInterrupts();
          break;
        }
        continue;
      }
      case 0xf0:
        (receiver as SqueakObject).pointers[extA * 256 + code[pc++]] = frame[sp--];
        extA = 0;
        continue;
      case 0xf1:
        (literals[1 + extA * 256 + code[pc++]] as SqueakObject).pointers[1] = frame[sp--];
        extA = 0;
        continue;
      case 0xf2:
        home[firstTemp + code[pc++]] = frame[sp--];
        continue;
      case 0xf3:
        (receiver as SqueakObject).pointers[extA * 256 + code[pc++]] = frame[sp];
        extA = 0;
        continue;
      case 0xf4:
        (literals[1 + extA * 256 + code[pc++]] as SqueakObject).pointers[1] = frame[sp];
        extA = 0;
        continue;
      case 0xf5:
        home[firstTemp + code[pc++]] = frame[sp];
        continue;
      case 0xf8:
        if (code[pc + 1] >= 128) throw vm.illegalBytecode(opcode, pc);
        pc += 2; // the primitive ran, and failed, before the method was entered
        continue;
      case 0xf9: {
        const block = literals[1 + extA * 256 + code[pc]] as SqueakObject;
        const operand = code[pc + 1];
        extA = 0;
        pc += 2;
        vm.pc = pc;
        vm.sp = sp;
        const closure = vm.makeFullClosure(block, operand & 63, (operand & 64) !== 0, (operand & 128) !== 0);
        sp = vm.sp;
        frame[++sp] = closure;
        continue;
      }
      case 0xfa: {
        const operand = code[pc];
        const size = extB * 256 + code[pc + 1];
        const argCount = (operand & 7) + (extA & 15) * 8;
        const copied = ((operand >> 3) & 7) + (extA >> 4) * 8;
        extA = 0;
        extB = 0;
        pc += 2;
        vm.pc = pc;
        vm.sp = sp;
        const closure = vm.makeClosure(argCount, copied, pc);
        sp = vm.sp;
        frame[++sp] = closure;
        pc += size;
        continue;
      }
      case 0xfb: case 0xfc: case 0xfd: {
        const index = code[pc];
        const operand = code[pc + 1];
        pc += 2;
        // the top bit: not a temporary's array but the receiver itself
        const holder = (operand & 128) !== 0 ? (receiver as SqueakObject) : (home[firstTemp + operand] as SqueakObject);
        if (opcode === 0xfb) frame[++sp] = holder.pointers[index];
        else holder.pointers[index] = frame[sp];
        if (opcode === 0xfd) sp--;
        continue;
      }
      default:
        throw vm.illegalBytecode(opcode, pc);
    }
    // The registers may be another context's now.
    if (vm.pause !== pause.none) return;
    literals = vm.method.pointers;
    if ((literals[0] as number) >= 0) return; // a V3 method
    frame = vm.frame;
    home = vm.home;
    receiver = vm.receiver;
    code = vm.method.bytes;
    pc = vm.pc;
    sp = vm.sp;
    extA = 0;
    extB = 0;
  }
}
