"""Builds images of the packages below Bridge, which need no host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from neuroscope import project
from neuroscope.image.build import build_image

PACKAGES = ("Kernel", "Collections", "System", "Kernel-Tests", "Collections-Tests", "System-Tests")
Run = Callable[[Path], list[str]]


def build(output: Path, entry: str | None) -> Path:
    build_image(project.SMALLTALK, output, packages=PACKAGES, entry=entry)
    return output
