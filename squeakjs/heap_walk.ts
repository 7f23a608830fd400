/**
 * What must know all objects: enumeration, become:, full collection, snapshot. Objects are found by tracing from the
 * roots: the special objects, the active context, and what JavaScript holds for the image. Weak slots are not followed,
 * so an object that only they refer to counts as dead.
 */
import type { Interpreter } from "./interpreter.ts";
import { format, type Oop, SqueakObject } from "./object.ts";
import { contextSlots } from "./special_objects.ts";

let epoch = 0;

/** All reachable objects, each once, in an order that depends on the graph alone. */
export function reachableObjects(vm: Interpreter): SqueakObject[] {
  vm.exposeContext();
  vm.dropRecycledContexts();
  const mark = ++epoch;
  const found: SqueakObject[] = [];
  const visit = (oop: unknown): void => {
    if (oop instanceof SqueakObject && oop.mark !== mark) {
      oop.mark = mark;
      found.push(oop);
    }
  };
  visit(vm.memory.specialObjectsArray);
  visit(vm.activeContext);
  for (const each of vm.heldObjects) visit(each);
  // the list is its own queue: breadth first
  for (let i = 0; i < found.length; i++) {
    const object = found[i];
    visit(object.sqClass);
    const end = liveSlots(object);
    for (let slot = 0; slot < end; slot++) {
      const value = object.pointers[slot];
      if (typeof value !== "number") visit(value);
    }
  }
  return found;
}

/** Number of slots that hold something: what lies above a context's stack is left over from former uses. */
export function liveSlots(object: SqueakObject): number {
  if (object.pointers === null) return 0;
  if (!isContextShaped(object)) return object.pointers.length;
  return Math.min(object.pointers.length, contextSlots.firstTemp + (object.pointers[contextSlots.stackp] as number));
}

/** Whether an object is a context: the only ones whose slots 3 to 5 are those of an activation and whose third is a count. */
function isContextShaped(object: SqueakObject): boolean {
  if (object.format !== format.fixedIndexable || object.pointers.length < contextSlots.firstTemp) return false;
  const stackp = object.pointers[contextSlots.stackp];
  const method = object.pointers[contextSlots.method];
  return typeof stackp === "number" && stackp >= 0 && typeof method === "object" && method.format >= format.method;
}

/** Clears the weak slots whose referents are dead; answers how many. */
export function collectWeakSlots(vm: Interpreter): number {
  const live = reachableObjects(vm);
  const mark = epoch;
  let cleared = 0;
  for (const object of live) {
    if (object.format !== format.weak) continue;
    const slots = object.pointers as unknown[];
    for (let i = 0; i < slots.length; i++) {
      const slot = slots[i];
      if (!(slot instanceof WeakRef)) continue;
      const referent = slot.deref() as SqueakObject | undefined;
      if (referent === undefined || referent.mark !== mark) {
        slots[i] = vm.nil;
        cleared++;
      }
    }
  }
  return cleared;
}

/** Whether two objects may take one another's place: not SmallIntegers, Characters, nil, true, false. */
export function mayBecome(vm: Interpreter, oop: Oop): oop is SqueakObject {
  if (typeof oop === "number" || oop.format === format.immediate) return false;
  return oop !== vm.nil && oop !== vm.true && oop !== vm.false && oop !== vm.memory.specialObjectsArray;
}

/** Every reference to a key becomes a reference to its value. */
export function forwardReferences(vm: Interpreter, forward: ReadonlyMap<SqueakObject, Oop>, copyHash: boolean): void {
  const objects = reachableObjects(vm);
  const replaced = (oop: unknown): Oop | undefined => (oop instanceof SqueakObject ? forward.get(oop) : undefined);
  for (const object of objects) {
    const sqClass = replaced(object.sqClass);
    if (sqClass instanceof SqueakObject) object.sqClass = sqClass;
    const slots = object.pointers as unknown[];
    for (let i = liveSlots(object) - 1; i >= 0; i--) {
      const value = slots[i];
      if (typeof value === "number") continue;
      if (value instanceof WeakRef) {
        const other = replaced(value.deref());
        if (other !== undefined) slots[i] = typeof other === "number" ? other : new WeakRef(other);
      } else {
        const other = replaced(value);
        if (other !== undefined) slots[i] = other;
      }
    }
  }
  for (const [from, to] of forward) {
    if (typeof to === "number") continue;
    if (vm.memory.isIndexedClass(from)) {
      // the new class takes the old one's place in the class table, and its instances with it
      vm.memory.noteClassMoved(to, from.hash);
      to.hash = from.hash;
    } else if (copyHash && from.hash !== 0) {
      to.hash = from.hash;
    }
    if (vm.heldObjects.delete(from)) vm.heldObjects.add(to);
  }
  const context = forward.get(vm.activeContext);
  if (context instanceof SqueakObject) vm.activeContext = context;
  vm.objectsChanged();
}

/** Swaps two objects: contents, class and hash, so that every reference to one now is one to the other. */
export function swapContents(vm: Interpreter, a: SqueakObject, b: SqueakObject): void {
  const indexed = [a, b].map((each) => vm.memory.isIndexedClass(each));
  const { sqClass, format: kind, hash, pointers, words, bytes, float, aux } = a;
  Object.assign(a, { sqClass: b.sqClass, format: b.format, hash: b.hash, pointers: b.pointers, words: b.words, bytes: b.bytes, float: b.float, aux: b.aux });
  Object.assign(b, { sqClass, format: kind, hash, pointers, words, bytes, float, aux });
  if (indexed[0]) vm.memory.noteClassMoved(b, b.hash);
  if (indexed[1]) vm.memory.noteClassMoved(a, a.hash);
}
