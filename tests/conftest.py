"""What tests share: image, demo bundle and site, built once a run, and the command line as a person calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from neuroscope import project
from neuroscope.cli.demo import make_demo_bundle, make_demo_site
from neuroscope.image.build import build_image
from neuroscope.kernels import build_kernels
from playwright.sync_api import Browser, Page

# Matrices are small here: on a busy machine PyTorch's threads wait for each other four times as long as they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Neuroscope = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def kernels() -> Path:
    """kernels.wasm, with the other files beside it."""
    return build_kernels()


@pytest.fixture(scope="session")
def image() -> Path:
    """The whole image, with sources and tests."""
    build_image(project.SMALLTALK, project.IMAGE)
    return project.IMAGE


@pytest.fixture(scope="session")
def demo_bundle() -> Path:
    return make_demo_bundle()


@pytest.fixture(scope="session")
def demo_site() -> Path:
    return make_demo_site()


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A random checkpoint of every family and setting, of tests/architectures."""
    from checkpoints import RECIPES, make_checkpoint

    base = tmp_path_factory.mktemp("families")
    return {name: make_checkpoint(base / name, name) for name in RECIPES}


@pytest.fixture(scope="session")
def engine_site(tmp_path_factory: pytest.TempPathFactory, kernels: Path) -> Iterator[Any]:
    """The page of tests/engine, with an engine in a worker."""
    from engine_places import Site

    site = Site(tmp_path_factory.mktemp("engine_site"), kernels)
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A page with storage of its own."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def neuroscope() -> Neuroscope:
    """Runs `neuroscope ARGUMENTS…` and answers the finished process, whatever its status."""

    def run(*arguments: str | Path, input: str | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "neuroscope.cli.main", *map(str, arguments)]
        return subprocess.run(command, input=input, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@pytest.fixture(scope="session")
def evaluate(neuroscope: Neuroscope, image: Path, demo_bundle: Path) -> Callable[..., str]:
    """Evaluates Smalltalk in Node, the demo bundle at hand; answers what it prints, and fails the test on an error."""

    def run(*sources: str, raw: bool = False) -> str:
        options = [part for source in sources for part in ("-e", source)]
        finished = neuroscope("eval", "--bundle", demo_bundle, *(["--raw"] if raw else []), *options)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.removesuffix("\n")

    return run


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Playwright's Chromium, or the machine's own where there is one."""
    launch = {**browser_type_launch_args, "args": list(project.CHROMIUM_FLAGS)}
    program = project.chromium_program()
    if program is not None:
        launch["executable_path"] = program
    yield launch
