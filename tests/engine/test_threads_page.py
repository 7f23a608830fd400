"""Threads of the WebAssembly backend in Chromium: there on an isolated page, done without on any other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_checkpoints import Checkpoint, unpack
from engine_oracle import far
from engine_places import Site
from neuroscope.kernels import copy_kernels
from neuroscope.project import ROOT
from neuroscope.site.scripts import bundle_script
from neuroscope.site.server import serve
from playwright.sync_api import Page

CORES = os.cpu_count() or 1
THREADS = CORES if CORES <= 2 else min(16, -(-CORES // 2))
PAGE = '<!doctype html><link rel="icon" href="data:,"><script type="module" src="threads_page.js"></script>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("threads")
    bundle_script(ROOT / "tests/engine/threads_page.ts", folder / "threads_page.js")
    copy_kernels(folder)
    (folder / "index.html").write_text(PAGE)
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["isolated", "not isolated"])
def ran(request: pytest.FixtureRequest, folder: Path, browser: Any) -> Iterator[dict[str, Any]]:
    with serve({"/": folder}, isolated=request.param) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{url}/index.html")
        page.wait_for_function("typeof runKernels === 'function'")
        addresses = [f"{url}/threads_page.js", f"{url}/kernels.wasm"]
        yield page.evaluate("([script, kernels]) => runKernels(script, kernels)", addresses)
        context.close()


numbers: dict[bool, list[float]] = {}


def test_an_isolated_page_has_threads_and_another_has_one(ran: dict[str, Any]) -> None:
    assert ran["told"] == []
    wanted = THREADS if ran["isolated"] else 1
    assert ran["threads"] == wanted
    assert ran["helped"] == (wanted > 1)
    numbers[ran["isolated"]] = ran["numbers"]


def test_both_compute_the_same_bits() -> None:
    assert len(numbers[True]) == 7 * 203
    assert numbers[True] == numbers[False]


def test_the_engine_says_how_many_threads_it_has_and_gives_the_same_logits_with_each(
    tab: Page, engine_site: Site, checkpoints: dict[str, Checkpoint]
) -> None:
    address = engine_site.publish(checkpoints["odd"].folder).removeprefix(engine_site.url)
    with serve({"/": engine_site.folder}) as url:
        tab.goto(f"{url}/index.html")
        tab.wait_for_function("typeof runJobs === 'function'")
        assert tab.evaluate("crossOriginIsolated")
        threads, found = [], []
        for without in ([], ["threads"]):
            settings = {"kernels": f"{url}/kernels.wasm", "bundles": url, "without": without}
            checkpoint = checkpoints["odd"]
            passes = [{"tokens": checkpoint.tokens, "capture": []}]
            job = {"bundle": f"{url}{address}", "backend": "wasm", "passes": passes}
            [result], logs = tab.evaluate("([jobs, settings]) => runJobs(jobs, settings)", [[job], settings])
            assert "error" not in result, result["error"]
            assert logs == []
            found.append(result["passes"][0]["logits"])
            assert far("logits", unpack(found[-1]), checkpoint.logits()) is None
            threads.append(result["loaded"]["threads"])
    assert threads == [THREADS, 1]
    assert found[0] == found[1]
