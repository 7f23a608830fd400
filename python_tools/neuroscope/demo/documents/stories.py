"""Stories of three to six sentences: one person, one animal, and what belongs to them comes back."""

from __future__ import annotations

import random

from neuroscope.demo.documents.words import ADJECTIVES, ANIMALS, NAMES, OBJECTS, PLACES, pronouns_of


def document(source: random.Random) -> str:
    name, friend = source.sample(NAMES, 2)
    person = pronouns_of(name)
    animal, adjective = source.choice(ANIMALS), source.choice(ADJECTIVES)
    place, thing = source.choice(PLACES), source.choice(OBJECTS)
    sentences = [
        f"One day, {name} went to the {place}.",
        f"{person.He} saw a {adjective} {animal}.",
        source.choice(
            (
                f"The {adjective} {animal} was near the {place}.",
                f"The {animal} looked at {name}.",
                f"{name} wanted to play with the {adjective} {animal}.",
            )
        ),
        source.choice(
            (
                f"{name} gave the {animal} a {thing}.",
                f"{name} put the {thing} in {person.his} bag.",
                f"{name} said hello to the {animal}.",
            )
        ),
        source.choice(
            (
                f"Then {name} and the {animal} went home.",
                f"Then {person.he} told {friend} about the {adjective} {animal}.",
                f"{friend} asked {name} about the {adjective} {animal}.",
            )
        ),
        f"In the evening {name} was happy because {person.he} had been to the {place}.",
    ]
    return " ".join(sentences[: source.choice((3, 4, 5, 6))])
