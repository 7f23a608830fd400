// Draws a tool's tree of parts. A part that is still there keeps its view and is only updated, so that the cursor in a
// field, the scroll position and the keyboard focus survive a refresh. What a part looks like is in its own file.

import { badge } from "./badge.ts";
import { bars } from "./bars.ts";
import { button } from "./button.ts";
import { choice } from "./choice.ts";
import { field } from "./field.ts";
import { heatMap } from "./heat_map.ts";
import { switches } from "./switches.ts";
import { table } from "./table.ts";
import { errorText, heading, prose, text } from "./text.ts";
import type { Emit, Part, StackPart, View } from "./view.ts";

export function tree(element: HTMLElement, data: Part, emit: Emit): View<Part> {
  let kind = data.part;
  let view = draw(element, data, emit);
  return {
    update(next) {
      if (next.part === kind) {
        view.update(next);
        return;
      }
      view.destroy();
      kind = next.part;
      view = draw(element, next, emit);
    },
    destroy: () => view.destroy(),
  };
}

/** The casts are sound: a view is only ever updated with parts of the kind that it was made for. */
function draw(element: HTMLElement, data: Part, emit: Emit): View<Part> {
  switch (data.part) {
    case "stack":
    case "row":
      return stack(element, data, emit) as View<Part>;
    case "heading":
      return heading(element, data, emit) as View<Part>;
    case "text":
      return text(element, data, emit) as View<Part>;
    case "prose":
      return prose(element, data, emit) as View<Part>;
    case "badge":
      return badge(element, data, emit) as View<Part>;
    case "button":
      return button(element, data, emit) as View<Part>;
    case "error":
      return errorText(element, data, emit) as View<Part>;
    case "field":
      return field(element, data, emit) as View<Part>;
    case "choice":
      return choice(element, data, emit) as View<Part>;
    case "switches":
      return switches(element, data, emit) as View<Part>;
    case "heatMap":
      return heatMap(element, data, emit) as View<Part>;
    case "bars":
      return bars(element, data, emit) as View<Part>;
    case "table":
      return table(element, data, emit) as View<Part>;
    default:
      return data satisfies never;
  }
}

/** The identity of a child: its id where it has one, else its kind and how many of that kind came before it. */
function keysOf(children: readonly Part[]): string[] {
  const seen = new Map<string, number>();
  return children.map((child) => {
    if ("id" in child) return `id ${child.id}`;
    const count = seen.get(child.part) ?? 0;
    seen.set(child.part, count + 1);
    return `${child.part} ${count}`;
  });
}

function stack(element: HTMLElement, data: StackPart, emit: Emit): View<StackPart> {
  const holder = element.ownerDocument.createElement("div");
  holder.className = data.part;
  element.append(holder);
  let drawn = new Map<string, { cell: HTMLElement; view: View<Part> }>();

  function update(next: StackPart): void {
    const keys = keysOf(next.children);
    const kept = new Map<string, { cell: HTMLElement; view: View<Part> }>();
    next.children.forEach((child, index) => {
      const key = keys[index] as string;
      let entry = drawn.get(key);
      if (entry) {
        entry.view.update(child);
      } else {
        const cell = element.ownerDocument.createElement("div");
        cell.className = `part part-${child.part}`;
        entry = { cell, view: tree(cell, child, emit) };
      }
      kept.set(key, entry);
      // Moving an element that is already in its place would take the focus away.
      if (holder.children[index] !== entry.cell) holder.insertBefore(entry.cell, holder.children[index] ?? null);
    });
    for (const [key, entry] of drawn) {
      if (kept.has(key)) continue;
      entry.view.destroy();
      entry.cell.remove();
    }
    drawn = kept;
  }

  update(data);
  return {
    update,
    destroy() {
      for (const entry of drawn.values()) entry.view.destroy();
      holder.remove();
    },
  };
}
