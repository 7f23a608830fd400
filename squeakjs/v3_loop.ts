/**
 * The loop that runs methods in Squeak's V3 bytecodes with closures.
 * Registers live in JavaScript locals; what calls the interpreter stores pc and stack pointer first, then breaks
 * out of the switch to load the registers of whichever context is active. One loop, not a loop for each activation:
 * V8 replaces a nested one while it runs, only to fall out of it at the next send.
 */
import { Interpreter } from "./interpreter.ts";
import { maxSmallInteger, minSmallInteger, type Oop, type SqueakObject } from "./object.ts";
import { pause } from "./scheduler.ts";
import { specialObjects } from "./special_objects.ts";

const firstTemp = 6;
const shift = Interpreter.shift;

export function interpretV3(vm: Interpreter): void {
  const yes = vm.true;
  const no = vm.false;
  const nil = vm.nil;
  const cache = vm.cache;
  const arrayClass = vm.memory.classArray;
  const blockClosureClass = vm.memory.special(specialObjects.classBlockClosure);
  let literals = vm.method.pointers;
  if ((literals[0] as number) < 0) return; // a Sista method
  let frame = vm.frame;
  let home = vm.home;
  let receiver = vm.receiver;
  let code = vm.method.bytes;
  let pc = vm.pc;
  let sp = vm.sp;
  for (;;) {
    const opcode = code[pc++];
    switch (opcode) {
      case 0x00: case 0x01: case 0x02: case 0x03: case 0x04: case 0x05: case 0x06: case 0x07:
      case 0x08: case 0x09: case 0x0a: case 0x0b: case 0x0c: case 0x0d: case 0x0e: case 0x0f:
        frame[++sp] = (receiver as SqueakObject).pointers[opcode];
        continue;
      case 0x10: case 0x11: case 0x12: case 0x13: case 0x14: case 0x15: case 0x16: case 0x17:
      case 0x18: case 0x19: case 0x1a: case 0x1b: case 0x1c: case 0x1d: case 0x1e: case 0x1f:
        frame[++sp] = home[firstTemp + (opcode & 15)];
        continue;
      case 0x20: case 0x21: case 0x22: case 0x23: case 0x24: case 0x25: case 0x26: case 0x27:
      case 0x28: case 0x29: case 0x2a: case 0x2b: case 0x2c: case 0x2d: case 0x2e: case 0x2f:
      case 0x30: case 0x31: case 0x32: case 0x33: case 0x34: case 0x35: case 0x36: case 0x37:
      case 0x38: case 0x39: case 0x3a: case 0x3b: case 0x3c: case 0x3d: case 0x3e: case 0x3f:
        frame[++sp] = literals[1 + (opcode & 31)];
        continue;
      case 0x40: case 0x41: case 0x42: case 0x43: case 0x44: case 0x45: case 0x46: case 0x47:
      case 0x48: case 0x49: case 0x4a: case 0x4b: case 0x4c: case 0x4d: case 0x4e: case 0x4f:
      case 0x50: case 0x51: case 0x52: case 0x53: case 0x54: case 0x55: case 0x56: case 0x57:
      case 0x58: case 0x59: case 0x5a: case 0x5b: case 0x5c: case 0x5d: case 0x5e: case 0x5f:
        frame[++sp] = (literals[1 + (opcode & 31)] as SqueakObject).pointers[1];
        continue;
      case 0x60: case 0x61: case 0x62: case 0x63: case 0x64: case 0x65: case 0x66: case 0x67:
        (receiver as SqueakObject).pointers[opcode & 7] = frame[sp--];
        continue;
      case 0x68: case 0x69: case 0x6a: case 0x6b: case 0x6c: case 0x6d: case 0x6e: case 0x6f:
        home[firstTemp + (opcode & 7)] = frame[sp--];
        continue;
      case 0x70:
        frame[++sp] = receiver;
        continue;
      case 0x71:
        frame[++sp] = yes;
        continue;
      case 0x72:
        frame[++sp] = no;
        continue;
      case 0x73:
        frame[++sp] = nil;
        continue;
      case 0x74: case 0x75: case 0x76: case 0x77:
        frame[++sp] = opcode - 0x75;
        continue;
      case 0x78: case 0x79: case 0x7a: case 0x7b: case 0x7c:
        vm.pc = pc;
        vm.sp = sp;
        vm.returnFromMethod(opcode === 0x7c ? frame[vm.sp--] : opcode === 0x78 ? receiver : opcode === 0x79 ? yes : opcode === 0x7a ? no : nil);
        break;
      case 0x7d:
        vm.pc = pc;
        vm.sp = sp - 1;
        vm.returnToSender(frame[sp]);
        break;
      case 0x80: {
        const operand = code[pc++];
        const index = operand & 63;
        switch (operand >> 6) {
          case 0: frame[++sp] = (receiver as SqueakObject).pointers[index]; continue;
          case 1: frame[++sp] = home[firstTemp + index]; continue;
          case 2: frame[++sp] = literals[1 + index]; continue;
          default: frame[++sp] = (literals[1 + index] as SqueakObject).pointers[1]; continue;
        }
      }
      case 0x81: case 0x82: {
        const operand = code[pc++];
        const index = operand & 63;
        const value = frame[sp];
        if (opcode === 0x82) sp--;
        switch (operand >> 6) {
          case 0: (receiver as SqueakObject).pointers[index] = value; continue;
          case 1: home[firstTemp + index] = value; continue;
          case 2: throw vm.illegalBytecode(opcode, pc);
          default: (literals[1 + index] as SqueakObject).pointers[1] = value; continue;
        }
      }
      case 0x83: {
        const operand = code[pc++];
        vm.pc = pc;
        vm.sp = sp;
        vm.send(literals[1 + (operand & 31)] as SqueakObject, operand >> 5);
        break;
      }
      case 0x84: {
        const operand = code[pc++];
        const index = code[pc++];
        switch (operand >> 5) {
          case 0:
            vm.pc = pc;
            vm.sp = sp;
            vm.send(literals[1 + index] as SqueakObject, operand & 31);
            break;
          case 1:
            vm.pc = pc;
            vm.sp = sp;
            vm.sendSuper(literals[1 + index] as SqueakObject, operand & 31);
            break;
          case 2: frame[++sp] = (receiver as SqueakObject).pointers[index]; continue;
          case 3: frame[++sp] = literals[1 + index]; continue;
          case 4: frame[++sp] = (literals[1 + index] as SqueakObject).pointers[1]; continue;
          case 5: (receiver as SqueakObject).pointers[index] = frame[sp]; continue;
          case 6: (receiver as SqueakObject).pointers[index] = frame[sp--]; continue;
          default: (literals[1 + index] as SqueakObject).pointers[1] = frame[sp]; continue;
        }
        break;
      }
      case 0x85: {
        const operand = code[pc++];
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSuper(literals[1 + (operand & 31)] as SqueakObject, operand >> 5);
        break;
      }
      case 0x86: {
        const operand = code[pc++];
        vm.pc = pc;
        vm.sp = sp;
        vm.send(literals[1 + (operand & 63)] as SqueakObject, operand >> 6);
        break;
      }
      case 0x87:
        sp--;
        continue;
      case 0x88:
        sp++;
        frame[sp] = frame[sp - 1];
        continue;
      case 0x89:
        vm.pc = pc;
        vm.sp = sp;
        frame[++sp] = vm.exposeContext();
        continue;
      case 0x8a: {
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
      case 0x8b:
        pc += 2; // the primitive ran, and failed, before the method was entered
        continue;
      case 0x8c: {
        const index = code[pc];
        frame[++sp] = (home[firstTemp + code[pc + 1]] as SqueakObject).pointers[index];
        pc += 2;
        continue;
      }
      case 0x8d: {
        const index = code[pc];
        (home[firstTemp + code[pc + 1]] as SqueakObject).pointers[index] = frame[sp];
        pc += 2;
        continue;
      }
      case 0x8e: {
        const index = code[pc];
        (home[firstTemp + code[pc + 1]] as SqueakObject).pointers[index] = frame[sp--];
        pc += 2;
        continue;
      }
      case 0x8f: {
        const operand = code[pc];
        const size = code[pc + 1] * 256 + code[pc + 2];
        pc += 3;
        vm.pc = pc;
        vm.sp = sp;
        const closure = vm.makeClosure(operand & 15, operand >> 4, pc);
        sp = vm.sp;
        frame[++sp] = closure;
        pc += size;
        continue;
      }
      case 0x90: case 0x91: case 0x92: case 0x93: case 0x94: case 0x95: case 0x96: case 0x97:
        pc += (opcode & 7) + 1;
        continue;
      case 0x98: case 0x99: case 0x9a: case 0x9b: case 0x9c: case 0x9d: case 0x9e: case 0x9f:
      case 0xac: case 0xad: case 0xae: case 0xaf: {
        const by = opcode < 0xa0 ? (opcode & 7) + 1 : (opcode & 3) * 256 + code[pc++];
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
      case 0xa8: case 0xa9: case 0xaa: case 0xab: {
        const by = (opcode & 3) * 256 + code[pc++];
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
      case 0xa4: case 0xa5: case 0xa6: case 0xa7: {
        const low = code[pc++];
        pc += (opcode & 3) * 256 + low;
        continue;
      }
      case 0xa0: case 0xa1: case 0xa2: case 0xa3: {
        const low = code[pc++];
        pc += ((opcode & 3) - 4) * 256 + low;
        if (--vm.sendsLeft <= 0) {
          vm.pc = pc;
          vm.sp = sp;
          vm.checkForInterrupts();
          break;
        }
        continue;
      }
      case 0xb0: {
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
      case 0xb1: {
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
      case 0xb2: {
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
      case 0xb3: {
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
      case 0xb4: {
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
      case 0xb5: {
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
      case 0xb6: {
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
      case 0xb7: {
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
      case 0xb8: {
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
      case 0xb9: {
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
      case 0xba: {
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
      case 0xbb: {
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
      case 0xbc: {
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
      case 0xbd: {
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
      case 0xbe: {
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
      case 0xbf: {
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
      case 0xc6:
        sp--;
        frame[sp] = frame[sp] === frame[sp + 1] ? yes : no;
        continue;
      case 0xc7: {
        const object: Oop = frame[sp];
        frame[sp] = typeof object === "number" ? vm.classSmallInteger : object.sqClass;
        continue;
      }
      case 0xc8: {
        // blockCopy: makes the older BlockContext; its code follows the jump behind this bytecode
        vm.pc = pc;
        vm.sp = sp;
        if (!vm.blockCopy()) vm.sendSpecial(24);
        break;
      }
      case 0xc9: {
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
      case 0xca: {
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
      case 0xc0: {
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
      case 0xc1: {
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
      case 0xc2: case 0xc3: case 0xc4: case 0xc5:
      case 0xcb: case 0xcc: case 0xcd: case 0xce: case 0xcf:
        vm.pc = pc;
        vm.sp = sp;
        vm.sendSpecial(opcode - 0xb0);
        break;
      case 0xd0: case 0xd1: case 0xd2: case 0xd3: case 0xd4: case 0xd5: case 0xd6: case 0xd7:
      case 0xd8: case 0xd9: case 0xda: case 0xdb: case 0xdc: case 0xdd: case 0xde: case 0xdf:
        vm.pc = pc;
        vm.sp = sp;
        vm.send(literals[1 + (opcode & 15)] as SqueakObject, 0);
        break;
      case 0xe0: case 0xe1: case 0xe2: case 0xe3: case 0xe4: case 0xe5: case 0xe6: case 0xe7:
      case 0xe8: case 0xe9: case 0xea: case 0xeb: case 0xec: case 0xed: case 0xee: case 0xef:
        vm.pc = pc;
        vm.sp = sp;
        vm.send(literals[1 + (opcode & 15)] as SqueakObject, 1);
        break;
      case 0xf0: case 0xf1: case 0xf2: case 0xf3: case 0xf4: case 0xf5: case 0xf6: case 0xf7:
      case 0xf8: case 0xf9: case 0xfa: case 0xfb: case 0xfc: case 0xfd: case 0xfe: case 0xff:
        vm.pc = pc;
        vm.sp = sp;
        vm.send(literals[1 + (opcode & 15)] as SqueakObject, 2);
        break;
      default:
        throw vm.illegalBytecode(opcode, pc);
    }
    // The registers may be another context's now.
    if (vm.pause !== pause.none) return;
    literals = vm.method.pointers;
    if ((literals[0] as number) < 0) return; // a Sista method
    frame = vm.frame;
    home = vm.home;
    receiver = vm.receiver;
    code = vm.method.bytes;
    pc = vm.pc;
    sp = vm.sp;
  }
}
