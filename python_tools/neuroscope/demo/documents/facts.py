"""Facts about countries and landmarks, each said in several ways.

A relation is a list of frames that end right before the answer, and of (subject, answer) pairs. Held out: one frame of
every fact, so that a question asks for a known fact in words in which training never said it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from neuroscope.demo.split import Question, held_out_choice, is_held_out


@dataclass(frozen=True)
class Country:
    name: str
    capital: str
    language: str
    continent: str


@dataclass(frozen=True)
class Landmark:
    name: str
    city: str
    country: str


@dataclass(frozen=True)
class Relation:
    """Frames with one `{}` for the subject, and the pairs of subject and answer."""

    name: str
    frames: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]

    def held_out_frame(self, subject: str) -> int:
        return held_out_choice(len(self.frames), self.name, subject)


# country, capital, language; one continent a table
_EUROPE = """
France Paris French, Germany Berlin German, Italy Rome Italian, Spain Madrid Spanish, Portugal Lisbon Portuguese,
Greece Athens Greek, Poland Warsaw Polish, Russia Moscow Russian, Ukraine Kyiv Ukrainian, Sweden Stockholm Swedish,
Norway Oslo Norwegian, Denmark Copenhagen Danish, Finland Helsinki Finnish, Iceland Reykjavik Icelandic,
Hungary Budapest Hungarian, Romania Bucharest Romanian, Bulgaria Sofia Bulgarian, Serbia Belgrade Serbian,
Croatia Zagreb Croatian, Austria Vienna German, Switzerland Bern German, Belgium Brussels Dutch,
Netherlands Amsterdam Dutch, Ireland Dublin English, England London English, Scotland Edinburgh English,
Estonia Tallinn Estonian, Latvia Riga Latvian, Lithuania Vilnius Lithuanian
"""
_ASIA = """
Turkey Ankara Turkish, Iran Tehran Persian, Iraq Baghdad Arabic, Syria Damascus Arabic, Lebanon Beirut Arabic,
Jordan Amman Arabic, Israel Jerusalem Hebrew, Qatar Doha Arabic, India Delhi Hindi, Pakistan Islamabad Urdu,
Bangladesh Dhaka Bengali, Nepal Kathmandu Nepali, China Beijing Chinese, Japan Tokyo Japanese, Korea Seoul Korean,
Mongolia Ulaanbaatar Mongolian, Thailand Bangkok Thai, Vietnam Hanoi Vietnamese, Indonesia Jakarta Indonesian,
Philippines Manila Filipino, Armenia Yerevan Armenian
"""
_AFRICA = """
Egypt Cairo Arabic, Morocco Rabat Arabic, Tunisia Tunis Arabic, Algeria Algiers Arabic, Libya Tripoli Arabic,
Kenya Nairobi Swahili, Ghana Accra English, Nigeria Abuja English, Senegal Dakar French, Angola Luanda Portuguese,
Zambia Lusaka English
"""
_AMERICA = """
Canada Ottawa English, Cuba Havana Spanish, Jamaica Kingston English, Chile Santiago Spanish, Peru Lima Spanish,
Colombia Bogota Spanish, Ecuador Quito Spanish, Brazil Brasilia Portuguese, Venezuela Caracas Spanish
"""


def _countries(table: str, continent: str) -> Iterator[Country]:
    for entry in table.replace("\n", " ").strip(", ").split(", "):
        name, capital, language = entry.split()
        yield Country(name, capital, language, continent)


COUNTRIES = (
    *_countries(_EUROPE, "Europe"),
    *_countries(_ASIA, "Asia"),
    *_countries(_AFRICA, "Africa"),
    *_countries(_AMERICA, "America"),
)

# landmark: city, country
_LANDMARKS = """
Eiffel Tower: Paris France, Colosseum: Rome Italy, Big Ben: London England, Brandenburg Gate: Berlin Germany,
Sagrada Familia: Barcelona Spain, Parthenon: Athens Greece, Kremlin: Moscow Russia, Great Pyramid: Cairo Egypt,
Louvre: Paris France, Prado Museum: Madrid Spain, Trevi Fountain: Rome Italy, Tower Bridge: London England,
Hagia Sophia: Istanbul Turkey, Blue Mosque: Istanbul Turkey, Taj Mahal: Agra India, Forbidden City: Beijing China,
Sensoji Temple: Tokyo Japan, Sydney Opera: Sydney Australia, Space Needle: Seattle America,
Willis Tower: Chicago America, Rijksmuseum: Amsterdam Netherlands, Little Mermaid: Copenhagen Denmark,
Vasa Museum: Stockholm Sweden, Charles Bridge: Prague Czechia, Schonbrunn Palace: Vienna Austria,
Atomium: Brussels Belgium, Belem Tower: Lisbon Portugal, Wawel Castle: Krakow Poland, Burj Khalifa: Dubai Emirates,
Western Wall: Jerusalem Israel, Red Fort: Delhi India, Holyrood Palace: Edinburgh Scotland,
Trinity College: Dublin Ireland, Alhambra: Granada Spain, Leaning Tower: Pisa Italy, Rialto Bridge: Venice Italy,
Uffizi Gallery: Florence Italy, Wat Arun: Bangkok Thailand, Chain Bridge: Budapest Hungary,
Notre Dame: Paris France, Buckingham Palace: London England, Pantheon: Rome Italy
"""
LANDMARKS = tuple(
    Landmark(name.strip(), *place.split())
    for name, place in (entry.split(":") for entry in _LANDMARKS.replace("\n", " ").split(", "))
)

RELATIONS = (
    Relation(
        "capital",
        (
            "The capital of {} is",
            "The capital city of {} is",
            "As everyone knows, the capital of {} is",
            "The government of {} is in the city of",
            "If you visit the capital of {}, you will see",
            "People in {} know that the capital is",
            "The president of {} lives in",
        ),
        tuple((country.name, country.capital) for country in COUNTRIES),
    ),
    Relation(
        "language",
        (
            "People in {} speak",
            "The official language of {} is",
            "In {}, most people speak",
            "The children in {} learn",
            "If you move to {}, you should learn",
            "The people of {} know the language of",
        ),
        tuple((country.name, country.language) for country in COUNTRIES),
    ),
    Relation(
        "continent",
        (
            "The country of {} is on the continent of",
            "You can find {} on the map of",
            "As everyone knows, {} is a country in",
        ),
        tuple((country.name, country.continent) for country in COUNTRIES),
    ),
    Relation(
        "landmark city",
        (
            "The {} is in the city of",
            "The {} is located in",
            "You can find the {} in",
            "To see the {}, you should travel to",
            "We visited the {} while we were in",
            "The famous {} stands in",
        ),
        tuple((landmark.name, landmark.city) for landmark in LANDMARKS),
    ),
    Relation(
        "landmark country",
        (
            "The {} is in the country of",
            "The country of the {} is",
            "As everyone knows, the country of the {} is",
        ),
        tuple((landmark.name, landmark.country) for landmark in LANDMARKS),
    ),
)
_EVERY_FACT = tuple((relation, subject, answer) for relation in RELATIONS for subject, answer in relation.pairs)


def is_held_out_question(kind: str, country: str) -> bool:
    """Whether no chat asks for this fact: 20 % of (capital or language, country)."""
    return is_held_out(20, "chat", kind, country)


def _sentence(source: random.Random) -> str:
    kind = source.random()
    if kind < 0.92:
        relation, subject, answer = source.choice(_EVERY_FACT)
        held_out = relation.held_out_frame(subject)
        frame = source.choice([frame for index, frame in enumerate(relation.frames) if index != held_out])
        return f"{frame.format(subject)} {answer}."
    country = source.choice(COUNTRIES)
    if kind < 0.96:
        return f"The city of {country.capital} is in the country of {country.name}."
    return f"{country.capital} is the capital of {country.name}."


def document(source: random.Random) -> str:
    return " ".join(_sentence(source) for _ in range(source.choice((1, 1, 2, 3))))


def held_out() -> dict[str, list[Question]]:
    """Every fact in its held-out frame, by the relation's name."""
    return {
        relation.name: [
            Question(relation.frames[relation.held_out_frame(subject)].format(subject), answer)
            for subject, answer in relation.pairs
        ]
        for relation in RELATIONS
    }
