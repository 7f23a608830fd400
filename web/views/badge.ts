// A short verdict with a colour and a sign; what it says is in its text as well.

import type { BadgePart, ViewFunction } from "./view.ts";

const signs = { good: "✓", bad: "✗", open: "…" } as const;

export const badge: ViewFunction<BadgePart> = (element, data) => {
  const node = element.ownerDocument.createElement("p");
  node.setAttribute("role", "status");
  element.append(node);
  const update = (next: BadgePart): void => {
    node.className = `badge badge-${next.state}`;
    node.textContent = `${signs[next.state]} ${next.text}`;
  };
  update(data);
  return { update, destroy: () => node.remove() };
};
