// NeuroScopeHost: the external module through which the image reaches everything that is not Smalltalk.
//
// One file for two virtual machines: ours, and upstream SqueakJS, where it is preloaded. It gives the image standard
// output, an exit status and a mailbox; arguments, sources, engine answers and view events are messages of that
// mailbox. It knows no engine, no page and no message but by its bytes, and it hands no Smalltalk block to JavaScript.
//
// A message is a JSON object, as UTF-8, with binary attachments beside it. Only this file converts: JSON text to and
// from a ByteArray, float32 and byte attachments to and from a FloatArray or ByteArray, whole, in one primitive.

import type { ExternalModule, InterpreterProxy, PluginObject } from "./virtual_machine.ts";

export type Attachment = Float32Array | Uint8Array;

/** Where the image's output goes: 1 is standard output (the Transcript of a page), 2 standard error. */
export type FileNumber = 1 | 2;

export interface HostListener {
  /** The image wrote bytes of UTF-8 text. */
  write(text: Uint8Array, file: FileNumber): void;
  /** The image set the exit status of its process; it quits by primitive 113 right after. */
  exit(status: number): void;
  /** The image posted a message. */
  receive(message: HostMessage, attachments: Attachment[]): void;
}

export type HostMessage = { kind: string } & Record<string, unknown>;

interface Delivery {
  readonly text: Uint8Array;
  readonly attachments: readonly Attachment[];
}

export class NeuroScopeHost implements ExternalModule {
  [primitive: string]: unknown;

  #listener: HostListener;
  #proxy: InterpreterProxy | null = null;
  #semaphoreIndex = 0;
  #waiting: Delivery[] = [];
  #current: Delivery | null = null;

  constructor(listener: HostListener) {
    this.#listener = listener;
  }

  /** Puts a message into the image's mailbox and signals its semaphore. The attachments are not copied: do not write to them again. */
  post(message: HostMessage, attachments: readonly Attachment[] = []): void {
    this.#waiting.push({ text: new TextEncoder().encode(JSON.stringify(message)), attachments });
    this.#signal();
  }

  #signal(): void {
    if (this.#proxy && this.#semaphoreIndex > 0) {
      this.#proxy.vm.primHandler.signalSemaphoreWithIndex(this.#semaphoreIndex);
    }
  }

  getModuleName(): string {
    return "NeuroScopeHost";
  }

  setInterpreter(proxy: InterpreterProxy): boolean {
    this.#proxy = proxy;
    return true;
  }

  /** write: aByteArray to: fileNumber */
  primitiveWrite(argumentCount: number): boolean {
    const bytes = this.#bytes(1);
    const file = this.#integer(0);
    if (argumentCount !== 2 || !bytes || (file !== 1 && file !== 2)) return false;
    this.#listener.write(bytes.slice(), file);
    return this.#answerReceiver(argumentCount);
  }

  /** exit: status */
  primitiveExit(argumentCount: number): boolean {
    const status = this.#integer(0);
    if (argumentCount !== 1 || status === null) return false;
    this.#listener.exit(status);
    return this.#answerReceiver(argumentCount);
  }

  /** useSemaphore: index, 1-based in the external objects table. Messages that came before are signalled at once. */
  primitiveUseSemaphore(argumentCount: number): boolean {
    const index = this.#integer(0);
    if (argumentCount !== 1 || index === null || index < 1) return false;
    this.#semaphoreIndex = index;
    for (let i = 0; i < this.#waiting.length; i++) this.#signal();
    return this.#answerReceiver(argumentCount);
  }

  /** nextMessage: nil, or an Array of the JSON text's byte count and, for each attachment, bytes an element (4 or 1) and elements. */
  primitiveNextMessage(argumentCount: number): boolean {
    if (argumentCount !== 0 || !this.#proxy) return false;
    const delivery = this.#waiting.shift() ?? null;
    this.#current = delivery;
    const sizes = delivery && [
      delivery.text.length,
      ...delivery.attachments.flatMap((attachment) => [attachment.BYTES_PER_ELEMENT, attachment.length]),
    ];
    const answer = sizes ? this.#proxy.vm.primHandler.makeStArray(sizes) : this.#proxy.vm.nilObj;
    this.#proxy.popthenPush(1, answer);
    return true;
  }

  /** readMessageInto: aByteArray of exactly the announced size. */
  primitiveReadMessageInto(argumentCount: number): boolean {
    const target = this.#bytes(0);
    if (argumentCount !== 1 || !target || !this.#current || target.length !== this.#current.text.length) return false;
    target.set(this.#current.text);
    return this.#answerReceiver(argumentCount);
  }

  /** readAttachment: number, from 1, into: aFloatArray or aByteArray of exactly the announced size. */
  primitiveReadAttachment(argumentCount: number): boolean {
    const number = this.#integer(1);
    if (argumentCount !== 2 || number === null || !this.#current) return false;
    const source = this.#current.attachments[number - 1];
    const target = this.#attachment(this.#object(0));
    if (!source || !target || target.length !== source.length || target.constructor !== source.constructor) return false;
    target.set(source);
    return this.#answerReceiver(argumentCount);
  }

  /** post: aByteArray of JSON attachments: anArray of FloatArrays and ByteArrays. Both are copied. */
  primitivePost(argumentCount: number): boolean {
    const text = this.#bytes(1);
    const list = this.#object(0);
    if (argumentCount !== 2 || !text || !list) return false;
    const attachments: Attachment[] = [];
    for (const element of list.pointers ?? []) {
      const attachment = typeof element === "object" && element !== null ? this.#attachment(element) : null;
      if (!attachment) return false;
      attachments.push(attachment.slice());
    }
    let message: HostMessage;
    try {
      message = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text)) as HostMessage;
    } catch {
      return false;
    }
    // Popped before the listener runs, so that a listener that answers at once finds a consistent stack.
    this.#answerReceiver(argumentCount);
    this.#listener.receive(message, attachments);
    return true;
  }

  #answerReceiver(argumentCount: number): boolean {
    this.#proxy?.pop(argumentCount);
    return true;
  }

  #object(depth: number): PluginObject | null {
    const value = this.#proxy?.stackValue(depth);
    return typeof value === "object" && value !== null ? value : null;
  }

  #integer(depth: number): number | null {
    const value = this.#proxy?.stackValue(depth);
    return typeof value === "number" ? value : null;
  }

  /** The bytes of a ByteArray or ByteString; an empty one has no `bytes` on upstream. */
  #bytes(depth: number): Uint8Array | null {
    const object = this.#object(depth);
    if (!object || object.words || object.pointers) return null;
    return object.bytes ?? (isByteFormat(object) ? new Uint8Array(0) : null);
  }

  #attachment(object: PluginObject | null): Attachment | null {
    if (!object) return null;
    if (object.words) return new Float32Array(object.words.buffer, object.words.byteOffset, object.words.length);
    if (object.bytes) return object.bytes;
    return isByteFormat(object) ? new Uint8Array(0) : isWordFormat(object) ? new Float32Array(0) : null;
  }
}

/** Spur's instance formats: 10 and 11 are 32-bit words, 16 to 23 bytes. */
function isByteFormat(object: PluginObject): boolean {
  return object._format >= 16 && object._format <= 23;
}

function isWordFormat(object: PluginObject): boolean {
  return object._format === 10 || object._format === 11;
}
