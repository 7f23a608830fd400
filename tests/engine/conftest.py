"""What the engine's tests share: checkpoints, and the places where the engine runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_checkpoints import SHAPES, Checkpoint, make_checkpoint
from engine_places import NODE, Runner, Site
from neuroscope.kernels import build_kernels
from neuroscope.project import ROOT
from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session", autouse=True)
def kernels() -> Path:
    """kernels.wasm, built from these sources, with the other files beside it."""
    return build_kernels()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    base = tmp_path_factory.mktemp("checkpoints")
    return {shape: make_checkpoint(base / shape, shape) for shape in SHAPES}


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A random checkpoint of every family and setting, of tests/architectures."""
    from checkpoints import RECIPES
    from checkpoints import make_checkpoint as make

    base = tmp_path_factory.mktemp("families")
    return {name: make(base / name, name) for name in RECIPES}


@pytest.fixture(scope="session")
def run_in_node() -> Runner:
    def run(jobs: list[dict[str, Any]], *arguments: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [NODE, ROOT / "tests/engine/run_jobs.ts", *arguments],
            input=json.dumps(jobs), capture_output=True, text=True, timeout=120, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results: list[dict[str, Any]] = json.loads(done.stdout)
        return results

    return run


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, kernels: Path) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"), kernels)
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A page with storage of its own."""
    context = browser.new_context()
    yield context.new_page()
    context.close()
