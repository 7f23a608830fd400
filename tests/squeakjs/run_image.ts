/**
 * Boots an image on this machine alone, in Node, until it quits: `node tests/squeakjs/run_image.ts IMAGE [--seconds N]`.
 * ConsolePlugin's lines go to standard output, warnings and errors to standard error. Exit status 1 with the stack when
 * every process waits for nothing, 124 when the time (60 seconds unless told) is over.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { readImage, stackTrace, VirtualMachine } from "../../squeakjs/index.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: "string", default: "60" }, fail: { type: "string", default: "" }, stack: { type: "boolean", default: false } },
});
const path = positionals[0];
if (path === undefined) {
  console.error("usage: node tests/squeakjs/run_image.ts IMAGE [--seconds N] [--fail 20,21,Module.name] [--stack]");
  process.exit(2);
}
const failPrimitives = new Set(values.fail.split(",").filter(Boolean).map((each) => (/^\d+$/.test(each) ? Number(each) : each)));
const vm = new VirtualMachine(readImage(readFileSync(path), path), {
  failPrimitives,
  console: (text, level) => (level === "warn" || level === "error" ? console.error(text) : console.log(text)),
});
const deadline = performance.now() + Number(values.seconds) * 1000;
let wake = (): void => {};
vm.onWake = () => wake();
try {
  for (;;) {
    const state = vm.step(20);
    if (state.kind === "quit") break;
    if (performance.now() > deadline) {
      console.error(`not finished after ${values.seconds} seconds (--seconds N for more); it was in:\n${stackTrace(vm)}`);
      process.exit(124);
    }
    if (state.kind === "idle") {
      if (state.wakeAfter === Infinity) {
        console.error(`every process waits for nothing; the last that ran was in:\n${stackTrace(vm)}`);
        process.exit(1);
      }
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, state.wakeAfter);
      });
    }
  }
} catch (error) {
  console.error(error);
  console.error(stackTrace(vm));
  process.exit(70);
}
