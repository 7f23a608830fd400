// Runs an image under Node: the host of `neuroscope image run`, `image test` and `eval`. Its one argument is a JSON
// file of NodeRun; the image's standard output, standard error and exit status are this process's. No page, no network
// but the folders of bundles that it is given.

import { readFile } from "node:fs/promises";
import { writeSync } from "node:fs";
import type { HostMessage } from "../js_bridge/host/neuroscope_host.ts";
import { Machine } from "./machine.ts";
import { connectEngine, type NodeEngineOptions } from "./node_engine.ts";

interface NodeRun extends NodeEngineOptions {
  readonly image: string;
  readonly start: HostMessage;
  readonly timeoutSeconds: number | null;
  readonly failPrimitives: (number | string)[];
}

async function main(path: string): Promise<void> {
  const run = JSON.parse(await readFile(path, "utf8")) as NodeRun;
  const bytes = await readFile(run.image);
  const engine = connectEngine(run, (message, attachments) => machine.post(message, attachments));
  const machine = new Machine({
    image: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
    imageName: run.image,
    start: run.start,
    failPrimitives: new Set(run.failPrimitives),
    write: (text, file) => writeWhole(file, text),
    receive: (message, attachments) => engine.handle(message, attachments),
    stalled: () => {
      // Every process waits; only the engine could wake one, and it has nothing to do.
      if (!engine.isBusy()) machine.post({ kind: "stalled" });
    },
    quit: (status) => process.exit(status),
    log: (text) => writeWhole(2, new TextEncoder().encode(`${text}\n`)),
  });
  if (run.timeoutSeconds) {
    const milliseconds = run.timeoutSeconds * 1000;
    setTimeout(() => machine.post({ kind: "timeout", seconds: run.timeoutSeconds }), milliseconds);
    // The image reports its stacks by itself; this is for one that no longer answers at all.
    setTimeout(() => {
      writeWhole(2, new TextEncoder().encode(`The image did not stop ${run.timeoutSeconds} s after it started, nor 5 s later.\n`));
      process.exit(1);
    }, milliseconds + 5000);
  }
  machine.run();
}

/** A pipe takes a large write in parts, and a full one asks to be tried again. */
function writeWhole(file: number, text: Uint8Array): void {
  let offset = 0;
  while (offset < text.length) {
    try {
      offset += writeSync(file, text, offset);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
  }
}

const path = process.argv[2];
if (path === undefined) {
  process.stderr.write("usage: node hosts/node.ts RUN.json\n");
  process.exit(2);
}
await main(path);
