// Bundles, chunks, safetensors: what is fetched, checked, kept and refused.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Ajv } from "ajv";
import schema from "../../js_bridge/schemas/bundle.schema.json" with { type: "json" };
import type { FetchBytes } from "../../js_bridge/store/fetch.ts";
import { readFiles } from "../../js_bridge/store/files.ts";
import type { Manifest } from "../../js_bridge/store/manifest.ts";
import { openMemoryChunks } from "../../js_bridge/store/memory_chunks.ts";
import { widenBfloat16, widenFloat16 } from "../../js_bridge/store/safetensors.ts";
import { plainSha256, sha256 } from "../../js_bridge/store/sha256.ts";
import { Session } from "./session.ts";
import { noise, safetensors, tinyConfig, tinyTensors, writeManifest, writeTiny } from "./tiny.ts";

const TOKENS = [[1, 2, 3, 4]];

/** The logits of a bundle, read with these options. */
async function logitsOf(folder: string, options: ConstructorParameters<typeof Session>[0] = {}): Promise<Float32Array> {
  const session = new Session(options);
  const { model } = await session.load(folder);
  const logits = session.name();
  await session.ask({ kind: "forward", model, pass: 1, tokens: TOKENS, logits });
  return (await session.read(logits)).numbers;
}

/** readFiles, with a list of what it was asked for. */
function counted(log: string[], fetchBytes: FetchBytes = readFiles): FetchBytes {
  return (url, range, watch) => {
    log.push(`${url.split("/").pop()}${range === undefined ? "" : ` ${range.offset}`}`);
    return fetchBytes(url, range, watch);
  };
}

describe("sha256", () => {
  test("plain JavaScript agrees with the platform at every length around a block", async () => {
    for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000]) {
      const bytes = new Uint8Array(noise(length, length + 1).map((x) => 128 + 127 * x));
      const expected = createHash("sha256").update(bytes).digest("hex");
      assert.equal(plainSha256(bytes), expected);
      assert.equal(await sha256(bytes), expected);
    }
  });
});

describe("a bundle", () => {
  test("in small chunks gives the same numbers as a plain folder", async () => {
    const plain = await writeTiny();
    const chunked = await writeTiny({ chunk: 97 });
    assert.deepEqual(await logitsOf(chunked), await logitsOf(plain));
  });

  test("that was loaded before is not fetched again, but for bundle.json", async () => {
    const folder = await writeTiny({ chunk: 1000 });
    const store = openMemoryChunks();
    const first: string[] = [];
    const second: string[] = [];
    await logitsOf(folder, { store, fetchBytes: counted(first) });
    await logitsOf(folder, { store, fetchBytes: counted(second) });
    const chunks = first.filter((each) => each.startsWith("model.safetensors")).length;
    assert.ok(chunks > 10, `${chunks} chunks`);
    assert.equal(new Set(first).size, first.length, "no chunk is fetched twice");
    assert.deepEqual(second, ["bundle.json"]);
  });

  test("reports progress up to its size, and how much was kept from before", async () => {
    const folder = await writeTiny({ chunk: 1000 });
    const store = openMemoryChunks();
    const size =
      (await readFile(join(folder, "model.safetensors"))).length + (await readFile(join(folder, "config.json"))).length;
    for (const cached of [0, size]) {
      const session = new Session({ store });
      await session.load(folder);
      const last = session.events.filter((event) => event.kind === "progress").at(-1);
      assert.deepEqual([last?.bytesLoaded, last?.bytesTotal, last?.cached], [size, size, cached]);
    }
  });

  test("whose host ignores ranges is fetched once a file", async () => {
    const folder = await writeTiny({ chunk: 1000 });
    const log: string[] = [];
    const whole: FetchBytes = (url, _range, watch) => readFiles(url, undefined, watch);
    assert.deepEqual(await logitsOf(folder, { fetchBytes: counted(log, whole) }), await logitsOf(folder));
    assert.ok(log.filter((each) => each.startsWith("model.safetensors")).length <= 2);
  });

  /** Damages the chunk at 2000 for so many fetches. */
  const damaging = (times: number): FetchBytes => {
    let left = times;
    return async (url, range, watch) => {
      const bytes = await readFiles(url, range, watch);
      if (bytes !== null && range?.offset === 2000 && left-- > 0) bytes[5] ^= 1;
      return bytes;
    };
  };

  test("with a chunk damaged on the way is fetched once more", async () => {
    const folder = await writeTiny({ chunk: 1000 });
    assert.deepEqual(await logitsOf(folder, { fetchBytes: damaging(1) }), await logitsOf(folder));
  });

  test("with a chunk that stays damaged is refused by file and place", async () => {
    const folder = await writeTiny({ chunk: 1000 });
    const store = openMemoryChunks();
    await assert.rejects(logitsOf(folder, { store, fetchBytes: damaging(2) }), {
      name: "ChunkMismatch",
      file: "model.safetensors",
      offset: 2000,
      message: /fetched twice/,
    });
    await logitsOf(folder, { store });
  });

  test("with a chunk damaged in the store is fetched anew", async () => {
    const folder = await writeTiny({ chunk: 1000 });
    const store = openMemoryChunks();
    await logitsOf(folder, { store });
    const log: string[] = [];
    let damaged = 0;
    const get = store.get.bind(store);
    store.get = async (key) => {
      const kept = await get(key);
      if (kept?.bytes.length !== 1000 || damaged++ > 0) return kept;
      return { ...kept, bytes: kept.bytes.with(3, kept.bytes[3] ^ 1) };
    };
    assert.deepEqual(await logitsOf(folder, { store, fetchBytes: counted(log) }), await logitsOf(folder));
    assert.equal(log.length, 2, "bundle.json and one chunk");
  });

  test("that is not there, or not of this format, is refused by name", async () => {
    await assert.rejects(logitsOf("/nowhere"), { name: "FetchFailed", message: /\/nowhere\/config.json is not there/ });
    const folder = await writeTiny({ chunk: 1000 });
    const manifest = JSON.parse(await readFile(join(folder, "bundle.json"), "utf8"));
    await writeFile(join(folder, "bundle.json"), JSON.stringify({ ...manifest, format: 2 }));
    await assert.rejects(logitsOf(folder), { name: "BundleRefused", message: /format 2 is unknown/ });
    manifest.files[1].chunks.splice(1, 1);
    await writeFile(join(folder, "bundle.json"), JSON.stringify(manifest));
    await assert.rejects(logitsOf(folder), { name: "BundleRefused", message: /gap or overlap at 1000/ });
    await writeFile(join(folder, "bundle.json"), "{");
    await assert.rejects(logitsOf(folder), { name: "BundleRefused", message: /bundle.json is no JSON/ });
    const failing: FetchBytes = async () => Promise.reject(new Error("offline"));
    await assert.rejects(logitsOf(folder, { fetchBytes: failing }), { name: "FetchFailed", message: /offline/ });
  });

  test("follows its schema", async () => {
    const folder = await writeTiny({ chunk: 1000 });
    const validate = new Ajv().compile(schema);
    const manifest: Manifest = JSON.parse(await readFile(join(folder, "bundle.json"), "utf8"));
    assert.ok(validate(manifest), JSON.stringify(validate.errors));
    assert.ok(!validate({ ...manifest, format: 2 }));
    assert.ok(!validate({ ...manifest, files: [{ ...manifest.files[0], sha256: "0" }] }));
    assert.ok(!validate({ ...manifest, files: [{ ...manifest.files[0], name: "../secret" }] }));
  });
});

describe("weights", () => {
  test("may lie in several files", async () => {
    const folder = await writeTiny();
    const tensors = [...tinyTensors()];
    const shards = {
      "model-00001-of-00002.safetensors": tensors.slice(0, 9),
      "model-00002-of-00002.safetensors": tensors.slice(9),
    };
    const expected = await logitsOf(folder);
    const sharded = await writeTiny({ tensors: new Map() });
    const map: Record<string, string> = {};
    for (const [file, part] of Object.entries(shards)) {
      await writeFile(join(sharded, file), safetensors(new Map(part)));
      for (const [name] of part) map[name] = file;
    }
    await writeFile(join(sharded, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
    assert.deepEqual(await logitsOf(sharded), expected);
    await writeManifest(sharded, 500);
    assert.deepEqual(await logitsOf(sharded), expected);
  });

  test("may be named with the prefix transformer., and may have the old mask buffers", async () => {
    const tensors = new Map([...tinyTensors()].map(([name, tensor]) => [`transformer.${name}`, tensor]));
    tensors.set("transformer.h.0.attn.bias", { shape: [1], numbers: Float32Array.of(1) });
    assert.deepEqual(await logitsOf(await writeTiny({ tensors })), await logitsOf(await writeTiny()));
  });

  test("in float16 and bfloat16 are widened exactly", async () => {
    const rounded = (round: (x: number) => number) =>
      new Map([...tinyTensors()].map(([name, { shape, numbers }]) => [name, { shape, numbers: numbers.map(round) }]));
    const half = (x: number) => Math.f16round(x);
    const brain = (x: number) =>
      new Float32Array(Uint32Array.of(new Uint32Array(Float32Array.of(x).buffer)[0] & 0xffff0000).buffer)[0];
    for (const [dtype, round, name] of [
      ["F16", half, "float16"],
      ["BF16", brain, "bfloat16"],
    ] as const) {
      const folder = await writeTiny({ dtype });
      assert.deepEqual(await logitsOf(folder), await logitsOf(await writeTiny({ tensors: rounded(round) })));
      assert.equal((await new Session().load(folder)).dtype, name);
    }
  });

  test("widening knows zeros, subnormals, infinities and NaN", () => {
    assert.deepEqual(
      [...widenFloat16(Uint16Array.of(0, 0x8000, 1, 0x03ff, 0x0400, 0x3c00, 0xc000, 0x7bff, 0x7c00, 0xfc00, 0x7e00))],
      [0, -0, 2 ** -24, 1023 * 2 ** -24, 2 ** -14, 1, -2, 65504, Infinity, -Infinity, NaN],
    );
    assert.deepEqual(
      [...widenBfloat16(Uint16Array.of(0, 0x3f80, 0xc000, 0x7f80, 0x0001))],
      [0, 1, -2, Infinity, 2 ** -133],
    );
  });

  test("that are missing, misshapen or of another dtype are refused by name", async () => {
    const change = (edit: (tensors: ReturnType<typeof tinyTensors>) => void) => {
      const tensors = tinyTensors();
      edit(tensors);
      return writeTiny({ tensors });
    };
    await assert.rejects(logitsOf(await change((t) => t.delete("h.1.ln_2.bias"))), {
      name: "BundleRefused",
      message: /no tensor transformer.h.1.ln_2.bias or h.1.ln_2.bias/,
    });
    await assert.rejects(logitsOf(await change((t) => t.set("ln_f.bias", { shape: [3], numbers: noise(3, 1) }))), {
      name: "BundleRefused",
      message: /ln_f.bias has shape \[3\]; config.json says \[12\]/,
    });
    const folder = await writeTiny();
    const bytes = await readFile(join(folder, "model.safetensors"));
    await writeFile(
      join(folder, "model.safetensors"),
      Buffer.from(bytes.toString("latin1").replace('"F32","shape":[23,12]', '"I32","shape":[23,12]'), "latin1"),
    );
    await assert.rejects(logitsOf(folder), {
      name: "BundleRefused",
      message: /wte.weight has dtype I32; F32, F16, BF16, .* can be read/,
    });
    await writeFile(join(folder, "model.safetensors"), bytes.subarray(0, 4000));
    await assert.rejects(logitsOf(folder), { name: "BundleRefused", message: /it has 4000/ });
  });

  test("of a family or setting that is not supported are refused", async () => {
    const refused = async (change: Record<string, unknown>) =>
      logitsOf(await writeTiny({ config: { ...tinyConfig(), ...change } }));
    await assert.rejects(refused({ model_type: "mamba" }), {
      name: "BundleRefused",
      message: /"mamba" .* it runs: gpt2/,
    });
    await assert.rejects(refused({ activation_function: "swish" }), {
      name: "BundleRefused",
      message: /swish .* gelu_new/,
    });
    await assert.rejects(refused({ scale_attn_by_inverse_layer_idx: true }), {
      name: "BundleRefused",
      message: /scale_attn_by_inverse_layer_idx = true/,
    });
    await assert.rejects(refused({ n_head: 5 }), { name: "BundleRefused", message: /dimension K/ });
  });
});
