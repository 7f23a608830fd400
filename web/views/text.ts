// Headings, lines of text, and errors with the Smalltalk stack that led to them.

import type { ErrorPart, HeadingPart, ProsePart, TextPart, ViewFunction } from "./view.ts";

export const heading: ViewFunction<HeadingPart> = (element, data) => line(element, "h3", data);

export const text: ViewFunction<TextPart> = (element, data) => line(element, "p", data);

export const prose: ViewFunction<ProsePart> = (element, data) => line(element, "pre", data);

function line<Data extends { readonly text: string }>(element: HTMLElement, name: string, data: Data) {
  const node = element.ownerDocument.createElement(name);
  element.append(node);
  const update = (next: Data): void => {
    node.textContent = next.text;
  };
  update(data);
  return { update, destroy: () => node.remove() };
}

export const errorText: ViewFunction<ErrorPart> = (element, data) => {
  const document = element.ownerDocument;
  const box = document.createElement("div");
  box.className = "error";
  box.setAttribute("role", "alert");
  const message = document.createElement("p");
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "Smalltalk stack";
  const stack = document.createElement("pre");
  details.append(summary, stack);
  box.append(message, details);
  element.append(box);
  const update = (next: ErrorPart): void => {
    message.textContent = next.text;
    stack.textContent = next.stack;
  };
  update(data);
  return { update, destroy: () => box.remove() };
};
