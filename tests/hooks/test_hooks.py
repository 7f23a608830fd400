"""Blocks as hooks, left in every way that Smalltalk knows, against the same interventions in TransformerLens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

Evaluate = Callable[..., str]

TEXT = "When Mary and John went to the store, John gave a drink to"
TOLERANCE = 1e-4  # float32 on both sides, sums of at most a few hundred terms
PRELUDE = f"model := TransformerModel fromHuggingFace: 'neuroscope-demo'. text := '{TEXT}'"


@pytest.fixture(scope="module")
def bridge(demo_bundle: Path, monkeypatch_module: pytest.MonkeyPatch) -> Any:
    monkeypatch_module.setenv("HF_HUB_OFFLINE", "1")
    tokenizer = AutoTokenizer.from_pretrained(demo_bundle)
    return TransformerBridge.boot_transformers(str(demo_bundle), tokenizer=tokenizer, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def tokens(demo_bundle: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(demo_bundle)
    return torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(TEXT)]])


def run(evaluate: Evaluate, source: str) -> Any:
    """Evaluates a program whose last expression is written as JSON."""
    return json.loads(evaluate(PRELUDE, source, raw=True))


def last_logits(evaluate: Evaluate, source: str) -> np.ndarray:
    """`source` must leave a ModelOutput in `output`."""
    return np.array(run(evaluate, source + " Json write: (output logits at: 0 at: -1) asArray"), dtype=np.float32)


def reference(bridge: Any, tokens: torch.Tensor, hooks: list[tuple[str, Callable[..., Any]]]) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(bridge.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1])


def test_a_block_replaces_an_activation_as_in_transformer_lens(
    evaluate: Evaluate, bridge: Any, tokens: torch.Tensor
) -> None:
    ours = last_logits(
        evaluate,
        """| output |
        model hookManager addHook: (ActivationHook layer: 1 component: #residual action: [ :a | a * 0.5 + 0.25 ]).
        output := model forward: text.""",
    )
    theirs = reference(bridge, tokens, [("blocks.1.hook_resid_post", lambda value, hook: value * 0.5 + 0.25)])
    assert np.abs(ours - theirs).max() < TOLERANCE


def test_a_block_branches_on_a_number_that_it_reads(evaluate: Evaluate, bridge: Any, tokens: torch.Tensor) -> None:
    ours = last_logits(
        evaluate,
        """| output |
        output := model
            withHooks: {ActivationHook layer: 0 component: #attention action: [ :a |
                a norm > 0 ifTrue: [ a * -1 ] ifFalse: [ a ] ]}
            do: [ model forward: text ].""",
    )
    theirs = reference(bridge, tokens, [("blocks.0.hook_attn_out", lambda value, hook: -value)])
    assert np.abs(ours - theirs).max() < TOLERANCE


def test_a_forward_inside_of_a_hook_is_right_and_does_not_come_back_to_the_hook(evaluate: Evaluate) -> None:
    calls, nested, plain, outer = run(
        evaluate,
        """| plain nested calls hook output |
        plain := (model forward: text) logits at: 0 at: -1 at: 3.
        calls := 0.
        hook := ActivationHook layer: 1 component: #mlp action: [ :a |
            calls := calls + 1.
            nested := (model forward: text) logits at: 0 at: -1 at: 3.
            a ].
        output := model withHooks: {hook} do: [ model forward: text ].
        Json write: {calls. nested. plain. (output logits at: 0 at: -1 at: 3)}""",
    )
    assert calls == 1
    assert nested == plain == outer


def test_a_block_may_be_left_by_return_and_the_next_pass_is_right(
    neuroscope: Callable[..., Any], image: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    """A `^` in a do-it ends the do-it, so the block stands in a method, which is filed in first."""
    (tmp_path / "Leaver.class.st").write_text(
        """
"
I leave a forward pass by a return from the middle of a hook.
"
Class { #name : #Leaver, #superclass : #Object, #category : #Tests }

{ #category : #evaluating }
Leaver >> normOf: model text: aString [
	model
		withHooks: {ActivationHook layer: 1 component: #residual action: [ :a | ^ a norm ]}
		do: [ model forward: aString ].
	^ 'not reached'
]
""",
        encoding="utf-8",
    )
    program = """| before norm after |
        before := (model forward: text) logits at: 0 at: -1 at: 3.
        norm := Leaver new normOf: model text: text.
        after := (model forward: text) logits at: 0 at: -1 at: 3.
        Json write: {norm > 0. before = after. model hookManager hooks size}"""
    finished = neuroscope("eval", "--bundle", demo_bundle, "--load", tmp_path, "--raw", "-e", PRELUDE, "-e", program)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == [True, True, 0]


def test_an_error_in_a_block_can_be_retried(evaluate: Evaluate) -> None:
    attempts, same = run(
        evaluate,
        """| plain attempts output |
        plain := (model forward: text) logits at: 0 at: -1 at: 3.
        attempts := 0.
        output := [ model
            withHooks: {ActivationHook layer: 1 component: #residual action: [ :a |
                attempts := attempts + 1.
                attempts < 3 ifTrue: [ Error signal: 'not yet' ].
                a ]}
            do: [ model forward: text ] ] on: Error do: [ :error | error retry ].
        Json write: {attempts. (output logits at: 0 at: -1 at: 3) = plain}""",
    )
    assert attempts == 3
    assert same is True


def test_a_block_is_resumed_with_a_value(evaluate: Evaluate, bridge: Any, tokens: torch.Tensor) -> None:
    ours = last_logits(
        evaluate,
        """| output |
        output := [ model
            withHooks: {ActivationHook layer: 1 component: #residual action: [ :a |
                a * (Warning signal: 'how much?') ]}
            do: [ model forward: text ] ] on: Warning do: [ :warning | warning resume: 3 ].""",
    )
    theirs = reference(bridge, tokens, [("blocks.1.hook_resid_post", lambda value, hook: value * 3)])
    assert np.abs(ours - theirs).max() < TOLERANCE


def test_the_ledger_returns_to_where_it_was(evaluate: Evaluate) -> None:
    before, after, passes = run(
        evaluate,
        """| before work |
        model forward: text.
        work := [
            model
                withHooks: {ActivationHook layer: 1 component: #residual action: [ :a | a mean. nil ]}
                do: [ model forward: text ].
            [ model
                withHooks: {ActivationHook layer: 1 component: #residual action: [ :a | Error signal: 'stop' ]}
                do: [ model forward: text ] ] on: Error do: [ :error | error return: nil ].
            (model runWithCaching: text) cachedActivations size.
            nil ].
        before := (Engine default ledger at: 'tensors') size.
        work value.
        Json write: {before. (Engine default ledger at: 'tensors') size. (Engine default ledger at: 'passes') size}""",
    )
    assert after == before
    assert passes == 0


def test_an_intervention_as_data_equals_the_same_in_transformer_lens(
    evaluate: Evaluate, bridge: Any, tokens: torch.Tensor
) -> None:
    ours = last_logits(
        evaluate,
        """| output |
        output := model
            withHooks: {InterventionHook zero: 'blocks.1.attn.hook_z' at: {'head' -> 2}}
            do: [ model forward: text ].""",
    )

    def zero_head(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value = value.clone()
        value[:, :, 2] = 0
        return value

    theirs = reference(bridge, tokens, [("blocks.1.attn.hook_z", zero_head)])
    assert np.abs(ours - theirs).max() < TOLERANCE


def test_patching_from_a_cache_equals_the_same_in_transformer_lens(
    evaluate: Evaluate, bridge: Any, tokens: torch.Tensor
) -> None:
    ours = last_logits(
        evaluate,
        """| output ids other |
        ids := model tokenizer encodeWithBos: text.
        other := (model runWithCaching: ids reversed names: #('blocks.0.hook_resid_post')) cachedActivations
            at: 0 -> #residual.
        output := model
            withHooks: {InterventionHook patch: 'blocks.0.hook_resid_post' with: other at: {'position' -> 4}}
            do: [ model forward: ids ].""",
    )
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens.flip(1))

    def patch(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value = value.clone()
        value[:, 4] = cache["blocks.0.hook_resid_post"][:, 4]
        return value

    theirs = reference(bridge, tokens, [("blocks.0.hook_resid_post", patch)])
    assert np.abs(ours - theirs).max() < TOLERANCE


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "ActivationHook name: 'blocks.1.hook_resid_pots' action: [ :a | a ]",
            ["blocks.1.hook_resid_pots", "blocks.1.hook_resid_post"],
        ),
        ("ActivationHook layer: 99 component: #residual action: [ :a | a ]", ["99", "0 to"]),
        ("ActivationHook layer: 0 component: #residual action: [ :a | 'text' ]", ["'text'", "nil", "shape"]),
        ("ActivationHook layer: 0 component: #residual action: [ :a | a at: 0 ]", ["shape"]),
    ],
)
def test_a_wrong_hook_is_an_error_that_helps(
    neuroscope: Callable[..., Any], image: Path, demo_bundle: Path, source: str, words: list[str]
) -> None:
    program = f"model withHooks: {{{source}}} do: [ model forward: text ]"
    finished = neuroscope("eval", "--bundle", demo_bundle, "-e", PRELUDE, "-e", program)
    assert finished.returncode == 1
    for word in words:
        assert word in finished.stderr


def test_more_tokens_than_positions_are_refused_with_both_numbers(
    neuroscope: Callable[..., Any], image: Path, demo_bundle: Path
) -> None:
    positions = json.loads((demo_bundle / "config.json").read_text())["n_positions"]
    program = f"model forward: (Array new: {positions + 1} withAll: 5)"
    finished = neuroscope("eval", "--bundle", demo_bundle, "-e", PRELUDE, "-e", program)
    assert finished.returncode == 1
    assert str(positions) in finished.stderr
    assert str(positions + 1) in finished.stderr
