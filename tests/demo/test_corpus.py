"""The corpus is the same in every run, and never says what it holds out."""

from __future__ import annotations

import random
import re

import pytest
from neuroscope.demo.corpus import (
    CHUNK_STEPS,
    IGNORED,
    MIXTURE,
    ROW_LENGTHS,
    STEP_TOKENS,
    Corpus,
    draw_documents,
    kind_of,
)
from neuroscope.demo.documents import agreement, facts, indirect_objects, pronouns, sentiment, style, sums, words, years
from neuroscope.demo.split import is_held_out
from neuroscope.demo.tokenizer import one_token_words, train_tokenizer


@pytest.fixture(scope="module")
def documents():
    return draw_documents(30_000, seed=1)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(seed=123)


def test_same_seed_draws_the_same_documents():
    assert draw_documents(500, seed=5) == draw_documents(500, seed=5) != draw_documents(500, seed=6)


def test_mixture_is_a_whole():
    assert sum(MIXTURE.values()) == pytest.approx(1) and sum(ROW_LENGTHS.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", MIXTURE, ids=kind_of)
def test_documents_of_a_kind_have_no_unfilled_place(kind):
    source = random.Random(2)
    texts = [kind(source) for _ in range(500)]
    assert len(set(texts)) > 100
    for text in texts:
        assert "{" not in text and "None" not in text and text


def test_split_is_the_same_everywhere_and_about_as_large_as_asked():
    assert [is_held_out(50, "split", number) for number in range(8)] == [
        True,
        False,
        False,
        False,
        True,
        True,
        False,
        True,
    ]
    assert 150 < sum(is_held_out(20, "size", number) for number in range(1000)) < 250


def test_questions_about_new_names_are_of_held_out_pairs():
    for question in indirect_objects.held_out_pairs(random.Random(3), 50, plain=True):
        assert indirect_objects.is_held_out_pair(question.answer, question.rival)
        assert question.prompt.count(question.rival) == 2 and question.prompt.count(question.answer) == 1


def test_pair_of_a_document_is_not_held_out(documents):
    opening = re.compile(r"(?:When|After|While|Then,|Yesterday,|friends|week,|Because) (\w+) and (\w+) ")
    pairs = {found.groups() for text in documents if (found := opening.search(text))}
    pairs = {pair for pair in pairs if set(pair) <= set(words.NAMES)}
    assert len(pairs) > 1000
    assert not [pair for pair in pairs if indirect_objects.is_held_out_pair(*pair)]


def test_no_document_says_a_fact_in_its_held_out_words(documents):
    text = "\n".join(documents)
    for questions in facts.held_out().values():
        for question in questions:
            assert f"{question.prompt} {question.answer}" not in text


def test_no_document_adds_a_held_out_pair(documents):
    pairs = {(int(one), int(other)) for text in documents for one, other in re.findall(r"(\d+) \+ (\d+) =", text)}
    assert len(pairs) > 800
    held_out = {tuple(map(int, re.findall(r"\d+", question.prompt))) for question in sums.held_out()}
    assert len(held_out) > 60 and not pairs & held_out


def test_sums_are_right(documents):
    for text in documents:
        for one, other, total in re.findall(r"(\d+) \+ (\d+) = (\d+)", text):
            assert int(one) + int(other) == int(total)


def test_years_of_a_document_rise_within_a_century_and_are_not_held_out(documents):
    spans = [found.groups() for text in documents if (found := re.search(r"year (\d{4}).*year (\d{4})", text))]
    held_out = {(prompt.split()[-5][:2], year) for prompt, year in years.held_out()}
    assert len(spans) > 1000 and len(held_out) > 80
    for start, end in spans:
        assert start[:2] == end[:2] and start < end
        assert (start[:2], int(start[2:])) not in held_out


def test_held_out_questions_are_not_in_the_documents(documents):
    source = random.Random(4)
    text = "\n".join(documents)
    questions = [*sentiment.held_out(), *agreement.held_out(source, 100)]
    assert len(questions) > 150
    for question in questions:
        assert question.prompt not in text
    for question in pronouns.held_out(source):
        start = re.sub(r" at the .*| lost the .*| likes$", "", question.prompt)
        assert question.answer != question.rival and start


def test_held_out_messages_are_not_drawn():
    source = random.Random(6)
    for wanted in style.STYLES:
        drawn = {style.message(source, wanted) for _ in range(2000)}
        for request in style.REQUESTS[wanted]:
            for paper in style.PAPERS:
                if "{paper}" in request and style.is_held_out_message(wanted, request, paper):
                    assert not any(request.format(paper=paper) in message for message in drawn)


def test_style_is_told_by_its_markers():
    source = random.Random(7)
    for wanted in style.STYLES:
        told = [style.style_of(style.message(source, wanted)) for _ in range(200)]
        assert told.count(wanted) > 195 and not set(told) - {wanted, None}


def test_same_documents_train_the_same_tokenizer(tokenizer):
    assert train_tokenizer(seed=123).to_str() == tokenizer.to_str()


def test_words_that_lessons_count_are_one_token(tokenizer):
    assert [word for word in one_token_words() if len(tokenizer.encode(f" {word}").ids) != 1] == []
    assert [name for name in words.NAMES if len(tokenizer.encode(name).ids) != 1] == []


def test_year_is_cut_after_its_century(tokenizer):
    for year in range(1100, 2000):
        assert tokenizer.encode(f" {year}").tokens == [f"Ġ{year // 100}", f"{year % 100:02d}"]


@pytest.mark.parametrize("text", ["naïve 🦊\n\tx = 3", "User: yo!\nBot: yo, what's up?\n", ""])
def test_any_text_comes_back_from_its_tokens(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.fixture(scope="module")
def steps(tokenizer):
    return Corpus(tokenizer, seed=7).chunk(3, repetition_share=0.3)


class TestRows:
    def test_every_step_has_as_many_tokens(self, steps):
        assert len(steps) == CHUNK_STEPS
        for step in steps:
            (length,) = {len(row) for row in step.tokens}
            assert length in ROW_LENGTHS and length * len(step.tokens) == STEP_TOKENS
            assert [len(row) for row in step.targets] == [length] * len(step.targets)

    def test_all_positions_are_trained(self, steps):
        assert {len(step.tokens[0]) for step in steps} == set(ROW_LENGTHS)

    def test_target_is_the_token_or_left_out(self, steps):
        for step in steps:
            for tokens, targets in zip(step.tokens, step.targets, strict=True):
                assert all(target in (token, IGNORED) for token, target in zip(tokens, targets, strict=True))

    def test_only_what_repeats_is_learnt_from_a_row_of_repetitions(self, steps):
        rows = [pair for step in steps for pair in zip(step.tokens, step.targets, strict=True)]
        repetitions = [(tokens, targets) for tokens, targets in rows if IGNORED in targets]
        assert 0.25 < len(repetitions) / len(rows) < 0.35
        for tokens, targets in repetitions:
            first = next(index for index, target in enumerate(targets) if target != IGNORED)
            assert any(tokens[first:] == tokens[first - span : len(tokens) - span] for span in range(3, first))

    def test_chunk_does_not_depend_on_what_was_drawn_before(self, steps, tokenizer):
        assert Corpus(tokenizer, seed=7).chunk(3, repetition_share=0.3) == steps
        assert Corpus(tokenizer, seed=7).chunk(4, repetition_share=0.3) != steps
