"""The virtual machines that run an image by itself, without a host: the project's own, and SqueakJS to compare with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from neuroscope.project import ROOT, node_program

Run = Callable[[Path], list[str]]

# What SqueakJS says of itself among the image's lines.
UPSTREAM_CHATTER = ("squeak: ", "Loaded module: ", "Break: ", "Partial GC ", "Full GC ", "missing primitive: ")


def upstream() -> Path:
    """The checkout of SqueakJS that SQUEAKJS_HOME names; without one the test is skipped, and says so."""
    home = os.environ.get("SQUEAKJS_HOME")
    if not home:
        pytest.skip("SQUEAKJS_HOME is not set: it names a checkout of SqueakJS, the virtual machine to compare with")
    return Path(home)


def run_own(image: Path) -> list[str]:
    """The lines that an image prints until it quits."""
    return _lines(["tests/squeakjs/run_image.ts", "--seconds", "300"], image, ROOT)


def run_upstream(image: Path) -> list[str]:
    """The same of SqueakJS, without what that says itself."""
    return [line for line in _lines(["squeak_node.js"], image, upstream()) if not line.startswith(UPSTREAM_CHATTER)]


def _lines(program: list[str], image: Path, folder: Path) -> list[str]:
    command = [str(node_program()), *program, str(image.resolve())]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    return finished.stdout.splitlines()
