"""The image's own tests, in Node, in Chromium, and where every optional primitive refuses; and the fixpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# What the image has Smalltalk behind. Not 19 and 195 to 199, which fail on every machine, nor what no method could do
# without: Float arithmetic (40 to 50), storage (60 to 62, 70, 71), processes, contexts and blocks.
OPTIONAL = [
    *range(1, 13),  # SmallInteger arithmetic
    *range(14, 19),
    *range(20, 38),  # LargeInteger arithmetic
    51,  # Float functions
    *range(53, 60),
    *(83, 105, 145, 148),  # perform:, replaceFrom:to:with:startingAt:, filling, copying
    *("LargeIntegers", "FloatArrayPlugin", "MiscPrimitivePlugin", "ConsolePlugin"),
]


@pytest.mark.parametrize("host", ["node", "chromium"])
def test_sunit_passes(neuroscope: Callable[..., Any], image: Path, host: str) -> None:
    finished = neuroscope("image", "test", "--in", host, timeout=900)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    assert ", 0 failed, 0 errors, 0 skipped" in finished.stdout


def test_sunit_passes_where_every_optional_primitive_refuses(neuroscope: Callable[..., Any], image: Path) -> None:
    refused = ",".join(str(each) for each in OPTIONAL)
    finished = neuroscope("image", "test", "--fail-primitives", refused, timeout=900)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    assert ", 0 failed, 0 errors, 0 skipped" in finished.stdout


def test_recompiling_every_method_inside_the_image_changes_nothing(evaluate: Callable[..., str]) -> None:
    """Both compilers agree on bytecodes, header and literals of every method that the image was built with."""
    recompile = "recompilation := Recompilation of: Smalltalk allClasses. recompilation run asArray"
    assert evaluate(recompile) == "#()"
    methods = "Smalltalk allClasses inject: 0 into: [ :n :each | n + each selectors size + each class selectors size ]"
    assert int(evaluate(methods)) > 4000
