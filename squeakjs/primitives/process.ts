/** Processes, semaphores, mutexes, timers and the idle process. The semantics are the scheduler's. */
import type { Interpreter } from "../interpreter.ts";
import { clockMilliseconds, millisecondsMask, wakeTimeOfMicroseconds } from "../clock.ts";
import { format, type Oop, type SqueakObject } from "../object.ts";
import type { PrimitiveRow } from "../primitive_table.ts";
import { linkedListSlots, mutexSlots, processSlots } from "../special_objects.ts";

function signal(vm: Interpreter): boolean {
  const semaphore = vm.stackValue(0);
  if (!vm.scheduler.isSemaphore(semaphore)) return false;
  vm.scheduler.signal(semaphore);
  return true;
}

function wait(vm: Interpreter): boolean {
  const semaphore = vm.stackValue(0);
  if (!vm.scheduler.isSemaphore(semaphore)) return false;
  vm.scheduler.wait(semaphore);
  return true;
}

function isProcess(oop: Oop): oop is SqueakObject {
  return typeof oop === "object" && oop.format === format.fixed && typeof oop.pointers[processSlots.priority] === "number";
}

/** A mutex is a list of waiting processes with an owner. */
function isMutex(vm: Interpreter, oop: Oop): oop is SqueakObject {
  if (typeof oop !== "object" || oop.format !== format.fixed || oop.pointers.length <= mutexSlots.owner) return false;
  const first = oop.pointers[linkedListSlots.firstLink];
  return first === vm.nil || (isProcess(first) && vm.scheduler.hasQueue(first));
}

/** A process can only run when it has a context to run. */
function resume(vm: Interpreter): boolean {
  const process = vm.stackValue(0);
  if (!isProcess(process) || process === vm.scheduler.activeProcess || !vm.scheduler.hasQueue(process)) return false;
  if (process.pointers[processSlots.suspendedContext] === vm.nil) return false;
  vm.scheduler.resume(process);
  return true;
}

/** Answers the list that the process waited in, nil when it was the active one. */
function suspend(vm: Interpreter): boolean {
  const process = vm.stackValue(0);
  if (!isProcess(process)) return false;
  if (process === vm.scheduler.activeProcess) {
    vm.answer(0, vm.nil);
    vm.scheduler.suspendActive();
    return true;
  }
  const list = vm.scheduler.suspend(process);
  return list === null ? false : vm.answer(0, list);
}

function signalAtMilliseconds(vm: Interpreter, argCount: number): boolean {
  const at = vm.stackValue(0);
  const semaphore = vm.stackValue(1);
  if (typeof at !== "number" || typeof semaphore === "number") return false;
  // the clock wraps after six days, so the time is the nearest one ahead with these low bits
  let delay = (at - clockMilliseconds(vm.now())) & millisecondsMask;
  if (delay > millisecondsMask / 2) delay = 0;
  vm.scheduler.setTimer(semaphore, vm.now() + delay);
  return vm.answer(argCount, vm.stackValue(argCount));
}

function signalAtMicroseconds(vm: Interpreter, argCount: number): boolean {
  const at = vm.memory.safeIntegerValue(vm.stackValue(0));
  const semaphore = vm.stackValue(1);
  if (Number.isNaN(at) || typeof semaphore === "number") return false;
  vm.scheduler.setTimer(semaphore, wakeTimeOfMicroseconds(at));
  return vm.answer(argCount, vm.stackValue(argCount));
}

/** Called by the idle process: gives the time back to the host, until something happens. */
function relinquish(vm: Interpreter, argCount: number): boolean {
  vm.answer(argCount, vm.stackValue(argCount));
  vm.relinquish();
  return true;
}

function enterCriticalSection(vm: Interpreter, argCount: number): boolean {
  const mutex = vm.stackValue(argCount);
  if (!isMutex(vm, mutex)) return false;
  const owned = vm.scheduler.enterMutex(mutex);
  vm.answer(argCount, owned === true ? vm.true : vm.false);
  if (owned === null) vm.scheduler.waitForMutex(mutex);
  return true;
}

function exitCriticalSection(vm: Interpreter): boolean {
  const mutex = vm.stackValue(0);
  if (!isMutex(vm, mutex)) return false;
  vm.scheduler.exitMutex(mutex);
  return true;
}

/** Enters if it is free (false) or owned already (true); answers nil, without waiting, if another process has it. */
function testAndSetOwnership(vm: Interpreter, argCount: number): boolean {
  const mutex = vm.stackValue(argCount);
  if (!isMutex(vm, mutex)) return false;
  const owned = vm.scheduler.enterMutex(mutex);
  return vm.answer(argCount, owned === null ? vm.nil : vm.memory.boolean(owned));
}

export const processPrimitives: readonly PrimitiveRow[] = [
  [85, "primitiveSignal", signal],
  [86, "primitiveWait", wait],
  [87, "primitiveResume", resume],
  [88, "primitiveSuspend", suspend],
  [136, "primitiveSignalAtMilliseconds", signalAtMilliseconds],
  [167, "primitiveYield", null], // as upstream: Smalltalk yields by a semaphore
  [185, "primitiveExitCriticalSection", exitCriticalSection],
  [186, "primitiveEnterCriticalSection", enterCriticalSection],
  [187, "primitiveTestAndSetOwnershipOfCriticalSection", testAndSetOwnership],
  [230, "primitiveRelinquishProcessor", relinquish],
  [242, "primitiveSignalAtUTCMicroseconds", signalAtMicroseconds],
  [578, "primitiveSuspendBackingUp", null],
];
