// A line of text that is sent when Enter is pressed or the field is left changed. While a person types, an update does
// not overwrite what stands there.

import type { FieldPart, ViewFunction } from "./view.ts";

export const field: ViewFunction<FieldPart> = (element, data, emit) => {
  const document = element.ownerDocument;
  const label = document.createElement("label");
  label.className = "field";
  const caption = document.createElement("span");
  const input = document.createElement("input");
  input.type = data.isSecret === true ? "password" : "text";
  input.autocomplete = "off";
  input.spellcheck = false;
  if (data.width !== undefined) {
    input.size = data.width;
    input.classList.add("short");
  }
  label.append(caption, input);
  element.append(label);

  let current = data;
  const send = (): void => {
    if (input.value !== current.value) emit(current.id, input.value);
  };
  input.addEventListener("change", send);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") send();
  });

  const update = (next: FieldPart): void => {
    const untouched = input.value === current.value;
    current = next;
    caption.textContent = next.label;
    if (untouched || document.activeElement !== input) input.value = next.value;
  };
  input.value = data.value;
  update(data);
  return { update, destroy: () => label.remove() };
};
