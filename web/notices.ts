// What the reader has to know of this browser and this moment, each in one sentence: what it lacks, with what that
// means here, and whether it is offline. It looks and tells; whoever does without a feature decides by itself.

export interface Surroundings {
  readonly isSecure: boolean;
  readonly isIsolated: boolean;
  readonly hasThreads: boolean;
  readonly hasSimd: boolean;
  readonly hasWebgl: boolean;
  readonly hasStore: boolean;
  readonly hasSubtle: boolean;
  readonly hasServiceWorker: boolean;
}

/** As this page finds them, less what `?without=` takes away. */
export function surroundings(without: readonly string[]): Surroundings {
  const has = (name: string, present: boolean): boolean => present && !without.includes(name);
  return {
    isSecure: isSecureContext,
    isIsolated: crossOriginIsolated,
    hasThreads: has("threads", typeof SharedArrayBuffer !== "undefined" && crossOriginIsolated),
    hasSimd: has("simd", WebAssembly.validate(simdModule)),
    hasWebgl: has("webgl", typeof OffscreenCanvas !== "undefined" && typeof WebGL2RenderingContext !== "undefined"),
    hasStore: has("indexeddb", typeof indexedDB !== "undefined"),
    hasSubtle: has("subtle", globalThis.crypto?.subtle !== undefined),
    hasServiceWorker: has("sw", "serviceWorker" in navigator),
  };
}

/** One line, or nothing where nothing is missing. */
export function describeGaps(found: Surroundings): string {
  const gaps: string[] = [];
  if (!found.hasThreads) gaps.push(threadsGap(found));
  if (!found.hasSimd) gaps.push("WebAssembly SIMD: plain JavaScript computes, slowly");
  if (!found.hasWebgl) gaps.push("WebGL2: WebAssembly computes");
  if (!found.hasStore) gaps.push("IndexedDB: weights are fetched at each visit");
  if (!found.hasServiceWorker) gaps.push("a service worker: the page needs the network");
  if (!found.hasSubtle) gaps.push("crypto.subtle: weights are checked more slowly");
  if (gaps.length === 0) return "";
  const reason = found.isSecure ? "" : " (the page's address is not https)";
  return `This browser lacks${reason} ${gaps.join("; ")}.`;
}

function threadsGap(found: Surroundings): string {
  const reason = found.isIsolated || !found.hasServiceWorker ? "" : " until the next visit";
  return `threads${reason}: a single one computes`;
}

/** Says in `element` when the network goes and comes back. */
export function watchNetwork(element: HTMLElement): void {
  const update = (): void => {
    element.textContent = navigator.onLine ? "" : "Offline: everything that is loaded or kept here goes on working.";
  };
  addEventListener("online", update);
  addEventListener("offline", update);
  update();
}

/** The least module that needs SIMD: a function that makes a v128 and takes a lane out. */
const simdModule = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 127, 3, 2, 1, 0, 10, 11, 1, 9, 0, 65, 0, 253, 17, 253, 27, 0, 11,
]);
