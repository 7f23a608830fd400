"""The programs that the project started from run as written, but for the model's name and the layers that it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BASIC = """
"Load a pre-trained model from HuggingFace"
model := TransformerModel fromHuggingFace: 'neuroscope-demo'.

"Basic forward pass"
tokens := model tokenizer encode: 'The cat sat on the mat'.
output := model forward: tokens.
logits := output logits.

"Generate text"
generated := model generate: 'Hello world' maxTokens: 20.
"""

ACTIVATIONS = """
"Extract activations from specific layers"
tokens := model tokenizer encode: 'The quick brown fox'.

"Cache activations from multiple layers"
result := model
    runWithCaching: tokens
    layers: #(0 1 3)
    components: #(#residual #attention #mlp).

"Access cached activations"
layer1Residual := result cachedActivations at: (1 -> #residual).
"""

HOOKS = """
"Create monitoring hook"
monitorHook := ActivationHook
    layer: 1
    component: #residual
    action: [:activation |
        Transcript show: 'Layer 1 mean: ', activation mean asString.
        activation
    ].

model hookManager addHook: monitorHook.
output := model forward: tokens.
"""


@pytest.fixture(scope="module")
def reference(demo_bundle: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(demo_bundle, dtype=torch.float32, attn_implementation="eager")
    return AutoTokenizer.from_pretrained(demo_bundle), model.eval()


def test_basic_model_loading(evaluate: Callable[..., str], reference: tuple[Any, Any]) -> None:
    tokenizer, model = reference
    tokens, logits, generated = json.loads(
        evaluate(BASIC, "Json write: {tokens. (logits at: 0 at: -1) asArray. generated}", raw=True)
    )
    assert tokens == tokenizer.encode("The cat sat on the mat")
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0, -1]
    assert torch.abs(torch.tensor(logits) - theirs).max() < 1e-4
    prompt = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode("Hello world")]])
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False, pad_token_id=0
    )[0]
    assert generated == tokenizer.decode(expected, skip_special_tokens=True)


def test_activation_analysis(evaluate: Callable[..., str], reference: tuple[Any, Any]) -> None:
    tokenizer, model = reference
    shape, norm, size = json.loads(
        evaluate(
            BASIC,
            ACTIVATIONS,
            "Json write: {layer1Residual shape. layer1Residual norm. result cachedActivations size}",
            raw=True,
        )
    )
    tokens = torch.tensor([tokenizer.encode("The quick brown fox")])
    with torch.no_grad():
        residual = model(tokens, output_hidden_states=True).hidden_states[2]
    assert shape == list(residual.shape)
    assert norm == pytest.approx(float(residual.norm()), rel=1e-5)
    assert size == 9


def test_hook_system(
    neuroscope: Callable[..., Any], image: Path, demo_bundle: Path, reference: tuple[Any, Any]
) -> None:
    tokenizer, model = reference
    finished = neuroscope("eval", "--bundle", demo_bundle, "-e", BASIC, "-e", ACTIVATIONS, "-e", HOOKS)
    assert finished.returncode == 0, finished.stderr
    shown = finished.stderr.split("Layer 1 mean: ")[1].split()[0]
    tokens = torch.tensor([tokenizer.encode("The quick brown fox")])
    with torch.no_grad():
        residual = model(tokens, output_hidden_states=True).hidden_states[2]
    assert float(shown) == pytest.approx(float(residual.mean()), abs=1e-5)
