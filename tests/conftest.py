"""What tests share: image, demo bundle and site, built once a run, and the command line as a person calls it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from neuroscope import project
from neuroscope.cli.demo import make_demo_bundle, make_demo_site
from neuroscope.image.build import build_image

Neuroscope = Callable[..., "subprocess.CompletedProcess[str]"]


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
