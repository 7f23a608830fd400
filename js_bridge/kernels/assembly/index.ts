// What kernels.wasm exports. Pointers are byte offsets into the memory that JavaScript hands over and hands out
// (../memory.ts); there is no allocator in here, and no state but a thread's board.

export {
  ACTIVATE,
  ACTIVATE_GRADIENT,
  AFFINE,
  attach,
  BINARY,
  boardSize,
  COLUMNS,
  engage,
  FILL_BY_COLUMNS,
  FILL_BY_ROWS,
  FILL_CODES_BY_COLUMNS,
  FILL_CODES_BY_ROWS,
  GATHER,
  helped,
  MATMUL,
  MIX,
  MIX_TRANSPOSED,
  NORM,
  NORM_SCALE,
  NORMALIZE,
  PRODUCT,
  PRODUCT_INT8,
  PRODUCT_TRANSPOSED,
  REDUCE,
  ROTATE,
  run,
  SCORES,
  SELECT,
  serve,
  SOFTMAX,
  SUM_EXPONENTIALS,
  UNARY,
} from "./jobs";

export function heapBase(): usize {
  return __heap_base;
}
