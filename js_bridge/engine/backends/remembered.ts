// What is worth remembering between visits, and costs nothing but time when it is lost: measurements, by key.
// A host that can keep nothing gives none; whoever recalls checks what comes back.

export interface Remembered {
  /** Undefined: nothing is known. */
  recall(key: string): Promise<unknown>;
  /** Of plain data. */
  remember(key: string, value: unknown): Promise<void>;
}

/** As long as the process lasts. */
export function rememberedHere(): Remembered {
  const known = new Map<string, unknown>();
  return {
    recall: async (key) => known.get(key),
    remember: async (key, value) => void known.set(key, value),
  };
}
