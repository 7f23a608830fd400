"""The command line `neuroscope`: reads arguments, calls the package that does the work, reports errors in one sentence.

Not the work itself: each command's function only translates. Exit status: 0 done, 1 a NeuroScopeError or a failed
check, 2 a wrong command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from neuroscope.cli import bench, demo, evaluate, export, image, serve, site, sweep
from neuroscope.errors import NeuroScopeError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neuroscope",
        description="A live Smalltalk, opened from a URL, in which a transformer is an object.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in (image, evaluate, export, site, demo, serve, sweep, bench):
        part.add_commands(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        status = options.run(options)
    except NeuroScopeError as error:
        print(f"neuroscope {options.command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "neuroscope":
            raise
        extra = getattr(options, "extra", "test")
        print(
            f"neuroscope {options.command}: {error.name} is missing, and this command needs it; install it with "
            f"`pip install neuroscope[{extra}]`.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    assert isinstance(status, int)
    return status


def existing_path(text: str) -> Path:
    """An argument that has to exist, refused while the command line is read."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path


if __name__ == "__main__":
    sys.exit(main())
