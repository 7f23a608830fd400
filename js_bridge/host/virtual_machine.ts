// What an external module sees of a virtual machine, types only: the part of the plugin interface that our VM and
// upstream SqueakJS have in common. Not the VM's own types: those are in squeakjs/.

/** A Smalltalk value as a plugin meets it: a SmallInteger is a number, everything else an object. */
export type PluginValue = number | PluginObject;

export interface PluginObject {
  readonly _format: number;
  readonly pointers?: PluginValue[] | null;
  readonly words?: Uint32Array | null;
  readonly bytes?: Uint8Array | null;
}

export interface InterpreterProxy {
  /** The value `depth` below the top of the stack; the receiver is at the argument count. */
  stackValue(depth: number): PluginValue;
  pop(count: number): unknown;
  popthenPush(count: number, value: PluginValue): unknown;
  readonly vm: {
    readonly nilObj: PluginObject;
    readonly primHandler: {
      makeStArray(values: readonly number[]): PluginObject;
      signalSemaphoreWithIndex(index: number): unknown;
    };
  };
}

export interface ExternalModule {
  getModuleName?(): string;
  setInterpreter?(proxy: InterpreterProxy): boolean;
  [primitive: string]: unknown;
}
