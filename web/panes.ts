// The panes of the tools: one for each, drawn by its tree of parts. The first lens takes the place of the picture that
// the site was built with. A pane can be closed; its tool is told.

import { errorText } from "./views/text.ts";
import { tree } from "./views/tree.ts";
import type { Part, View } from "./views/view.ts";

interface Pane {
  readonly element: HTMLElement;
  readonly title: HTMLElement;
  readonly view: View<Part>;
}

export class Panes {
  #holder: HTMLElement;
  #emit: (tool: number, part: string, value: unknown) => void;
  #panes = new Map<number, Pane>();

  constructor(holder: HTMLElement, emit: (tool: number, part: string, value: unknown) => void) {
    this.#holder = holder;
    this.#emit = emit;
  }

  show(tool: number, toolClass: string, title: string, part: Part): void {
    const pane = this.#panes.get(tool);
    if (pane) {
      pane.title.textContent = title;
      pane.view.update(part);
      return;
    }
    const element = this.#openPane(title, () => {
      this.#emit(tool, "close", null);
      this.#panes.delete(tool);
    });
    element.dataset["toolClass"] = toolClass;
    const body = element.querySelector(".pane-body") as HTMLElement;
    const view = tree(body, part, (id, value) => this.#emit(tool, id, value));
    this.#panes.set(tool, { element, title: element.querySelector("h2") as HTMLElement, view });
    const picture = this.#holder.querySelector("[data-rendered]");
    if (picture && toolClass === "InteractiveLens") picture.replaceWith(element);
    else {
      this.#holder.prepend(element);
      // On a phone the panes are far below the button that opened one.
      element.scrollIntoView({ block: "nearest" });
    }
  }

  /** Its tool has closed by itself. */
  close(tool: number): void {
    this.#panes.get(tool)?.element.remove();
    this.#panes.delete(tool);
  }

  /** Where the person looks: on top of the panes, until it is closed. */
  showError(error: string, stack: string): void {
    const element = this.#openPane("Error", () => undefined);
    element.classList.add("error-pane");
    errorText(element.querySelector(".pane-body") as HTMLElement, { part: "error", text: error, stack }, () => undefined);
    this.#holder.prepend(element);
    element.scrollIntoView({ block: "nearest" });
  }

  #openPane(title: string, closed: () => void): HTMLElement {
    const document = this.#holder.ownerDocument;
    const element = document.createElement("section");
    element.className = "pane";
    const header = document.createElement("header");
    const heading = document.createElement("h2");
    heading.textContent = title;
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "×";
    close.setAttribute("aria-label", "Close this pane");
    close.addEventListener("click", () => {
      element.remove();
      closed();
    });
    header.append(heading, close);
    const body = document.createElement("div");
    body.className = "pane-body";
    element.append(header, body);
    return element;
  }
}
