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
from neuroscope.cli.demo import DEMO_NAME, make_demo_bundle
from neuroscope.cli.machine import MachineRun, capture_in_node
from neuroscope.cli.site import make_site
from neuroscope.image.build import build_image
from neuroscope.kernels import KERNELS, build_kernels
from playwright.sync_api import Browser, Page

from tests.machines import Run, run_own, run_upstream, upstream
from tests.turns import Turns

# Matrices are small here: on a busy machine PyTorch's threads wait for each other four times as long as they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Neuroscope = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    turns = Turns.of(item.config._tmp_path_factory)
    with turns.test(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Turns:
    return Turns.of(tmp_path_factory)


@pytest.fixture(scope="session")
def kernels(turns: Turns) -> Path:
    """kernels.wasm, with the other files beside it."""
    turns.make_once("kernels", build_kernels)
    return project.BUILD / KERNELS


@pytest.fixture(scope="session")
def image(turns: Turns) -> Path:
    """The whole image, with sources and tests."""
    turns.make_once("image", lambda: build_image(project.SMALLTALK, project.IMAGE))
    return project.IMAGE


@pytest.fixture(scope="session")
def demo_bundle(turns: Turns) -> Path:
    turns.make_once("demo_bundle", make_demo_bundle)
    return project.BUILD / "demo-bundle"


@pytest.fixture(scope="session")
def demo_site(turns: Turns, kernels: Path, demo_bundle: Path) -> Path:
    site = project.BUILD / "site"
    turns.make_once("demo_site", lambda: make_site(site, {DEMO_NAME: demo_bundle}))
    return site


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
def evaluate(image: Path, demo_bundle: Path, kernels: Path) -> Callable[..., str]:
    """Evaluates Smalltalk in Node, the demo bundle at hand; answers what it prints, and fails the test on an error.

    As `neuroscope eval` does, without the second that Python takes to start.
    """

    def run(*sources: str, raw: bool = False) -> str:
        named = [{"name": f"-e {number}", "text": text} for number, text in enumerate(sources, start=1)]
        start = {"kind": "start", "mode": "eval", "sources": named, "load": [], "raw": raw}
        machine = MachineRun(image=image, start=start, bundles={DEMO_NAME: demo_bundle}, timeout=300)
        return capture_in_node(machine).removesuffix("\n")

    return run


@pytest.fixture(params=["own", "upstream"])
def run_image(request: pytest.FixtureRequest) -> Run:
    """Runs an image until it quits, on both machines, one after the other; answers the lines that it printed."""
    if request.param == "own":
        return run_own
    upstream()
    return run_upstream


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Playwright's Chromium, or the machine's own where there is one."""
    launch = {**browser_type_launch_args, "args": list(project.CHROMIUM_FLAGS)}
    program = project.chromium_program()
    if program is not None:
        launch["executable_path"] = program
    yield launch
