"""The demo model's corpus: documents drawn from a mixture, packed into rows of tokens, and rows of repeated spans.

Nothing is stored: chunk k of seed s is always the same rows, so a run can be resumed at any chunk. Most rows are 64
tokens long and some 128 or 256, so that every position is trained without paying for long rows throughout. A row of
repetitions holds one random span again and again; its first copy can't be foreseen and is left out of the loss.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import Tokenizer

from neuroscope.demo.documents import (
    agreement,
    chat,
    code,
    facts,
    indirect_objects,
    pronouns,
    sentiment,
    stories,
    style,
    sums,
    years,
)
from neuroscope.demo.documents.words import ADJECTIVES, ANIMALS, NAMES, OBJECTS, PLACES

END_OF_TEXT = "<|endoftext|>"
MIXTURE: dict[Callable[[random.Random], str], float] = {
    indirect_objects.document: 0.19,
    facts.document: 0.19,
    style.document: 0.12,
    sums.document: 0.09,
    agreement.document: 0.08,
    sentiment.document: 0.07,
    pronouns.document: 0.07,
    years.document: 0.06,
    stories.document: 0.05,
    chat.document: 0.05,
    code.document: 0.03,
}
STEP_TOKENS = 2048  # tokens of one training step, whatever the length of its rows
ROW_LENGTHS = {64: 0.64, 128: 0.2, 256: 0.16}  # row length: share of the steps
CHUNK_STEPS = 128
START_SHARE = 0.8  # rows that begin with the end-of-text token, as the prompts of the lessons do
IGNORED = -100  # the target of a token that the loss leaves out


def kind_of(document: Callable[[random.Random], str]) -> str:
    """The name of a kind of document: of its file."""
    return document.__module__.rsplit(".", 1)[-1]


def draw_documents(count: int, seed: int) -> list[str]:
    """`count` documents of the mixture; the same for the same seed."""
    source = random.Random(seed)
    kinds = source.choices(list(MIXTURE), list(MIXTURE.values()), k=count)
    return [kind(source) for kind in kinds]


@dataclass(frozen=True)
class Step:
    """The rows of one training step. Shapes: both B T, with B * T = STEP_TOKENS."""

    tokens: list[list[int]]
    targets: list[list[int]]


class Corpus:
    """Training steps made with one tokenizer and one seed."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        self.end = end_of_text(tokenizer)
        size = tokenizer.get_vocab_size()
        words = [*NAMES, *PLACES, *OBJECTS, *ADJECTIVES, *ANIMALS]
        words += [word for country in facts.COUNTRIES for word in (country.name, country.capital)]
        self.common_words = sorted({tokenizer.encode(f" {word}").ids[0] for word in words})
        self.whole_words = word_tokens(tokenizer)
        self.every_token = [token for token in range(size) if token != self.end]

    def chunk(self, index: int, repetition_share: float) -> list[Step]:
        """Steps of chunk `index`, of which `repetition_share` hold repeated spans."""
        source = random.Random(self.seed * 1_000_003 + index)
        lengths = source.choices(list(ROW_LENGTHS), list(ROW_LENGTHS.values()), k=CHUNK_STEPS)
        texts = _Texts(self, source)
        steps = []
        for length in lengths:
            # repeated and plain rows share a step, so that the gradient always sees both
            rows = [
                self._repetition(source, length) if source.random() < repetition_share else texts.row(length)
                for _ in range(STEP_TOKENS // length)
            ]
            steps.append(Step([tokens for tokens, _ in rows], [targets for _, targets in rows]))
        return steps

    def _repetition(self, source: random.Random, length: int) -> tuple[list[int], list[int]]:
        longest = length // 2 - 1
        span = source.choice((source.randint(3, 8), source.randint(6, 16), source.randint(12, longest)))
        kind = source.random()
        pool = self.common_words if kind < 0.5 else self.whole_words if kind < 0.8 else self.every_token
        prefix = source.choices(pool, k=source.choice((0, 0, source.randint(0, 10))))
        copies = source.sample(pool, span) * (length // span + 1)
        tokens = [self.end, *prefix, *copies][:length]
        known = 1 + len(prefix) + span  # up to here, and the first token of the second copy, nothing can be foreseen
        targets = [IGNORED] * (known + 1) + tokens[known + 1 :]
        return tokens, targets[:length]


class _Texts:
    """A supply of rows of packed documents, drawn as they are needed."""

    def __init__(self, corpus: Corpus, source: random.Random) -> None:
        self.corpus = corpus
        self.source = source
        self.waiting: list[list[int]] = []

    def row(self, length: int) -> tuple[list[int], list[int]]:
        end = self.corpus.end
        tokens = [end] if self.source.random() < START_SHARE else []
        while len(tokens) < length:
            if not self.waiting:
                drawn = draw_documents(1000, self.source.getrandbits(48))
                self.waiting = [encoding.ids for encoding in self.corpus.tokenizer.encode_batch(drawn)]
            tokens += [*self.waiting.pop(), end]
        tokens = tokens[:length]
        return tokens, tokens


def end_of_text(tokenizer: Tokenizer) -> int:
    """The token between two documents, which also starts a prompt."""
    token = tokenizer.token_to_id(END_OF_TEXT)
    if token is None:
        raise ValueError(f"this tokenizer has no {END_OF_TEXT}")
    return token


def word_tokens(tokenizer: Tokenizer) -> list[int]:
    """The tokens that are a space and at least two characters: what a random sequence of words is drawn from."""
    names = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [token for name, token in names if name.startswith("Ġ") and len(name) > 2]
