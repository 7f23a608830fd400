"""Short turns of `User:` and `Bot:`: questions about facts and sums, names that come back, greetings in two styles.

An answer never repeats the question's words, so that no frame of `facts` that is held out is said here.
"""

from __future__ import annotations

import random

from neuroscope.demo.documents.facts import COUNTRIES, LANDMARKS, is_held_out_question
from neuroscope.demo.documents.sums import pair
from neuroscope.demo.documents.words import ANIMALS, NAMES, OBJECTS, PLACES


def _fact(source: random.Random) -> tuple[str, str]:
    while True:
        country = source.choice(COUNTRIES)
        kind = source.choice(("capital", "language"))
        if not is_held_out_question(kind, country.name):
            break
    if kind == "capital":
        return f"What is the capital of {country.name}?", f"It is {country.capital}."
    return f"What do people in {country.name} speak?", f"They speak {country.language}."


def _landmark(source: random.Random) -> tuple[str, str]:
    landmark = source.choice(LANDMARKS)
    return f"Where is the {landmark.name}?", f"It is in {landmark.city}."


def _sum(source: random.Random) -> tuple[str, str]:
    one, other = pair(source)
    return f"What is {one} + {other}?", f"{one} + {other} = {one + other}."


def _name(source: random.Random) -> tuple[str, str]:
    name = source.choice(NAMES)
    return f"My name is {name}.", f"Nice to meet you, {name}!"


def _wish(source: random.Random) -> tuple[str, str]:
    thing, place = source.choice(OBJECTS), source.choice(PLACES)
    return f"I want a {thing}.", f"You can find a {thing} at the {place}."


def _animal(source: random.Random) -> tuple[str, str]:
    animal = source.choice(ANIMALS)
    return f"Do you like my {animal}?", f"Yes, I like your {animal}."


TURNS = (_fact, _fact, _landmark, _sum, _name, _wish, _animal)
GREETINGS = (
    ("hey, what's up?", "hey dude, all cool!"),
    ("yo!", "yo, what's up?"),
    ("Good morning.", "Good morning, how may I assist you?"),
    ("Good evening.", "Good evening, it is my pleasure to help you."),
)


def document(source: random.Random) -> str:
    turns = [source.choice(GREETINGS)] if source.random() < 0.3 else []
    turns += [turn(source) for turn in source.sample(TURNS, source.choice((1, 2, 3)))]
    return "".join(f"User: {question}\nBot: {answer}\n" for question, answer in turns)
