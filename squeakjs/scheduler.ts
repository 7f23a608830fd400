/**
 * Processes, semaphores and timers. A preempted process goes to the back of its queue, as in Squeak's classic machines.
 * Signals from outside and expired timers wait in lists here until the interpreter, between two sends, asks for them.
 */
import type { Interpreter } from "./interpreter.ts";
import { type Oop, SqueakObject } from "./object.ts";
import {
  associationSlots,
  linkedListSlots,
  mutexSlots,
  processSlots,
  schedulerSlots,
  semaphoreSlots,
  specialObjects,
} from "./special_objects.ts";

/** Why the bytecode loops hand control back. */
export const pause = { none: 0, slice: 1, idle: 2, quit: 3, /** A class was replaced that the loops keep in a local. */ restart: 4 } as const;
export type Pause = (typeof pause)[keyof typeof pause];

export class Scheduler {
  private readonly vm: Interpreter;
  private readonly nil: SqueakObject;
  private readonly externalSignals: number[] = [];
  private readonly pendingSemaphores: SqueakObject[] = [];
  /** When the timer semaphore is due, in the interpreter's clock; Infinity when it is not set. */
  wakeAt = Infinity;
  private finalizations = 0;
  /** True while every process waits and there is no idle process either. */
  stuck = false;

  constructor(vm: Interpreter) {
    this.vm = vm;
    this.nil = vm.nil;
  }

  private get processor(): SqueakObject {
    return this.vm.memory.special(specialObjects.processorAssociation).pointers[associationSlots.value] as SqueakObject;
  }

  get activeProcess(): SqueakObject {
    return this.processor.pointers[schedulerSlots.activeProcess] as SqueakObject;
  }

  get queues(): Oop[] {
    return (this.processor.pointers[schedulerSlots.lists] as SqueakObject).pointers;
  }

  firstContext(): SqueakObject {
    return this.activeProcess.pointers[processSlots.suspendedContext] as SqueakObject;
  }

  // Linked lists

  isEmpty(list: SqueakObject): boolean {
    return list.pointers[linkedListSlots.firstLink] === this.nil;
  }

  private addLast(process: SqueakObject, list: SqueakObject): void {
    const links = list.pointers;
    if (this.isEmpty(list)) links[linkedListSlots.firstLink] = process;
    else (links[linkedListSlots.lastLink] as SqueakObject).pointers[processSlots.nextLink] = process;
    links[linkedListSlots.lastLink] = process;
    process.pointers[processSlots.myList] = list;
  }

  private removeFirst(list: SqueakObject): SqueakObject {
    const links = list.pointers;
    const first = links[linkedListSlots.firstLink] as SqueakObject;
    if (first === links[linkedListSlots.lastLink]) {
      links[linkedListSlots.firstLink] = this.nil;
      links[linkedListSlots.lastLink] = this.nil;
    } else {
      links[linkedListSlots.firstLink] = first.pointers[processSlots.nextLink];
    }
    first.pointers[processSlots.nextLink] = this.nil;
    first.pointers[processSlots.myList] = this.nil;
    return first;
  }

  /** Takes a process out of a list; false when it is not in it. */
  private remove(process: SqueakObject, list: SqueakObject): boolean {
    const links = list.pointers;
    let previous: SqueakObject | null = null;
    let link: Oop | undefined = links?.[linkedListSlots.firstLink];
    while (link !== process) {
      if (link === this.nil || typeof link !== "object" || link.pointers === null) return false;
      previous = link;
      link = link.pointers[processSlots.nextLink];
    }
    const next = process.pointers[processSlots.nextLink];
    if (previous === null) links[linkedListSlots.firstLink] = next;
    else previous.pointers[processSlots.nextLink] = next;
    if (links[linkedListSlots.lastLink] === process) links[linkedListSlots.lastLink] = previous ?? this.nil;
    process.pointers[processSlots.nextLink] = this.nil;
    return true;
  }

  // Process switching

  private priorityOf(process: SqueakObject): number {
    return process.pointers[processSlots.priority] as number;
  }

  private queueOf(process: SqueakObject): SqueakObject {
    return this.queues[this.priorityOf(process) - 1] as SqueakObject;
  }

  /** Whether a process has a priority for which there is a queue. */
  hasQueue(process: SqueakObject): boolean {
    return typeof this.queueOf(process) === "object";
  }

  /** Makes a process ready, and runs it at once when its priority is higher. */
  resume(process: SqueakObject): void {
    if (this.stuck) {
      this.stuck = false;
      this.start(process);
      return;
    }
    const active = this.activeProcess;
    if (this.priorityOf(process) > this.priorityOf(active)) {
      this.addLast(active, this.queueOf(active));
      this.transferTo(process);
    } else {
      this.addLast(process, this.queueOf(process));
    }
  }

  private transferTo(process: SqueakObject): void {
    const context = this.vm.exposeContext();
    this.activeProcess.pointers[processSlots.suspendedContext] = context;
    this.start(process);
  }

  private start(process: SqueakObject): void {
    this.processor.pointers[schedulerSlots.activeProcess] = process;
    this.vm.recyclable = 0;
    this.vm.loadContext(process.pointers[processSlots.suspendedContext] as SqueakObject);
  }

  /** Leaves the active process, which has been put where it waits, for the readiest one. */
  private runReadiest(): void {
    const queues = this.queues;
    for (let priority = queues.length; priority >= 1; priority--) {
      const queue = queues[priority - 1] as SqueakObject;
      if (!this.isEmpty(queue)) {
        this.transferTo(this.removeFirst(queue));
        return;
      }
    }
    // Nothing can run: remember the context, and wait for a signal from outside.
    this.activeProcess.pointers[processSlots.suspendedContext] = this.vm.exposeContext();
    this.stuck = true;
    this.vm.pause = pause.idle;
  }

  // Semaphores

  isSemaphore(oop: Oop | undefined): oop is SqueakObject {
    return typeof oop === "object" && oop.sqClass === this.vm.memory.special(specialObjects.classSemaphore);
  }

  signal(semaphore: SqueakObject): void {
    if (this.isEmpty(semaphore)) {
      const excess = semaphore.pointers[semaphoreSlots.excessSignals];
      semaphore.pointers[semaphoreSlots.excessSignals] = (typeof excess === "number" ? excess : 0) + 1;
    } else {
      this.resume(this.removeFirst(semaphore));
    }
  }

  wait(semaphore: SqueakObject): void {
    const excess = semaphore.pointers[semaphoreSlots.excessSignals];
    if (typeof excess === "number" && excess > 0) {
      semaphore.pointers[semaphoreSlots.excessSignals] = excess - 1;
    } else {
      this.addLast(this.activeProcess, semaphore);
      this.runReadiest();
    }
  }

  /** Suspends the active process. */
  suspendActive(): void {
    this.activeProcess.pointers[processSlots.myList] = this.nil;
    this.runReadiest();
  }

  /** Suspends a process that is ready or waits; answers the list that it was in, null when it was in none. */
  suspend(process: SqueakObject): SqueakObject | null {
    const list = process.pointers[processSlots.myList];
    if (typeof list !== "object" || list === this.nil || !this.remove(process, list)) return null;
    process.pointers[processSlots.myList] = this.nil;
    return list;
  }

  // Mutexes, as Squeak's Mutex: a list of waiting processes and the owner

  /** Enters a critical section; the answer tells whether the active process owned it before. Null: it waits. */
  enterMutex(mutex: SqueakObject): boolean | null {
    const owner = mutex.pointers[mutexSlots.owner];
    if (owner === this.nil) {
      mutex.pointers[mutexSlots.owner] = this.activeProcess;
      return false;
    }
    if (owner === this.activeProcess) return true;
    return null;
  }

  waitForMutex(mutex: SqueakObject): void {
    this.addLast(this.activeProcess, mutex);
    this.runReadiest();
  }

  exitMutex(mutex: SqueakObject): void {
    if (this.isEmpty(mutex)) {
      mutex.pointers[mutexSlots.owner] = this.nil;
    } else {
      const next = this.removeFirst(mutex);
      mutex.pointers[mutexSlots.owner] = next;
      this.resume(next);
    }
  }

  // Signals from outside the active process

  /** Notes a signal for the semaphore at an index of the external objects; delivered at the next check. */
  signalExternal(index: number): void {
    this.externalSignals.push(index);
    this.vm.sendsLeft = 0;
  }

  signalLater(semaphore: SqueakObject): void {
    this.pendingSemaphores.push(semaphore);
    this.vm.sendsLeft = 0;
  }

  /** Notes that objects died that weak slots referred to. */
  noteFinalizations(count: number): void {
    if (count === 0) return;
    this.finalizations += count;
    this.vm.sendsLeft = 0;
  }

  get hasPending(): boolean {
    return this.externalSignals.length > 0 || this.pendingSemaphores.length > 0 || this.finalizations > 0;
  }

  setTimer(semaphore: SqueakObject, wakeAt: number): void {
    const set = this.isSemaphore(semaphore);
    this.vm.memory.specials[specialObjects.timerSemaphore] = set ? semaphore : this.nil;
    this.wakeAt = set ? wakeAt : Infinity;
  }

  /** Delivers what is due; the clock is read by the caller. */
  deliver(now: number): void {
    const specials = this.vm.memory.specials;
    if (now >= this.wakeAt) {
      this.wakeAt = Infinity;
      const timer = specials[specialObjects.timerSemaphore];
      if (this.isSemaphore(timer)) this.signal(timer);
    }
    if (this.finalizations > 0) {
      const semaphore = specials[specialObjects.finalizationSemaphore];
      if (this.isSemaphore(semaphore)) this.signal(semaphore);
      this.finalizations = 0;
    }
    for (const semaphore of this.pendingSemaphores.splice(0)) if (this.isSemaphore(semaphore)) this.signal(semaphore);
    if (this.externalSignals.length === 0) return;
    const table = (specials[specialObjects.externalObjects] as SqueakObject).pointers;
    for (const index of this.externalSignals.splice(0)) {
      const semaphore = table?.[index - 1];
      if (this.isSemaphore(semaphore)) this.signal(semaphore);
    }
  }

  /** All processes that the machine can find: the active one, the ready ones, and those at the given semaphores. */
  readyProcesses(): SqueakObject[] {
    const found: SqueakObject[] = [];
    for (const queue of this.queues) {
      let link = (queue as SqueakObject).pointers[linkedListSlots.firstLink];
      while (link !== this.nil) {
        found.push(link as SqueakObject);
        link = (link as SqueakObject).pointers[processSlots.nextLink];
      }
    }
    return found;
  }
}
