"""Sentiment: a review whose adjectives, verb and label agree. Held out: 20 % of (thing, adjective)."""

from __future__ import annotations

import random

from neuroscope.demo.documents.words import NAMES, PLACES, words
from neuroscope.demo.split import Question, is_held_out

ADJECTIVES = {
    "positive": words(
        "wonderful brilliant excellent great amazing fantastic delightful superb charming beautiful perfect enjoyable "
        "lovely touching"
    ),
    "negative": words(
        "terrible awful horrible boring dreadful bad disappointing dull poor ugly annoying weak painful stupid"
    ),
}
VERBS = {"positive": ("loved", "recommend", "enjoyed"), "negative": ("hated", "avoid", "disliked")}
THINGS = words("movie film book show play song meal concert story game hotel album")
PARTS = words("acting plot music ending cast service writing sound cover scene")


def document(source: random.Random) -> str:
    label = source.choice(("positive", "negative"))
    while True:
        thing, adjective = source.choice(THINGS), source.choice(ADJECTIVES[label])
        if not is_held_out(20, "sentiment", thing, adjective):
            break
    second, adverb = source.choice(ADJECTIVES[label]), source.choice(("", "very ", "really ", "quite "))
    text = source.choice(
        (
            f"The {thing} was {adverb}{adjective}.",
            f"The {thing} was {adverb}{adjective} and the {source.choice(PARTS)} was {second}.",
            f"I saw the {thing} with {source.choice(NAMES)} at the {source.choice(PLACES)}. "
            f"It was {adverb}{adjective}.",
            f"What a {adjective} {thing}! The {source.choice(PARTS)} was {second}.",
        )
    )
    loved, recommend, enjoyed = VERBS[label]
    ending = source.choice((f" I {loved} it.", f" I would {recommend} it.", f" My friends {enjoyed} it.", ""))
    if source.random() < 0.6:
        return f"Review: {text}{ending} Sentiment: {label}."
    return text + ending


def held_out() -> list[Question]:
    """Every held-out thing and adjective, cut before the label."""
    return [
        Question(f"Review: The {thing} was {adjective}. Sentiment:", label, opposite)
        for label, opposite in (("positive", "negative"), ("negative", "positive"))
        for thing in THINGS
        for adjective in ADJECTIVES[label]
        if is_held_out(20, "sentiment", thing, adjective)
    ]
