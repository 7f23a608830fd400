// The messages between page and engine that js_bridge/host turns around, without a page or an engine.

import assert from "node:assert/strict";
import test from "node:test";
import { BundleList } from "../../js_bridge/host/bundle_list.ts";
import { EarlyLoad } from "../../js_bridge/host/early_load.ts";
import type { HostMessage } from "../../js_bridge/host/neuroscope_host.ts";
import { Outstanding } from "../../js_bridge/host/outstanding.ts";

const asked: HostMessage = { kind: "load", id: 7, bundle: "demo", backend: "auto" };

test("an early load answers the image that asks while it is on its way", () => {
  const early = new EarlyLoad("demo");
  assert.equal(early.readdress({ kind: "progress", id: 0, bytesLoaded: 1 }), null);
  const told: HostMessage[] = [];
  assert.ok(early.takeOver(asked, (message) => told.push(message)));
  assert.deepEqual(told, [{ kind: "progress", id: 7, bytesLoaded: 1 }]);
  assert.deepEqual(early.readdress({ kind: "loaded", id: 0 }), { kind: "loaded", id: 7 });
});

test("an early load that is done answers at once", () => {
  const early = new EarlyLoad("demo");
  const answers: HostMessage[] = [];
  assert.equal(early.readdress({ kind: "failed", id: 0 }), null);
  assert.ok(early.takeOver(asked, (answer) => answers.push(answer)));
  assert.deepEqual(answers, [{ kind: "failed", id: 7 }]);
});

test("an early load serves one request, of its bundle and of no other backend", () => {
  const early = new EarlyLoad("demo");
  const ignore = (): void => undefined;
  assert.ok(!early.takeOver({ ...asked, bundle: "other" }, ignore));
  assert.ok(!early.takeOver({ ...asked, backend: "webgl" }, ignore));
  assert.ok(!early.takeOver({ ...asked, dtype: "int8" }, ignore));
  assert.ok(early.takeOver(asked, ignore));
  assert.ok(!early.takeOver({ ...asked, id: 8 }, ignore));
  assert.deepEqual(early.readdress({ kind: "encoded", id: 8 }), { kind: "encoded", id: 8 });
});

test("the image cancels an early load by the number of its own request", () => {
  const early = new EarlyLoad("demo");
  const cancel = { kind: "cancelLoad", load: 7 };
  assert.deepEqual(early.address(cancel), cancel);
  early.takeOver(asked, () => undefined);
  assert.deepEqual(early.address(cancel), { kind: "cancelLoad", load: 0 });
  assert.deepEqual(early.address({ ...cancel, load: 9 }), { ...cancel, load: 9 });
});

test("a bundle that is not known is refused with those that are", () => {
  const bundles = new BundleList({ demo: "/bundles/demo/" }, "wasm");
  const aimed = bundles.aim(asked);
  assert.deepEqual("request" in aimed && aimed.request, { ...asked, bundle: "/bundles/demo/", backend: "wasm" });
  const refused = bundles.aim({ ...asked, bundle: "gpt5" });
  assert.ok("refusal" in refused);
  assert.match(JSON.stringify(refused.refusal), /gpt5.*it has demo/);
});

test("any other name is a repository's where the Hub may be asked, if it can be one", () => {
  const bundles = new BundleList({ demo: "/bundles/demo/" }, "wasm", true);
  const aim = (bundle: string) => bundles.aim({ ...asked, bundle });
  for (const name of ["EleutherAI/pythia-70m", "gpt2"]) {
    assert.deepEqual(aim(name), { request: { ...asked, bundle: `hub:${name}`, backend: "wasm" } });
  }
  assert.deepEqual(aim("demo"), { request: { ...asked, bundle: "/bundles/demo/", backend: "wasm" } });
  for (const name of ["../secret", "https://elsewhere/x", "a/b/c", ""]) assert.ok("refusal" in aim(name), name);
});

test("a dead engine's requests are known, with their passes", () => {
  const outstanding = new Outstanding();
  outstanding.sent({ kind: "read", id: 1, tensor: 9 });
  outstanding.sent({ kind: "forward", id: 2, pass: 5 });
  outstanding.sent({ kind: "ledger", id: 3 });
  outstanding.received({ kind: "hook", pass: 5 });
  outstanding.received({ kind: "ledger", id: 3 });
  assert.deepEqual(outstanding.requests(), [{ id: 1 }, { id: 2, pass: 5 }]);
});

test("an engine that waits at a hook owes nothing", () => {
  const outstanding = new Outstanding();
  outstanding.sent({ kind: "forward", id: 1, pass: 5 });
  assert.ok(outstanding.isBusy());
  outstanding.received({ kind: "hook", pass: 5 });
  assert.ok(!outstanding.isBusy());
  outstanding.sent({ kind: "hookAnswer", pass: 5 });
  assert.ok(outstanding.isBusy());
  outstanding.received({ kind: "done", id: 1, pass: 5 });
  assert.ok(!outstanding.isBusy());
});

test("a name that is no bundle's is looked for at the Hub, and what is not there either is told with the names of bundles", () => {
  const bundles = new BundleList({ demo: "/bundles/demo/" }, "wasm", true);
  bundles.aim({ kind: "load", id: 7, bundle: "deno", backend: "auto" });
  const failed = (id: number, name: string) => ({ kind: "failed", id, error: { name, message: "There is no repository deno" } });
  const told = bundles.explained(failed(7, "FetchFailed"))["error"] as { message: string };
  assert.equal(
    told.message,
    "There is no bundle named deno here; it has demo. So the Hub was asked: There is no repository deno",
  );
  assert.deepEqual(bundles.explained(failed(7, "FetchFailed")), failed(7, "FetchFailed"), "once");
  bundles.aim({ kind: "load", id: 8, bundle: "demo", backend: "auto" });
  assert.deepEqual(bundles.explained(failed(8, "FetchFailed")), failed(8, "FetchFailed"), "a bundle that is known");
  bundles.aim({ kind: "load", id: 9, bundle: "org/gated", backend: "auto" });
  assert.deepEqual(bundles.explained(failed(9, "GatedRepository")), failed(9, "GatedRepository"), "another reason");
});
