// A grid of switches with row and column headings. Sends row and column, from 0.

import type { SwitchesPart, ViewFunction } from "./view.ts";

export const switches: ViewFunction<SwitchesPart> = (element, data, emit) => {
  const document = element.ownerDocument;
  const table = document.createElement("table");
  table.className = "switches";
  element.append(table);

  let buttons: HTMLButtonElement[][] = [];
  let shape = "";

  function build(next: SwitchesPart): void {
    const caption = document.createElement("caption");
    caption.textContent = next.title;
    const head = document.createElement("tr");
    head.append(document.createElement("td"), ...next.columns.map((name) => header(name, "col")));
    buttons = next.rows.map((row, y) =>
      next.columns.map((column, x) => {
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("aria-label", `${next.title}: ${row}, ${column}`);
        button.addEventListener("click", () => emit(next.id, [y, x]));
        return button;
      }),
    );
    const rows = next.rows.map((name, y) => {
      const row = document.createElement("tr");
      row.append(
        header(name, "row"),
        ...(buttons[y] ?? []).map((button) => {
          const cell = document.createElement("td");
          cell.append(button);
          return cell;
        }),
      );
      return row;
    });
    table.replaceChildren(caption, head, ...rows);
  }

  function header(text: string, scope: string): HTMLElement {
    const cell = document.createElement("th");
    cell.scope = scope;
    cell.textContent = text;
    return cell;
  }

  const update = (next: SwitchesPart): void => {
    const nextShape = JSON.stringify([next.rows, next.columns]);
    if (nextShape !== shape) build(next);
    shape = nextShape;
    next.on.forEach((row, y) =>
      row.forEach((on, x) => {
        const button = buttons[y]?.[x];
        if (!button) return;
        button.setAttribute("aria-pressed", String(on));
        button.textContent = on ? "zeroed" : "as it is";
      }),
    );
  };
  update(data);
  return { update, destroy: () => table.remove() };
};
