// Bytes by path, for an engine in Node's process; an address of the web goes over HTTP. Not for the page: it reads the
// file system.

import { open, readFile } from "node:fs/promises";
import { type FetchBytes, fetchOverHttp } from "./fetch.ts";

export const readFiles: FetchBytes = async (path, range, watch = {}) => {
  if (/^https?:/.test(path)) return fetchOverHttp(path, range, watch);
  watch.signal?.throwIfAborted();
  try {
    if (range === undefined) {
      const { buffer, byteOffset, length } = await readFile(path);
      watch.onBytes?.(length);
      return new Uint8Array(buffer, byteOffset, length); // a Buffer's slice() would not copy
    }
    const file = await open(path);
    try {
      const { size } = await file.stat();
      watch.onHead?.({ status: 206, isWhole: false, total: size, version: null, commit: null, code: null });
      const bytes = new Uint8Array(Math.max(0, Math.min(range.bytes, size - range.offset)));
      const { bytesRead } = await file.read(bytes, 0, bytes.length, range.offset);
      watch.onBytes?.(bytesRead);
      return bytes.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
};
