"""Training is a function of its recipe: it can be stopped and taken up again, and ends with a whole checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from neuroscope.demo import corpus, train
from neuroscope.demo.card import model_card
from neuroscope.demo.corpus import IGNORED, Step
from neuroscope.demo.tokenizer import train_tokenizer
from neuroscope.demo.train import Phase, Recipe, Run, new_model, step_loss, train_demo
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

SMALL = Recipe(
    layers=2,
    width=16,
    heads=2,
    warmup_steps=2,
    phases=(Phase("first", 2, 0.2, 3e-3, 3e-3), Phase("last", 1, 0.5, 3e-3, 1e-3)),
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SMALL.tokenizer_seed)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr(corpus, "CHUNK_STEPS", 4)
    monkeypatch.setattr(train, "CHUNK_STEPS", 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same_weights(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_stopped_run_goes_on_as_if_it_had_not_been_stopped(tokenizer, tmp_path):
    at_once = Run(SMALL, tmp_path / "at once", tokenizer)
    at_once.finish(lambda line: None)

    class Stopped(Exception):
        pass

    def stop(line):
        raise Stopped

    with pytest.raises(Stopped):
        Run(SMALL, tmp_path / "in pieces", tokenizer).finish(stop)
    taken_up = Run(SMALL, tmp_path / "in pieces", tokenizer)
    assert taken_up.chunks_done == 1
    taken_up.finish(lambda line: None)
    assert same_weights(at_once.model.state_dict(), taken_up.model.state_dict())


def test_seed_decides_the_weights(tokenizer):
    size = tokenizer.get_vocab_size()
    one, same, other = (new_model(recipe, size, 0).state_dict() for recipe in (SMALL, SMALL, replace(SMALL, seed=8)))
    assert same_weights(one, same) and not same_weights(one, other)


def test_loss_falls(tokenizer, tmp_path):
    lines = []
    Run(SMALL, tmp_path, tokenizer).finish(lines.append)
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert len(losses) == 3 and losses[2] < losses[1] < losses[0] - 0.05


def test_learning_rate_is_a_straight_line_per_phase(tokenizer, tmp_path):
    run = Run(SMALL, tmp_path, tokenizer)
    run.finish(lambda line: None)
    last = 3e-3 + (3 / 4) * (1e-3 - 3e-3)  # of the fourth step of four
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(last)


def test_targets_that_are_left_out_do_not_count(tokenizer):
    model = new_model(SMALL, tokenizer.get_vocab_size(), 0)
    tokens = [[0, 5, 6, 7, 8, 9]]
    whole = step_loss(model, Step(tokens, [[0, 5, 6, 7, IGNORED, IGNORED]]))
    assert torch.isclose(whole, step_loss(model, Step([[0, 5, 6, 7]], [[0, 5, 6, 7]])))


def test_position_embeddings_start_as_sinusoids(tokenizer):
    positions = new_model(SMALL, tokenizer.get_vocab_size(), 0).transformer.wpe.weight  # positions D
    assert positions.std().item() == pytest.approx(SMALL.initial_deviation, rel=0.2)
    # one shift by a position is one linear map, whatever the position
    shift = torch.linalg.lstsq(positions[:-1], positions[1:]).solution
    torch.testing.assert_close(positions[:-1] @ shift, positions[1:], atol=1e-4, rtol=0)


def test_train_demo_writes_a_whole_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "evaluate", lambda model, tokenizer: {"a measure": 0.5})
    train_demo(tmp_path / "model", recipe=SMALL, report=lambda line: None)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "README.md", "config.json", "model.safetensors", "recipe.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert model.config.activation_function == "gelu_new" and model.config.n_positions == 256
    described = json.loads((tmp_path / "model" / "recipe.json").read_text())
    assert described["recipe"]["phases"][0]["tokens"] == 2 * train.CHUNK_TOKENS
    assert (tmp_path / "model" / "README.md").read_text() == model_card(described)
    text = "When Mary and John met in 1732,\n  x = 3"
    ids = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json")).encode(text).ids
    assert AutoTokenizer.from_pretrained(tmp_path / "model")(text).input_ids == ids
