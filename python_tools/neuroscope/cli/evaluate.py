"""`neuroscope eval`: evaluates Smalltalk in the image, in Node or in Chromium.

The Transcript goes to standard error, the printString of the last value to standard output; exit status 1, with the
error and the Smalltalk stack on standard error, when it ends in an unhandled error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from neuroscope import project
from neuroscope.cli.machine import MachineRun, find_bundles, run_in_chromium, run_in_node
from neuroscope.errors import NeuroScopeError


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("eval", help="evaluate Smalltalk in the image")
    parser.add_argument("--in", dest="host", choices=("node", "chromium"), default="node")
    parser.add_argument("--backend", choices=("wasm", "webgl", "reference"), default=None)
    parser.add_argument("--image", type=Path, default=project.IMAGE, metavar="FILE")
    parser.add_argument("--site", type=Path, default=None, metavar="DIR", help="take image and bundles from a site")
    parser.add_argument("--bundle", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument("--load", type=Path, action="append", default=[], metavar="FILE|DIR")
    parser.add_argument("--raw", action="store_true", help="print the last value as text, without quotes")
    parser.add_argument("--timeout", type=float, default=None, metavar="SECONDS")
    parser.add_argument("-e", dest="expressions", action="append", default=[], metavar="SOURCE")
    parser.add_argument("file", nargs="?", default=None, metavar="FILE.st|-")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    sources = [{"name": f"-e {number}", "text": text} for number, text in enumerate(options.expressions, start=1)]
    if options.file == "-":
        sources.append({"name": "standard input", "text": sys.stdin.read()})
    elif options.file is not None:
        sources.append({"name": options.file, "text": _read(Path(options.file))})
    if not sources:
        raise NeuroScopeError("Nothing to evaluate: give -e SOURCE, a file, or - for standard input.")
    start = {
        "kind": "start",
        "mode": "eval",
        "sources": sources,
        "raw": options.raw,
        "load": [
            {"name": str(path), "text": _read(path)} for given in options.load for path in _smalltalk_files(given)
        ],
    }
    image, folders = options.image, list(options.bundle)
    if options.site is not None:
        image = options.site / "neuroscope.image"
        folders += sorted(path.parent for path in options.site.glob("bundles/*/bundle.json"))
    run = MachineRun(
        image=image,
        start=start,
        bundles=find_bundles(folders),
        backend=options.backend,
        timeout=options.timeout,
        site=options.site,
    )
    return run_in_chromium(run) if options.host == "chromium" else run_in_node(run)


def _smalltalk_files(path: Path) -> list[Path]:
    """A file by itself; of a folder its Tonel files, classes before extensions."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.class.st")) + sorted(path.rglob("*.extension.st"))
    if not found:
        raise NeuroScopeError(f"{path} holds no Tonel file; --load takes files or folders of *.class.st.")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise NeuroScopeError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise NeuroScopeError(f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#x}.") from error
