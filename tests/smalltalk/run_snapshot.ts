/**
 * Boots an image, keeps the snapshot that it makes of itself, and when it has quit boots that: the lines of both go to
 * standard output, each after the number of its run. `node tests/smalltalk/run_snapshot.ts IMAGE`
 */
import { readFileSync } from "node:fs";
import { readImage, VirtualMachine } from "../../squeakjs/index.ts";

async function run(bytes: ArrayBuffer, label: string): Promise<ArrayBuffer | undefined> {
  let saved: ArrayBuffer | undefined;
  let wake = (): void => {};
  const vm = new VirtualMachine(readImage(bytes, label), {
    console: (text) => console.log(`${label}: ${text}`),
    saveImage: (image) => {
      saved = image;
    },
  });
  vm.onWake = () => wake();
  for (;;) {
    const state = vm.step(20);
    if (state.kind === "quit") return saved;
    if (state.kind !== "idle") continue;
    if (state.wakeAfter === Infinity) throw new Error(`${label}: every process waits for nothing`);
    await new Promise<void>((resolve) => {
      wake = resolve;
      setTimeout(resolve, state.wakeAfter);
    });
  }
}

const path = process.argv[2];
if (path === undefined) throw new Error("usage: node tests/smalltalk/run_snapshot.ts IMAGE");
const file = readFileSync(path);
const snapshot = await run(file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength) as ArrayBuffer, "first");
if (snapshot === undefined) throw new Error("the image made no snapshot");
await run(snapshot, "second");
