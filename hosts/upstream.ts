// NeuroScopeHost for upstream SqueakJS under Node: bundled into one CommonJS file, preloaded with
// `node -r FILE squeak_node.js IMAGE`, and configured by the JSON file that the environment variable NEUROSCOPE_RUN
// names. The module is the one that our own VM gets; only the way in differs.

import { readFileSync, writeSync } from "node:fs";
import { NeuroScopeHost, type HostMessage } from "../js_bridge/host/neuroscope_host.ts";
import { connectEngine, type NodeEngine, type NodeEngineOptions } from "./node_engine.ts";

interface UpstreamRun extends NodeEngineOptions {
  readonly start: HostMessage;
}

declare const Squeak: { registerExternalModule(name: string, module: unknown): void } | undefined;

const path = process.env["NEUROSCOPE_RUN"];
if (path === undefined) throw new Error("NEUROSCOPE_RUN must name the JSON file of the run.");
const run = JSON.parse(readFileSync(path, "utf8")) as UpstreamRun;

let engine: NodeEngine | null = null;
const host = new NeuroScopeHost({
  write: (text, file) => void writeSync(file, text),
  exit: (status) => {
    process.exitCode = status;
  },
  receive: (message, attachments) => {
    engine ??= connectEngine(run, (answer, its) => host.post(answer, its));
    engine.handle(message, attachments);
  },
});
host.post(run.start);

/** The preloaded file runs before the VM's own; its registry appears a few turns later, before the image is read. */
function register(): void {
  if (typeof Squeak === "object") Squeak.registerExternalModule("NeuroScopeHost", host);
  else setImmediate(register);
}
register();
