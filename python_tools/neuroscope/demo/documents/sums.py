"""Sums of two numbers from 0 to 30, four a document. Held out: 10 % of the ordered pairs."""

from __future__ import annotations

import random

from neuroscope.demo.split import Question, is_held_out

LARGEST = 30


def pair(source: random.Random) -> tuple[int, int]:
    """Two operands that training may show."""
    while True:
        one, other = source.randint(0, LARGEST), source.randint(0, LARGEST)
        if not is_held_out(10, "sum", one, other):
            return one, other


def document(source: random.Random) -> str:
    pairs = [pair(source) for _ in range(4)]
    return "Math: " + ", ".join(f"{one} + {other} = {one + other}" for one, other in pairs) + "."


def held_out() -> list[Question]:
    """Every held-out pair, cut before its sum."""
    numbers = range(LARGEST + 1)
    return [
        Question(f"Math: {one} + {other} =", str(one + other))
        for one in numbers
        for other in numbers
        if is_held_out(10, "sum", one, other)
    ]
