"""The processes of one test run: what they make once between them, and what runs while all others wait.

pytest-xdist starts the processes; without it there is one, and nothing here waits. The locks are files, which the
system lets go of when a process dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest


class Turns:
    """Locks in a folder that the processes of a run share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of(cls, factory: pytest.TempPathFactory) -> Turns:
        base = factory.getbasetemp()
        return cls(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)

    def make_once(self, name: str, make: Callable[[], object]) -> None:
        """Makes it in the first process that asks; the others wait, and find it made."""
        with self._locked(name, fcntl.LOCK_EX) as made:
            if not made.read():
                make()
                made.write("made")

    @contextmanager
    def test(self, *, alone: bool) -> Iterator[None]:
        """While one test is alone, none begins elsewhere. Whoever waits to be alone keeps the others from the door."""
        with ExitStack() as room:
            with self._locked("door", fcntl.LOCK_EX):
                room.enter_context(self._locked("room", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
            yield

    @contextmanager
    def _locked(self, name: str, kind: int) -> Iterator[IO[str]]:
        with (self._folder / f"{name}.lock").open("a+") as file:
            fcntl.flock(file, kind)
            file.seek(0)
            yield file
