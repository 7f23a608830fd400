/** ConsolePlugin: one primitive that writes a line to the host's console, at a level (log, info, warn, error). */
import type { ExternalModule } from "../modules.ts";
import type { InterpreterProxy } from "../proxy.ts";

export function consolePlugin(): ExternalModule {
  let proxy: InterpreterProxy;
  return {
    getModuleName: () => "ConsolePlugin",
    setInterpreter(interpreterProxy: InterpreterProxy) {
      proxy = interpreterProxy;
      return true;
    },
    "primitiveLog:level:"(argCount: number): boolean {
      if (argCount !== 2) return false;
      const message = proxy.stackBytes(1);
      const level = proxy.stackBytes(0);
      if (proxy.failed()) return false;
      proxy.vm.console(text(message), text(level));
      proxy.pop(argCount);
      return true;
    },
  } as ExternalModule;
}

/** A ByteString's characters are Latin-1. */
function text(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}
