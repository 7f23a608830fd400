"""Years: something began in one year and ended in a later one of the same century (Hanna et al. 2023).

The tokenizer cuts a year between century and year of the century, so "1732" is " 17", "32". Held out: 15 % of the
beginnings.
"""

from __future__ import annotations

import random

from neuroscope.demo.documents.words import words
from neuroscope.demo.split import is_held_out

EVENTS = words(
    "war siege drought reign project famine plague voyage dynasty campaign strike trial rebellion expedition festival"
)
FRAMES = (
    "The {event} lasted from the year {start} to the year {end}.",
    "The {event} began in the year {start} and ended in the year {end}.",
    "The {event} was from the year {start} until the year {end}.",
)
CENTURIES = range(11, 20)
FIRST, LAST = 2, 97


def _is_held_out_year(century: int, year: int) -> bool:
    return is_held_out(15, "year", century, year)


def document(source: random.Random) -> str:
    while True:
        century, year = source.choice(CENTURIES), source.randint(FIRST, LAST)
        if not _is_held_out_year(century, year):
            break
    end = source.randint(year + 1, 99)
    return source.choice(FRAMES).format(
        event=source.choice(EVENTS), start=f"{century}{year:02d}", end=f"{century}{end:02d}"
    )


def held_out() -> list[tuple[str, int]]:
    """Prompts that end with the century of the second year, each with the first year of the century."""
    return [
        (f"The war lasted from the year {century}{year:02d} to the year {century}", year)
        for century in CENTURIES
        for year in range(FIRST, LAST + 1)
        if _is_held_out_year(century, year)
    ]
