// Rows of text and numbers, with a way to take them along as CSV or JSON. A click on a row, or Enter, sends its index.

import { saveButtons } from "./save.ts";
import { tokenLabel } from "./token_label.ts";
import type { TablePart, ViewFunction } from "./view.ts";

export const table: ViewFunction<TablePart> = (element, data, emit) => {
  const document = element.ownerDocument;
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const grid = document.createElement("table");
  grid.className = "data";
  let current = data;
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.append(grid);
  figure.append(caption, scroll, saveButtons(document, {
    CSV: () => ({ name: "table.csv", type: "text/csv", content: toCsv(current) }),
    JSON: () => ({ name: "table.json", type: "application/json", content: toJson(current) }),
  }));
  element.append(figure);

  const update = (next: TablePart): void => {
    current = next;
    caption.textContent = next.title;
    const head = document.createElement("tr");
    head.append(...next.columns.map((name) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      return cell;
    }));
    const rows = next.rows.map((row, index) => {
      const line = document.createElement("tr");
      if (next.action === undefined) {
        line.tabIndex = 0;
        line.addEventListener("click", () => emit(next.id, index));
        line.addEventListener("keydown", (event) => {
          if (event.key === "Enter") emit(next.id, index);
        });
      }
      line.append(...row.map((value) => {
        const cell = document.createElement("td");
        cell.textContent = typeof value === "number" ? numberText(value) : tokenLabel(value ?? "");
        if (typeof value === "number") cell.className = "number";
        return cell;
      }));
      if (next.action !== undefined) line.append(actionCell(next.action, row[0], () => emit(next.id, index)));
      return line;
    });
    grid.replaceChildren(head, ...rows);
  };
  update(data);
  return { update, destroy: () => figure.remove() };
};

function actionCell(label: string, rowName: string | number | null | undefined, act: () => void): HTMLElement {
  const cell = document.createElement("td");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.setAttribute("aria-label", `${label} ${rowName ?? ""}`);
  button.addEventListener("click", act);
  cell.append(button);
  return cell;
}

/** Four decimals, but a small number by its size: 3.1e-7 is not 0. */
function numberText(value: number): string {
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) < 1e-3 ? value.toExponential(1) : value.toFixed(4);
}

/** RFC 4180: every text quoted, quotes doubled, numbers in full. */
function toCsv(data: TablePart): string {
  const quote = (value: string | number | null): string =>
    typeof value === "number" ? String(value) : `"${(value ?? "").replaceAll('"', '""')}"`;
  return [data.columns, ...data.rows].map((row) => row.map(quote).join(",")).join("\r\n") + "\r\n";
}

function toJson(data: TablePart): string {
  return JSON.stringify(
    data.rows.map((row) => Object.fromEntries(data.columns.map((name, index) => [name, row[index] ?? null]))),
    null,
    1,
  );
}
