/**
 * The machine as its host sees it: made from an image, driven by `step`, woken by signals. It has no timer, no
 * thread and no event loop; a host calls `step` again after an answer of "busy" at once, after "idle" when the time
 * has come or `onWake` was called, after "quit" never.
 */
import { usesSista } from "./header.ts";
import { Interpreter, type InterpreterOptions } from "./interpreter.ts";
import type { Image } from "./memory.ts";
import { type ExternalModule, Modules } from "./modules.ts";
import type { SqueakObject } from "./object.ts";
import { consolePlugin } from "./plugins/console.ts";
import { floatArrayPlugin } from "./plugins/float_array.ts";
import { javaScriptPlugin } from "./plugins/javascript.ts";
import { largeIntegersPlugin } from "./plugins/large_integers.ts";
import { miscPlugin } from "./plugins/misc.ts";
import type { Primitive } from "./primitive_table.ts";
import { InterpreterProxy, PrimitiveHandler } from "./proxy.ts";
import { type Pause, pause } from "./scheduler.ts";
import { interpretSista } from "./sista_loop.ts";
import { writeSpur } from "./spur_writer.ts";
import { interpretV3 } from "./v3_loop.ts";

export type StepResult =
  | { readonly kind: "busy" }
  /** Nothing to do until a signal, or for so many milliseconds. */
  | { readonly kind: "idle"; readonly wakeAfter: number }
  | { readonly kind: "quit" };

export type VirtualMachineOptions = InterpreterOptions & {
  /** Takes a snapshot that the image makes; without it the snapshot primitive fails. */
  readonly saveImage?: (bytes: ArrayBuffer, name: string) => void;
};

export class VirtualMachine extends Interpreter {
  readonly primHandler: PrimitiveHandler;
  readonly proxy: InterpreterProxy;
  /** Called when a signal makes an idle machine runnable. */
  onWake: () => void = () => {};
  imageName: string;
  private readonly modules: Modules;
  private readonly saveImage: VirtualMachineOptions["saveImage"];
  private readonly reported = new Set<string>();
  private deadline = 0;
  private lastCheck = 0;
  private hasQuit = false;
  private idle = false;

  constructor(image: Image, options: VirtualMachineOptions = {}) {
    super(image, options);
    this.imageName = image.name;
    this.saveImage = options.saveImage;
    this.primHandler = new PrimitiveHandler(this);
    this.proxy = new InterpreterProxy(this);
    this.modules = new Modules(this, this.proxy);
    this.registerExternalModule("ConsolePlugin", consolePlugin());
    this.registerExternalModule("FloatArrayPlugin", floatArrayPlugin());
    this.registerExternalModule("JavaScriptPlugin", javaScriptPlugin(this));
    this.registerExternalModule("LargeIntegers", largeIntegersPlugin());
    this.registerExternalModule("MiscPrimitivePlugin", miscPlugin());
  }

  get nilObj(): SqueakObject {
    return this.nil;
  }

  get trueObj(): SqueakObject {
    return this.true;
  }

  get falseObj(): SqueakObject {
    return this.false;
  }

  /** Adds a module of named primitives, or replaces the one of that name. */
  registerExternalModule(name: string, module: ExternalModule): void {
    this.modules.register(name, module);
    this.cache.flush();
  }

  /**
   * Runs for at most so many milliseconds.
   * Units: milliseconds, with a fraction; the slice is kept to within about one.
   */
  step(milliseconds: number): StepResult {
    if (this.hasQuit) return { kind: "quit" };
    this.idle = false;
    this.lastCheck = this.now();
    this.deadline = this.lastCheck + milliseconds;
    this.pause = pause.none;
    this.checkForInterrupts();
    const reason = this.scheduler.stuck ? pause.idle : this.run();
    if (reason === pause.quit) {
      this.hasQuit = true;
      return { kind: "quit" };
    }
    if (reason === pause.slice || this.scheduler.hasPending) return { kind: "busy" };
    this.idle = true;
    return { kind: "idle", wakeAfter: Math.max(0, this.scheduler.wakeAt - this.now()) };
  }

  /** Runs until something makes the loops pause; answers what it was. */
  private run(): Pause {
    for (;;) {
      const reason = this.pause;
      if (reason === pause.restart) this.pause = pause.none;
      else if (reason !== pause.none) return reason;
      if (usesSista(this.method)) interpretSista(this);
      else interpretV3(this);
    }
  }

  /** Signals the semaphore at a one-based index of the external objects; safe at any time, also within a primitive. */
  signalSemaphoreWithIndex(index: number): void {
    this.scheduler.signalExternal(index);
    if (!this.idle) return;
    this.idle = false;
    this.onWake();
  }

  /** The image in its present state, as a file; it resumes where the active process is. */
  snapshot(): ArrayBuffer {
    return writeSpur(this);
  }

  // What the interpreter asks of its host side

  checkForInterrupts(): void {
    const now = this.now();
    this.restartCountdown(now - this.lastCheck);
    this.lastCheck = now;
    this.scheduler.deliver(now);
    if (now >= this.deadline && this.pause === pause.none) this.pause = pause.slice;
  }

  relinquish(): void {
    const process = this.scheduler.activeProcess;
    this.checkForInterrupts();
    if (this.pause === pause.none && this.scheduler.activeProcess === process) this.pause = pause.idle;
  }

  quit(): true {
    this.pause = pause.quit;
    return true;
  }

  snapshotPrimitive(argCount: number): boolean {
    if (this.saveImage === undefined || !this.memory.spur) return false;
    // what is saved finds true as the primitive's answer, what goes on finds false
    this.answer(argCount, this.true);
    this.saveImage(this.snapshot(), this.imageName);
    this.frame[this.sp] = this.false;
    return true;
  }

  namedPrimitive(method: SqueakObject): Primitive | null {
    return this.modules.resolve(method);
  }

  moduleNames(): string[] {
    return this.modules.names;
  }

  moduleFunctions(name: string): string[] {
    return this.modules.functionsOf(name);
  }

  unloadModule(name: string): boolean {
    return this.modules.unload(name);
  }

  reportOnce(key: string, text: string): void {
    if (this.reported.has(key)) return;
    this.reported.add(key);
    this.console(text, "warn");
  }
}
