"""The browser's engine as a host of a bundle: in Node, as a process beside this one, and in Chromium, on an empty page.

js_bridge/parity/ drives the engine; this moves tokens in and numbers out. Nothing is served: the page's requests are
answered from files by Playwright.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import math
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from neuroscope import project
from neuroscope.errors import BundleError, MissingProgramError, NeuroScopeError
from neuroscope.export.architecture import Architecture
from neuroscope.export.oracles import Activations
from neuroscope.export.tensor_file import Floats
from neuroscope.kernels import KERNELS, build_kernels, copy_kernels

BACKENDS = ("wasm", "webgl", "reference")
DRIVER = project.ROOT / "js_bridge" / "parity"
ORIGIN = "http://localhost"  # a secure context, as a page over HTTPS is


def _hooks(architecture: Architecture) -> list[str]:
    return [point.name for point in architecture.hook_points() if point.on]


def _run(command: list[str]) -> None:
    finished = subprocess.run(command, cwd=project.ROOT, check=False, capture_output=True, text=True)
    if finished.returncode != 0:
        raise NeuroScopeError(f"{command[1]} failed: {finished.stderr.strip() or finished.stdout.strip()}")


def _check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise BundleError(f"The engine has no backend {backend!r}; it has {', '.join(BACKENDS)}.")


class NodeHost:
    """The engine in a Node process."""

    def __init__(self, process: subprocess.Popen[bytes], bundle: Path, hooks: list[str]) -> None:
        self._process = process
        self._bundle = bundle
        self._hooks = hooks
        self.backend = str(self._header()["backend"])

    def activations(self, tokens: list[int]) -> Activations:
        request = json.dumps({"tokens": tokens, "hooks": self._hooks}) + "\n"
        self._pipe(self._process.stdin).write(request.encode())
        self._pipe(self._process.stdin).flush()
        values = self._header()["values"]
        return {value["hook"]: self._numbers(value["shape"]) for value in values}

    def _header(self) -> dict[str, Any]:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            self._process.wait()
            said = self._pipe(self._process.stderr).read().decode().strip()
            raise NeuroScopeError(f"The engine in Node ended by itself, with status {self._process.returncode}: {said}")
        header: dict[str, Any] = json.loads(line)
        if "error" in header:
            raise BundleError(f"The engine in Node refused {self._bundle}: {header['error']}")
        return header

    def _numbers(self, shape: list[int]) -> Floats:
        content = self._pipe(self._process.stdout).read(4 * math.prod(shape))
        return np.frombuffer(content, "<f4").reshape(shape)

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None  # the process was started with all three
        return pipe


@contextmanager
def open_node_host(bundle: Path, architecture: Architecture, backend: str) -> Iterator[NodeHost]:
    """The engine in Node with `bundle` open.

    Raises: MissingProgramError without the pinned Node, BundleError when the engine refuses the bundle.
    """
    _check_backend(backend)
    kernels = build_kernels() if backend == "wasm" else project.BUILD / KERNELS
    command = [str(project.node_program()), str(DRIVER / "node.ts"), str(bundle.resolve()), backend, str(kernels)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield NodeHost(process, bundle, _hooks(architecture))
        finally:
            process.kill()


class ChromiumHost:
    """The engine on an empty page of Chromium."""

    def __init__(self, page: Any, backend: str, hooks: list[str]) -> None:
        self._page = page
        self._hooks = hooks
        self.backend = backend

    def activations(self, tokens: list[int]) -> Activations:
        shapes = self._page.evaluate("([tokens, hooks]) => parity.run(tokens, hooks)", [tokens, self._hooks])
        values: Activations = {}
        for index, (hook, shape) in enumerate(zip(self._hooks, shapes, strict=True)):
            content = base64.b64decode(self._page.evaluate("index => parity.take(index)", index))
            values[hook] = np.frombuffer(content, "<f4").reshape(shape)
        return values


@contextmanager
def open_chromium_host(bundle: Path, architecture: Architecture, backend: str) -> Iterator[ChromiumHost]:
    """The engine in Chromium with `bundle` open.

    Raises: MissingProgramError without Playwright or a browser, BundleError when the engine refuses the bundle.
    """
    _check_backend(backend)
    if not importlib.util.find_spec("playwright"):
        raise MissingProgramError(
            "Playwright is not installed, and `verify --in chromium` drives the browser with it; install it with "
            "`pip install playwright`, or verify in node."
        )
    from playwright.sync_api import Error, sync_playwright

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        esbuild = project.ROOT / "node_modules" / ".bin" / "esbuild"
        script = folder / "parity.js"
        _run([str(esbuild), str(DRIVER / "browser.ts"), "--bundle", "--format=iife", f"--outfile={script}"])
        (folder / "index.html").write_text('<!doctype html><title>parity</title><script src="parity.js"></script>')
        copy_kernels(folder)
        try:
            browser = playwright.chromium.launch(
                executable_path=project.chromium_program(), args=list(project.CHROMIUM_FLAGS)
            )
        except Error as error:
            raise MissingProgramError(
                f"Chromium could not be started ({error.message.splitlines()[0]}); install it with "
                "`playwright install chromium`, or name one in NEUROSCOPE_CHROMIUM."
            ) from error
        try:
            page = browser.new_page()
            page.route(f"{ORIGIN}/**", lambda route: _answer(route, folder, bundle))
            page.goto(f"{ORIGIN}/index.html")
            try:
                opened = page.evaluate("backend => parity.open('bundle/', backend, 'kernels.wasm')", backend)
            except Error as error:
                raise BundleError(f"The engine in Chromium refused {bundle}: {error.message}") from error
            yield ChromiumHost(page, opened, _hooks(architecture))
        finally:
            browser.close()


def _answer(route: Any, folder: Path, bundle: Path) -> None:
    """Answers one request of the page from the driver's folder, or from the bundle."""
    path = route.request.url.removeprefix(f"{ORIGIN}/")
    file = bundle / path.removeprefix("bundle/") if path.startswith("bundle/") else folder / path
    if not file.is_file():
        route.fulfill(status=404, body="")
        return
    content, status = file.read_bytes(), 200
    wanted = route.request.headers.get("range")
    if wanted:
        first, last = (int(bound) for bound in wanted.removeprefix("bytes=").split("-"))
        content, status = content[first : last + 1], 206
    kinds = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm"}
    route.fulfill(status=status, body=content, content_type=kinds.get(file.suffix, "application/octet-stream"))
