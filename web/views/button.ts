// A button that does one thing. Sends null.

import type { ButtonPart, ViewFunction } from "./view.ts";

export const button: ViewFunction<ButtonPart> = (element, data, emit) => {
  const node = element.ownerDocument.createElement("button");
  node.type = "button";
  element.append(node);
  node.addEventListener("click", () => {
    // A disabled button would lose the keyboard's focus; this one only says that it does nothing now.
    if (node.getAttribute("aria-disabled") !== "true") emit(data.id, null);
  });
  const update = (next: ButtonPart): void => {
    node.textContent = next.label;
    node.setAttribute("aria-disabled", String(!next.enabled));
  };
  update(data);
  return { update, destroy: () => node.remove() };
};
