// Tensors as an engine has made them of a checkpoint's, kept in place of the file's bytes: int8 codes of float weights,
// so that the next visit reads a quarter and fetches nothing. What the bytes are is their maker's business.

import { type ChunkStore, keep, readKept } from "./chunk_store.ts";

export class PreparedTensors {
  readonly #store: ChunkStore;
  readonly #bundle: string;
  readonly #keys: string;

  /** `keys` names the checkpoint and its version: what is prepared of another is another. */
  constructor(store: ChunkStore, bundle: string, keys: string) {
    this.#store = store;
    this.#bundle = bundle;
    this.#keys = keys;
  }

  /** What was put under a tensor's name and a form ("int8"), undamaged; null where there is nothing. */
  get(tensor: string, form: string): Promise<Uint8Array | null> {
    return readKept(this.#store, this.#key(tensor, form));
  }

  /** Resolves when the bytes are kept, or there was no room for them; they must not change until then. */
  async put(tensor: string, form: string, bytes: Uint8Array): Promise<void> {
    await keep(this.#store, this.#bundle, this.#key(tensor, form), bytes);
  }

  #key(tensor: string, form: string): string {
    return `${this.#keys}/${tensor}#${form}`;
  }
}
