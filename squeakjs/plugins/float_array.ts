/**
 * FloatArrayPlugin: arithmetic of word objects whose words are the bits of 32-bit floats. Operations change the receiver
 * and answer it; each result is rounded to 32 bits once.
 */
import type { ExternalModule } from "../modules.ts";
import type { InterpreterProxy } from "../proxy.ts";

export function floatArrayPlugin(): ExternalModule {
  let proxy: InterpreterProxy;

  const floats = (depth: number): Float32Array => {
    const words = proxy.stackWords(depth);
    return new Float32Array(words.buffer, words.byteOffset, words.length);
  };

  /** receiver op argument, element by element; fails where the sizes differ. */
  const elementwise = (operation: (a: number, b: number) => number) => (argCount: number): boolean => {
    const receiver = floats(1);
    const argument = floats(0);
    if (proxy.failed() || receiver.length !== argument.length) return false;
    for (let i = 0; i < receiver.length; i++) receiver[i] = operation(receiver[i], argument[i]);
    proxy.pop(argCount);
    return true;
  };

  const scalar = (operation: (a: number, b: number) => number) => (argCount: number): boolean => {
    const receiver = floats(1);
    const argument = proxy.stackFloatValue(0);
    if (proxy.failed()) return false;
    for (let i = 0; i < receiver.length; i++) receiver[i] = operation(receiver[i], argument);
    proxy.pop(argCount);
    return true;
  };

  return {
    getModuleName: () => "FloatArrayPlugin",
    setInterpreter(interpreterProxy: InterpreterProxy) {
      proxy = interpreterProxy;
      return true;
    },
    primitiveAt(argCount: number): boolean {
      const receiver = floats(1);
      const index = proxy.stackIntegerValue(0);
      if (proxy.failed() || index < 1 || index > receiver.length) return false;
      proxy.popthenPush(argCount + 1, proxy.floatObjectOf(receiver[index - 1]));
      return true;
    },
    primitiveAtPut(argCount: number): boolean {
      const receiver = floats(2);
      const index = proxy.stackIntegerValue(1);
      const value = proxy.stackFloatValue(0);
      if (proxy.failed() || index < 1 || index > receiver.length) return false;
      receiver[index - 1] = value;
      proxy.popthenPush(argCount + 1, proxy.stackValue(0));
      return true;
    },
    primitiveAddFloatArray: elementwise((a, b) => a + b),
    primitiveSubFloatArray: elementwise((a, b) => a - b),
    primitiveMulFloatArray: elementwise((a, b) => a * b),
    primitiveAddScalar: scalar((a, b) => a + b),
    primitiveSubScalar: scalar((a, b) => a - b),
    primitiveMulScalar: scalar((a, b) => a * b),
  } as ExternalModule;
}
