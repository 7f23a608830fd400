"""Fixtures: a minimal source tree, and upstream's virtual machine where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from minimal import write_minimal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    return write_minimal(tmp_path / "smalltalk")


@pytest.fixture
def run_upstream() -> Callable[[Path], list[str]]:
    """Runs an image in SqueakJS under Node; answers the lines that the image itself printed."""
    home = os.environ.get("SQUEAKJS_HOME")
    if not home:
        pytest.skip("SQUEAKJS_HOME is not set: it names a checkout of SqueakJS, the virtual machine to compare with")
    pinned = ROOT / "node_modules" / ".bin" / "node"
    node = str(pinned) if pinned.exists() else shutil.which("node")
    if node is None:
        pytest.skip("Node is missing: run `make setup`")

    def run(image: Path) -> list[str]:
        result = subprocess.run(
            [node, "squeak_node.js", str(image)], cwd=home, capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 0, result.stderr
        chatter = ("squeak: ", "Loaded module: ", "Break: ")
        return [line for line in result.stdout.splitlines() if not line.startswith(chatter)]

    return run
