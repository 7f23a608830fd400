"""Random-weight GPT-2 checkpoints of odd shapes, from the checkpoint folder to Smalltalk, against transformers.

Weights are as large as 0.2, so that a wrong kernel shows; the numbers that are compared are those that Smalltalk reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from neuroscope.export.bundle import export_bundle
from transformers import GPT2Config, GPT2LMHeadModel

TOLERANCE = 1e-4  # float32 on both sides, logits of a few tens
SHAPES = {
    "narrow": {"n_layer": 1, "n_head": 1, "n_embd": 6, "vocab_size": 17, "n_positions": 9},
    "odd": {"n_layer": 3, "n_head": 3, "n_embd": 21, "vocab_size": 101, "n_positions": 33, "n_inner": 37},
    "wide": {"n_layer": 2, "n_head": 5, "n_embd": 40, "vocab_size": 257, "n_positions": 50},
}


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model and the bundle of its checkpoint."""
    torch.manual_seed(11)
    config = GPT2Config(**SHAPES[request.param], initializer_range=0.2, bos_token_id=None, eos_token_id=None)
    config._attn_implementation = "eager"
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += torch.randn_like(parameter) * 0.2
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder / "checkpoint")
    return model, export_bundle(folder / "checkpoint", folder / "bundle", id="random").folder


@pytest.mark.parametrize("backend", ["wasm", "reference"])
def test_logits_and_greedy_generation_are_those_of_transformers(
    neuroscope: Callable[..., Any], image: Path, checkpoint: tuple[Any, Path], backend: str
) -> None:
    model, bundle = checkpoint
    generator = np.random.default_rng(3)
    prompts = [generator.integers(0, model.config.vocab_size, length).tolist() for length in (1, 2, 5)]
    literal = "#(" + " ".join("#(" + " ".join(map(str, prompt)) + ")" for prompt in prompts) + ")"
    program = f"""| model |
        model := TransformerModel fromHuggingFace: 'random'.
        Json write: {{
            {literal} collect: [ :each | (model forward: each) logits asNestedArray ].
            {literal} collect: [ :each | model generateTokens: each maxTokens: 4 ]}}"""
    finished = neuroscope("eval", "--bundle", bundle, "--backend", backend, "--raw", "-", input=program)
    assert finished.returncode == 0, finished.stderr
    logits, generated = json.loads(finished.stdout)
    for prompt, ours, continued in zip(prompts, logits, generated, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            theirs = model(ids).logits.numpy()
            expected = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, pad_token_id=0
            )
        assert np.isfinite(np.array(ours, dtype=np.float64)).all()
        assert np.abs(np.array(ours, dtype=np.float32) - theirs).max() < TOLERANCE
        assert continued == expected[0].tolist()
