// Makes the site work offline, and adds the headers that isolate the page (shared memory, so threads) where a static
// host can't set them. It keeps the files of one build, all of them or none, under the build's version; a newer build
// waits until the pages of this one are closed, or their reader asks for it. It never reloads a page, and it never
// touches bundles: their chunks are in IndexedDB.
//
// The site's builder puts `SITE` in front of this script: the version and each file with its SHA-256.

interface Site {
  readonly version: string;
  readonly files: Readonly<Record<string, string>>;
}

interface ServiceWorkerScope {
  readonly SITE: Site;
  readonly registration: { readonly scope: string };
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
  addEventListener(kind: "install" | "activate", listener: (event: ExtendableEvent) => void): void;
  addEventListener(kind: "fetch", listener: (event: FetchEvent) => void): void;
  addEventListener(kind: "message", listener: (event: MessageEvent) => void): void;
}

interface ExtendableEvent {
  waitUntil(work: Promise<unknown>): void;
}

interface FetchEvent extends ExtendableEvent {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}

const worker = globalThis as unknown as ServiceWorkerScope;
const { version, files } = worker.SITE;
const { scope } = worker.registration;

/** Other sites of the same origin have caches, too. */
const FAMILY = `neuroscope ${scope} `;
const CACHE = FAMILY + version;
const PAGE = "index.html";

const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

worker.addEventListener("install", (event) => event.waitUntil(install()));
worker.addEventListener("activate", (event) => event.waitUntil(activate()));
worker.addEventListener("message", ({ data }) => {
  if (data === "activate") void worker.skipWaiting();
});
worker.addEventListener("fetch", (event) => {
  const name = nameOf(event.request);
  if (name !== null) event.respondWith(answer(name, event.request));
});

/** Fails, to be tried again on the next visit, when a file is missing or is another build's. */
async function install(): Promise<void> {
  const cache = await caches.open(CACHE);
  try {
    await Promise.all(Object.entries(files).map(([name, sha256]) => keep(cache, name, sha256)));
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
}

async function keep(cache: Cache, name: string, sha256: string): Promise<void> {
  const response = await fetch(scope + name, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${name}: HTTP ${response.status}`);
  const bytes = await response.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) throw new Error(`${name} has SHA-256 ${found}; build ${version} has ${sha256}`);
  const type = response.headers.get("Content-Type") ?? "application/octet-stream";
  await cache.put(scope + name, new Response(bytes, { headers: { "Content-Type": type } }));
}

/** The page of the first visit is taken over, so that what it loads later comes from its own build. */
async function activate(): Promise<void> {
  for (const name of await caches.keys()) {
    if (name.startsWith(FAMILY) && name !== CACHE) await caches.delete(name);
  }
  await worker.clients.claim();
}

/** The file that a request is for; null for what goes to the network untouched. */
function nameOf({ method, url, mode }: Request): string | null {
  const address = new URL(url);
  const path = address.origin + address.pathname;
  if (method !== "GET" || !path.startsWith(scope)) return null;
  const name = path.slice(scope.length) || PAGE;
  return name in files || (mode === "navigate" && name === PAGE) ? name : null;
}

async function answer(name: string, request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  // The browser may have dropped the cache to make room.
  const found = (await cache.match(scope + name)) ?? (await fetch(request));
  const headers = new Headers(found.headers);
  for (const [header, value] of Object.entries(ISOLATION)) headers.set(header, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}
