// Runs jobs in this process: a JSON list on standard input, the list of results on standard output.

// With `--mask-offset N` the reference backend's causal mask is wrong by N positions; with `--messages` it is not the
// results that are written but all messages, { request } or { answer }, as they went by.

import type { Reach } from "../../js_bridge/engine/backend.ts";
import { createEngine } from "../../js_bridge/engine/engine.ts";
import type { Answer, Attachment, Request } from "../../js_bridge/protocol.ts";
import { besideKernels } from "../../js_bridge/kernels/threads.ts";
import { ReferenceBackend } from "../../js_bridge/kernels/reference.ts";
import { readFiles } from "../../js_bridge/store/files.ts";
import { type Job, type JobResult, type Mailbox, runJob } from "./jobs.ts";
import { KERNELS } from "./session.ts";

const pieces: Buffer[] = [];
for await (const piece of process.stdin) pieces.push(piece);
const jobs = JSON.parse(Buffer.concat(pieces).toString()) as Job[];

const offset = process.argv[2] === "--mask-offset" ? Number(process.argv[3]) : 0;

/** Right until a model is loaded: a backend that is wrong from the start is refused, and its passes say nothing. */
class WrongMask extends ReferenceBackend {
  static isWrong = false;

  protected override visible(reach: Reach, row: number, query: number, key: number): boolean {
    const moved = WrongMask.isWrong ? offset : 0;
    return super.visible({ ...reach, offset: reach.offset + moved }, row, query, key);
  }
}

const messages: ({ request: Request } | { answer: Answer })[] = [];

const engine = createEngine({
  openers: offset === 0 ? {} : { reference: async () => new WrongMask() },
  post: (message: Answer, attachments: Attachment[]) => {
    messages.push({ answer: message });
    WrongMask.isWrong ||= message.kind === "loaded";
    queueMicrotask(() => mailbox.onMessage(message, attachments));
  },
  fetchBytes: readFiles,
  fetchKernels: (file) => readFiles(besideKernels(KERNELS, file)),
});
const mailbox: Mailbox = {
  post: (message, attachments) => {
    messages.push({ request: message });
    engine.handle(message, attachments);
  },
  onMessage: () => undefined,
};

const results: (JobResult | { error: unknown })[] = [];
for (const job of jobs) {
  try {
    results.push(await runJob(mailbox, job));
  } catch (error) {
    results.push({ error: error instanceof Error ? String(error.stack) : error });
  }
}
process.stdout.write(JSON.stringify(process.argv.includes("--messages") ? messages : results));
