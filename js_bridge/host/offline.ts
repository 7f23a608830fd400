// The page's side of the service worker: registers it, takes it away where ?without=sw asks for that, and says when a
// newer version of the site is waiting. It never reloads the page: that is the reader's decision.

export interface OfflineOptions {
  /** Of the service worker's script, relative to the page. */
  readonly url: string;
  readonly without: readonly string[];
  /** A newer version of the site is there; `use` puts it in place and reloads the page. */
  onNewer?(use: () => void): void;
  log(text: string): void;
}

export async function keepOffline({ url, without, onNewer, log }: OfflineOptions): Promise<void> {
  const workers = globalThis.navigator?.serviceWorker;
  // Missing in an insecure context, and in private windows of some browsers.
  if (workers === undefined) return log("Service workers are missing here: the site needs the network on every visit");
  const script = new URL(url, document.baseURI).href;
  try {
    if (without.includes("sw")) {
      const registration = await workers.getRegistration(script);
      if (registration?.active?.scriptURL === script) await registration.unregister();
      return;
    }
    const registration = await workers.register(script);
    const tell = (worker: ServiceWorker | null): void => {
      if (worker === null || registration.active === null) return;
      onNewer?.(() => {
        workers.addEventListener("controllerchange", () => location.reload(), { once: true });
        worker.postMessage("activate");
      });
    };
    tell(registration.waiting);
    registration.addEventListener("updatefound", () => {
      const { installing } = registration;
      installing?.addEventListener("statechange", () => {
        if (installing.state === "installed") tell(registration.waiting);
      });
    });
  } catch (error) {
    log(`The service worker could not be registered (${String(error)}): the site needs the network on every visit`);
  }
}
