"""The two virtual machines that run an image without any host module."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from neuroscope import project
from system_images import Run

UPSTREAM_CHATTER = ("squeak: ", "Loaded module: ", "Break: ", "Partial GC ", "Full GC ", "missing primitive: ")


@pytest.fixture(params=["own", "upstream"])
def run_image(request: pytest.FixtureRequest) -> Run:
    """Runs an image until it quits; answers the lines that it printed."""
    if request.param == "own":
        command, folder = [str(project.node_program()), "tests/squeakjs/run_image.ts", "--seconds", "300"], project.ROOT
    else:
        home = os.environ.get("SQUEAKJS_HOME")
        if not home:
            pytest.skip("SQUEAKJS_HOME is not set: it names a checkout of SqueakJS, the machine to compare with")
        command, folder = [str(project.node_program()), "squeak_node.js"], Path(home)

    def run(image: Path) -> list[str]:
        finished = subprocess.run(
            [*command, str(image.resolve())], cwd=folder, capture_output=True, text=True, timeout=400, check=False
        )
        assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
        return [line for line in finished.stdout.splitlines() if not line.startswith(UPSTREAM_CHATTER)]

    return run
