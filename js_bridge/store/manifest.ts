// bundle.json: what a bundle says of its files, and how each is cut. The schema is schemas/bundle.schema.json.

import { EngineError } from "../engine/errors.ts";
import type { Processing } from "../protocol.ts";

export interface Chunk {
  readonly offset: number;
  readonly bytes: number;
  readonly sha256: string;
}

export interface BundleFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly chunks: readonly Chunk[];
}

export interface Manifest {
  readonly format: number;
  readonly id: string;
  readonly source: string;
  readonly revision: string | null;
  readonly dtype: string;
  readonly license: string | null;
  readonly architecture: string;
  /** What was done to the weights on export; not there: nothing. */
  readonly processing?: Processing;
  readonly files: readonly BundleFile[];
}

/** Fails: BundleRefused for what is no JSON, or does not follow the schema. */
export function readManifest(bytes: Uint8Array): Manifest {
  const manifest = parseJson("bundle.json", bytes) as unknown as Manifest;
  const refuse = (text: string) =>
    new EngineError("BundleRefused", `bundle.json: ${text}; export the bundle again`, { file: "bundle.json" });
  if (manifest.format !== 1) throw refuse(`format ${JSON.stringify(manifest.format)} is unknown, this engine reads 1`);
  if (!Array.isArray(manifest.files) || typeof manifest.id !== "string") throw refuse("it lacks id or files");
  for (const file of manifest.files) {
    let end = 0;
    for (const chunk of file.chunks) {
      if (chunk.offset !== end || !/^[0-9a-f]{64}$/.test(chunk.sha256))
        throw refuse(`the chunks of ${file.name} leave a gap or overlap at ${end}, or lack a SHA-256`);
      end += chunk.bytes;
    }
    if (end !== file.bytes) throw refuse(`the chunks of ${file.name} end at ${end}, the file has ${file.bytes} bytes`);
  }
  return manifest;
}

/** Fails: BundleRefused. */
export function parseJson(name: string, bytes: Uint8Array): Record<string, unknown> {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as Record<string, unknown>;
  } catch (error) {
    throw new EngineError("BundleRefused", `${name} is no JSON: ${(error as Error).message}`, { file: name });
  }
}
