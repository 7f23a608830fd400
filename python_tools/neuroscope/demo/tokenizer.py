"""The demo model's tokenizer: byte-level BPE as GPT-2's, trained on the demo corpus.

A year is cut between its century and its year of the century before training, so that no merge crosses the cut:
"1732" is " 17", "32". Names, places, objects, the words of the facts and 0 to 99 are shown often enough, beside the
corpus, that each becomes one token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from neuroscope.demo.corpus import END_OF_TEXT, draw_documents
from neuroscope.demo.documents.facts import COUNTRIES, LANDMARKS
from neuroscope.demo.documents.words import NAMES, OBJECTS, PLACES

LARGEST_VOCABULARY = 4096  # never reached: MINIMUM_COUNT ends the merges first
MINIMUM_COUNT = 40
DOCUMENTS = 40_000
CENTURY_CUT = re.compile(r"(?<=\d\d)(?=\d\d)")


def one_token_words() -> list[str]:
    """The words that are one token when a space stands before them."""
    words = {*NAMES, *PLACES, *OBJECTS, *map(str, range(100))}
    for country in COUNTRIES:
        words |= {country.name, country.capital, country.language, country.continent}
    return sorted(words | {landmark.city for landmark in LANDMARKS})


def train_tokenizer(seed: int) -> Tokenizer:
    """The tokenizer that the corpus of `seed` gives; the same for the same seed."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        min_frequency=MINIMUM_COUNT,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed), trainer)
    return tokenizer


def _texts(seed: int) -> Iterator[str]:
    for document in draw_documents(DOCUMENTS, seed):
        yield from CENTURY_CUT.split(document)
    for word in one_token_words():
        yield from [f" {word}"] * 100
    for name in NAMES:
        yield from [name] * 200
    for year in range(100):
        yield from [f"{year:02d}"] * 60
    for century in range(10, 20):
        yield from [f" {century}"] * 3000
