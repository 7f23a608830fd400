// Bytes by path, for an engine in Node's process. Not for the page: it reads the file system.

import { open, readFile } from "node:fs/promises";
import type { FetchBytes } from "./fetch.ts";

export const readFiles: FetchBytes = async (path, range, onBytes) => {
  try {
    if (range === undefined) {
      const { buffer, byteOffset, length } = await readFile(path);
      onBytes?.(length);
      return new Uint8Array(buffer, byteOffset, length); // a Buffer's slice() would not copy
    }
    const file = await open(path);
    try {
      const bytes = new Uint8Array(range.bytes);
      const { bytesRead } = await file.read(bytes, 0, range.bytes, range.offset);
      onBytes?.(bytesRead);
      return bytes.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
};
