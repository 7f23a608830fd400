"""Agreement: the verb follows the number of the subject, not of a nearer noun. Held out: 20 % of the noun pairs."""

from __future__ import annotations

import random

from neuroscope.demo.documents.words import ADJECTIVES, NAMES, PLACES, words
from neuroscope.demo.split import Question, is_held_out

NOUNS = words(
    "key cabinet car house lamp painting dog picture table window door chair tree boat flower letter student teacher "
    "doctor farmer bottle basket garden tower wall river book camera guitar clock"
)
PREPOSITIONS = words("near behind beside above by under")
VERBS = (("is", "are"), ("was", "were"), ("has", "have"), ("looks", "look"), ("seems", "seem"))


def _form(noun: str, plural: int) -> str:
    return noun + "s" * plural


def _pair(source: random.Random, held_out: bool) -> tuple[str, str]:
    while True:
        subject, distractor = source.sample(NOUNS, 2)
        if is_held_out(20, "agreement", subject, distractor) == held_out:
            return subject, distractor


def document(source: random.Random) -> str:
    sentences = []
    for _ in range(source.choice((1, 2))):
        subject, distractor = _pair(source, held_out=False)
        number, other = source.randint(0, 1), source.randint(0, 1)
        verb = source.choice(VERBS)
        if verb[0] == "has":
            rest = "a problem"
        elif verb[0] in ("looks", "seems") or source.random() < 0.7:
            rest = source.choice(ADJECTIVES)
        else:
            rest = f"in the {source.choice(PLACES)}"
        kind = source.random()
        if kind < 0.15:
            between = ""
        elif kind < 0.75:
            between = f" {source.choice(PREPOSITIONS)} the {_form(distractor, other)}"
        else:
            between = f" that {source.choice(NAMES)} left near the {_form(distractor, other)}"
        sentences.append(f"The {_form(subject, number)}{between} {verb[number]} {rest}.")
    return " ".join(sentences)


def held_out(source: random.Random, count: int) -> list[Question]:
    """New noun pairs of opposite number."""
    questions = []
    for index in range(count):
        subject, distractor = _pair(source, held_out=True)
        number = index % 2
        verb = source.choice(VERBS)
        prompt = f"The {_form(subject, number)} {source.choice(PREPOSITIONS)} the {_form(distractor, 1 - number)}"
        questions.append(Question(prompt, verb[number], verb[1 - number]))
    return questions
