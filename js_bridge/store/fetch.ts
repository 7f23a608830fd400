// Bytes by URL over HTTP, in spite of a bad line: a cut transfer goes on by range from where it broke, what may pass is
// tried again after a while, and what a host does wrong is told. It knows no bundle and keeps nothing. A host without
// HTTP (Node and its files) passes a function of the same type.
//
// Only simple requests are made: GET, at most a single range, no header of our own. Such a range is safelisted by CORS
// (Fetch standard, "CORS-safelisted request-header"), so no preflight goes out that a host could fail. What a host
// does not expose (Content-Range, ETag) is taken as unknown.

import { EngineError } from "../engine/errors.ts";
import { type Buffers, end as endBuffer } from "./buffers.ts";
import { joined } from "./pieces.ts";

export interface ByteRange {
  readonly offset: number;
  readonly bytes: number;
}

/** What an answer tells about a file beside its bytes; null where the host does not say, or CORS does not show it. */
export interface FileHead {
  readonly status: number;
  /** A range was asked for and the whole file comes. */
  readonly isWhole: boolean;
  /** bytes of the whole file */
  readonly total: number | null;
  /** a strong ETag */
  readonly version: string | null;
  /** of a Hub's answer: X-Repo-Commit and X-Error-Code */
  readonly commit: string | null;
  readonly code: string | null;
}

export interface FetchWatch {
  /** So many more bytes have come; negative where they have to come again. */
  onBytes?(count: number): void;
  onHead?(head: FileHead): void;
  readonly signal?: AbortSignal;
  /** What lends the memory for a range; else it is the answer's own. */
  readonly buffers?: Buffers;
  /** How often to try without receiving anything; by default one more than there are delays. */
  readonly attempts?: number;
}

/**
 * The bytes of a file or of a range of it, fewer at the file's end; null when there is no such file. A host that can't
 * cut answers the whole file, and says so in the head.
 *
 * Fails: FetchFailed, RateLimited; the signal's reason.
 */
export type FetchBytes = (url: string, range?: ByteRange, watch?: FetchWatch) => Promise<Uint8Array | null>;

export interface HttpOptions {
  /** Milliseconds before the second attempt, the third, …; then it fails. Whatever is received starts them anew. */
  readonly delays?: readonly number[];
  /** Milliseconds in all that a host may have us wait by 429 or 503. */
  readonly patience?: number;
  /** Milliseconds without a byte after which a transfer counts as cut. */
  readonly stall?: number;
  readonly fetch?: typeof fetch;
}

/** A line that is cut this often within one file is given up. */
const MOST_CUTS = 30;

export function httpFetch(options: HttpOptions = {}): FetchBytes {
  const settings = {
    delays: options.delays ?? [250, 500, 1000, 2000],
    patience: options.patience ?? 60_000,
    stall: options.stall ?? 30_000,
    // As a method of `settings`, fetch would be called with the wrong receiver.
    fetch: options.fetch ?? ((...given: Parameters<typeof fetch>) => fetch(...given)),
  };
  return (url, range, watch = {}) => new Transfer(url, range, watch, settings).run();
}

export const fetchOverHttp = httpFetch();

/** Something that another attempt may mend; `wait` is what the host asks for. */
class Passing extends Error {
  readonly wait: number | null;
  readonly status: number | null;

  constructor(message: string, status: number | null = null, wait: number | null = null) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

class Transfer {
  readonly #url: string;
  readonly #range: ByteRange | undefined;
  readonly #watch: FetchWatch;
  readonly #settings: Required<HttpOptions>;
  #buffer: Uint8Array | null = null;
  #pieces: Uint8Array[] = [];
  #received = 0;
  #head: FileHead | null = null;
  /** Whether ranges are asked for; not after a host that refuses them as such. */
  #cuts = true;
  #answered = false;

  constructor(url: string, range: ByteRange | undefined, watch: FetchWatch, settings: Required<HttpOptions>) {
    this.#url = url;
    this.#range = range;
    this.#watch = watch;
    this.#settings = settings;
  }

  async run(): Promise<Uint8Array | null> {
    let answer: Uint8Array | null = null;
    try {
      answer = await this.#persist();
      return answer;
    } finally {
      if (answer?.buffer !== this.#buffer?.buffer) this.#letGo();
    }
  }

  async #persist(): Promise<Uint8Array | null> {
    const { delays, patience } = this.#settings;
    const { signal, attempts = delays.length + 1 } = this.#watch;
    let failures = 0;
    let cuts = 0;
    let waited = 0;
    for (;;) {
      signal?.throwIfAborted();
      const before = this.#received;
      try {
        return await this.#attempt();
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof Passing)) throw error;
        if (this.#received > before) failures = 0;
        failures++;
        if (error.status === 429 || error.wait !== null) {
          const pause = error.wait ?? 1000 * 2 ** (failures - 1);
          waited += pause;
          if (waited > patience) throw this.#limited(error.wait);
          await sleep(pause, signal);
        } else if (failures >= attempts || ++cuts > MOST_CUTS || isOffline()) {
          throw this.#failure(error.message, error.status);
        } else {
          // A host may refuse the preflight that some browsers send for a range: the whole file needs none.
          if (!this.#answered && failures > 1) this.#cuts = false;
          await sleep(delays[Math.min(failures, delays.length) - 1] ?? 0, signal);
        }
      }
    }
  }

  /** One request for what is still missing. Fails: Passing where another may help. */
  async #attempt(): Promise<Uint8Array | null> {
    const begin = this.#begin() + this.#received;
    const end = this.#end();
    const isPart = this.#cuts && (this.#range !== undefined || this.#received > 0);
    const headers: HeadersInit = isPart ? { Range: `bytes=${begin}-${end === null ? "" : end - 1}` } : {};
    const ending = new AbortController();
    let isStalled = false;
    const alarm = new Alarm(this.#settings.stall, () => {
      isStalled = true;
      ending.abort();
    });
    const { signal } = this.#watch;
    try {
      const response = await this.#settings.fetch(this.#url, {
        headers,
        signal: signal === undefined ? ending.signal : AbortSignal.any([signal, ending.signal]),
      });
      this.#answered = true;
      if (!this.#accept(response, isPart ? begin : 0)) return response.status === 416 ? new Uint8Array(0) : null;
      await this.#receive(response, alarm);
    } catch (error) {
      if (error instanceof Passing || error instanceof EngineError) throw error;
      if (isStalled) throw new Passing(`no byte came for ${this.#settings.stall / 1000} s`);
      throw new Passing(error instanceof Error ? error.message : String(error));
    } finally {
      alarm.stop();
      // A body that nobody reads would keep its connection, and a browser opens only six to a host.
      ending.abort();
    }
    return this.#whole();
  }

  /** Whether a body is to be read; what is wrong with the answer is thrown. */
  #accept(response: Response, begin: number): boolean {
    const { status } = response;
    const head = headOf(response, this.#range !== undefined);
    if (status === 404 || status === 410 || status === 416) {
      this.#watch.onHead?.(head);
      return false;
    }
    if (status === 429) throw new Passing("too many requests", status, retryAfter(response));
    if (status === 408 || status >= 500) throw new Passing(`HTTP ${status}`, status, retryAfter(response));
    if (!response.ok) {
      this.#watch.onHead?.(head);
      throw this.#failure(`HTTP ${status} ${response.statusText}`.trim(), status, head.code);
    }
    if (status === 206) {
      const told = contentRange(response);
      if (told !== null && told.first !== begin)
        throw new Passing(`bytes from ${begin} on were asked for, and bytes ${told.first} to ${told.last} came`);
    } else {
      this.#forget(); // the whole file comes, whatever was asked for
    }
    const former = this.#head;
    if (former !== null && this.#received > 0) checkSame(this.#url, former, head);
    this.#head = this.#received > 0 ? { ...head, isWhole: former?.isWhole ?? false } : head;
    if (this.#received === 0) this.#watch.onHead?.(head);
    return true;
  }

  async #receive(response: Response, alarm: Alarm): Promise<void> {
    const end = this.#end();
    if (end !== null && this.#received === 0) this.#lend(Math.max(end - this.#begin(), 0));
    const reader = response.body?.getReader();
    if (reader === undefined) return this.#take(new Uint8Array(await response.arrayBuffer()));
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        alarm.restart();
        this.#take(value);
      }
    } finally {
      reader.cancel().catch(() => undefined);
    }
  }

  #take(piece: Uint8Array<ArrayBuffer>): void {
    const { length } = piece;
    if (this.#buffer === null) this.#pieces.push(piece);
    else if (this.#received + piece.length <= this.#buffer.length) {
      this.#buffer.set(piece, this.#received);
      // A stream's piece is its reader's, and there are thousands of them.
      if (length === piece.buffer.byteLength) endBuffer(piece.buffer);
    } else {
      const asked = this.#buffer.length;
      this.#forget();
      throw new Passing(`more than the ${asked} bytes that were asked for came`);
    }
    this.#received += length;
    this.#watch.onBytes?.(length);
  }

  /** All that was received, once nothing is missing. */
  #whole(): Uint8Array {
    const buffer = this.#buffer ?? joined(this.#pieces, this.#received);
    if (this.#received === buffer.length) return buffer;
    // A host that does not tell the file's size may end a range early, where the file ends.
    if (this.#head?.total === null && this.#range !== undefined) return buffer.subarray(0, this.#received);
    throw new Passing(`${this.#received} of ${buffer.length} bytes came`);
  }

  #begin(): number {
    return this.#head?.isWhole ? 0 : (this.#range?.offset ?? 0);
  }

  /** Where the last byte lies, as far as it is known. */
  #end(): number | null {
    const total = this.#head?.total ?? null;
    if (this.#range === undefined || this.#head?.isWhole) return total;
    const end = this.#range.offset + this.#range.bytes;
    return total === null ? end : Math.min(end, total);
  }

  #forget(): void {
    if (this.#received > 0) this.#watch.onBytes?.(-this.#received);
    this.#received = 0;
    this.#pieces = [];
    this.#letGo();
    this.#head = null;
  }

  /** Memory for what comes: of a range that is lent, of a whole file its own. */
  #lend(bytes: number): void {
    this.#letGo();
    const isRange = this.#range !== undefined && this.#head?.isWhole !== true;
    this.#buffer = (isRange ? this.#watch.buffers?.take(bytes) : undefined) ?? new Uint8Array(bytes);
  }

  #letGo(): void {
    if (this.#buffer !== null) this.#watch.buffers?.give(this.#buffer);
    this.#buffer = null;
  }

  #limited(wait: number | null): EngineError {
    const seconds = wait === null ? null : Math.ceil(wait / 1000);
    const { host } = new URL(this.#url, globalThis.location?.href);
    const until = seconds === null ? "it does not say for how long" : `it asks to wait ${seconds} s`;
    const allowed = `at most ${this.#settings.patience / 1000} s are waited`;
    return new EngineError("RateLimited", `${host} refuses more requests for now; ${until}, ${allowed}: try again later`, {
      file: this.#url,
      seconds,
    });
  }

  #failure(reason: string, status: number | null = null, code: string | null = null): EngineError {
    const remedy = this.#answered ? "check the address, or try again later" : this.#unreachable();
    return new EngineError("FetchFailed", `${this.#url} could not be fetched (${reason}); ${remedy}`, {
      file: this.#url,
      ...(status === null ? {} : { status }),
      ...(code === null ? {} : { code }),
    });
  }

  /** A page learns no more of an answer that it may not see than that there was none. */
  #unreachable(): string {
    if (isOffline()) return "this machine is offline: what was loaded before works, the rest when it is back";
    const here = globalThis.location?.origin;
    const { origin } = new URL(this.#url, globalThis.location?.href);
    if (here === undefined || origin === here) return "check the address and the connection";
    return (
      `either the connection fails, or ${origin} does not allow requests from ${here} (CORS): ` +
      "use a host that does, or `neuroscope export` and a site of your own"
    );
  }
}

/** Whatever a function of this type throws, as an error of the engine. Fails: FetchFailed. */
export async function asFetchFailed<T>(url: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw new EngineError(
      "FetchFailed",
      `${url} could not be fetched (${error instanceof Error ? error.message : String(error)}); check the address and the connection`,
      { file: url },
    );
  }
}

/** Fails: FetchFailed where two answers are about different versions of a file. */
export function checkSame(url: string, former: FileHead, head: FileHead): void {
  const differ = <T>(a: T | null, b: T | null) => a !== null && b !== null && a !== b;
  const [size, version] = [differ(former.total, head.total), differ(former.version, head.version)];
  if (!size && !version) return;
  const change = size ? `${former.total} bytes before, ${head.total} now` : `ETag ${former.version}, then ${head.version}`;
  throw new EngineError("FetchFailed", `${url} changed while it was read (${change}); load it again`, { file: url });
}

function headOf(response: Response, isRange: boolean): FileHead {
  const { status, headers } = response;
  const told = status === 206 ? (contentRange(response)?.total ?? null) : null;
  const length = headers.get("Content-Length");
  // The length of a compressed body is not that of its content, and another origin does not show that it is compressed.
  const isPlain = length !== null && response.type !== "cors" && headers.get("Content-Encoding") === null;
  const version = headers.get("ETag");
  return {
    status,
    isWhole: isRange && status === 200,
    total: status === 200 && isPlain ? Number(length) : told,
    version: version === null || version.startsWith("W/") ? null : version,
    commit: headers.get("X-Repo-Commit"),
    code: headers.get("X-Error-Code"),
  };
}

function contentRange(response: Response): { first: number; last: number; total: number | null } | null {
  const found = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers.get("Content-Range") ?? "");
  if (found === null) return null;
  return { first: Number(found[1]), last: Number(found[2]), total: found[3] === "*" ? null : Number(found[3]) };
}

/** Milliseconds, from seconds or a date. */
function retryAfter(response: Response): number | null {
  const text = response.headers.get("Retry-After");
  if (text === null) return null;
  const seconds = Number(text);
  const wait = Number.isNaN(seconds) ? Date.parse(text) - Date.now() : 1000 * seconds;
  return Number.isNaN(wait) ? null : Math.max(wait, 0);
}

function isOffline(): boolean {
  return globalThis.navigator?.onLine === false;
}

/** Fails: the signal's reason. */
function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** Goes off when it is not restarted in time. */
class Alarm {
  readonly #milliseconds: number;
  readonly #action: () => void;
  #timer: ReturnType<typeof setTimeout>;

  constructor(milliseconds: number, action: () => void) {
    this.#milliseconds = milliseconds;
    this.#action = action;
    this.#timer = setTimeout(action, milliseconds);
  }

  restart(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#action, this.#milliseconds);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
