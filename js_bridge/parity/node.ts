// `neuroscope verify --in node`: node.ts BUNDLE BACKEND KERNELS. One request a line on standard input
// ({tokens, hooks}); each answer on standard output is a line of JSON and, where it announces values, their numbers as
// little-endian float32, one after another. The first answer comes unasked: {backend}.

import { createInterface } from "node:readline"
import { besideKernels } from "../kernels/threads.ts"
import type { BackendName } from "../protocol.ts"
import { readFiles } from "../store/files.ts"
import { Probe } from "./probe.ts"

const [bundle, backend, kernels] = process.argv.slice(2)

function answer(header: object, values: readonly Float32Array[] = []): void {
  process.stdout.write(`${JSON.stringify(header)}\n`)
  for (const numbers of values) process.stdout.write(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength))
}

try {
  const host = { fetchBytes: readFiles, fetchKernels: (file: string) => readFiles(besideKernels(kernels, file)) }
  const { probe, backend: opened } = await Probe.open(host, bundle, backend as BackendName)
  answer({ backend: opened })
  for await (const line of createInterface({ input: process.stdin })) {
    const { tokens, hooks } = JSON.parse(line) as { tokens: number[]; hooks: string[] }
    const values = await probe.activations(tokens, hooks)
    answer({ values: values.map(({ hook, shape }) => ({ hook, shape })) }, values.map(({ numbers }) => numbers))
  }
} catch (error) {
  answer({ error: (error as Error).message })
}
