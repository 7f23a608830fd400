"""The image builder's front door: a source tree ► an image file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import NeuroScopeError, SourceError
from .bootstrap import Bootstrap
from .library import ENTRY_SELECTOR, TESTS_SUFFIX, Library
from .spur import reachable, write_image

START = ("ImageStart", True, "boot")


@dataclass(frozen=True)
class ImageReport:
    """What was built. `bytes_without_…` are the sizes that the image would have without them, where it has them."""

    output: Path
    packages: tuple[str, ...]
    classes: int
    methods: int
    symbols: int
    objects: int
    bytes: int
    bytes_without_sources: int
    bytes_without_tests: int
    problems: tuple[NeuroScopeError, ...] = ()
    warnings: tuple[str, ...] = ()


def build_image(
    source: Path,
    output: Path,
    *,
    packages: Sequence[str] | None = None,
    entry: str | None = None,
    with_sources: bool = True,
    with_tests: bool = True,
    lenient: bool = False,
) -> ImageReport:
    """Builds the packages (all, where None) into `output`, whole or not at all.

    `entry` is an expression that the first process evaluates and prints instead of starting the image. `lenient` leaves
    faulty methods out and gives unknown globals the value nil, with reports of both.

    Raises: SourceError, ImageLimitError: the first problem, the others as notes.
    """
    library = _read(source, packages, entry, with_tests, lenient)
    start = _start(library, entry)
    bootstrap = Bootstrap(library, with_sources=with_sources)
    heap = bootstrap.heap(start)
    image = write_image(heap)
    _write_atomically(output, image)

    def size(library: Library, *, sources: bool) -> int:
        return len(write_image(Bootstrap(library, with_sources=sources).heap(start)))

    def size_without_tests() -> int:
        try:
            return size(library.without_tests(), sources=with_sources)
        except KeyError:
            if entry is None:
                raise
            return len(image)  # the entry names a test's class: there is no such image

    has_tests = any(each.endswith(TESTS_SUFFIX) for each in library.packages)
    return ImageReport(
        output=output,
        packages=tuple(library.packages),
        classes=len(library.classes),
        methods=sum(len(each.methods) for each in library.behaviors.values()),
        symbols=len(bootstrap.symbols),
        objects=len(reachable(heap)),
        bytes=len(image),
        bytes_without_sources=size(library, sources=False) if with_sources else len(image),
        bytes_without_tests=size_without_tests() if has_tests else len(image),
        problems=tuple(library.problems),
        warnings=tuple(library.warnings),
    )


def _read(source: Path, packages: Sequence[str] | None, entry: str | None, with_tests: bool, lenient: bool) -> Library:
    library = Library(lenient=lenient)
    library.read(source, packages, with_tests=with_tests)
    library.check()
    if entry is not None:
        library.add_entry(entry)
    return library


def _start(library: Library, entry: str | None) -> tuple[str, bool, str]:
    if entry is not None:
        return ("UndefinedObject", False, ENTRY_SELECTOR)
    behavior = library.behaviors.get(START[:2])
    if behavior is None or START[2] not in behavior.methods:
        raise SourceError(
            "smalltalk",
            1,
            1,
            "ImageStart class >> boot is not in these packages; add package System, or give an --entry",
        )
    return START


def _write_atomically(output: Path, data: bytes) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(output)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
