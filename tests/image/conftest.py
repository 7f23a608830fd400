"""Fixtures: a minimal source tree, and the virtual machines that boot what is built."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from minimal import write_minimal
from neuroscope.project import ROOT, node_program

Run = Callable[[Path], list[str]]


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    return write_minimal(tmp_path / "smalltalk")


def printed(command: list[str], folder: str | Path) -> list[str]:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


@pytest.fixture
def run_own() -> Run:
    """Boots an image on this project's virtual machine; answers the lines that it printed."""
    return lambda image: printed([str(node_program()), "tests/squeakjs/run_image.ts", str(image)], ROOT)


@pytest.fixture
def run_upstream() -> Run:
    """Boots an image on SqueakJS; answers the lines that the image itself printed."""
    home = os.environ.get("SQUEAKJS_HOME")
    if not home:
        pytest.skip("SQUEAKJS_HOME is not set: it names a checkout of SqueakJS, the virtual machine to compare with")
    chatter = ("squeak: ", "Loaded module: ", "Break: ", "missing primitive: ")

    def run(image: Path) -> list[str]:
        return [
            line
            for line in printed([str(node_program()), "squeak_node.js", str(image)], home)
            if not line.startswith(chatter)
        ]

    return run


@pytest.fixture(params=["own", "upstream"])
def run_image(request: pytest.FixtureRequest) -> Run:
    """Both machines, one after the other."""
    run: Run = request.getfixturevalue(f"run_{request.param}")
    return run
