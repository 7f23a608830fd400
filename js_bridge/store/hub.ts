// A repository of the Hugging Face Hub at one commit: which files it has, under which address, and what its refusals
// mean. Files are read by bundle.ts as any other. No credentials are ever sent, no header but a range.
//
// The commit is what the first answer's X-Repo-Commit says where CORS shows it, else what the Hub's API says; from then
// on every address names it, and the store remembers it: what is pinned stays pinned until it is evicted or another
// revision is asked for.
// Source: the Hub's documentation (resolve addresses, /api/models) and its X-Error-Code header.

import { EngineError } from "../engine/errors.ts";
import type { BundleHost, BundleRequest } from "./bundle.ts";
import { keep, readKept } from "./chunk_store.ts";
import type { FetchBytes, FetchWatch } from "./fetch.ts";
import { PUBLIC_HUB } from "./hub_name.ts";
import { parseJson } from "./manifest.ts";

const COMMIT = /^[0-9a-f]{40}$/;

/** What the API tells of a repository; `files` null where it does not list them. */
interface Listing {
  readonly commit: string | null;
  readonly files: readonly string[] | null;
}

export class Repository {
  readonly id: string;
  readonly revision: string;
  /** null where neither answer nor API tells it: then nothing is kept, for the next visit may meet other files. */
  commit: string | null = null;
  /** config.json, where it was what told the commit. */
  config: Uint8Array | null = null;
  readonly #name: string;
  readonly #hub: string;
  readonly #fetch: FetchBytes;

  private constructor(name: string, revision: string, host: BundleHost) {
    this.#name = name;
    this.#hub = (host.hub ?? PUBLIC_HUB).replace(/\/+$/, "");
    this.#fetch = host.fetchBytes;
    this.id = this.#hub === PUBLIC_HUB ? name : `${this.#hub}/${name}`;
    this.revision = revision;
  }

  /** Fails: FetchFailed, GatedRepository, RateLimited. */
  static async open(name: string, host: BundleHost, request: BundleRequest): Promise<Repository> {
    const { revision = "main", signal } = request;
    const repository = new Repository(name, revision, host);
    if (COMMIT.test(revision)) repository.commit = revision;
    else await repository.#pin(host, request.revision === undefined, signal);
    if (repository.commit === null)
      host.log?.(`${repository.id}: its commit could not be learnt, so nothing of it is kept for the next visit`);
    return repository;
  }

  /** The folder of its files. */
  get base(): string {
    return `${this.#hub}/${this.#name}/resolve/${encodeURIComponent(this.commit ?? this.revision)}/`;
  }

  get keys(): string | null {
    return this.commit === null ? null : `hub ${this.#hub}/${this.#name}@${this.commit}`;
  }

  /** As the host's own, but refusals are explained. */
  readonly fetchBytes: FetchBytes = async (url, range, watch) => {
    try {
      return await this.#fetch(url, range, watch);
    } catch (error) {
      throw await this.#explained(error, watch?.signal);
    }
  };

  /** Why a file that is needed is not there. */
  async missing(file: string): Promise<EngineError> {
    const listing = await this.#listing();
    const files = listing?.files;
    const where = `${this.id} (revision ${this.commit ?? this.revision})`;
    const pickle = files?.find((name) => /\.(bin|pt|pth|ckpt)$/.test(name) && !name.includes("/"));
    if (file === "model.safetensors" && pickle !== undefined) {
      return new EngineError(
        "BundleRefused",
        `${where} has its weights only as pickle (${pickle}), which runs code when it is read; safetensors can be read: ` +
          "save it with transformers (save_pretrained), then `neuroscope export` the folder",
        { file, repository: this.#name },
      );
    }
    const listed = files ? `; it has ${files.slice(0, 12).join(", ")}${files.length > 12 ? ", …" : ""}` : "";
    return new EngineError("FetchFailed", `${where} has no ${file}${listed}; a model in safetensors is needed`, {
      file,
      repository: this.#name,
    });
  }

  /** Learns the commit: from the store if it may, else from the Hub; offline, from the store in any case. */
  async #pin(host: BundleHost, mayBeKept: boolean, signal: AbortSignal | undefined): Promise<void> {
    const key = `hub ${this.#hub}/${this.#name}@${this.revision}`;
    const bytes = await readKept(host.store, key);
    const kept = bytes === null ? null : new TextDecoder().decode(bytes);
    if (kept !== null && mayBeKept) {
      this.commit = kept;
      return;
    }
    try {
      await this.#ask(signal);
    } catch (error) {
      if (kept === null || !(error instanceof EngineError) || "status" in error.details) throw error;
      host.log?.(`${error.message} (the commit as it was kept is used)`);
      this.commit = kept;
      return;
    }
    if (this.commit !== null) await keep(host.store, this.id, key, new TextEncoder().encode(this.commit));
  }

  async #ask(signal: AbortSignal | undefined): Promise<void> {
    let code: string | null = null;
    const config = await this.fetchBytes(`${this.base}config.json`, undefined, {
      signal,
      onHead: (head) => {
        code = head.code;
        if (head.commit !== null && COMMIT.test(head.commit)) this.commit = head.commit;
      },
    });
    if (config === null) throw await this.#noConfig(code, signal);
    this.config = config;
    this.commit ??= (await this.#listing(signal))?.commit ?? null;
  }

  /** Repository, revision or file: which of them is missing. */
  async #noConfig(code: string | null, signal: AbortSignal | undefined): Promise<EngineError> {
    if (code === "RepoNotFound") return this.#unknown();
    if (code !== "RevisionNotFound" && (await this.#listing(signal)) !== null) return this.missing("config.json");
    if ((await this.#listing(signal, null)) === null) return this.#unknown();
    return new EngineError("FetchFailed", `${this.id} has no revision ${this.revision}; name a branch, tag or commit of it`, {
      repository: this.#name,
      revision: this.revision,
    });
  }

  #unknown(): EngineError {
    return new EngineError(
      "FetchFailed",
      `There is no repository ${this.#name} at ${this.#hub}, or it is private; check the name (owner/name)`,
      { repository: this.#name },
    );
  }

  async #explained(error: unknown, signal: AbortSignal | undefined): Promise<unknown> {
    if (!(error instanceof EngineError) || error.name !== "FetchFailed") return error;
    const { status, code } = error.details as { status?: number; code?: string };
    if (status !== 401 && status !== 403) return error;
    // The Hub answers 401 for a repository that there is none of, too.
    if (code === "RepoNotFound") return this.#unknown();
    if (code !== "GatedRepo" && (await this.#listing(signal)) === null) return this.#unknown();
    return new EngineError(
      "GatedRepository",
      `${this.#name} is gated (HTTP ${status}): its terms have to be accepted by an account, and this page sends no ` +
        `credentials. Accept them at ${this.#hub}/${this.#name}, download it there with your token (hf download), ` +
        "run `neuroscope export` on the folder, and open that bundle",
      { repository: this.#name, status },
    );
  }

  /** What the API says; null where it knows no such repository, or there is no API. */
  async #listing(
    signal?: AbortSignal,
    revision: string | null = this.commit ?? this.revision,
  ): Promise<Listing | null> {
    const at = revision === null ? "" : `/revision/${encodeURIComponent(revision)}`;
    const watch: FetchWatch = { attempts: 2, ...(signal === undefined ? {} : { signal }) };
    try {
      const bytes = await this.#fetch(`${this.#hub}/api/models/${this.#name}${at}`, undefined, watch);
      if (bytes === null) return null;
      const { sha, siblings } = parseJson("the Hub's answer", bytes) as {
        sha?: unknown;
        siblings?: { rfilename: string }[];
      };
      return {
        commit: typeof sha === "string" && COMMIT.test(sha) ? sha : null,
        files: Array.isArray(siblings) ? siblings.map((each) => each.rfilename) : null,
      };
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof EngineError && error.name === "RateLimited") throw error;
      return null;
    }
  }
}
