"""Where the project and its outside programs are: the source tree, Node, Chromium.

Not a configuration: every path follows from this file's place or from the machine's PATH.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from neuroscope.errors import MissingProgramError

ROOT = Path(__file__).resolve().parents[2]
SMALLTALK = ROOT / "smalltalk"
BUILD = ROOT / "build"
IMAGE = BUILD / "neuroscope.image"
DEMO_MODEL = ROOT / "demo_model"

# What a headless Chromium needs to start as root, to stay off the network, and to have WebGL2 without a GPU.
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
)


def node_program() -> Path:
    """The pinned Node that npm installed; the machine's own Node need not run TypeScript.

    Raises: MissingProgramError before `make setup`.
    """
    node = ROOT / "node_modules" / ".bin" / "node"
    if not node.exists():
        raise MissingProgramError(f"Node is missing at {node}; run `make setup`, which installs the pinned one.")
    return node


def chromium_program() -> str | None:
    """The Chromium to drive: $NEUROSCOPE_CHROMIUM, else one on the PATH, else None for Playwright's own download."""
    named = os.environ.get("NEUROSCOPE_CHROMIUM")
    if named:
        return named
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    return None
