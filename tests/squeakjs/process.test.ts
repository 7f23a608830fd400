/** Processes, semaphores, timers and the slices of `step`, with a clock that the test turns. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Oop, specialObjects, SqueakObject, VirtualMachine } from "../../squeakjs/index.ts";
import { type Code, TinyImage } from "./tiny_image.ts";

function image(): TinyImage {
  const tiny = new TinyImage();
  tiny.method("Semaphore", "signal", { bytes: [0x78], primitive: 85 });
  tiny.method("Semaphore", "wait", { bytes: [0x78], primitive: 86 });
  tiny.method("Process", "resume", { bytes: [0x78], primitive: 87 });
  tiny.method("Process", "suspend", { bytes: [0x78], primitive: 88 });
  tiny.method("Object", "signal:atMilliseconds:", { bytes: [0x78], args: 2, primitive: 136 });
  return tiny;
}

function semaphore(tiny: TinyImage, signals = 0): SqueakObject {
  return tiny.object("Semaphore", [tiny.nil, tiny.nil, signals]);
}

/** `step`s: each is [receiver literal, selector] sent in order; then the idle loop. Literals are numbered from 2. */
function sends(tiny: TinyImage, ...steps: [receiver: SqueakObject | number, selector: string][]): Code {
  const literals = steps.flatMap(([receiver, selector]) => [receiver, `#${selector}`]);
  const bytes = steps.flatMap(([receiver], i) =>
    typeof receiver === "number"
      ? [0x70, 0x22 + 2 * i, 0xe0, 0x87] // self report: n
      : [0x22 + 2 * i, 0xd3 + 2 * i, 0x87],
  );
  // [ self idle ] repeat
  const idle = [0x70, 0xd0 + 2 + literals.length, 0x87, 0xa3, 0xfb, 0x78];
  return { bytes: [...bytes, ...idle], literals: ["#report:", "#quit", ...literals, "#idle"], large: true };
}

/** Runs processes, the first of which is active, until the machine is idle; answers what was reported. */
function run(tiny: TinyImage, processes: [priority: number, code: Code][], ready: number[] = []): { reported: Oop[]; vm: VirtualMachine; made: SqueakObject[] } {
  const reported: Oop[] = [];
  const made = processes.map(([priority, code]) => tiny.process(priority, code));
  const vm = new VirtualMachine(tiny.image(made[0]));
  for (const i of ready) {
    const queue = (tiny.scheduler.pointers[0] as SqueakObject).pointers[processes[i][0] - 1] as SqueakObject;
    const last = queue.pointers[1] as SqueakObject;
    if (last.isNil) queue.pointers[0] = made[i];
    else last.pointers[0] = made[i];
    queue.pointers[1] = made[i];
    made[i].pointers[3] = queue;
  }
  vm.registerExternalModule("Test", {
    report: (argCount: number) => {
      reported.push(vm.stackValue(0));
      vm.proxy.pop(argCount);
      return true;
    },
  } as object);
  return { reported, vm, made };
}

test("a signal runs the waiting process of a higher priority at once", () => {
  const tiny = image();
  const gate = semaphore(tiny);
  const { vm, reported } = run(tiny, [
    [60, sends(tiny, [gate, "wait"], [2, "-"])],
    [40, sends(tiny, [1, "-"], [gate, "signal"], [3, "-"])],
  ], [1]);
  assert.equal(vm.step(100).kind, "idle");
  assert.deepEqual(reported, [1, 2]);
});

test("a signal to a process of the same priority does not run it before the signaller waits", () => {
  const tiny = image();
  const [gate, other] = [semaphore(tiny), semaphore(tiny)];
  const { vm, reported } = run(tiny, [
    [40, sends(tiny, [gate, "wait"], [3, "-"])],
    [40, sends(tiny, [1, "-"], [gate, "signal"], [2, "-"], [other, "wait"])],
    [10, sends(tiny)],
  ], [1, 2]);
  vm.step(100);
  assert.deepEqual(reported, [1, 2, 3]);
});

test("a preempted process goes to the back of its queue", () => {
  const tiny = image();
  const gate = semaphore(tiny);
  const { vm, reported } = run(tiny, [
    [60, sends(tiny, [gate, "wait"], [semaphore(tiny), "wait"])],
    [40, sends(tiny, [1, "-"], [gate, "signal"], [3, "-"], [semaphore(tiny), "wait"])],
    [40, sends(tiny, [2, "-"], [semaphore(tiny), "wait"])],
    [10, sends(tiny)],
  ], [1, 2, 3]);
  vm.step(100);
  assert.deepEqual(reported, [1, 2, 3]);
});

test("excess signals are counted", () => {
  const tiny = image();
  const gate = semaphore(tiny);
  const { vm, reported } = run(tiny, [[40, sends(tiny, [gate, "signal"], [gate, "signal"], [gate, "wait"], [gate, "wait"], [1, "-"])]]);
  vm.step(100);
  assert.deepEqual(reported, [1]);
  assert.equal(gate.pointers[2], 0);
});

test("a suspended process leaves its list, and resumes behind it", () => {
  const tiny = image();
  const gate = semaphore(tiny);
  const waiter = tiny.process(60, sends(tiny, [gate, "wait"], [5, "-"]));
  const { vm, reported } = run(tiny, [
    [40, sends(tiny, [waiter, "resume"], [1, "-"], [waiter, "suspend"], [gate, "signal"], [2, "-"], [waiter, "resume"], [3, "-"])],
  ]);
  vm.step(100);
  // the signal found nobody and was kept; resumed, the waiter goes on behind its wait
  assert.deepEqual(reported.slice(0, 3), [1, 2, 5]);
});

test("without an idle process the machine is idle when every process waits, and a signal wakes it", () => {
  const tiny = image();
  const gate = semaphore(tiny);
  (tiny.specials.pointers[specialObjects.externalObjects] as SqueakObject).pointers[2] = gate;
  const { vm, reported } = run(tiny, [[40, sends(tiny, [gate, "wait"], [1, "-"])]]);
  assert.deepEqual(vm.step(100), { kind: "idle", wakeAfter: Infinity });
  let woken = 0;
  vm.onWake = () => woken++;
  vm.signalSemaphoreWithIndex(3);
  vm.signalSemaphoreWithIndex(8); // nil is there: ignored
  assert.equal(woken, 1, "onWake is called when the machine becomes runnable, not for each signal");
  vm.step(100);
  assert.deepEqual(reported, [1]);
});

test("a timer wakes its semaphore, and idle tells when", () => {
  const tiny = image();
  const gate = semaphore(tiny);
  let now = 5_000_000;
  const reported: Oop[] = [];
  const literals = ["#report:", "#quit", gate, "#signal:atMilliseconds:", 5_000_250, "#wait", 7];
  // self signal: gate atMilliseconds: 5000250. gate wait. self report: 7. self quit
  const code: Code = { literals, bytes: [0x70, 0x22, 0x24, 0xf3, 0x87, 0x22, 0xd5, 0x87, 0x70, 0x26, 0xe0, 0x87, 0x70, 0xd1, 0x78] };
  const vm = new VirtualMachine(tiny.image(tiny.process(40, code)), { now: () => now });
  vm.registerExternalModule("Test", { report: () => { reported.push(vm.stackValue(0)); vm.proxy.pop(1); return true; } } as object);
  assert.deepEqual(vm.step(10), { kind: "idle", wakeAfter: 250 });
  now += 100;
  assert.deepEqual(vm.step(10), { kind: "idle", wakeAfter: 150 });
  now += 150;
  assert.deepEqual(vm.step(10), { kind: "quit" });
  assert.deepEqual(reported, [7]);
  assert.deepEqual(vm.step(10), { kind: "quit" });
});

test("a slice ends on time while the image computes", () => {
  const tiny = image();
  // [ true ] whileTrue
  const { vm } = tiny.start({ bytes: [0xa3, 0xfe, 0x78] });
  for (const slice of [1, 8, 20]) {
    vm.step(slice);
    const least = Math.min(...Array.from({ length: 20 }, () => {
      const start = performance.now();
      const before = process.threadCpuUsage();
      assert.equal(vm.step(slice).kind, "busy");
      const { user, system } = process.threadCpuUsage(before);
      assert.ok(performance.now() - start >= slice, `a slice of ${slice} ms took ${performance.now() - start}`);
      return (user + system) / 1000;
    }));
    // The processor's time, and the shortest of twenty: the machine may be busy with something else, too.
    assert.ok(least < slice + 1, `a slice of ${slice} ms computed for ${least}`);
  }
});

test("a slice ends on time also when each send takes long", () => {
  const tiny = image();
  tiny.method("Object", "slow", { bytes: [0x78], literals: [tiny.array([tiny.string("Slow"), tiny.string("primitiveSlow"), 0, 0])], primitive: 117 });
  let now = 5_000_000;
  // [ self slow. true ] whileTrue
  const { vm } = tiny.start({ bytes: [0x70, 0xd0, 0x87, 0xa3, 0xfb, 0x78], literals: ["#slow"] }, { now: () => now });
  vm.registerExternalModule("Slow", { primitiveSlow: () => { now += 0.2; return true; } } as object);
  vm.step(100); // the machine learns how long a send takes here
  const start = now;
  vm.step(8);
  assert.ok(now - start >= 8 && now - start < 8 + 5, `8 ms took ${now - start}`);
});

test("a mutex is entered again by its owner, and free after one exit", () => {
  const tiny = image();
  tiny.method("Semaphore", "enter", { bytes: [0x78], primitive: 186 });
  tiny.method("Semaphore", "exit", { bytes: [0x78], primitive: 185 });
  const mutex = tiny.object("Semaphore", [tiny.nil, tiny.nil, tiny.nil]);
  const gate = semaphore(tiny);
  const { vm, reported } = run(tiny, [
    [40, sends(tiny, [mutex, "enter"], [mutex, "enter"], [1, "-"], [gate, "wait"], [mutex, "exit"], [3, "-"])],
    [30, sends(tiny, [2, "-"], [gate, "signal"], [4, "-"])],
  ], [1]);
  vm.step(100);
  assert.deepEqual(reported.slice(0, 3), [1, 2, 3]);
  assert.equal(mutex.pointers[2], tiny.nil, "nobody owns it after one exit, as on Squeak's machines");
});
