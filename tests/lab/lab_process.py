"""A lab as a person starts it: a process of its own, at a free port."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

STARTS_WITHIN = 60.0  # seconds


@contextlib.contextmanager
def serving(
    *arguments: str | Path,
    program: Sequence[str] = ("neuroscope.cli.main", "serve"),
    cwd: Path | None = None,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL that the command prints, without a slash at its end, and its process, which ends with the block."""
    command = [sys.executable, "-m", *program, "--port", "0", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # for models so small threads make no pass faster
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True, env=environment) as process:
        watchdog = threading.Timer(STARTS_WITHIN, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            watchdog.cancel()
            assert line.startswith("the lab listens on http://"), line
            yield line.split()[4].rstrip("/"), process
        finally:
            watchdog.cancel()
            process.kill()
