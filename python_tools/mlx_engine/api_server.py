"""`python -m mlx_engine.api_server`: `neuroscope serve` under another name, on http://127.0.0.1:8080.

It takes the options of `neuroscope serve`. Models are loaded only from what was allowed at the start: --model, or the
folders and ids in the environment variable NEUROSCOPE_MODELS, separated as PATH is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from neuroscope.cli.main import main as neuroscope


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is interrupted; the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    allowed = [each for each in os.environ.get("NEUROSCOPE_MODELS", "").split(os.pathsep) if each]
    return neuroscope(["serve", *(part for each in allowed for part in ("--model", each)), *given])


if __name__ == "__main__":
    sys.exit(main())
