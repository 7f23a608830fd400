// A tiny model opened in an engine of this process, and what tests of passes ask of it in one line each.

import assert from "node:assert/strict";
import type { Answer, ForwardRequest, GenerateRequest, Padding } from "../../js_bridge/protocol.ts";
import { Session } from "./session.ts";

type Kind<K extends Answer["kind"]> = Extract<Answer, { kind: K }>;
/** Shape and numbers. */
export type Numbers = { shape: readonly number[]; numbers: Float32Array };
export type ForwardParts = Omit<Partial<ForwardRequest>, "capture" | "logits" | "residual"> & {
  capture?: readonly (string | { name: string; positions: readonly number[] })[];
  /** Whether its numbers are wanted. */
  logits?: boolean;
  residual?: boolean;
};
export type GenerateParts = Omit<Partial<GenerateRequest>, "capture"> & Pick<ForwardParts, "capture">;
export type TokenEvent = Kind<"token">;

export class Opened {
  readonly session: Session;
  readonly model: number;
  #caches = 0;

  constructor(session: Session, model: number) {
    this.session = session;
    this.model = model;
  }

  /** Runs a pass; the numbers of each capture by name, and of what `logits` and `residual` are true for. */
  async forward({ logits, residual, capture = [], ...rest }: ForwardParts): Promise<Record<string, Numbers>> {
    const named = this.#named(capture);
    const results = [
      ...named.map(({ name, tensor }) => ({ name, tensor })),
      ...(logits === true ? [{ name: "logits", tensor: this.session.name() }] : []),
      ...(residual === true ? [{ name: "residual", tensor: this.session.name() }] : []),
    ];
    const tensorOf = (name: string) => results.find((each) => each.name === name)?.tensor;
    try {
      await this.session.ask({
        kind: "forward",
        model: this.model,
        pass: this.session.name(),
        ...rest,
        capture: named,
        ...(logits === true ? { logits: tensorOf("logits") } : {}),
        ...(residual === true ? { residual: tensorOf("residual") } : {}),
      });
      return Object.fromEntries(
        await Promise.all(results.map(async ({ name, tensor }) => [name, await this.session.read(tensor)] as const)),
      );
    } finally {
      this.session.post({ kind: "release", tensors: results.map((each) => each.tensor) });
    }
  }

  /** Generates greedily, or as `sampling` says. */
  async generate(
    parts: GenerateParts,
  ): Promise<Kind<"generated"> & { events: TokenEvent[]; captured: Record<string, Numbers> }> {
    const { capture = [], ...rest } = parts;
    const named = this.#named(capture);
    const before = this.session.events.length;
    try {
      const { message } = await this.session.ask({
        kind: "generate",
        model: this.model,
        pass: this.session.name(),
        tokens: [1],
        maxTokens: 5,
        sampling: { temperature: 0 },
        ...rest,
        capture: named,
      });
      const captured = await Promise.all(
        named.map(async ({ name, tensor }) => [name, await this.session.read(tensor)] as const),
      );
      const answer = message as Kind<"generated">;
      const events = this.session.events
        .slice(before)
        .filter((event): event is TokenEvent => event.kind === "token" && event.pass === answer.pass);
      return { ...answer, events, captured: Object.fromEntries(captured) };
    } finally {
      this.session.post({ kind: "release", tensors: named.map((each) => each.tensor) });
    }
  }

  cache(): number {
    const cache = ++this.#caches;
    this.session.post({ kind: "createCache", cache, model: this.model });
    return cache;
  }

  async ledger(): Promise<Omit<Kind<"ledger">, "id" | "kind">> {
    const { id: _id, kind: _kind, ...rest } = (await this.session.ask({ kind: "ledger" })).message as Kind<"ledger">;
    return rest;
  }

  #named(
    capture: NonNullable<ForwardParts["capture"]>,
  ): { name: string; tensor: number; positions?: readonly number[] }[] {
    return capture.map((each) => ({
      ...(typeof each === "string" ? { name: each } : each),
      tensor: this.session.name(),
    }));
  }
}

export async function open(
  folder: string,
  backend: "reference" | "wasm" = "reference",
  options: ConstructorParameters<typeof Session>[0] = {},
): Promise<Opened> {
  const session = new Session(options);
  return new Opened(session, (await session.load(folder, backend)).model);
}

/** Positions of one row: [1 T D…] → the chosen ones, in order. */
export function rowsOf({ shape, numbers }: Numbers, row: number, positions: readonly number[]): Float32Array {
  const [, extent, ...rest] = shape;
  const width = rest.reduce((a, b) => a * b, 1);
  const chosen = positions.map((position) => {
    const from = (row * extent + position) * width;
    return [...numbers.subarray(from, from + width)];
  });
  return Float32Array.from(chosen.flat());
}

export function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

/** The positions of a row that are no padding. */
export function realOf({ side, lengths }: Padding, row: number, whole: number): number[] {
  return side === "right" ? range(0, lengths[row]) : range(whole - lengths[row], whole);
}

export function assertClose(ours: Float32Array, theirs: Float32Array, allowed: number, what: string): void {
  assert.equal(ours.length, theirs.length, `${what}: lengths`);
  let largest = 0;
  for (let i = 0; i < ours.length; i++) {
    const difference = Object.is(ours[i], theirs[i]) ? 0 : Math.abs(ours[i] - theirs[i]);
    if (!(difference <= largest)) largest = difference; // NaN counts as the largest of all
  }
  assert.ok(largest <= allowed, `${what}: differs by ${largest}, allowed is ${allowed}`);
}
