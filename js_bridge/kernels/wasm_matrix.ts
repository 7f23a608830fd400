// Weights of the WebAssembly backend: panels [ceil(outputs/8)][inputs][8], float32, or int8 codes followed by one scale
// per output. A weight is written by rows of its file through a small staging block, straight to its place.

import type { Matrix, MatrixLayout, MatrixWriter } from "../engine/backend.ts";
import type { Kernels } from "./wasm_module.ts";

export const PANEL = 8;

export interface PanelMatrix extends Matrix {
  readonly start: number;
  /** Address of the scales; 0 of float32. */
  readonly scales: number;
}

/** Bytes of the file that are moved at once: about what the second-level cache holds. */
const STAGING = 2 ** 18;

/** How the backend hands out memory: with its own error when there is none. */
export interface Room {
  allocate(bytes: number): number;
  free(start: number): void;
}

export function writePanels(
  kernels: Kernels,
  room: Room,
  layout: MatrixLayout,
  counted: (bytes: number) => void,
): MatrixWriter {
  const { inputs, outputs, transposed, scales } = layout;
  const width = transposed ? inputs : outputs;
  const numberBytes = scales === null ? 4 : 1;
  const rowsAtOnce = Math.max(PANEL, Math.floor(STAGING / (width * numberBytes) / PANEL) * PANEL);
  const staging = room.allocate(rowsAtOnce * width * numberBytes);
  const panels = Math.ceil(outputs / PANEL);
  const numbers = panels * inputs * PANEL;
  const behind = Math.ceil((numbers * numberBytes) / 64) * 64;
  const bytes = scales === null ? 4 * numbers : behind + 4 * panels * PANEL;
  // productTransposed reads two inputs at a time.
  const behindOdd = (inputs % 2) * 4 * PANEL;
  let start: number;
  try {
    start = room.allocate(bytes + behindOdd);
  } catch (error) {
    room.free(staging);
    throw error;
  }
  const { memory } = kernels;
  // What lies beside the last outputs is computed with, though nothing of it is kept.
  const last = Math.floor(outputs / PANEL) * inputs * PANEL * numberBytes;
  new Uint8Array(memory.buffer, start, bytes).fill(0, last);
  let row = 0;

  function fill(count: number): void {
    if (transposed) {
      const touched = ((row + count - 1) >> 3) - (row >> 3) + 1;
      const kernel = scales === null ? "FILL_BY_COLUMNS" : "FILL_CODES_BY_COLUMNS";
      kernels.run(kernel, touched, inputs * PANEL, staging, count, row, start, inputs, outputs);
    } else {
      const kernel = scales === null ? "FILL_BY_ROWS" : "FILL_CODES_BY_ROWS";
      kernels.run(kernel, panels, count * PANEL, staging, count, row, start, inputs, outputs);
    }
    row += count;
  }

  return {
    write(rows) {
      const total = rows.length / width;
      for (let done = 0; done < total; ) {
        // Whole panels wherever the file's rows are columns of them.
        const count = Math.min(rowsAtOnce - (transposed ? row % PANEL : 0), total - done);
        const piece = rows.subarray(done * width, (done + count) * width);
        if (scales === null) memory.floats(staging, piece.length).set(piece);
        else new Int8Array(memory.buffer, staging, piece.length).set(piece);
        fill(count);
        done += count;
      }
    },
    finish() {
      room.free(staging);
      if (scales !== null) {
        memory.floats(start + behind, outputs).set(scales);
        kernels.reserve(4 * inputs * PANEL);
      }
      counted(bytes);
      return { inputs, outputs, bytes, start, scales: scales === null ? 0 : start + behind } as PanelMatrix;
    },
    abandon() {
      room.free(staging);
      room.free(start);
    },
  };
}
