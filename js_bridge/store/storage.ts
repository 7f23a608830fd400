// What the messages storage, storageBudget and evict do, and how a full store is told. A page without a store has one
// of no bytes.

import { EngineError } from "../engine/errors.ts";
import type { ErrorDescription, EvictRequest, StorageAnswer, StorageBudgetRequest, StorageRequest } from "../protocol.ts";
import type { ChunkStore, Shortage } from "./chunk_store.ts";

/** Fails: BadParameter for a budget that is no number of bytes, and for a bundle that is not kept. */
export async function answerStorage(
  store: ChunkStore | null,
  message: StorageRequest | StorageBudgetRequest | EvictRequest,
): Promise<StorageAnswer> {
  const nothing = { bytes: 0, budget: 0, quota: null, bundles: [] };
  if (message.kind === "storageBudget") await store?.setBudget(message.bytes);
  if (message.kind === "evict") {
    const { bundles } = (await store?.usage()) ?? nothing;
    if (!bundles.some(({ name }) => name === message.bundle)) {
      const kept = bundles.map(({ name }) => name).join(", ") || "nothing";
      throw new EngineError("BadParameter", `${message.bundle} is not kept here, so it can't be evicted; kept is: ${kept}`);
    }
    await store?.evict(message.bundle);
  }
  return { kind: "storage", id: message.id, ...((await store?.usage()) ?? nothing) };
}

export function describeShortage({ bundle, bytes, budget, quota }: Shortage): ErrorDescription {
  const allowed = quota === null ? "" : `, the browser allows ${megabytes(quota)} MB`;
  return {
    name: "StorageFull",
    message:
      `There is no room to keep ${bundle} for the next visit (${megabytes(bytes)} MB more; the budget is ` +
      `${megabytes(budget)} MB${allowed}); it works now, and is fetched again then: evict other models, raise the budget or free the disk`,
    bundle,
    bytes,
    budget,
    quota,
  };
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
