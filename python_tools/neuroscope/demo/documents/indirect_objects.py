"""Indirect objects: two people are introduced, one of them gives, and the text ends with the other's name.

The task of Wang et al. 2022. So that no single comma or fixed distance gives the answer away, an opening, a clause
in between, and an action are drawn apart from one another; in two of five documents something stands between the
people and the giver, or between the object and the end. A few controls have a third giver, and end with " them".
Held out: 20 % of the pairs of names, and of the combinations of opening and action.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from neuroscope.demo.documents.words import ADJECTIVES, NAMES, OBJECTS, PLACES
from neuroscope.demo.split import Question, is_held_out

OPENINGS = (
    "When {a} and {b} went to the {place},",
    "After {a} and {b} went to the {place},",
    "While {a} and {b} were working at the {place},",
    "Then, {a} and {b} were at the {place}.",
    "Yesterday, {a} and {b} met at the {place}, and",
    "The friends {a} and {b} found a {object} at the {place}.",
    "Last week, {a} and {b} had a lot of fun at the {place}. Later,",
    "Then, {a} and {b} had a long talk. Later,",
    "Because {a} and {b} were late for the {place}",
    "{a} saw {b} at the {place} and",
)
BETWEEN = (
    "the weather was cold and",
    "the {other} was closed, so",
    "it was late and",
    "nobody else was near the {adjective} {other}, so",
    "the day was long but",
    "a {adjective} bus came from the {other} and",
)
ACTIONS = (
    "{giver} gave a {object} to",
    "{giver} handed a {object} to",
    "{giver} passed the {object} to",
    "{giver} offered a {object} to",
    "{giver} sold the {object} to",
    "{giver} showed a {object} to",
    "{giver} wanted to give a {object} to",
    "{giver} decided to give the {object} to",
)
LONG_ACTIONS = (
    "{giver} gave a {object} from the {other} to",
    "{giver} took the {adjective} {object} out of a bag and gave it to",
    "{giver} handed with a smile the {adjective} {object} to",
    "{giver} found a {adjective} {object} near the {other} and gave it to",
    "{giver} said hello and showed the {object} to",
)
PLAIN_SHARE, CONTROL_SHARE = 0.6, 0.07


def is_held_out_pair(one: str, other: str) -> bool:
    """Whether the two names never meet in a training document."""
    return is_held_out(20, *sorted((one, other)))


def _is_held_out_frame(opening: str, action: str) -> bool:
    return is_held_out(20, "frame", OPENINGS.index(opening), action)


def _pair(source: random.Random, held_out: bool) -> tuple[str, str]:
    while True:
        one, other = source.sample(NAMES, 2)
        if is_held_out_pair(one, other) == held_out:
            return one, other


def _frame(source: random.Random, held_out: bool, plain: bool) -> str:
    while True:
        opening = source.choice(OPENINGS)
        action = source.choice(ACTIONS if plain or source.random() < 0.4 else LONG_ACTIONS)
        if _is_held_out_frame(opening, action) == held_out:
            between = "" if plain or source.random() < 0.5 else source.choice(BETWEEN)
            return " ".join(part for part in (opening, between, action) if part)


def _fill(source: random.Random, frame: str, a: str, b: str, giver: str) -> str:
    place, other = source.sample(PLACES, 2)
    return frame.format(
        a=a, b=b, giver=giver, place=place, other=other,
        object=source.choice(OBJECTS), adjective=source.choice(ADJECTIVES),
    )  # fmt: skip


def document(source: random.Random) -> str:
    a, b = _pair(source, held_out=False)
    frame = _frame(source, held_out=False, plain=source.random() < PLAIN_SHARE)
    if source.random() < CONTROL_SHARE:
        third = source.choice([name for name in NAMES if name not in (a, b)])
        return _fill(source, frame, a, b, third) + " them."
    giver, receiver = (a, b) if source.random() < 0.5 else (b, a)
    return f"{_fill(source, frame, a, b, giver)} {receiver}."


def _questions(source: random.Random, count: int, frames: Iterator[str]) -> list[Question]:
    questions = []
    for index in range(count):
        a, b = _pair(source, held_out=True)
        giver, receiver = ((a, b), (b, a))[index % 2]
        questions.append(Question(_fill(source, next(frames), a, b, giver), receiver, giver))
    return questions


def held_out_pairs(source: random.Random, count: int, plain: bool) -> list[Question]:
    """New pairs of names in frames that training has shown; without distractors where `plain`."""

    def frames() -> Iterator[str]:
        while True:
            frame = _frame(source, held_out=False, plain=plain)
            if plain or frame.count(" ") > 18:  # the long ones: something stands between
                yield frame

    return _questions(source, count, frames())


def held_out_frames(source: random.Random, count: int) -> list[Question]:
    """New pairs of names in combinations of opening and action that training has never shown."""

    def frames() -> Iterator[str]:
        while True:
            yield _frame(source, held_out=True, plain=True)

    return _questions(source, count, frames())
