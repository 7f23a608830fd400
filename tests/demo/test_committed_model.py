"""The committed checkpoint is what its card says."""

from __future__ import annotations

import json

import pytest
import torch
from neuroscope import project
from neuroscope.demo.card import model_card
from neuroscope.demo.evaluate import evaluate
from neuroscope.demo.tokenizer import train_tokenizer
from neuroscope.demo.train import Recipe
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

FOLDER = project.DEMO_MODEL
DESCRIBED = json.loads((FOLDER / "recipe.json").read_text())


def test_card_is_written_from_the_measures():
    assert (FOLDER / "README.md").read_text() == model_card(DESCRIBED)


def test_recipe_is_the_one_that_train_demo_follows():
    assert json.loads(json.dumps(Recipe().as_json())) == DESCRIBED["recipe"]


def test_tokenizer_is_the_one_that_the_corpus_gives():
    trained = train_tokenizer(DESCRIBED["recipe"]["tokenizer_seed"])
    assert json.loads(trained.to_str()) == json.loads((FOLDER / "tokenizer.json").read_text())


def test_model_is_small_enough_to_be_committed():
    assert (FOLDER / "model.safetensors").stat().st_size < 8 * 2**20


def test_measures_of_the_weights_are_those_of_the_card():
    """A share may differ by a question or a sampled text: another processor adds in another order."""
    model = GPT2LMHeadModel.from_pretrained(FOLDER, dtype=torch.float32)
    measures = evaluate(model, Tokenizer.from_file(str(FOLDER / "tokenizer.json")))
    assert measures.keys() == DESCRIBED["measures"].keys()
    for name, value in DESCRIBED["measures"].items():
        is_share = name.endswith(("top-1", "share", "texts", "wrong", "giver"))
        assert measures[name] == pytest.approx(value, abs=0.05 if "style" in name else 0.01 if is_share else 0.005), (
            name
        )
