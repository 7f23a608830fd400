// Learns that a worker has died. An error that nobody caught is told by the worker itself; a worker that the browser
// ends (out of memory, a crash) says nothing, but what it held is let go of: a Web Lock, and its end of a channel.
// A long computation is no death, so nothing here waits for a sign of life.

export interface WorkerLife {
  /** The name of the lock that the worker is to hold as long as it lives. */
  readonly life: string;
  /** The end of the channel that it is to keep. */
  readonly port: MessagePort;
}

/** `onDeath` is called once. */
export function whenDead(worker: Worker, onDeath: (reason: string) => void): WorkerLife {
  const life = `neuroscope worker ${Math.random().toString(36).slice(2)}`;
  const { port1, port2 } = new MessageChannel();
  let isAlive = true;
  const died = (reason: string): void => {
    if (!isAlive) return;
    isAlive = false;
    port1.close();
    onDeath(reason);
  };
  worker.addEventListener("error", (event) => died(event.message || "its script could not be loaded"));
  port1.addEventListener("close", () => died("the browser ended it"));
  // The first message says that the lock is held: whoever gets it after that gets it from the dead.
  port1.onmessage = () => {
    navigator.locks?.request(life, () => died("the browser ended it")).catch(() => undefined);
  };
  return { life, port: port2 };
}

let kept: MessagePort | null = null;

/** The worker's side. */
export function live(life: string, port: MessagePort): void {
  kept = port; // an end that nobody refers to would be collected, and closed
  navigator.locks
    ?.request(life, () => {
      kept?.postMessage("alive");
      return new Promise(() => undefined);
    })
    .catch(() => undefined);
}
