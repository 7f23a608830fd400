// What kernels.wasm exports. Pointers are byte offsets into its memory, which JavaScript hands out from `heapBase` up
// (memory.ts); there is no allocator in here and no state.

export { column, product } from "./product";
export { add, affine, geluTanh, normalize, normScale, softmax } from "./rows";
export { mix, scores } from "./attention";

export function heapBase(): usize {
  return __heap_base;
}
