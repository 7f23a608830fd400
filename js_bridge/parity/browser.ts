// `neuroscope verify --in chromium`: puts three functions on the page, which Playwright calls. Numbers leave as
// base64, one hook point at a time.

import { besideKernels } from "../kernels/threads.ts"
import type { BackendName } from "../protocol.ts"
import { fetchOverHttp } from "../store/fetch.ts"
import { type HookValue, Probe } from "./probe.ts"

let probe: Probe | null = null
let values: readonly HookValue[] = []

async function open(bundle: string, backend: BackendName, kernels: string): Promise<BackendName> {
  const absolute = (path: string) => new URL(path, document.baseURI).href
  const opened = await Probe.open({ fetchBytes: fetchOverHttp, fetchKernels: (file: string) => fetchOverHttp(besideKernels(absolute(kernels), file)) }, absolute(bundle), backend)
  probe = opened.probe
  return opened.backend
}

/** Runs the pass and answers the shape of each value; `take` answers the numbers. */
async function run(tokens: readonly number[], hooks: readonly string[]): Promise<(readonly number[])[]> {
  if (probe === null) throw new Error("no bundle is open")
  values = await probe.activations(tokens, hooks)
  return values.map(({ shape }) => shape)
}

function take(index: number): string {
  const { buffer, byteOffset, byteLength } = values[index].numbers
  const bytes = new Uint8Array(buffer, byteOffset, byteLength)
  let text = ""
  for (let start = 0; start < bytes.length; start += 0x8000) text += String.fromCharCode(...bytes.subarray(start, start + 0x8000))
  return btoa(text)
}

Object.assign(globalThis, { parity: { open, run, take } })
