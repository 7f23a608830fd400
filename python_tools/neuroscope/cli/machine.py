"""Runs an image, in Node or in Chromium, with this process's output and exit status.

Python starts the host program, hands it one JSON file and waits; it executes no Smalltalk.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroscope import project
from neuroscope.errors import BundleError, MissingProgramError, NeuroScopeError
from neuroscope.image.build import build_image
from neuroscope.kernels import build_kernels
from neuroscope.site.scripts import build_harness, bundle_script
from neuroscope.site.server import serve


@dataclass(frozen=True)
class MachineRun:
    """An image and what it is told first. `bundles` maps the names that the image may ask for to folders.

    With `site`, engine and kernels are those of a built site and not made anew.
    """

    image: Path
    start: Mapping[str, Any]
    bundles: Mapping[str, Path] = field(default_factory=dict)
    backend: str | None = None
    timeout: float | None = None
    fail_primitives: tuple[int | str, ...] = ()
    site: Path | None = None

    def ensure_image(self) -> None:
        """The project's own image is built where it is missing; any other one has to be there."""
        if self.image.exists():
            return
        if self.image != project.IMAGE:
            raise NeuroScopeError(f"There is no image {self.image}; `neuroscope image build -o FILE` makes one.")
        build_image(project.SMALLTALK, self.image)


def find_bundles(folders: Iterable[Path]) -> dict[str, Path]:
    """Bundle id to folder; the demo bundle is there once it was built.

    Raises: BundleError for a folder without bundle.json, or two bundles of one id.
    """
    found: dict[str, Path] = {}
    default = project.BUILD / "demo-bundle"
    given = list(folders)
    for folder in ([default] if (default / "bundle.json").exists() and not given else []) + given:
        description = folder / "bundle.json"
        if not description.exists():
            raise BundleError(f"{folder} is no bundle: it has no bundle.json; `neuroscope export` makes one.")
        identifier = str(json.loads(description.read_text(encoding="utf-8"))["id"])
        if identifier in found:
            raise BundleError(f"{found[identifier]} and {folder} are both named {identifier}; export one with --id.")
        found[identifier] = folder
    return found


def run_in_node(run: MachineRun) -> int:
    """Exit status of the image; its output goes where this process's goes."""
    return _start_node(run, stdout=None).returncode


def capture_in_node(run: MachineRun) -> str:
    """Standard output of the image.

    Raises: NeuroScopeError with its standard error when it ends with a status other than 0.
    """
    finished = _start_node(run, stdout=subprocess.PIPE)
    if finished.returncode != 0:
        raise NeuroScopeError(f"The image ended with status {finished.returncode}: {finished.stderr.strip()}")
    return finished.stdout


def _start_node(run: MachineRun, *, stdout: int | None) -> subprocess.CompletedProcess[str]:
    run.ensure_image()
    kernels = None if not run.bundles else run.site / "kernels.wasm" if run.site else build_kernels()
    with tempfile.TemporaryDirectory() as folder:
        description = Path(folder) / "run.json"
        description.write_text(
            json.dumps(
                {
                    "image": str(run.image.resolve()),
                    "start": dict(run.start),
                    "bundles": {name: str(path.resolve()) for name, path in run.bundles.items()},
                    "backend": run.backend or "wasm",
                    "kernels": None if kernels is None else str(kernels.resolve()),
                    "timeoutSeconds": run.timeout,
                    "failPrimitives": list(run.fail_primitives),
                }
            ),
            encoding="utf-8",
        )
        command = [str(project.node_program()), str(project.ROOT / "hosts" / "node.ts"), str(description)]
        return subprocess.run(command, check=False, stdout=stdout, stderr=stdout, text=True)


def capture_on_upstream(run: MachineRun, home: Path) -> str:
    """Standard output of the image on upstream SqueakJS in Node, whose folder is `home`; with the VM's own lines.

    Raises: NeuroScopeError with its standard error when it ends with a status other than 0.
    """
    run.ensure_image()
    with tempfile.TemporaryDirectory() as folder:
        preload = bundle_script(project.ROOT / "hosts" / "upstream.ts", Path(folder) / "host.cjs", format="cjs")
        description = Path(folder) / "run.json"
        content = {"start": dict(run.start), "bundles": {}, "backend": "wasm", "kernels": None}
        description.write_text(json.dumps(content), encoding="utf-8")
        finished = subprocess.run(
            [str(project.node_program()), "-r", str(preload), "squeak_node.js", str(run.image.resolve())],
            cwd=home,
            env={**os.environ, "NEUROSCOPE_RUN": str(description)},
            capture_output=True,
            text=True,
            timeout=run.timeout,
            check=False,
        )
    if finished.returncode != 0:
        told = finished.stderr.strip()
        raise NeuroScopeError(f"The image ended on upstream with status {finished.returncode}: {told}")
    return finished.stdout


def run_in_chromium(run: MachineRun) -> int:
    """Exit status of the image; its output goes where this process's goes."""

    def write(file: int, text: bytes) -> None:
        stream = sys.stdout if file == 1 else sys.stderr
        stream.buffer.write(text)
        stream.flush()

    return _drive_chromium(run, write)


def capture_in_chromium(run: MachineRun) -> str:
    """Standard output of the image.

    Raises: NeuroScopeError with its standard error when it ends with a status other than 0.
    """
    written = {1: b"", 2: b""}

    def write(file: int, text: bytes) -> None:
        written[file] += text

    status = _drive_chromium(run, write)
    if status != 0:
        raise NeuroScopeError(f"The image ended with status {status}: {written[2].decode().strip()}")
    return written[1].decode()


def _drive_chromium(run: MachineRun, write: Callable[[int, bytes], None]) -> int:
    with tempfile.TemporaryDirectory() as harness:
        build_harness(Path(harness))
        return _drive_page(run, write, Path(harness))


def _drive_page(run: MachineRun, write: Callable[[int, bytes], None], harness: Path) -> int:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise MissingProgramError("Playwright is missing; `make setup-test` installs it and a browser.") from error
    run.ensure_image()
    status: list[int] = []
    finished = threading.Event()

    def quit_image(code: int) -> None:
        status.append(code)
        finished.set()

    mounts = {"/": harness, "/engine/": run.site or harness, "/image/": run.image.resolve().parent}
    for name, path in run.bundles.items():
        mounts[f"/bundles/{name}/"] = path.resolve()
    description = {
        "image": f"/image/{run.image.name}",
        "engine": "/engine/engine.js",
        "kernels": "/engine/kernels.wasm",
        "start": dict(run.start),
        "bundles": {name: f"/bundles/{name}/" for name in run.bundles},
        "backend": run.backend or "auto",
        "timeoutSeconds": run.timeout,
        "failPrimitives": list(run.fail_primitives),
    }
    with serve(mounts) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=project.chromium_program(), args=list(project.CHROMIUM_FLAGS)
        )
        page = browser.new_page()
        page.expose_function("neuroscopeWrite", lambda file, text: write(file, base64.b64decode(text)))
        page.expose_function("neuroscopeQuit", quit_image)
        page.on("pageerror", lambda error: print(f"page: {error}", file=sys.stderr))
        page.goto(f"{url}/harness.html")
        page.evaluate("description => window.neuroscopeRun(description)", description)
        while not finished.is_set():
            # Playwright delivers the exposed functions' calls only while one of its own calls is waiting.
            page.wait_for_timeout(20)
        browser.close()
    return status[0]
