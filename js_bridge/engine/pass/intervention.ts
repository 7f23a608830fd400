// Interventions as data: what protocol.ts's `Intervention` does to the value at a hook point.
// Everything is computed on the whole value and then taken inside the region only, so the rest keeps its exact bits.
// Positions and keys of a region are absolute; span.ts says where they lie in a pass.

import type { Intervention, Region, Shape, TensorId } from "../../protocol.ts";
import type { Backend, Value } from "../backend.ts";
import { EngineError } from "../errors.ts";
import { withScalar } from "../tensors/operation.ts";
import { lastOf, resolveIndex, sameShape, showShape } from "../tensors/shape.ts";
import { axesOf, keysOf, placesOf, type Span } from "./span.ts";

/** The tensor that an intervention rests on, if it does. */
export function operandOf(intervention: Intervention): TensorId | null {
  return "tensor" in intervention ? intervention.tensor : null;
}

/** One axis of a region: the indices it is restricted to. */
interface Restriction {
  readonly axis: number;
  /** -1 for one that this pass does not have; its place among the operand's stays. */
  readonly indices: readonly number[];
  /** A single index, whose axis an operand may leave out, as NumPy does. */
  readonly isSingle: boolean;
}

/** Where an intervention acts: the hook's shape letters, as in "B T H K", and the pass. */
export interface Scene {
  readonly letters: string;
  readonly span: Span;
}

/**
 * The value after the intervention, which the caller owns; null where it does not act in this pass.
 * Shapes: `operand` is null where operandOf is.
 * Fails: BadParameter, ShapeMismatch.
 */
export function intervene(
  backend: Backend,
  intervention: Intervention,
  scene: Scene,
  value: Value,
  operand: Value | null,
): Value | null {
  const restrictions = restrictionsOf(intervention, scene, value.shape, operand?.shape ?? null);
  if (restrictions.some((each) => each.indices.every((index) => index < 0))) return null;
  const made: Value[] = [];
  const keep = (each: Value) => (made.push(each), each);
  try {
    const changed = keep(change(backend, intervention, scene, value, operand, restrictions, keep));
    return backend.select(keep(maskOf(backend, value.shape, restrictions)), changed, value, value.shape);
  } finally {
    for (const each of made) backend.release(each);
  }
}

/** Checks all that is wrong before a pass starts. Fails: BadParameter, ShapeMismatch. */
export function checkIntervention(intervention: Intervention, scene: Scene, shape: Shape, operand: Value | null): void {
  const restrictions = restrictionsOf(intervention, scene, shape, operand?.shape ?? null);
  switch (intervention.action) {
    case "zero":
      return;
    case "scale":
      return checkNumber(intervention, intervention.by);
    case "add":
    case "set":
      if (operand === null) return checkNumber(intervention, (intervention as { value: number }).value);
      operandShape(intervention, operand.shape, shape, restrictions);
      return;
    case "patch":
      return;
    case "projectOut":
      if (!sameShape((operand as Value).shape, [lastOf(shape)]))
        throw wrongOperand(intervention, (operand as Value).shape, [lastOf(shape)]);
      if (intervention.at?.neuron !== undefined)
        throw new EngineError(
          "BadParameter",
          `projectOut at ${intervention.hook} with a neuron: a direction needs the whole last axis; leave neuron out`,
        );
      return;
    default:
      throw new EngineError(
        "BadMessage",
        `Intervention ${JSON.stringify((intervention as { action: unknown }).action)} at ${(intervention as { hook: string }).hook}: it must be zero, scale, add, set, patch or projectOut`,
      );
  }
}

function checkNumber(intervention: Intervention, number: unknown): void {
  if (typeof number !== "number")
    throw new EngineError("BadMessage", `${intervention.action} at ${intervention.hook} lacks its number or tensor`);
}

function wrongOperand(intervention: Intervention, given: Shape, wanted: Shape): EngineError {
  return new EngineError(
    "ShapeMismatch",
    `${intervention.action} at ${intervention.hook} with a tensor of shape ${showShape(given)}: it must be ${showShape(wanted)}`,
    { shapes: [given, wanted], hook: intervention.hook },
  );
}

function change(
  backend: Backend,
  intervention: Intervention,
  scene: Scene,
  value: Value,
  operand: Value | null,
  restrictions: readonly Restriction[],
  keep: (value: Value) => Value,
): Value {
  switch (intervention.action) {
    case "zero":
      return backend.upload(new Float32Array(1), []);
    case "scale":
      return withScalar(backend, intervention.by, (factor) => backend.binary("multiply", value, factor, value.shape));
    case "add": {
      if (operand === null)
        return withScalar(backend, (intervention as { value: number }).value, (addend) =>
          backend.binary("add", value, addend, value.shape),
        );
      const times = (intervention as { times?: number }).times ?? 1;
      const spread = keep(spreadOperand(backend, intervention, operand, value.shape, restrictions));
      const addend =
        times === 1
          ? spread
          : keep(withScalar(backend, times, (factor) => backend.binary("multiply", spread, factor, spread.shape)));
      return backend.binary("add", value, addend, value.shape);
    }
    case "set":
      if (operand === null) return backend.upload(Float32Array.of((intervention as { value: number }).value), []);
      return spreadOperand(backend, intervention, operand, value.shape, restrictions);
    case "patch":
      return underlaid(backend, operand as Value, scene, value.shape);
    case "projectOut":
      return projectOut(backend, value, operand as Value, keep);
    default:
      return intervention satisfies never;
  }
}

/** x − (x·d / d·d) d */
function projectOut(backend: Backend, value: Value, direction: Value, keep: (value: Value) => Value): Value {
  const axis = value.shape.length - 1;
  const dots = keep(backend.reduce("sum", keep(backend.binary("multiply", value, direction, value.shape)), axis));
  const square = keep(backend.reduce("sum", keep(backend.unary("square", direction)), 0));
  const shares = keep(backend.binary("divide", dots, square, dots.shape));
  return backend.binary(
    "subtract",
    value,
    keep(backend.binary("multiply", shares, direction, value.shape)),
    value.shape,
  );
}

function restrictionsOf(
  intervention: Intervention,
  { letters, span }: Scene,
  shape: Shape,
  operand: Shape | null,
): Restriction[] {
  const { hook } = intervention;
  const axes = axesOf(letters);
  const restrictions = Object.entries(intervention.at ?? {}).map(([word, given]): Restriction => {
    const axis = axes[word as keyof Region] ?? -1;
    if (axis < 0) {
      const known = Object.entries(axes).filter(([, each]) => each >= 0);
      throw new EngineError(
        "BadParameter",
        `${hook} has shape ${letters}: it has no axis ${JSON.stringify(word)}; it has ${known.map(([each]) => each).join(", ")}`,
        { hook },
      );
    }
    const indices: readonly number[] = typeof given === "number" ? [given] : given;
    if (indices.length === 0)
      throw new EngineError(
        "BadParameter",
        `An empty list of ${word} indices at ${hook}: name one, or leave ${word} out for all`,
      );
    return { axis, indices: resolved(word, indices, span, shape[axis], hook), isSingle: typeof given === "number" };
  });
  if (intervention.action !== "patch" || operand === null) return restrictions;
  const covered = coveredBy(intervention, operand, axes.position, span, shape);
  return covered === null ? restrictions : [...restrictions.map(within(covered)), covered];
}

function resolved(word: string, given: readonly number[], span: Span, extent: number, hook: string): readonly number[] {
  if (word === "position") return placesOf(given, span, hook);
  if (word === "key") return keysOf(given, span, hook);
  return given.map((index) => resolveIndex(index, extent, `${word} of ${hook}`));
}

/** What a patch's tensor holds of the pass, where that is not all of it. Fails: ShapeMismatch. */
function coveredBy(
  intervention: Intervention,
  operand: Shape,
  axis: number,
  { offset, positions, isPart }: Span,
  shape: Shape,
): Restriction | null {
  if (!isPart && sameShape(operand, shape)) return null;
  const isSame = (extent: number, at: number) =>
    extent === shape[at] || (at === axis && (isPart || extent === offset + positions));
  if (operand.length !== shape.length || !operand.every(isSame)) throw wrongOperand(intervention, operand, shape);
  if (axis < 0) return null;
  const places = Array.from({ length: positions }, (_, place) => (offset + place < operand[axis] ? place : -1));
  return { axis, indices: places, isSingle: false };
}

/** A restriction of the same axis keeps only what both have. */
function within(covered: Restriction): (restriction: Restriction) => Restriction {
  return (restriction) =>
    restriction.axis !== covered.axis
      ? restriction
      : { ...restriction, indices: restriction.indices.map((index) => (covered.indices.includes(index) ? index : -1)) };
}

/** A patch's tensor, laid under the pass: the positions that the pass computes. */
function underlaid(backend: Backend, operand: Value, { letters, span }: Scene, shape: Shape): Value {
  if (sameShape(operand.shape, shape) && !span.isPart) return backend.retain(operand);
  const axis = axesOf(letters).position;
  if (axis < 0) return backend.retain(operand);
  const last = operand.shape[axis] - 1;
  const places = Int32Array.from({ length: span.positions }, (_, place) => Math.min(span.offset + place, last));
  return backend.take(operand, axis, places);
}

/** 1 inside the region, 0 outside; extent 1 along the axes that are touched whole. */
function maskOf(backend: Backend, shape: Shape, restrictions: readonly Restriction[]): Value {
  const extents = shape.map((extent, axis) => (restrictions.some((each) => each.axis === axis) ? extent : 1));
  const numbers = new Float32Array(extents.reduce((product, extent) => product * extent, 1)).fill(1);
  for (const { axis, indices } of restrictions) {
    const inner = extents.slice(axis + 1).reduce((product, extent) => product * extent, 1);
    for (let i = 0; i < numbers.length; i++) {
      if (!indices.includes(Math.floor(i / inner) % extents[axis])) numbers[i] = 0;
    }
  }
  return backend.upload(numbers, extents);
}

/** The operand's shape with extent 1 for the axes it leaves out. Fails: ShapeMismatch when it doesn't fit the region. */
function operandShape(
  intervention: Intervention,
  given: Shape,
  shape: Shape,
  restrictions: readonly Restriction[],
): number[] {
  const region = shape.map((extent, axis) => restrictions.find((each) => each.axis === axis)?.indices.length ?? extent);
  const single = new Set(restrictions.filter((each) => each.isSingle).map((each) => each.axis));
  const wanted = region.filter((_, axis) => !single.has(axis));
  const result = new Array<number>(shape.length).fill(1);
  let next = given.length - 1;
  for (let axis = shape.length - 1; axis >= 0 && next >= 0; axis--) {
    if (given.length === shape.length || !single.has(axis)) result[axis] = given[next--];
  }
  if (next >= 0 || !result.every((extent, axis) => extent === 1 || extent === region[axis]))
    throw wrongOperand(intervention, given, wanted);
  return result;
}

/** The operand, stretched so that it lies under the region when broadcast to the whole value. */
function spreadOperand(
  backend: Backend,
  intervention: Intervention,
  operand: Value,
  shape: Shape,
  restrictions: readonly Restriction[],
): Value {
  let spread = backend.reshape(operand, operandShape(intervention, operand.shape, shape, restrictions));
  for (const { axis, indices } of restrictions) {
    if (spread.shape[axis] === 1) continue;
    const places = Int32Array.from({ length: shape[axis] }, (_, index) => Math.max(0, indices.indexOf(index)));
    const next = backend.take(spread, axis, places);
    backend.release(spread);
    spread = next;
  }
  return spread;
}
