// The engine's errors as JavaScript errors; the tree of their names is drawn in protocol/error.ts.
// A text says what happened, the value, what is allowed and what to do, in that order.

import type { ErrorDescription, ErrorName } from "../protocol.ts";

export class EngineError extends Error {
  readonly details: Record<string, unknown>;

  constructor(name: ErrorName, message: string, details: Record<string, unknown> = {}) {
    super(message);
    this.name = name;
    this.details = details;
  }
}

/** Any thrown thing as data; what is no EngineError is a defect of the engine and keeps its stack. */
export function describeError(error: unknown): ErrorDescription {
  if (error instanceof EngineError) {
    return { name: error.name as ErrorName, message: error.message, ...error.details };
  }
  if (error instanceof Error) {
    return { name: "EngineDefect", message: `${error.name}: ${error.message}`, stack: error.stack };
  }
  return { name: "EngineDefect", message: String(error) };
}

/** The names nearest to one that is wrong: at most `count`, nearest first, none that is unlike it. */
export function nearMisses(wrong: string, names: Iterable<string>, count = 5): string[] {
  const limit = Math.max(2, Math.floor(wrong.length / 3));
  const scored: { name: string; distance: number }[] = [];
  for (const name of names) {
    const distance = name.endsWith(wrong) || wrong.endsWith(name) ? 1 : editDistance(wrong, name);
    if (distance <= limit) scored.push({ name, distance });
  }
  scored.sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1));
  return scored.slice(0, count).map((each) => each.name);
}

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}
