// A running image: the virtual machine, its host module and the loop that gives it time. It is not a page and not a
// process: how a slice yields, where output goes and what answers messages are passed in by hosts/node.ts, by the
// page and by the browser harness.

import { NeuroScopeHost, type Attachment, type FileNumber, type HostMessage } from "../js_bridge/host/neuroscope_host.ts";
import { VirtualMachine, readImage } from "../squeakjs/index.ts";

/** A slice is short enough for a page to draw 60 frames a second beside it. */
const sliceMilliseconds = 8;

export interface MachineOptions {
  readonly image: ArrayBuffer;
  readonly imageName: string;
  /** The first message of the mailbox: what the image is to do. */
  readonly start: HostMessage;
  write(text: Uint8Array, file: FileNumber): void;
  /** A message of the image that is for the engine, the page or whoever listens. */
  receive(message: HostMessage, attachments: Attachment[]): void;
  /** Every process of the image waits, and no timer is set: only a message can wake it. */
  stalled?(): void;
  /** The image quit. */
  quit(status: number): void;
  /** The virtual machine's own remarks: a missing primitive, a broken method. */
  log(text: string): void;
  /** Primitives that are made to fail, by number or `Module.name`: optional ones have Smalltalk behind them. */
  readonly failPrimitives?: ReadonlySet<number | string>;
}

export class Machine {
  readonly vm: VirtualMachine;
  readonly host: NeuroScopeHost;
  #options: MachineOptions;
  #status = 0;
  #stopped = false;
  #scheduled = false;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #channel = new MessageChannel();

  constructor(options: MachineOptions) {
    this.#options = options;
    this.host = new NeuroScopeHost({
      write: options.write,
      receive: options.receive,
      exit: (status) => {
        this.#status = status;
      },
    });
    this.vm = new VirtualMachine(readImage(options.image, options.imageName), {
      console: (text: string) => options.log(text),
      failPrimitives: new Set(options.failPrimitives ?? []),
    });
    this.vm.registerExternalModule("NeuroScopeHost", this.host);
    this.vm.onWake = () => this.#schedule();
    // A message channel yields to the page's events without the 4 ms that nested timers are clamped to.
    this.#channel.port1.onmessage = () => this.#slice();
    this.host.post(options.start);
  }

  run(): void {
    this.#schedule();
  }

  /** Ends the loop; the image is not told. */
  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#channel.port1.close();
  }

  /** Puts a message into the image's mailbox; an idle image wakes at once. */
  post(message: HostMessage, attachments: readonly Attachment[] = []): void {
    this.host.post(message, attachments);
  }

  #schedule(): void {
    if (this.#scheduled || this.#stopped) return;
    this.#scheduled = true;
    this.#channel.port2.postMessage(null);
  }

  #slice(): void {
    this.#scheduled = false;
    if (this.#stopped) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const state = this.vm.step(sliceMilliseconds);
    switch (state.kind) {
      case "busy":
        this.#schedule();
        break;
      case "idle":
        if (state.wakeAfter < Infinity) this.#timer = setTimeout(() => this.#schedule(), state.wakeAfter);
        else this.#options.stalled?.();
        break;
      case "quit":
        this.stop();
        this.#options.quit(this.#status);
        break;
      default:
        state satisfies never;
    }
  }
}
