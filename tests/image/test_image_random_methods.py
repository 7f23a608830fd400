"""Random methods: they compile to sound code, the same for the same seed, and cover what they are meant to cover."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest
from environments import behavior
from neuroscope.image import bytecodes as bc
from neuroscope.image.disassembler import instructions, literal_of, stack_depths
from neuroscope.image.generator import MAX_FRAME, SMALL_FRAME
from neuroscope.image.random_methods import RandomMethod, agreement_json, random_methods

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


def test_the_same_seed_gives_the_same_text() -> None:
    def text(seed: int) -> str:
        return agreement_json(behavior(), GLOBALS, seed=seed, count=20)

    assert text(1) == text(1) != text(2)
    parsed = json.loads(text(1))
    assert parsed["class"] == "Foo" and len(parsed["methods"]) == 20
    assert set(parsed["methods"][0]) == {"source", "selector", "header", "literals", "bytecodes", "pragmas"}
