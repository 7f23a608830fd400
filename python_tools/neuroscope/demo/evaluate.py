"""What the demo model can do, measured on what it never saw: the numbers of the model card.

Every measure is deterministic: the prompts are seeded, the sampled texts too. Names of measures say what a larger
number means; shares and probabilities go from 0 to 1, losses are in nats a token, logit differences in nats.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel

from neuroscope.demo.corpus import IGNORED, MIXTURE, draw_documents, end_of_text, kind_of, word_tokens
from neuroscope.demo.documents import agreement, facts, indirect_objects, pronouns, sentiment, style, sums, years
from neuroscope.demo.split import Question

Measures = dict[str, float]

SEED = 999
BATCH = 256
STEERED_LAYER = 1  # the residual stream after the second of four layers
STEERED_TOKENS = 16


class Evaluation:
    """One model and tokenizer, and the measures of them."""

    def __init__(self, model: GPT2LMHeadModel, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.start = end_of_text(tokenizer)

    @torch.no_grad()
    def measure(self) -> Measures:
        """Every measure, by name."""
        source = random.Random(SEED)
        measures: Measures = {}
        for name, questions in (
            ("indirect object, new names", indirect_objects.held_out_pairs(source, 400, plain=True)),
            ("indirect object, new names, with distractors", indirect_objects.held_out_pairs(source, 400, plain=False)),
            ("indirect object, new names and frames", indirect_objects.held_out_frames(source, 400)),
        ):
            measures |= self._indirect_objects(name, questions)
        measures |= self._repetition("repeated 25 random words", 25)
        measures |= self._repetition("repeated 100 random words", 100)
        for relation, questions in facts.held_out().items():
            measures[f"facts in new words, {relation}: top-1"] = self._top1(questions)
        measures |= self._years()
        measures["agreement, new noun pairs: right over wrong"] = self._over_rival(agreement.held_out(source, 300))
        measures["pronouns, new frame and name: right over wrong"] = self._over_rival(pronouns.held_out(source))
        measures["sentiment, new thing and adjective: right over wrong"] = self._over_rival(sentiment.held_out())
        measures["sums of new pairs: top-1"] = self._top1(sums.held_out())
        measures["style of a new message kept: share"] = self._style_kept(source)
        measures |= self._steering()
        measures |= self._losses()
        return measures

    # prompts and their last logits

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self.start, *encoding.ids] for encoding in self.tokenizer.encode_batch(list(texts))]

    def _token(self, text: str) -> int:
        ids: list[int] = self.tokenizer.encode(text).ids
        if len(ids) != 1:
            raise ValueError(f"{text!r} is {len(ids)} tokens, and an answer is one")
        return ids[0]

    def _last_logits(self, prompts: Sequence[str]) -> Tensor:
        """The logits after each prompt. Shapes: prompts V."""
        rows = self._encode(prompts)
        answers = []
        for begin in range(0, len(rows), BATCH):
            batch = rows[begin : begin + BATCH]
            longest = max(map(len, batch))
            tokens = torch.tensor([row + [self.start] * (longest - len(row)) for row in batch])  # B T
            hidden = self.model.transformer(input_ids=tokens).last_hidden_state  # B T D
            ends = torch.tensor([len(row) - 1 for row in batch])
            answers.append(self.model.lm_head(hidden[torch.arange(len(batch)), ends]))
        return torch.cat(answers)

    def _answers_and_rivals(self, questions: Sequence[Question]) -> tuple[Tensor, Tensor, Tensor]:
        logits = self._last_logits([question.prompt for question in questions])
        rows = torch.arange(len(questions))
        right = torch.tensor([self._token(f" {question.answer}") for question in questions])
        wrong = torch.tensor([self._token(f" {question.rival}") for question in questions])
        top = logits.argmax(-1) == right
        return logits[rows, right], logits[rows, wrong], top

    # measures

    def _top1(self, questions: Sequence[Question]) -> float:
        logits = self._last_logits([question.prompt for question in questions])
        right = torch.tensor([self._token(f" {question.answer}") for question in questions])
        return _mean(logits.argmax(-1) == right)

    def _over_rival(self, questions: Sequence[Question]) -> float:
        right, wrong, _ = self._answers_and_rivals(questions)
        return _mean(right > wrong)

    def _indirect_objects(self, name: str, questions: Sequence[Question]) -> Measures:
        right, wrong, top = self._answers_and_rivals(questions)
        return {
            f"{name}: logit difference": _mean(right - wrong),
            f"{name}: receiver over giver": _mean(right > wrong),
            f"{name}: top-1": _mean(top),
        }

    def _repetition(self, name: str, length: int) -> Measures:
        generator = torch.Generator().manual_seed(SEED + length)
        pool = torch.tensor(word_tokens(self.tokenizer))
        rows = 64 if length < 50 else 16
        spans = torch.stack([pool[torch.randperm(len(pool), generator=generator)[:length]] for _ in range(rows)])
        tokens = torch.cat([torch.full((rows, 1), self.start), spans, spans], 1)  # rows 2*length+1
        logits = self.model(input_ids=tokens).logits[:, length + 1 : -1]  # what follows the second copy's tokens
        targets = tokens[:, length + 2 :]
        return {
            f"{name}: loss": cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)).item(),
            f"{name}: top-1": _mean(logits.argmax(-1) == targets),
            f"{name}: loss of a guess": math.log(len(pool)),
        }

    def _years(self) -> Measures:
        held_out = years.held_out()
        logits = self._last_logits([prompt for prompt, _ in held_out])
        tokens = torch.tensor([self._token(f"{year:02d}") for year in range(100)])
        probabilities = logits.softmax(-1)[:, tokens]  # prompts 100
        first = torch.tensor([year for _, year in held_out])
        later = torch.arange(100)[None] > first[:, None]
        return {
            "years, new beginnings: probability of a later one": _mean((probabilities * later).sum(1)),
            "years, new beginnings: later minus not later": _mean((probabilities * (later * 2.0 - 1)).sum(1)),
        }

    def _style_kept(self, source: random.Random) -> float:
        """Share of held-out messages whose greedy continuation after the first half has their style."""
        kept, count = 0, 0
        for wanted in style.STYLES:
            for _ in range(25):
                words = style.message(source, wanted, held_out=True).split(" ")
                prompt = "Message: " + " ".join(words[: len(words) // 2])
                tokens = torch.tensor(self._encode([prompt]))
                text = self._continue(tokens, STEERED_TOKENS, None)[0]
                kept += style.style_of(text) == wanted
                count += 1
        return kept / count

    def _steering(self) -> Measures:
        """Share of formal texts after "Message:", when the difference of the styles' means is added or taken away."""
        difference = self._style_mean("formal") - self._style_mean("informal")  # D
        prompt = torch.tensor(self._encode(["Message:"] * 64))
        measures: Measures = {}
        for times, name in ((-2.0, "taken away twice"), (0.0, "left out"), (2.0, "added twice")):
            with _added(self.model.transformer.h[STEERED_LAYER], difference * times):
                texts = self._continue(prompt, STEERED_TOKENS, torch.Generator().manual_seed(SEED))
            formal = [style.style_of(text) == "formal" for text in texts]
            measures[f"style direction {name}: share of formal texts"] = sum(formal) / len(formal)
        return measures

    def _style_mean(self, wanted: str) -> Tensor:
        source = random.Random(SEED)
        total, count = torch.zeros(self.model.config.n_embd), 0
        for _ in range(100):
            tokens = torch.tensor(self._encode(["Message: " + style.message(source, wanted)]))[:, :64]
            hidden = self.model.transformer(input_ids=tokens, output_hidden_states=True).hidden_states
            stream = hidden[STEERED_LAYER + 1][0, 3:]  # without the start and "Message:"
            total, count = total + stream.sum(0), count + len(stream)
        return total / count

    def _continue(self, tokens: Tensor, length: int, generator: torch.Generator | None) -> list[str]:
        """What follows the rows: sampled with `generator`, greedy without."""
        prompt = tokens.shape[1]
        for _ in range(length):
            logits = self.model(input_ids=tokens).logits[:, -1]
            if generator is None:
                chosen = logits.argmax(-1, keepdim=True)
            else:
                chosen = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            tokens = torch.cat([tokens, chosen], 1)
        texts: list[str] = self.tokenizer.decode_batch(tokens[:, prompt:].tolist(), skip_special_tokens=False)
        return texts

    def _losses(self) -> Measures:
        """The mean loss a token on fresh documents of each kind, and early and late in long rows of all kinds."""
        measures: Measures = {}
        for kind in MIXTURE:
            source = random.Random(SEED)
            rows = [[*row, self.start] for row in self._encode([kind(source) for _ in range(100)])]
            longest = max(map(len, rows))
            tokens = torch.tensor([row + [self.start] * (longest - len(row)) for row in rows])  # B T
            targets = torch.tensor([row[1:] + [IGNORED] * (longest - len(row)) for row in rows])  # B T-1
            logits = self.model(input_ids=tokens[:, :-1]).logits
            loss = cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED)
            measures[f"loss on fresh documents, {kind_of(kind)}"] = loss.item()
        length = self.model.config.n_positions
        stream = [token for row in self._encode(draw_documents(1000, SEED)) for token in row]
        rows_of_all = torch.tensor(stream[: 32 * length]).reshape(32, length)
        logits = self.model(input_ids=rows_of_all).logits[:, :-1]
        losses = cross_entropy(logits.transpose(1, 2), rows_of_all[:, 1:], reduction="none")  # 32 T-1
        for begin, end in ((0, length // 4), (length // 4, length // 2), (length // 2, length)):
            measures[f"loss at positions {begin} to {end - 1}"] = _mean(losses[:, begin : end - 1])
        return measures


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


class _added:
    """While it lasts, a direction is added to what a block gives."""

    def __init__(self, block: torch.nn.Module, direction: Tensor) -> None:
        self.block = block
        self.direction = direction

    def __enter__(self) -> None:
        def add(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (output[0] + self.direction, *output[1:])
            return output + self.direction

        self.hook = self.block.register_forward_hook(add)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def evaluate(model: GPT2LMHeadModel, tokenizer: Tokenizer) -> Measures:
    """The measures of a model in float32, rounded to what another machine reproduces."""
    return {name: round(value, 4) for name, value in Evaluation(model, tokenizer).measure().items()}
