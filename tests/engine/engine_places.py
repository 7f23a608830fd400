"""Where the engine runs in these tests: Node's process, and a worker of a page in Chromium."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from neuroscope.kernels import FILES
from neuroscope.project import ROOT
from neuroscope.site.scripts import bundle_script
from playwright.sync_api import Page

NODE = ROOT / "node_modules/.bin/node"


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with ranges; `log` holds each path asked for, `tampered` what to send instead, once."""

    log: list[str]
    tampered: dict[str, list[bytes]]

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        self.log.append(self.path)
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        if self.tampered.get(self.path):
            content = self.tampered[self.path].pop(0)
        wanted = self.headers.get("Range")
        status = 200
        if wanted is not None:
            first, last = wanted.removeprefix("bytes=").split("-")
            content = content[int(first) : int(last) + 1]
            status = 206
        self.send_response(status)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Site:
    """A served folder with the test page, the engine's worker and its kernels."""

    def __init__(self, folder: Path, kernels: Path) -> None:
        self.folder = folder
        self.log: list[str] = []
        self.tampered: dict[str, list[bytes]] = {}
        for script in ("tests/engine/page.ts", "js_bridge/engine/worker.ts"):
            bundle_script(ROOT / script, folder / Path(script).with_suffix(".js").name, minify=False)
        for file in FILES:
            shutil.copy(kernels.with_name(file), folder / file)
        (folder / "index.html").write_text(
            '<!doctype html><link rel="icon" href="data:,"><script type="module" src="page.js"></script>'
        )
        handler = type("Handler", (RangeHandler,), {"log": self.log, "tampered": self.tampered})
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
        )
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"kernels": f"{self.url}/kernels.wasm", "bundles": self.url, **more}

    def publish(self, folder: Path) -> str:
        shutil.copytree(folder, self.folder / folder.name, dirs_exist_ok=True)
        return f"{self.url}/{folder.name}"


def run_in_node(jobs: list[dict[str, Any]], *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [NODE, ROOT / "tests/engine/run_jobs.ts", *arguments],
        input=json.dumps(jobs), capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def run_in_page(
    page: Page, site: Site, jobs: list[dict[str, Any]], **settings: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """The results, and what the worker logged."""
    page.goto(f"{site.url}/index.html")
    page.wait_for_function("typeof runJobs === 'function'")
    results, logs = page.evaluate("([jobs, settings]) => runJobs(jobs, settings)", [jobs, site.settings(**settings)])
    return results, logs


PLACES = [("node", "reference"), ("node", "wasm"), ("chromium", "wasm"), ("chromium", "webgl")]


def run(where: str, backend: str, jobs: list[dict[str, Any]], request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """The jobs' results from one engine; `bundle` of a job is a folder."""
    jobs = [{**job, "backend": backend} for job in jobs]
    if where == "node":
        request.getfixturevalue("kernels")
        return run_in_node([{**job, "bundle": str(job["bundle"])} for job in jobs])
    site: Site = request.getfixturevalue("engine_site")
    results, _ = run_in_page(
        request.getfixturevalue("tab"), site, [{**job, "bundle": site.publish(job["bundle"])} for job in jobs]
    )
    return results
