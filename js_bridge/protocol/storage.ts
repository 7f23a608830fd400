// The weight store: what it holds, how much it may hold.

/** What the weight store holds. → `storage` */
export interface StorageRequest {
  kind: "storage";
  id: number;
}

/** Sets how many bytes the weight store may take, and evicts what is beyond. → `storage` */
export interface StorageBudgetRequest {
  kind: "storageBudget";
  id: number;
  bytes: number;
}

/** Drops a bundle from the weight store; a model that is loaded from it stays. → `storage` */
export interface EvictRequest {
  kind: "evict";
  id: number;
  bundle: string;
}

export interface StorageAnswer {
  kind: "storage";
  id: number;
  /** That the store takes now. */
  bytes: number;
  budget: number;
  /** What the browser allows the site; null where it does not tell. */
  quota: number | null;
  /** `lastUsed` in milliseconds since 1970. */
  bundles: readonly { name: string; bytes: number; lastUsed: number }[];
}
