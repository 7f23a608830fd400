"""Measures a load: the most memory that it asks for over the bytes of the weights, and a warm start from the browser's
database over reading the same database and throwing it away.

The memory is the engine's WebAssembly memory by its real size and every ArrayBuffer that its worker's scripts allocated
or received and have not detached (js_bridge/benchmark/buffer_watch.ts counts from outside); textures there are none of,
for the backend is WebAssembly. Beside it stands what the operating system counts for the page's process, which holds
the collector's garbage, the scripts and the browser's own copies as well. Loads that are timed are not watched.
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuroscope import project
from neuroscope.bench.places import Goal, Places, Times, call_worker, open_engine

DATABASE = "neuroscope"
_LOOK_EVERY = 0.005  # seconds


def measure_loading(places: Places, *, rounds: int) -> dict[str, Any]:
    """A cold load and a warm one, watched; then warm ones in turn with the bare loop."""
    with tempfile.TemporaryDirectory() as profile, _open_browser(Path(profile)) as browser:
        watched = {name: _load(browser, places, engine=places.watched_engine) for name in ("cold", "warm")}
        taken, resident = Times(), [_load(browser, places)["resident"]]
        for _ in range(rounds):
            with _new_page(browser, places) as page:
                page.evaluate("script => bench.openWorker('storage', script)", "/bench/storage_worker.js")
                taken.add("bare", call_worker(page, "storage", "readAll", DATABASE)["milliseconds"])
                page.evaluate("bench.closeWorker('storage')")
            warm = _load(browser, places)
            taken.add("warm start", warm["milliseconds"])
            resident.append(warm["resident"])
    with tempfile.TemporaryDirectory() as profile, _open_browser(Path(profile)) as browser:
        cold = _load(browser, places)
    weights = cold["bytes"]
    float32, int8 = (_weights(places.bundle_folder / name) for name in (places.bundle, places.int8_bundle))
    return {
        "loading": {
            "resident weights, bytes": weights,
            "peak of buffers and WASM memory, cold, bytes": watched["cold"]["peak"],
            "peak of buffers and WASM memory, warm, bytes": watched["warm"]["peak"],
            "WASM memory at the end, bytes": watched["warm"]["memories"],
            "peak of the process over before, cold, bytes": cold["resident"],
            "peak of the process over before, warm, bytes": max(resident),
            "cold start, ms": cold["milliseconds"],
            "warm start, ms": taken.median("warm start"),
            "the bare loop, ms": taken.median("bare"),
            "float32 weights in the bundle, bytes": float32,
            "int8 weights in the bundle, bytes": int8,
        },
        "loadingGoals": [
            Goal("peak memory of a cold start / resident weights", watched["cold"]["peak"] / weights, 1.3),
            Goal("peak memory of a warm start / resident weights", watched["warm"]["peak"] / weights, 1.3),
            Goal("warm start / bare get loop", taken.ratio("warm start", "bare"), 1.5),
            Goal("int8 bundle / float32 bundle", int8 / float32, 0.27),
        ],
    }


def _weights(bundle: Path) -> int:
    return sum(path.stat().st_size for path in bundle.glob("model*.safetensors"))


@contextmanager
def _open_browser(profile: Path) -> Iterator[Any]:
    """A browser whose database is on the disk, as a reader's is."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=project.chromium_program(), args=list(project.CHROMIUM_FLAGS)
        )
        try:
            yield context
        finally:
            context.close()


@contextmanager
def _new_page(browser: Any, places: Places) -> Iterator[Any]:
    page = browser.new_page()
    page.set_default_timeout(300_000)
    page.goto(f"{places.url}/bench/index.html")
    page.wait_for_function("'bench' in globalThis")
    try:
        yield page
    finally:
        page.close()


def _load(browser: Any, places: Places, *, engine: str | None = None) -> dict[str, Any]:
    """What a load took; of a watched engine also what its worker asked for."""
    with _new_page(browser, places) as page:
        process = _renderer_of(page)
        before = _resident(process)
        chosen = places if engine is None else dataclasses.replace(places, engine=engine)
        with _peak(process) as peak:
            opened = open_engine(page, chosen, places.bundle, "wasm", keeps=True)
        watched: dict[str, Any] = {} if engine is None else page.evaluate("bench.watched()")
        page.evaluate("bench.close()")
        return {
            "milliseconds": opened["milliseconds"],
            "bytes": opened["bytes"],
            "resident": peak[0] - before,
            **watched,
        }


def _renderer_of(page: Any) -> int:
    """Found by memory: the page fills 64 MiB, and the process that grew is its own."""
    before = {pid: _resident(pid) for pid in _renderers()}
    page.evaluate("() => { globalThis.ballast = new Uint8Array(64 * 2 ** 20).fill(1); }")
    grown = max(_renderers(), key=lambda pid: _resident(pid) - before.get(pid, 0))
    page.evaluate("() => { delete globalThis.ballast; }")
    time.sleep(0.2)
    return grown


def _renderers() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"--type=renderer" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def _resident(process: int) -> int:
    """Bytes that a process holds in memory."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmRSS:")]
    return 1024 * int(lines[0][1]) if lines else 0


@contextmanager
def _peak(process: int) -> Iterator[list[int]]:
    """The most that the process held while the block ran."""
    most, over = [0], threading.Event()

    def look() -> None:
        while not over.is_set():
            most[0] = max(most[0], _resident(process))
            time.sleep(_LOOK_EVERY)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()
