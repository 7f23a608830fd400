// Learns that a worker has died. An error that nobody caught is told by the worker itself; a worker that the browser
// ends (out of memory, a crash) says nothing, but the Web Lock that it held is let go of. A long computation is no
// death, so nothing here waits for a sign of life; where there are no locks (an insecure page) a silent death stays
// unnoticed.

/** `onDeath` is called once. Answers the name of the lock that the worker is to hold. */
export function whenDead(worker: Worker, onDeath: (reason: string) => void): string {
  const life = `neuroscope worker ${Math.random().toString(36).slice(2)}`;
  let isAlive = true;
  const died = (reason: string): void => {
    if (isAlive) onDeath(reason);
    isAlive = false;
  };
  worker.addEventListener("error", (event) => died(event.message || "its script could not be loaded"));
  // Once the worker says that it holds the lock, whoever gets it gets it from the dead.
  worker.addEventListener("message", ({ data }: MessageEvent<{ alive?: boolean }>) => {
    if (data.alive) navigator.locks?.request(life, () => died("the browser ended it")).catch(() => undefined);
  });
  return life;
}

/** The worker's side: holds the lock to its end. */
export function live(life: string, tell: () => void): void {
  navigator.locks
    ?.request(life, () => {
      tell();
      return new Promise(() => undefined);
    })
    .catch(() => undefined);
}
