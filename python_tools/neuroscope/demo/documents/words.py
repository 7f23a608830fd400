"""The word lists that several kinds of document share: people, places, things, animals, adjectives.

Every name, place and object is one token of the demo tokenizer, with a space before it; a test holds that, because
the lessons count positions.
"""

from __future__ import annotations

from dataclasses import dataclass


def words(text: str) -> list[str]:
    """The words of a list that is written as one text."""
    return text.split()


WOMEN = words(
    "Mary Anna Emma Sarah Laura Julia Alice Kate Jane Lucy Emily Sophie Rachel Susan Linda Karen Nancy Betty Helen "
    "Sandra Donna Carol Ruth Sharon Amy Angela Brenda Pamela Nicole Clara Diana Fiona Grace Hannah Ivy Nora Olivia "
    "Paula Rosa Tina"
)
MEN = words(
    "John Tom James Robert Michael William David Richard Joseph Thomas Charles Daniel Matthew Mark Paul Steven "
    "Andrew Kevin Brian George Edward Ronald Peter Henry Jack Adam Simon Oscar Martin Luke Frank Eric Dennis Carl "
    "Bruce Arthur Alan Victor Leo Sam"
)
NAMES = [*WOMEN, *MEN]
SURNAMES = words("Smith Brown Jones Taylor Wilson Clark")

PLACES = words(
    "store park school office garden beach market library station hospital restaurant museum kitchen farm church "
    "castle cafe bakery"
)
OBJECTS = words(
    "drink book ring ball bag letter cake flower map key basket camera toy bottle ticket coat lamp phone hat necklace"
)
ANIMALS = words("dog cat bird horse rabbit fox bear duck frog pig")
ADJECTIVES = words("old new red small large blue clean heavy broken lovely strange dark")


@dataclass(frozen=True)
class Pronouns:
    """The third-person pronouns of one gender."""

    he: str
    him: str
    his: str
    himself: str

    @property
    def He(self) -> str:  # the word as it opens a sentence
        return self.he.capitalize()


FEMININE = Pronouns("she", "her", "her", "herself")
MASCULINE = Pronouns("he", "him", "his", "himself")


def pronouns_of(name: str) -> Pronouns:
    """The pronouns that the corpus uses for a name of `NAMES`."""
    return FEMININE if name in WOMEN else MASCULINE
