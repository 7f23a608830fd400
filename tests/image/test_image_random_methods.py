"""Random methods: they compile to sound code, the same for the same seed, and cover what they are meant to cover."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from environments import behavior
from minimal import class_text
from neuroscope.image import bytecodes as bc
from neuroscope.image.build import build_image
from neuroscope.image.disassembler import instructions, literal_of, stack_depths
from neuroscope.image.generator import MAX_FRAME, SMALL_FRAME
from neuroscope.image.random_methods import RandomMethod, random_methods
from neuroscope.project import ROOT

from tests.machines import run_own

SEED, COUNT = 20_26, 2_000
GLOBALS = ("Foo", "Array", "Transcript")


@pytest.fixture(scope="module")
def methods() -> list[RandomMethod]:
    return list(random_methods(behavior(), GLOBALS, seed=SEED, count=COUNT))


def test_every_path_has_the_counted_stack_depth_and_ends_in_a_return(methods: list[RandomMethod]) -> None:
    for each in methods:
        code = each.compiled.code
        _, greatest = stack_depths(code.bytecodes, code.num_temps)
        assert greatest <= MAX_FRAME, each.source
        assert greatest <= SMALL_FRAME or code.large_frame, each.source
        assert bc.is_return(list(instructions(code.bytecodes))[-1].code), each.source


def test_every_literal_is_used_and_every_index_is_a_literal(methods: list[RandomMethod]) -> None:
    for each in methods:
        code = each.compiled.code
        used = {literal_of(one) for one in instructions(code.bytecodes)} - {None}
        first = 1 if code.primitive == 117 else 0  # literal 0 is the primitive's name
        assert used == set(range(first, len(code.literals))), each.source


def test_the_value_of_the_quick_at_put_is_always_dropped(methods: list[RandomMethod]) -> None:
    for each in methods:
        codes = [one.code for one in instructions(each.compiled.code.bytecodes)]
        assert all(after[0] == bc.POP for one, after in pairwise(codes) if one[0] == 0xC1)


def test_the_methods_cover_the_bytecodes(methods: list[RandomMethod]) -> None:
    """All but those that this compiler has no use for."""
    seen = Counter(one.code[0] for each in methods for one in instructions(each.compiled.code.bytecodes))
    unseen = [
        row.text(bytes([row.first, 0, 0, 0]))
        for row in bc.TABLE
        if not any(map(seen.get, range(row.first, row.last + 1)))
    ]
    assert unseen == []
    assert {0x84, 0x85, 0x86, 0x8A, 0x8C, 0x8D, 0x8E, 0x8F} <= set(seen)
    assert 0xC8 not in seen  # blockCopy:


def test_the_same_seed_gives_the_same_methods() -> None:
    def sources(seed: int) -> list[str]:
        return [each.source for each in random_methods(behavior(), GLOBALS, seed=seed, count=20)]

    assert sources(1) == sources(1) != sources(2)


RECOMPILE = """ImageStart prepare.
(Recompilation of: {Foo}) run; printString"""


def tonel(method: RandomMethod) -> str:
    pattern, body = method.source.split("\n", 1)
    return f"\n{{ #category : #private }}\nFoo >> {pattern} [\n{body}\n]\n"


def test_the_compiler_in_the_image_compiles_them_to_the_same_bytes(methods: list[RandomMethod], tmp_path: Path) -> None:
    """The image gets the methods with their sources as this compiler made them, and recompiles them."""
    source = tmp_path / "smalltalk"
    source.mkdir()
    for package in (ROOT / "smalltalk").iterdir():
        (source / package.name).symlink_to(package)
    (source / "Random").mkdir()
    (source / "Random" / "package.st").write_text("Package { #name : #Random }")
    (source / "Random" / "Foo.class.st").write_text(
        class_text("Foo", variables="a b c", class_variables="Shared") + "".join(map(tonel, methods)), encoding="utf-8"
    )
    build_image(source, tmp_path / "x.image", entry=RECOMPILE, with_tests=False)
    assert run_own(tmp_path / "x.image") == [f"{COUNT} methods recompiled, 0 differ"]
