// One of some options, as the platform's own select: it works from the keyboard and on a phone. Sends the index.

import type { ChoicePart, ViewFunction } from "./view.ts";

export const choice: ViewFunction<ChoicePart> = (element, data, emit) => {
  const document = element.ownerDocument;
  const label = document.createElement("label");
  label.className = "choice";
  const caption = document.createElement("span");
  const select = document.createElement("select");
  label.append(caption, select);
  element.append(label);
  select.addEventListener("change", () => emit(data.id, select.selectedIndex));

  let shown = "";
  const update = (next: ChoicePart): void => {
    caption.textContent = next.label;
    const options = JSON.stringify(next.options);
    if (options !== shown) {
      select.replaceChildren(
        ...next.options.map((text) => {
          const option = document.createElement("option");
          option.textContent = text;
          return option;
        }),
      );
      shown = options;
    }
    select.selectedIndex = next.value;
  };
  update(data);
  return { update, destroy: () => label.remove() };
};
