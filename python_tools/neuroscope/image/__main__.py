"""`python -m neuroscope.image`: builds an image from the command line, for people who work on the Smalltalk sources."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import NeuroScopeError
from .build import build_image


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m neuroscope.image", description="Builds an image from Smalltalk text."
    )
    parser.add_argument(
        "--source", type=Path, default=Path("smalltalk"), help="folder of packages (default: smalltalk)"
    )
    parser.add_argument("--only", help="comma-separated packages (default: all)")
    parser.add_argument(
        "--entry", metavar="EXPR", help="evaluate this, print it, and quit, instead of starting the image"
    )
    parser.add_argument("--lenient", action="store_true", help="leave faulty methods out; unknown globals are nil")
    parser.add_argument("--without-sources", action="store_true", help="leave the methods' sources out")
    parser.add_argument("--without-tests", action="store_true", help="leave packages named …-Tests out")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/neuroscope.image"), metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        report = build_image(
            options.source,
            options.output,
            packages=options.only.split(",") if options.only else None,
            entry=options.entry,
            with_sources=not options.without_sources,
            with_tests=not options.without_tests,
            lenient=options.lenient,
        )
    except NeuroScopeError as error:
        print(error, *getattr(error, "__notes__", []), sep="\n", file=sys.stderr)
        return 1
    for problem in report.problems:
        print(problem, file=sys.stderr)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"{report.output}: {report.bytes:,} bytes ({report.bytes_without_sources:,} without sources, "
        f"{report.bytes_without_tests:,} without tests), {report.classes} classes, {report.methods} methods, "
        f"{report.symbols} symbols, {report.objects} objects",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
