"""Builds images of the packages below Bridge, which need no host."""

from __future__ import annotations

from pathlib import Path

from neuroscope import project
from neuroscope.image.build import build_image

PACKAGES = ("Kernel", "Collections", "System", "Kernel-Tests", "Collections-Tests", "System-Tests")


def build(output: Path, entry: str | None) -> Path:
    build_image(project.SMALLTALK, output, packages=PACKAGES, entry=entry)
    return output
