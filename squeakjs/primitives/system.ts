/** The machine itself: clocks, quitting, snapshots, attributes and parameters, the list of modules. */
import { clockMilliseconds, localMicroseconds, secondsSince1901, utcMicroseconds } from "../clock.ts";
import type { Interpreter } from "../interpreter.ts";
import type { SqueakObject } from "../object.ts";
import type { Primitive, PrimitiveRow } from "../primitive_table.ts";
import { specialObjects } from "../special_objects.ts";

export const machineVersion = "NeuroScope squeakjs 1.0";

function clock(read: (now: number) => number): Primitive {
  return (vm, argCount) => vm.answer(argCount, vm.memory.integer(read(vm.now())));
}

/** Stores the argument, when it is a semaphore or nil, into a special object. */
function setSpecial(index: number): Primitive {
  return (vm) => {
    const semaphore = vm.stackValue(0);
    vm.memory.specials[index] = vm.scheduler.isSemaphore(semaphore) ? semaphore : vm.nil;
    vm.sp--;
    return true;
  };
}

/** The image continues as if the snapshot answered true when it is opened again; here it answers false. */
function snapshot(vm: Interpreter, argCount: number): boolean {
  return vm.snapshotPrimitive(argCount);
}

function imageName(vm: Interpreter, argCount: number): boolean {
  if (argCount === 0) return vm.answer(0, vm.memory.string(vm.memory.image.name));
  const name = vm.stackValue(0);
  if (typeof name === "number" || name.bytes === null) return false;
  vm.imageName = name.bytesAsString();
  return vm.answer(1, name);
}

const attributes: Readonly<Record<number, string>> = {
  [-1]: "-vm-display-null",
  0: "squeakjs",
  1001: "Web",
  1002: "1",
  1003: "js",
  1004: machineVersion,
  1005: "squeakjs",
  1006: machineVersion,
  1007: machineVersion,
  1009: machineVersion,
};

function attribute(vm: Interpreter): boolean {
  const index = vm.stackValue(0);
  if (typeof index !== "number") return false;
  const text = index === 1 ? vm.imageName : attributes[index];
  return text === undefined ? false : vm.answer(1, vm.memory.string(text));
}

/** Parameters that images ask for; all others are 0 or nil, and setting has no effect. */
function parameters(vm: Interpreter, argCount: number): boolean {
  const known = (index: number): number | SqueakObject => {
    switch (index) {
      case 40: return 4; // bytes in a word
      case 41: return vm.memory.image.version;
      case 44: return 0;
      default: return index <= 71 ? 0 : vm.nil;
    }
  };
  if (argCount === 0) return vm.answer(0, vm.memory.array(Array.from({ length: 71 }, (_, i) => known(i + 1))));
  const index = vm.stackValue(argCount - 1);
  if (typeof index !== "number" || index < 1 || index > 71) return false;
  return vm.answer(argCount, known(index));
}

function moduleName(vm: Interpreter): boolean {
  const index = vm.stackValue(0);
  if (typeof index !== "number") return false;
  const name = vm.moduleNames()[index - 1];
  return vm.answer(1, name === undefined ? vm.nil : vm.memory.string(name));
}

function unloadModule(vm: Interpreter): boolean {
  const name = vm.stackValue(0);
  if (typeof name === "number" || name.bytes === null || !vm.unloadModule(name.bytesAsString())) return false;
  vm.sp--;
  return true;
}

/** A hash in 28 bits that multiplies by a fixed odd number, as Squeak's hashMultiply. */
function hashMultiply(vm: Interpreter): boolean {
  const receiver = vm.stackValue(0);
  const value = typeof receiver === "number" ? receiver : vm.memory.safeIntegerValue(receiver);
  if (Number.isNaN(value) || (typeof receiver !== "number" && receiver.sqClass !== vm.memory.largeIntegerClass(false))) return false;
  return vm.answer(0, Math.imul(value | 0, 1664525) & 0xfffffff);
}

function highBit(vm: Interpreter): boolean {
  const value = vm.stackValue(0);
  if (typeof value !== "number" || value < 0) return false;
  return vm.answer(0, 32 - Math.clz32(value));
}

export const systemPrimitives: readonly PrimitiveRow[] = [
  [97, "primitiveSnapshot", snapshot],
  [113, "primitiveQuit", (vm) => vm.quit()],
  [114, "primitiveExitToDebugger", (vm) => vm.quit()],
  [121, "primitiveImageName", imageName],
  [124, "primitiveLowSpaceSemaphore", setSpecial(specialObjects.lowSpaceSemaphore)],
  [125, "primitiveSignalAtBytesLeft", (vm) => { vm.sp--; return true; }],
  [133, "primitiveSetInterruptKey", (vm) => { vm.sp--; return true; }],
  [134, "primitiveInterruptSemaphore", setSpecial(specialObjects.interruptSemaphore)],
  [135, "primitiveMillisecondClock", clock(clockMilliseconds)],
  [137, "primitiveSecondsClock", clock(secondsSince1901)],
  [142, "primitiveVMPath", (vm) => vm.answer(0, vm.memory.string(""))],
  [149, "primitiveGetAttribute", attribute],
  [158, "primitiveCompareWith", null],
  [159, "primitiveHashMultiply", hashMultiply],
  [163, "primitiveIsReadOnly", (vm) => vm.answer(0, vm.false)],
  [164, "primitiveSetIsReadOnly", (vm) => vm.answer(1, vm.false)],
  [231, "primitiveForceDisplayUpdate", (vm, argCount) => vm.answer(argCount, vm.stackValue(argCount))],
  [240, "primitiveUTCMicrosecondClock", clock(utcMicroseconds)],
  [241, "primitiveLocalMicrosecondClock", clock(localMicroseconds)],
  [254, "primitiveVMParameter", parameters],
  [571, "primitiveUnloadModule", unloadModule],
  [572, "primitiveListBuiltinModule", moduleName],
  [573, "primitiveListExternalModule", moduleName],
  [575, "primitiveHighBit", highBit],
];
