// A file in chunks, and where each of them is kept: as bundle.json cuts it, or along a grid of 16 MiB where nobody has
// cut it, its size perhaps unknown until the end is met. It reads nothing.

import { EngineError } from "../engine/errors.ts";
import { type FileHead, checkSame } from "./fetch.ts";
import type { BundleFile } from "./manifest.ts";

/** 16 MiB: few enough requests for any file, and little to do again after a cut; four at once keep a line full. */
export const GRID = 16 * 2 ** 20;

export interface ChunkPlace {
  readonly index: number;
  readonly offset: number;
  readonly bytes: number;
  /** what its bytes must have; null where nobody has said */
  readonly sha256: string | null;
  /** in the store; null: not kept */
  readonly key: string | null;
}

export class ChunkedFile {
  readonly name: string;
  readonly url: string;
  /** What the host is found to be able to: null until it has answered. */
  cuts: boolean | null = null;
  /** The whole file, from a host that can't cut. */
  whole: Promise<Uint8Array | null> | null = null;
  readonly #listed: BundleFile | null;
  readonly #keys: string | null;
  #bytes: number | null;
  #head: FileHead | null = null;

  /** `keys` begins the keys of a file along the grid; null: it is not kept. */
  constructor(name: string, url: string, listed: BundleFile | null, keys: string | null) {
    this.name = name;
    this.url = url;
    this.#listed = listed;
    this.#keys = keys;
    this.#bytes = listed?.bytes ?? null;
  }

  /** null: not yet known */
  get bytes(): number | null {
    return this.#bytes;
  }

  /** Fails: BundleRefused when that is not its size. */
  learnSize(bytes: number): void {
    if (this.#bytes !== null && bytes > this.#bytes) throw this.#tooShort(bytes);
    this.#bytes ??= bytes;
  }

  /** What an answer tells of the file. Fails: FetchFailed when it is not the file of the answers before. */
  learn(head: FileHead): void {
    if (this.#head !== null) checkSame(this.url, this.#head, head);
    this.#head ??= head;
    if (this.#listed === null && head.total !== null) this.#bytes ??= head.total;
  }

  /** Null beyond the file's end. */
  chunk(index: number): ChunkPlace | null {
    if (this.#listed !== null) {
      const listed = this.#listed.chunks[index];
      return listed === undefined ? null : { index, ...listed, key: listed.sha256 };
    }
    const offset = index * GRID;
    if (this.#bytes !== null && offset >= Math.max(this.#bytes, 1)) return null;
    const bytes = this.#bytes === null ? GRID : Math.min(GRID, this.#bytes - offset);
    return { index, offset, bytes, sha256: null, key: this.#keys === null ? null : `${this.#keys}/${this.name}@${offset}` };
  }

  /** The chunk in which a byte lies. Fails: BundleRefused beyond the file's end. */
  at(offset: number): ChunkPlace {
    let index = Math.floor(offset / GRID);
    if (this.#listed !== null) {
      const { chunks } = this.#listed;
      index = chunks.findIndex((each) => offset < each.offset + each.bytes);
    }
    const place = index < 0 ? null : this.chunk(index);
    if (place === null) throw this.#tooShort(offset + 1);
    return place;
  }

  /** Fails: BundleRefused where the file ends before. */
  check(begin: number, end: number): void {
    if (begin < 0 || begin > end || (this.#bytes !== null && end > this.#bytes)) throw this.#tooShort(end, begin);
  }

  #tooShort(end: number, begin?: number): EngineError {
    const asked = begin === undefined ? `${end} bytes are needed` : `bytes ${begin} to ${end} were asked for`;
    return new EngineError("BundleRefused", `${this.name}: ${asked}; it has ${this.#bytes}`, { file: this.name });
  }
}
