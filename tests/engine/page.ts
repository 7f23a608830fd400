// The page of the browser tests: an engine in a worker, and `runJobs` for Playwright to call.

import type { FromWorker, ToWorker, WorkerSettings } from "../../js_bridge/engine/worker.ts"
import { type Job, type JobResult, type Mailbox, runJob } from "./jobs.ts"

async function runJobs(jobs: Job[], settings: WorkerSettings): Promise<unknown[]> {
  const worker = new Worker("worker.js", { type: "module" })
  const send = (data: ToWorker) => worker.postMessage(data)
  const mailbox: Mailbox = { post: (message, attachments = []) => send({ message, attachments }), onMessage: () => undefined }
  const logs: string[] = []
  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
    if ("log" in data) logs.push(data.log)
    else mailbox.onMessage(data.message, data.attachments)
  }
  const failed = new Promise<never>((_, reject) => {
    worker.onerror = (event) => reject(new Error(`worker: ${event.message}`))
  })
  send({ settings })
  const results: (JobResult | { error: unknown })[] = []
  for (const job of jobs) {
    try {
      results.push(await Promise.race([runJob(mailbox, job), failed]))
    } catch (error) {
      results.push({ error: error instanceof Error ? String(error.stack) : error })
    }
  }
  worker.terminate()
  return [results, logs]
}

Object.assign(globalThis, { runJobs })
