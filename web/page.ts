// The page: fetches the image, boots it, connects it with the engine's worker and with the panes. It holds no model and
// no Smalltalk: what a tool shows comes from the image as a tree of parts, what a person does goes back as events.

import type { Attachment, HostMessage } from "../js_bridge/host/neuroscope_host.ts";
import { Machine } from "../hosts/machine.ts";
import { EngineWorker } from "../js_bridge/host/engine_worker.ts";
import { keepOffline } from "../js_bridge/host/offline.ts";
import { fetchImage } from "./image.ts";
import { findLabs } from "./labs.ts";
import { describeGaps, surroundings, watchNetwork } from "./notices.ts";
import { Panes } from "./panes.ts";
import { progress, type Progress } from "./progress.ts";
import { transcript } from "./views/transcript.ts";
import type { Part } from "./views/view.ts";
import { workspace, type Evaluation, type Outcome } from "./views/workspace.ts";

/** What the site's builder writes into the page. URLs are relative to the page, so that any path serves. */
interface PageConfig {
  readonly image: string;
  readonly engine: string;
  readonly kernels: string;
  readonly serviceWorker: string;
  /** The list of labs. */
  readonly labs: string;
  /** Bundle id to folder URL. */
  readonly bundles: Record<string, string>;
  readonly model: string;
  readonly sentence: string;
  readonly workspace: string;
}

async function main(): Promise<void> {
  const config = JSON.parse(byId("neuroscope-config").textContent ?? "{}") as PageConfig;
  const parameters = new URLSearchParams(location.search);
  const log = transcript(byId("transcript"));
  const status = byId("status");
  const panes = new Panes(byId("tools"), (tool, part, value) => machine.post({ kind: "event", tool, part, value }));
  const decoder = new TextDecoder();
  const evaluations = new Map<number, (outcome: Outcome) => void>();
  let lastEvaluation = 0;
  const loading = new Map<number, Progress>();
  const without = (parameters.get("without") ?? "").split(",").filter((name) => name !== "");
  byId("gaps").textContent = describeGaps(surroundings(without));
  watchNetwork(byId("network"));

  const engine = new EngineWorker({
    url: config.engine,
    kernels: config.kernels,
    bundles: config.bundles,
    hub: parameters.get("hub") ?? undefined,
    backend: parameters.get("backend") ?? "auto",
    without,
    log: (text) => console.info(text),
    receive: (message, attachments) => {
      showProgress(message);
      if (message.kind === "warning") return showWarning(message);
      if (message.kind === "restarted") showRestart(message);
      machine.post(message, attachments);
    },
  });
  const image = await fetchImage(config.image, status);
  engine.loadEarly(config.model);
  const labs = findLabs(config.labs, parameters.get("lab"));
  const machine = new Machine({
    image,
    imageName: config.image,
    start: {
      kind: "start",
      mode: "page",
      model: config.model,
      sentence: config.sentence,
      bundles: Object.keys(config.bundles),
    },
    write: (text, file) => log.append(decoder.decode(text), file === 2),
    receive,
    quit: () => showError("The image has quit. Reload the page to start it again.", ""),
    log: (text) => console.info(text),
  });

  function receive(message: HostMessage, attachments: Attachment[]): void {
    switch (message.kind) {
      case "view":
        panes.show(message["tool"] as number, message["class"] as string, message["title"] as string, message["view"] as Part);
        performance.mark(`neuroscope-view-${String(message["class"])}`);
        break;
      case "close":
        panes.close(message["tool"] as number);
        break;
      case "evaluated": {
        const settle = evaluations.get(message["evaluation"] as number);
        evaluations.delete(message["evaluation"] as number);
        performance.mark("neuroscope-evaluated");
        settle?.(message as unknown as Outcome);
        showRunning();
        break;
      }
      case "ready":
        document.body.dataset["image"] = "ready";
        performance.mark("neuroscope-ready");
        void labs.then((addresses) => machine.post({ kind: "labs", addresses }));
        break;
      case "badge":
        byId("parity").textContent = String(message["text"]);
        byId("parity").className = `badge-${String(message["state"])}`;
        break;
      case "problem":
        showError(String(message["error"]), String(message["stack"]));
        break;
      default:
        engine.post(message, attachments);
    }
  }

  function evaluate({ source, mode }: Evaluation): Promise<Outcome> {
    const evaluation = ++lastEvaluation;
    machine.post({ kind: "evaluate", evaluation, source, mode });
    const outcome = new Promise<Outcome>((resolve) => evaluations.set(evaluation, resolve));
    showRunning();
    return outcome;
  }

  /** Do-its run beside one another; how many have not ended is to be seen. */
  function showRunning(): void {
    byId("running").textContent = evaluations.size > 0 ? `${evaluations.size} running` : "";
    byId("stop-it").hidden = evaluations.size === 0;
  }

  /** Ends all of them; each is then told as stopped. */
  function stopRunning(): void {
    if (evaluations.size > 0) machine.post({ kind: "stop" });
  }

  function showProgress(message: HostMessage): void {
    const id = message["id"] as number;
    if (message.kind === "progress") {
      const line = loading.get(id) ?? progress(status, "Weights", () => engine.post({ kind: "cancelLoad", load: id }));
      loading.set(id, line);
      line.update(message["bytesLoaded"] as number, message["bytesTotal"] as number);
    } else if (message.kind === "loaded" || message.kind === "failed") {
      loading.get(id)?.done();
      loading.delete(id);
    }
  }

  /** What costs the reader something, and stops nothing. */
  function showWarning(message: HostMessage): void {
    const { message: text } = message["error"] as { message: string };
    offer(status, `${text} ✕`, () => undefined);
  }

  function showRestart(message: HostMessage): void {
    const reason = String(message["reason"]);
    offer(status, `The engine stopped (${reason}). A fresh one starts; models load themselves at their next use. ✕`, () => undefined);
  }

  function showError(error: string, stack: string): void {
    panes.showError(error, stack);
  }

  const editor = workspace(byId("workspace"), config.workspace, evaluate, showError, stopRunning);
  for (const mode of ["do", "print", "inspect"] as const) {
    byId(`${mode}-it`).addEventListener("click", () => {
      editor.run(mode);
      editor.focus();
    });
  }
  byId("stop-it").addEventListener("click", stopRunning);
  for (const tool of document.querySelectorAll<HTMLElement>("[data-opens]")) {
    tool.addEventListener("click", () => machine.post({ kind: "open", tool: tool.dataset["opens"] }));
  }
  byId("clear-transcript").addEventListener("click", () => log.clear());
  machine.run();
  // Last: what it fetches for the next visit must not slow this one.
  void keepOffline({
    url: config.serviceWorker,
    without,
    onNewer: (use) => offer(status, "Use the newer version of this site", use),
    log: (text) => console.info(text),
  });
}

/** A button that is there until it is pressed. */
function offer(place: HTMLElement, label: string, action: () => void): void {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", () => {
    button.remove();
    action();
  });
  place.append(button);
}

function byId(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (!element) throw new Error(`The page has no element #${id}; build the site again with \`neuroscope site\`.`);
  return element;
}

main().catch((error: unknown) => {
  const status = document.getElementById("status") ?? document.body;
  const box = document.createElement("p");
  box.className = "error";
  box.setAttribute("role", "alert");
  box.textContent = error instanceof Error ? error.message : String(error);
  status.append(box);
});
