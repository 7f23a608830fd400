"""A model of a lab answers the image as one in the page does: same names, same numbers, same hooks.

The page's engine, in Node, is the oracle: it computes the same demo model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Evaluate = Callable[..., Any]


@pytest.fixture(scope="module")
def evaluate_with_lab(server: str, image: Path, demo_bundle: Path) -> Evaluate:
    """Evaluates Smalltalk with `theirs`, the lab's model, and `mine`, the page's; answers what its JSON says."""

    def run(source: str, *, fails: bool = False) -> Any:
        models = f"""theirs := RemoteTransformerModel named: 'demo' at: '{server}'.
            mine := TransformerModel fromHuggingFace: 'neuroscope-demo'.
            text := 'When Mary and John went to the store, John gave a drink to'."""
        command = [sys.executable, "-m", "neuroscope.cli.main", "eval", "--raw", "--bundle", str(demo_bundle)]
        finished = subprocess.run(
            [*command, "-e", models, "-e", source],
            env={**os.environ, "NEUROSCOPE_LAB": server},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if fails:
            assert finished.returncode == 1
            return finished.stderr
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    return run


def test_activations_and_logits_equal_those_of_the_page(evaluate_with_lab: Evaluate) -> None:
    rows, logits, classes = evaluate_with_lab("""
        names := mine hookNames select: [ :each |
            (theirs hookNames includes: each)
                and: [ (mine isOptionalHook: each) not and: [ (theirs isOptionalHook: each) not ] ] ].
        there := theirs runWithCaching: {text. 'A short one'} names: names.
        here := mine runWithCaching: {text. 'A short one'} names: names.
        rows := names collect: [ :each | | x y |
            x := there cachedActivations at: each. y := here cachedActivations at: each.
            {each. x shape. y shape.
             x shape allButFirst = y shape allButFirst ifTrue: [ ((x at: 0) - (y at: 0)) abs max ].
             (y at: 0) abs max} ].
        Json write: {rows. ((there logits at: 0) - (here logits at: 0)) abs max.
            {theirs class name. theirs basis printString}}""")
    assert classes == ["RemoteTransformerModel", "demo, raw weights, tokens as given, float32, lab"]
    assert logits < 1e-4
    assert len(rows) > 60
    for name, there, here, difference, largest in rows:
        # Positions are embedded once for all rows there, and repeated for each here.
        assert (there[1:] if name == "hook_pos_embed" else there) == (here[1:] if name == "hook_pos_embed" else here), (
            name
        )
        if not name.endswith("attn_scores"):  # whose masked entries are infinite
            assert difference <= 1e-4 * max(1.0, largest), name


def test_block_that_branches_acts_as_in_the_page(evaluate_with_lab: Evaluate) -> None:
    difference, effect, count = evaluate_with_lab("""
        count := 0.
        hook := ActivationHook layer: 1 component: #residual action: [ :activation |
            count := count + 1.
            activation norm > 1 ifTrue: [ activation * 0.5 ] ifFalse: [ activation ] ].
        plain := theirs forward: text.
        there := theirs withHooks: {hook} do: [ theirs forward: text ].
        here := mine withHooks: {hook} do: [ mine forward: text ].
        Json write: {(there logits - here logits) abs max. (there logits - plain logits) abs max. count}""")
    assert difference < 1e-4
    assert effect > 0.1
    assert count == 2


@pytest.mark.parametrize(
    "hook",
    [
        "InterventionHook zero: 'blocks.2.attn.hook_z' at: {#head -> 1}",
        "InterventionHook scale: 'blocks.1.hook_resid_post' by: 0.5 at: {#position -> -1}",
        "InterventionHook add: direction to: 'blocks.0.hook_resid_post'",
        "InterventionHook projectOut: direction from: 'blocks.1.hook_resid_pre'",
    ],
)
def test_interventions_as_data_act_as_in_the_page(evaluate_with_lab: Evaluate, hook: str) -> None:
    difference, effect = evaluate_with_lab(f"""
        direction := ActivationTensor fromNumbers: ((1 to: 128) collect: [ :each | each sin ]) shape: #(128).
        hook := {hook}.
        plain := theirs forward: text.
        there := theirs withHooks: {{hook}} do: [ theirs forward: text ].
        here := mine withHooks: {{hook}} do: [ mine forward: text ].
        Json write: {{(there logits - here logits) abs max. (there logits - plain logits) abs max}}""")
    assert difference < 1e-4
    assert effect > 1e-3


def test_generation_keeps_hooks_alive_and_captures(evaluate_with_lab: Evaluate) -> None:
    there, here, offsets, difference, texts = evaluate_with_lab("""
        run := [ :model | | offsets hook generation |
            offsets := OrderedCollection new.
            hook := ActivationHook layer: 1 component: #residual action: [ :activation |
                offsets add: activation offset. activation * 0.9 ].
            generation := model
                withHooks: {hook}
                do: [ model
                    generate: text
                    with: (GenerationOptions maxTokens: 5)
                    names: #('blocks.2.hook_resid_post')
                    do: [ :token | ] ].
            {generation. offsets asArray} ].
        there := run value: theirs.
        here := run value: mine.
        Json write: {there first tokens. here first tokens. {there second. here second}.
            ((there first cachedActivations at: 'blocks.2.hook_resid_post')
                - (here first cachedActivations at: 'blocks.2.hook_resid_post')) abs max.
            {there first text. here first text}}""")
    assert there == here
    assert len(there) > 0
    assert offsets[0] == offsets[1]
    assert offsets[0][:2] == [0, 15]  # the prompt's pass, then one a token, until the text ends
    assert difference < 1e-3
    assert texts[0] == texts[1]


def test_lens_and_part_of_the_layers_are_offered(evaluate_with_lab: Evaluate) -> None:
    lens, stopped, positions = evaluate_with_lab("""
        cached := theirs runWithCaching: text names: #('blocks.3.hook_resid_post' 'blocks.2.hook_resid_pre').
        at := theirs runWithCaching: text names: #('blocks.2.hook_resid_pre') positions: #(-1).
        Json write: {
            ((theirs logitsOf: (cached cachedActivations at: 'blocks.3.hook_resid_post')) - cached logits) abs max.
            ((theirs runToLayer: 2 on: text) residual
                - (cached cachedActivations at: 'blocks.2.hook_resid_pre')) abs max.
            ((at cachedActivations at: 'blocks.2.hook_resid_pre') at: 0 at: 0) asArray
                = ((cached cachedActivations at: 'blocks.2.hook_resid_pre') at: 0 at: -1) asArray}""")
    assert lens < 1e-4
    assert stopped == 0
    assert positions is True


@pytest.mark.parametrize(
    ("source", "name", "sentence"),
    [
        ("theirs gradientsOf: [ :l | l mean ] at: 'blocks.1.hook_resid_post' for: text", "LabRefused", "no gradients"),
        ("theirs forward: 'a' cache: theirs newCache", "LabRefused", "keys and values"),
        ("theirs forward: #(99999)", "TokenOutOfVocabulary", "99999"),
        ("theirs runWithCaching: text names: #('blocks.1.hook_resid_pots')", "UnknownHook", "hook_resid_post"),
        ("RemoteTransformerModel named: 'gpt5'", "BundleRefused", "was not allowed"),
        ("RemoteTransformerModel named: 'demo' at: 'http://127.0.0.1:9'", "FetchFailed", "neuroscope serve"),
    ],
)
def test_what_a_lab_does_not_do_is_told_in_a_sentence(
    evaluate_with_lab: Evaluate, source: str, name: str, sentence: str
) -> None:
    stderr = evaluate_with_lab(source, fails=True)
    assert stderr.startswith(f"{name}: "), stderr
    assert sentence in stderr.splitlines()[0]


def test_error_in_a_block_ends_the_pass_in_the_lab(evaluate_with_lab: Evaluate) -> None:
    caught, after = evaluate_with_lab("""
        hook := ActivationHook layer: 1 component: #residual action: [ :activation | 1 / 0 ].
        caught := [ theirs withHooks: {hook} do: [ theirs forward: text ] ] on: ZeroDivide do: [ :error | 'caught' ].
        Json write: {caught. (theirs forward: text) logits shape}""")
    assert caught == "caught"
    assert after[0] == 1
