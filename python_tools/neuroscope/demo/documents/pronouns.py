"""Pronouns: a person's name decides between he and she, him and her. Held out: 20 % of (frame, name)."""

from __future__ import annotations

import random

from neuroscope.demo.documents.words import FEMININE, MASCULINE, NAMES, OBJECTS, PLACES, Pronouns, pronouns_of, words
from neuroscope.demo.split import Question, is_held_out

FRAMES = (
    "{name} went to the {place} because {he} wanted a {object}.",
    "{name} lost the {object}, so {he} looked for it at the {place}.",
    "Yesterday {name} said that {he} was at the {place}.",
    "My friend {name} likes {his} new {object}.",
    "At the {place}, {name} hurt {himself}.",
    "When {name} got to the {place}, {he} found a {object}.",
    "The {place} was closed, so {name} said that {he} would go home.",
    "We saw {name} at the {place} and gave {him} a {object}.",
)
FRAMES_FOR_A_ROLE = (2, 4, 5, 6, 7)
ROLES: dict[str, Pronouns] = {
    **dict.fromkeys(words("king boy man father brother uncle prince"), MASCULINE),
    **dict.fromkeys(words("queen girl woman mother sister aunt princess"), FEMININE),
}


def _fill(source: random.Random, frame: str, name: str, pronouns: Pronouns) -> str:
    return frame.format(
        name=name, place=source.choice(PLACES), object=source.choice(OBJECTS),
        he=pronouns.he, him=pronouns.him, his=pronouns.his, himself=pronouns.himself,
    )  # fmt: skip


def document(source: random.Random) -> str:
    while True:
        index, name = source.randrange(len(FRAMES)), source.choice(NAMES)
        if not is_held_out(20, "pronoun", index, name):
            break
    if index in FRAMES_FOR_A_ROLE and source.random() < 0.2:
        role = source.choice(list(ROLES))
        return _fill(source, FRAMES[index], f"the {role}", ROLES[role])
    return _fill(source, FRAMES[index], name, pronouns_of(name))


def held_out(source: random.Random) -> list[Question]:
    """Every held-out frame and name, cut before the pronoun."""
    questions = []
    for index, frame in enumerate(FRAMES):
        field = next(word for word in ("himself", "him", "his", "he") if f"{{{word}}}" in frame)
        cut = frame[: frame.index(f"{{{field}}}")].rstrip()
        for name in NAMES:
            if is_held_out(20, "pronoun", index, name):
                right = pronouns_of(name)
                wrong = FEMININE if right is MASCULINE else MASCULINE
                questions.append(
                    Question(_fill(source, cut, name, right), getattr(right, field), getattr(wrong, field))
                )
    return questions
