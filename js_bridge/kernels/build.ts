// Builds js_bridge/kernels/assembly into kernels.wasm:  node js_bridge/kernels/build.ts [build/kernels.wasm]

import { mkdir } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const target = resolve(process.argv[2] ?? `${root}/build/kernels.wasm`);

await mkdir(dirname(target), { recursive: true });
const options = [
  "--outFile",
  relative(root, target),
  "--baseDir",
  root,
  "--enable",
  "simd",
  "--runtime",
  "stub",
  "--noAssert",
  "--optimizeLevel",
  "3",
  "--shrinkLevel",
  "0",
];
const { error, stderr } = await asc.main(["js_bridge/kernels/assembly/index.ts", ...options]);
if (error) {
  process.stderr.write(`${stderr.toString()}\n${error.message}\n`);
  process.exitCode = 1;
}
