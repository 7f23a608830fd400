// One file over a line that misbehaves: what is asked again, what is waited for, and what is given up.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type FileHead, type HttpOptions, httpFetch } from "../../js_bridge/store/fetch.ts";

const CONTENT = Uint8Array.from({ length: 1000 }, (_, i) => i * 7);

interface Given {
  readonly range: string | null;
  readonly signal: AbortSignal;
}

/** A host whose n-th answer the n-th function gives; the last one goes on. */
function lineOf(answers: ((given: Given) => Response)[], options: HttpOptions = {}) {
  const asked: (string | null)[] = [];
  const answer = (async (_url: string, { headers, signal }: { headers: Record<string, string>; signal: AbortSignal }) => {
    const range = headers["Range"] ?? null;
    asked.push(range);
    return answers[Math.min(asked.length, answers.length) - 1]({ range, signal });
  }) as unknown as typeof fetch;
  return { asked, fetchBytes: httpFetch({ delays: [1, 1, 1], fetch: answer, ...options }) };
}

/** An honest answer. */
function part({ range }: Pick<Given, "range">): Response {
  if (range === null) return new Response(CONTENT, { headers: { "Content-Length": "1000" } });
  const [first, last] = range.replace("bytes=", "").split("-").map(Number);
  const body = CONTENT.slice(first, (last || 999) + 1);
  const headers = { "Content-Range": `bytes ${first}-${first + body.length - 1}/1000`, ETag: '"one"' };
  return new Response(body, { status: 206, headers });
}

/** The same, but the body ends with an error after so many bytes. */
function cutAfter(count: number): (given: Given) => Response {
  return (given) => {
    const whole = part(given);
    let left: number | null = count;
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (left === null) return controller.error(new TypeError("network error"));
        controller.enqueue(new Uint8Array(await whole.arrayBuffer()).subarray(0, left));
        left = null;
      },
    });
    return new Response(body, { status: whole.status, headers: whole.headers });
  };
}

const status = (code: number, headers: Record<string, string> = {}) => () => new Response("", { status: code, headers });
const fails = (): never => {
  throw new TypeError("Failed to fetch");
};

const RANGE = { offset: 100, bytes: 500 };

describe("a range", () => {
  test("goes on where the line broke, as often as it breaks", async () => {
    const line = lineOf([cutAfter(100), cutAfter(50), part]);
    let counted = 0;
    const bytes = await line.fetchBytes("http://host/file", RANGE, { onBytes: (count) => (counted += count) });
    assert.deepEqual(bytes, CONTENT.subarray(100, 600));
    assert.deepEqual(line.asked, ["bytes=100-599", "bytes=200-599", "bytes=250-599"]);
    assert.equal(counted, 500);
  });

  test("that ends with the file is shorter", async () => {
    const line = lineOf([part]);
    const bytes = await line.fetchBytes("http://host/file", { offset: 900, bytes: 500 });
    assert.deepEqual(bytes, CONTENT.subarray(900));
  });

  test("beyond the file is empty, and of no file is null", async () => {
    assert.equal((await lineOf([status(416)]).fetchBytes("http://host/file", RANGE))?.length, 0);
    assert.equal(await lineOf([status(404)]).fetchBytes("http://host/file", RANGE), null);
  });

  test("answered by the whole file is that, and the head says so", async () => {
    const line = lineOf([() => part({ range: null })]);
    const heads: FileHead[] = [];
    const bytes = await line.fetchBytes("http://host/file", RANGE, { onHead: (head) => heads.push(head) });
    assert.deepEqual(bytes, CONTENT);
    assert.deepEqual(heads.map(({ isWhole, total }) => [isWhole, total]), [[true, 1000]]);
  });

  test("whose rest comes as the whole file starts over", async () => {
    const line = lineOf([cutAfter(100), () => part({ range: null })]);
    let counted = 0;
    const bytes = await line.fetchBytes("http://host/file", RANGE, { onBytes: (count) => (counted += count) });
    assert.deepEqual(bytes, CONTENT);
    assert.equal(counted, 1000, "what came twice counts once");
  });

  test("of which more comes than was asked for is refused", async () => {
    const line = lineOf([() => new Response(CONTENT, { status: 206 })]);
    await assert.rejects(line.fetchBytes("http://host/file", RANGE), { name: "FetchFailed", message: /more than the 500 bytes/ });
  });

  test("whose rest is another version's is refused at once", async () => {
    const changed = (given: Given) => {
      const { body, headers } = part(given);
      headers.set("ETag", '"two"');
      return new Response(body, { status: 206, headers });
    };
    const line = lineOf([cutAfter(100), changed]);
    await assert.rejects(line.fetchBytes("http://host/file", RANGE), { name: "FetchFailed", message: /ETag "one", then "two"/ });
    assert.equal(line.asked.length, 2);
  });

  test("that the host's preflight refuses is asked for as a whole file", async () => {
    const line = lineOf([({ range }) => (range === null ? part({ range }) : fails())]);
    assert.deepEqual(await line.fetchBytes("http://host/file", RANGE), CONTENT);
    assert.equal(line.asked.at(-1), null);
  });
});

describe("a host", () => {
  test("that does not answer is given up after the last delay, with the reason", async () => {
    const line = lineOf([fails]);
    await assert.rejects(line.fetchBytes("http://host/file"), { name: "FetchFailed", message: /http:\/\/host\/file .*Failed to fetch/ });
    assert.equal(line.asked.length, 4);
  });

  test("that fails for a moment is asked again; one that refuses is not", async () => {
    assert.deepEqual(await lineOf([status(502), status(500), part]).fetchBytes("http://host/file"), CONTENT);
    const line = lineOf([status(403, { "X-Error-Code": "GatedRepo" })]);
    await assert.rejects(line.fetchBytes("http://host/file"), { name: "FetchFailed", details: { file: "http://host/file", status: 403, code: "GatedRepo" } });
    assert.equal(line.asked.length, 1);
  });

  test("that is busy is waited for as it asks, in seconds or until a date, and no longer than patience lasts", async () => {
    const soon = new Date(Date.now() + 500).toUTCString();
    const line = lineOf([status(429, { "Retry-After": "0" }), status(503, { "Retry-After": soon }), part]);
    assert.deepEqual(await line.fetchBytes("http://host/file"), CONTENT);
    const busy = lineOf([status(429, { "Retry-After": "120" })]);
    await assert.rejects(busy.fetchBytes("http://host/file"), { name: "RateLimited", message: /asks to wait 120 s/ });
  });

  test("that sends nothing more counts as cut", async () => {
    const silent = ({ signal }: Given) => {
      const start = (controller: ReadableStreamDefaultController<Uint8Array>) => {
        controller.enqueue(CONTENT.subarray(100, 150));
        signal.addEventListener("abort", () => controller.error(signal.reason));
      };
      return new Response(new ReadableStream({ start }), { status: 206 });
    };
    const line = lineOf([silent, part], { stall: 30 });
    assert.deepEqual(await line.fetchBytes("http://host/file", RANGE), CONTENT.subarray(100, 600));
    assert.deepEqual(line.asked, ["bytes=100-599", "bytes=150-599"]);
  });
});

test("a signal ends waiting at once, with its reason", async () => {
  const line = lineOf([fails], { delays: [60_000] });
  const cancel = new AbortController();
  const fetching = line.fetchBytes("http://host/file", undefined, { signal: cancel.signal });
  setTimeout(() => cancel.abort(new Error("enough")), 10);
  await assert.rejects(fetching, { message: "enough" });
});
