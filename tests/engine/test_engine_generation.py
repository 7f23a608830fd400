"""Generation against transformers: the same greedy tokens, and the same tokens and probabilities behind its filters."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_checkpoints import Checkpoint
from engine_places import NODE, PLACES, run
from neuroscope.project import DEMO_MODEL, ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

PROMPTS = ["When Mary and John went to the store, John gave a drink to", "The", "one two three one two three one"]


def generate(prompt: list[int], **more: Any) -> dict[str, Any]:
    message = {"kind": "generate", "pass": 1, "model": None, "tokens": prompt, "sampling": {"temperature": 0}, **more}
    return {"message": message}


def continued(model: Any, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """What transformers' greedy `generate` goes on with, and the log-probability of each token."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        result = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    tokens = result.sequences[0, len(prompt) :].tolist()
    logs = [torch.log_softmax(row[0], -1)[token].item() for row, token in zip(result.logits, tokens, strict=True)]
    return tokens, logs


@dataclass(frozen=True)
class Text:
    """A prompt, what transformers goes on with, and how likely it finds each token."""

    folder: Path
    end: int
    prompt: list[int]
    count: int
    tokens: list[int]
    log_probabilities: list[float]


@pytest.fixture(scope="module")
def texts(checkpoints: dict[str, Checkpoint]) -> list[list[Text]]:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    demo = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, attn_implementation="eager", dtype=torch.float32).eval()
    folders = [(DEMO_MODEL, demo, [tokenizer(text).input_ids for text in PROMPTS], 20)]
    folders += [
        (checkpoints[name].folder, checkpoints[name].model(), [row[:3] for row in checkpoints[name].tokens], 4)
        for name in ("odd", "round", "exact")
    ]
    return [
        [Text(folder, model.config.eos_token_id, each, count, *continued(model, each, count)) for each in prompts]
        for folder, model, prompts, count in folders
    ]


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_greedy_tokens_and_probabilities_are_those_of_transformers(where, backend, texts, request):
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    jobs = []
    for group in texts:
        # The demo model's tokenizer tells the engine where a text ends; the random models have none.
        stop = [{} if each.folder == DEMO_MODEL else {"stop": [each.end]} for each in group]
        script = [generate(each.prompt, maxTokens=each.count, **more) for each, more in zip(group, stop, strict=True)]
        jobs.append({"bundle": group[0].folder, "passes": [], "script": script})
    compared = 0
    for group, result in zip(texts, run(where, backend, jobs, request), strict=True):
        assert "error" not in result, result["error"]
        for text, answer in zip(group, result["script"], strict=True):
            assert "error" not in answer, answer
            message, events = answer["message"], answer["tokens"]
            assert message["tokens"] == text.tokens == [event["token"] for event in events], text
            told = np.array([event["logProbability"] for event in events])
            assert np.abs(told - np.array(text.log_probabilities)).max() < 1e-5
            assert message["reason"] == ("stop" if text.tokens[-1] == text.end else "length")
            if text.folder == DEMO_MODEL:
                assert message["text"] == tokenizer.decode(text.tokens)
                assert "".join(event["text"] for event in events) == tokenizer.decode(text.tokens)
            compared += len(text.tokens)
    assert compared > 60


def rows() -> list[np.ndarray]:
    """Logits as models give them: the demo model's, and GPT-2's vocabulary with steep and flat tails, and with ties."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, dtype=torch.float32).eval()
    with torch.no_grad():
        found = [model(torch.tensor([tokenizer(text).input_ids])).logits[0, -1].numpy() for text in PROMPTS[:2]]
    generator = np.random.default_rng(1)
    found += [(generator.standard_normal(50257) * scale).astype(np.float32) for scale in (0.3, 3)]
    found.append(np.round(generator.standard_normal(500) * 2).astype(np.float32))
    return found


SAMPLINGS: list[dict[str, float]] = [
    {"temperature": 1},
    {"temperature": 0.7, "topK": 5},
    {"temperature": 1.3, "topK": 1},
    {"temperature": 1, "topK": 3000},
    {"temperature": 1, "topP": 0.9},
    {"temperature": 0.3, "topP": 0.5},
    {"temperature": 2, "topP": 0.01},
    {"temperature": 1.5, "topK": 40, "topP": 0.8},
    {"temperature": 5, "topP": 0.999},
]


def warped(row: np.ndarray, sampling: dict[str, float]) -> np.ndarray:
    """The probabilities behind transformers' filters, in float64 so that its sums are right to the last token."""
    scores = torch.tensor(row, dtype=torch.float64)[None]
    ids = torch.zeros((1, 1), dtype=torch.long)
    scores = TemperatureLogitsWarper(float(sampling["temperature"]))(ids, scores)
    if "topK" in sampling:
        scores = TopKLogitsWarper(int(sampling["topK"]))(ids, scores)
    if "topP" in sampling:
        scores = TopPLogitsWarper(sampling["topP"])(ids, scores)
    return torch.softmax(scores[0], -1).numpy()


def asked(logits: list[np.ndarray], samplings: list[dict[str, float]], draws: int = 0) -> Any:
    question = {
        "rows": [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in logits],
        "samplings": samplings, "draws": draws, "seeds": SEEDS,
    }  # fmt: skip
    done = subprocess.run(
        [NODE, ROOT / "tests/engine/sampling_rows.ts"], input=json.dumps(question), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


SEEDS = [0, 1, 42, 2**40 + 3, -5]


def test_filters_leave_the_tokens_and_probabilities_of_transformers():
    logits = rows()
    answer = asked(logits, SAMPLINGS)
    for row, candidates in zip(logits, answer["candidates"], strict=True):
        for sampling, ours in zip(SAMPLINGS, candidates, strict=True):
            theirs = warped(row, sampling)
            what = (len(row), sampling)
            probabilities = np.zeros(len(row))
            probabilities[ours["tokens"]] = ours["probabilities"]
            assert ours["tokens"] == sorted(ours["tokens"]), what
            has_ties = len(np.unique(row)) < len(row)
            if has_ties:  # which of the equal ones stay is nobody's promise; how many and how likely is
                assert np.allclose(np.sort(probabilities), np.sort(theirs), atol=1e-9), what
                assert set(row[probabilities > 0]) == set(row[theirs > 0]), what
            else:
                assert np.array_equal(probabilities > 0, theirs > 0), what
                assert np.abs(probabilities - theirs).max() < 1e-9, what


def test_draws_follow_the_probabilities():
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.0625, 0.0625], dtype=np.float32))
    draws = 20_000
    drawn = np.bincount(asked([logits], [{"temperature": 1}], draws)["drawn"], minlength=5)
    expected = np.exp(logits) * draws
    chi_square = float(((drawn - expected) ** 2 / expected).sum())
    assert chi_square < 18.5, "one seed in a thousand is beyond, at four degrees of freedom"


def xoshiro(seed: int, count: int) -> list[int]:
    """xoshiro128++ as its authors' C code has it, behind splitmix32 with murmur3's finalizer."""
    mask = 2**32 - 1
    whole = abs(seed)
    mixed = (whole & mask) ^ ((whole >> 32) * 0x9E3779B1 & mask)
    if seed < 0:
        mixed ^= mask
    state = []
    for _ in range(4):
        mixed = mixed + 0x9E3779B9 & mask
        word = mixed
        word = (word ^ word >> 16) * 0x85EBCA6B & mask
        word = (word ^ word >> 13) * 0xC2B2AE35 & mask
        state.append(word ^ word >> 16)

    def rotated(x: int, by: int) -> int:
        return (x << by | x >> 32 - by) & mask

    words = []
    for _ in range(count):
        words.append(rotated(state[0] + state[3] & mask, 7) + state[0] & mask)
        carried = state[1] << 9 & mask
        state[2] ^= state[0]
        state[3] ^= state[1]
        state[1] ^= state[2]
        state[0] ^= state[3]
        state[2] ^= carried
        state[3] = rotated(state[3], 11)
    return words


def test_seeds_give_the_words_of_the_published_generator():
    words = asked([np.zeros(2, dtype=np.float32)], [{"temperature": 1}])["words"]
    assert words == [xoshiro(seed, 8) for seed in SEEDS]
