// Renders a tool's tree of parts to HTML under Node, with the very views that the page uses, so that the picture which
// stands in the page before any script has run is the one that comes alive. Reads the parts as JSON from standard
// input, writes HTML to standard output. jsdom is a browser's document without a browser; nothing of it ships.

import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";
import type { Part } from "./views/view.ts";

const dom = new JSDOM("<!doctype html><body></body>");
// D3 looks for a document when it is called without one.
Object.assign(globalThis, { document: dom.window.document });

const { tree } = await import("./views/tree.ts");
const part = JSON.parse(readFileSync(0, "utf8")) as Part;
const body = dom.window.document.createElement("div");
tree(body, part, () => undefined);
// What a person would have typed or chosen is a property; only attributes are written out.
for (const input of body.querySelectorAll("input")) input.setAttribute("value", input.value);
for (const option of body.querySelectorAll("option")) if (option.selected) option.setAttribute("selected", "");
// A picture without a script behind it has nothing to press, type or save.
for (const control of body.querySelectorAll("button, input, select")) control.setAttribute("disabled", "");
process.stdout.write(body.innerHTML);
