/** The machine's own primitives by name, for `<primitive: 'primitiveX'>` without a module. */
import { type Primitive, primitiveTable } from "./primitive_table.ts";

const functions: ReadonlyMap<string, Primitive> = new Map(
  [...primitiveTable.values()].flatMap(({ name, run }) => (run === null ? [] : [[name, run] as const])),
);

export function ownFunction(name: string): Primitive | null {
  return functions.get(name) ?? null;
}
