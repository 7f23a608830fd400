/** The public names of the virtual machine. */
export { sistaBytecodes, specialSelectors, v3Bytecodes } from "./bytecodes.ts";
export { readImage } from "./image.ts";
export type { Image } from "./memory.ts";
export type { ExternalModule } from "./modules.ts";
export { format, type Oop, SqueakObject } from "./object.ts";
export { disassemble, stackTrace } from "./printer.ts";
export { type PrimitiveEntry, primitiveTable } from "./primitive_table.ts";
export type { InterpreterProxy, PrimitiveHandler } from "./proxy.ts";
export { specialObjects } from "./special_objects.ts";
export { type StepResult, VirtualMachine, type VirtualMachineOptions } from "./virtual_machine.ts";
