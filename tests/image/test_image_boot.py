"""A built image boots in both virtual machines, evaluates, prints and quits."""

from __future__ import annotations

from pathlib import Path

import pytest
from neuroscope.image.build import build_image

from tests.machines import Run

FACTS = [
    ("3 + 4", "7"),
    ("'text' ", "text"),
    ("[:x | x * 2] value: 21", "42"),
    ("| n | n := 0. 1 to: 10 do: [:i | n := n + i]. n", "55"),
    ("| n | n := 0. 10 to: 1 by: -3 do: [:i | n := n + i]. n", "22"),
    ("| n | n := 0. [n < 5] whileTrue: [n := n + 1]. n", "5"),
    ("| n | n := 0. [n := n + 1. n < 5] whileTrue. n", "5"),
    ("| a | a := {1. 2. 39}. (a at: 1) + (a at: 2) + (a at: 3)", "42"),
    ("| a | a := Array new: 3. 1 to: 3 do: [:i | a at: i put: [i]]. (a at: 1) value + (a at: 3) value", "4"),
    ("| a v | a := Array new: 2. 1 to: 2 do: [:i | v := i. a at: i put: [v]]. (a at: 1) value", "2"),
    ("| a | a := Array new: 2. 1 to: 2 do: [:i | | v | v := i. a at: i put: [v]]. (a at: 1) value", "1"),
    ("| a | a := Array new: 2. 1 to: 2 do: [:i | | v | a at: i put: [v]. v := i]. (a at: 1) value", "1"),
    ("| a v | a := {nil}. v := 1. a at: 1 put: [v]. v := 2. (a at: 1) value", "2"),
    ("| add n | n := 1. add := [:x | n := n + x]. add value: 4. add value: 5. n", "10"),
    ("| f | f := nil. f := [:n | n < 2 ifTrue: [1] ifFalse: [n * (f value: n - 1)]]. f value: 5", "120"),
    ("nil ifNil: [1] ifNotNil: [:x | 2]", "1"),
    ("(7 ifNotNil: [:x | x + 1]) + (3 ifNil: [0])", "11"),
    ("(3 < 4 and: [4 < 3]) ifTrue: [1] ifFalse: [(nil == nil or: [nil foo]) ifTrue: [2] ifFalse: [3]]", "2"),
    ("| a | a := Array new: 2. 1 to: 2 do: [:i | | t | t == nil ifTrue: [t := i]. a at: i put: t]. a at: 2", "2"),
    ("#(1 (2 3) four) class == Array ifTrue: [(#(1 (2 3) four) at: 2) at: 1] ifFalse: [0]", "2"),
    (f"| a | a := {{{'. '.join(str(i) for i in range(60))}}}. (a at: 60) + (a at: 1)", "59"),
]


@pytest.mark.parametrize(("expression", "printed"), FACTS, ids=[each for each, _ in FACTS])
def test_an_entry_is_evaluated_printed_and_quits(
    minimal: Path, tmp_path: Path, run_image: Run, expression: str, printed: str
) -> None:
    image = tmp_path / "x.image"
    build_image(minimal, image, entry=expression)
    assert run_image(image) == [printed]
