// The other tabs of this site, which share its storage: who fetches what, and who needs what. By Web Locks, which end
// with the tab that holds them; where a browser or an insecure page has none, what was used in the last minute counts
// as needed, and two tabs may fetch the same chunk, which costs bytes and nothing else.

export interface Tabs {
  /** Tells the others that a bundle is needed, until the answer is called. */
  announce(bundle: string): () => void;
  /** The bundles that some tab needs. */
  inUse(lastUsed: ReadonlyMap<string, number>): Promise<ReadonlySet<string>>;
  /** Waits until no other tab holds the key. Fails: the signal's reason. */
  claim(key: string, signal?: AbortSignal): Promise<() => void>;
}

export const ALONE: Tabs = {
  announce: () => () => undefined,
  inUse: async () => new Set(),
  claim: async () => () => undefined,
};

const USED = "neuroscope bundle ";
const FETCHED = "neuroscope fetch ";
const MINUTE = 60_000;

export function tabsOf(locks: LockManager | undefined): Tabs {
  if (locks === undefined) {
    return {
      ...ALONE,
      inUse: async (lastUsed) => {
        const since = Date.now() - MINUTE;
        return new Set([...lastUsed].filter(([, time]) => time > since).map(([bundle]) => bundle));
      },
    };
  }
  return {
    announce(bundle) {
      const { promise, resolve } = Promise.withResolvers<void>();
      locks.request(USED + bundle, { mode: "shared" }, () => promise).catch(() => undefined);
      return resolve;
    },
    async inUse() {
      const { held = [] } = await locks.query();
      const names = held.map(({ name = "" }) => name).filter((name) => name.startsWith(USED));
      return new Set(names.map((name) => name.slice(USED.length)));
    },
    claim(key, signal) {
      return new Promise((granted, refused) => {
        const { promise, resolve } = Promise.withResolvers<void>();
        const options = signal === undefined ? {} : { signal };
        locks
          .request(FETCHED + key, options, () => {
            granted(resolve);
            return promise;
          })
          .catch(refused);
      });
    },
  };
}
