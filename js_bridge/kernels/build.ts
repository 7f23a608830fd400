// Builds all that the WebAssembly backend is made of into one folder:  node js_bridge/kernels/build.ts [build]
// assembly/ becomes four files, for memory that is shared or not, and for machines with relaxed SIMD or without; all
// have the same exports. thread.ts becomes the script of the helper threads.

import { mkdir } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";
import { build } from "esbuild";
import { THREAD_SCRIPT } from "./threads.ts";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const folder = resolve(process.argv[2] ?? `${root}/build`);

const COMMON = ["--baseDir", root, "--enable", "simd", "--importMemory", "--runtime", "stub", "--noAssert"];
const OPTIMIZED = ["--optimizeLevel", "3", "--shrinkLevel", "0"];
const SHARED = ["--enable", "threads", "--sharedMemory", "--maximumMemory", "65536"];
const RELAXED = ["--enable", "relaxed-simd"];

const VARIANTS: Record<string, readonly string[]> = {
  "kernels.wasm": [],
  "kernels.relaxed.wasm": RELAXED,
  "kernels.shared.wasm": SHARED,
  "kernels.shared.relaxed.wasm": [...SHARED, ...RELAXED],
};

await mkdir(folder, { recursive: true });
for (const [file, options] of Object.entries(VARIANTS)) {
  const target = relative(root, resolve(folder, file));
  const source = "js_bridge/kernels/assembly/index.ts";
  const { error, stderr } = await asc.main([source, "--outFile", target, ...COMMON, ...OPTIMIZED, ...options]);
  if (error) {
    process.stderr.write(`${stderr.toString()}\n${error.message}\n`);
    process.exit(1);
  }
}
// A script without imports, so that it runs as it is wherever it lies.
await build({
  entryPoints: [resolve(root, "js_bridge/kernels/thread.ts")],
  outfile: resolve(folder, THREAD_SCRIPT),
  bundle: true,
  format: "iife",
  target: "es2022",
  external: ["node:*"],
  minify: true,
  logLevel: "error",
});
