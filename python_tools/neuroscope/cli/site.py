"""`neuroscope site`: builds the static site; the default sentence's lens is computed by the image, in Node."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from neuroscope import project
from neuroscope.cli.machine import MachineRun, capture_in_node, find_bundles
from neuroscope.errors import BundleError
from neuroscope.image.build import build_image
from neuroscope.site.build import Lens, build_site

DEFAULT_SENTENCE = "When Mary and John went to the store, John gave a drink to"

_LENS_SOURCE = """
| lens |
lens := InteractiveLens for: (TransformerModel fromHuggingFace: %s).
lens read: %s.
Json write: (Dictionary new at: 'title' put: lens title; at: 'part' put: lens view; yourself)
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("site", help="build the static site")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="SITE")
    parser.add_argument("--bundle", type=Path, action="append", default=[], metavar="BUNDLE")
    parser.add_argument("--sentence", default=DEFAULT_SENTENCE, help="what the page's lens opens on")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    make_site(options.output, find_bundles(options.bundle), sentence=options.sentence)
    print(f"{options.output}: the site; serve this folder from any host")
    return 0


def make_site(output: Path, bundles: Mapping[str, Path], *, sentence: str = DEFAULT_SENTENCE) -> None:
    """Image, lens and site; the first bundle is the one that the page opens with."""
    if not bundles:
        raise BundleError("A site needs a bundle to open with; give --bundle, or run `neuroscope demo` for the demo's.")
    image = project.BUILD / "site.image"
    build_image(project.SMALLTALK, image, with_tests=False)
    model = next(iter(bundles))
    build_site(output, image=image, bundles=bundles, lens=_compute_lens(image, bundles, model, sentence))


def _compute_lens(image: Path, bundles: Mapping[str, Path], model: str, sentence: str) -> Lens:
    source = _LENS_SOURCE % (smalltalk_string(model), smalltalk_string(sentence))
    start = {"kind": "start", "mode": "eval", "sources": [{"name": "lens", "text": source}], "load": [], "raw": True}
    output = capture_in_node(MachineRun(image=image, start=start, bundles=bundles, timeout=120))
    description = json.loads(output)
    return Lens(model=model, sentence=sentence, title=description["title"], part=description["part"])


def smalltalk_string(text: str) -> str:
    """A Smalltalk literal of a text."""
    return "'" + text.replace("'", "''") + "'"
