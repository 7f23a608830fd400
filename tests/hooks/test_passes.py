"""Passes in Smalltalk against TransformerLens and transformers: hooks, batches, generation; and what passes leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

Evaluate = Callable[..., str]

TEXT = "When Mary and John went to the store, John gave a drink to"
TOLERANCE = 1e-4  # float32 on both sides, sums of at most a few hundred terms
PRELUDE = f"model := TransformerModel fromHuggingFace: 'neuroscope-demo'. text := '{TEXT}'"
PROMPTS = ["The cat", "Once upon a time", "Mary gave John", "One day, a little girl named Lily found"]


@pytest.fixture(scope="module")
def bridge(demo_bundle: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        tokenizer = AutoTokenizer.from_pretrained(demo_bundle)
        yield TransformerBridge.boot_transformers(
            str(demo_bundle), tokenizer=tokenizer, device="cpu", dtype=torch.float32
        )


@pytest.fixture(scope="module")
def tokenizer(demo_bundle: Path) -> Any:
    return AutoTokenizer.from_pretrained(demo_bundle)


def ids(tokenizer: Any, text: str) -> torch.Tensor:
    return torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text)]])


def run(evaluate: Evaluate, source: str) -> Any:
    """Evaluates a program whose last expression is written as JSON."""
    return json.loads(evaluate(PRELUDE, source, raw=True))


def test_every_hook_that_is_on_agrees_with_transformer_lens(evaluate: Evaluate, bridge: Any, tokenizer: Any) -> None:
    """The norm, and some sums over positions, so that a permutation shows too."""
    ours = run(
        evaluate,
        """| cache |
        cache := (model runWithCaching: text) cachedActivations.
        Json write: (cache keys collect: [ :each | | tensor |
            tensor := cache at: each.
            {each. tensor shape. tensor norm. (tensor sumAxis: 1) asArray first: (4 min: tensor shape last)} ])""",
    )
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids(tokenizer, TEXT))
    assert len(ours) > 60
    for name, shape, norm, sums in ours:
        theirs = cache[name]
        assert shape == list(theirs.shape), name
        if name.endswith("hook_attn_scores"):
            theirs = torch.where(theirs < -1e30, torch.zeros(()), theirs)
            assert norm == pytest.approx(float(theirs.norm()), rel=1e-4), name
            continue
        assert norm == pytest.approx(float(theirs.norm()), rel=1e-4), name
        assert sums == pytest.approx(theirs.sum(1).flatten()[: len(sums)].tolist(), rel=1e-3, abs=1e-3), name


def test_masked_scores_read_as_minus_infinity(evaluate: Evaluate) -> None:
    scores, patterns, text = run(
        evaluate,
        """| cache head |
        cache := (model runWithCaching: #(5 6 7) layers: #(0) components: #(attention_scores attention_pattern))
            cachedActivations.
        head := [ :name | (cache at: 0 -> name) at: 0 at: 0 ].
        Json write: {
            (head value: #attention_scores) asArray collect: [ :each | each = Float negativeInfinity ].
            (head value: #attention_pattern) asNestedArray.
            (head value: #attention_scores) asJsonString}""",
    )
    assert scores == [False, True, True, False, False, True, False, False, False]
    assert np.allclose(np.sum(patterns, axis=1), 1, atol=1e-6)
    assert [patterns[0][1], patterns[0][2], patterns[1][2]] == [0, 0, 0]
    data = json.loads(text)["data"]
    assert data[0][1:] == [None, None]
    assert None not in data[2]


def test_hooks_that_are_off_are_there_when_they_are_named(
    evaluate: Evaluate, bridge: Any, tokenizer: Any, demo_bundle: Path
) -> None:
    """hook_result against z times the output matrix, head by head; a hook on it acts."""
    result, out, changed, warned = run(
        evaluate,
        """| cache output scaled |
        cache := (model runWithCaching: text names: #('blocks.1.attn.hook_result' 'blocks.1.hook_attn_out'))
            cachedActivations.
        output := model
            withHooks: {ActivationHook name: 'blocks.1.attn.hook_result' action: [ :a | a * 0 ]}
            do: [ model runWithCaching: text names: #('blocks.1.hook_attn_out') ].
        scaled := model runWithCaching: text names: [ :name | name endsWith: 'hook_result' ].
        Json write: {
            ((cache at: 1 -> 'attn.hook_result') at: 0 at: -1) asNestedArray.
            ((cache at: 1 -> #attention) at: 0 at: -1) asArray.
            ((output cachedActivations at: 1 -> #attention) at: 0 at: -1) asArray.
            scaled cachedActivations size}""",
    )
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids(tokenizer, TEXT))
    weights = load_file(demo_bundle / "model.safetensors")
    prefix = next(name for name in weights if name.endswith("h.1.attn.c_proj.weight")).removesuffix("weight")
    matrix, bias = weights[prefix + "weight"].float(), weights[prefix + "bias"].float()
    z = cache["blocks.1.attn.hook_z"][0, -1]
    heads, width = z.shape
    expected = torch.einsum("hk,hkd->hd", z, matrix.reshape(heads, width, -1))
    assert np.allclose(np.array(result), expected.numpy(), atol=TOLERANCE)
    assert np.allclose(np.sum(result, axis=0) + bias.numpy(), out, atol=TOLERANCE)
    assert np.allclose(changed, bias.numpy(), atol=TOLERANCE)
    assert warned == 0


def test_two_blocks_and_an_intervention_at_one_name_act_as_the_manual_says(
    evaluate: Evaluate, bridge: Any, tokenizer: Any
) -> None:
    """Interventions first, then blocks in the order in which they were added."""
    ours = run(
        evaluate,
        """| output |
        output := model
            withHooks: {
                ActivationHook layer: 1 component: #residual action: [ :a | a + 1 ].
                ActivationHook layer: 1 component: #residual action: [ :a | a * 2 ].
                InterventionHook scale: 1 -> #residual by: 0.5}
            do: [ model forward: text ].
        Json write: (output logits at: 0 at: -1)""",
    )
    with torch.no_grad():
        hooks = [("blocks.1.hook_resid_post", lambda value, hook: (value * 0.5 + 1) * 2)]
        theirs = bridge.run_with_hooks(ids(tokenizer, TEXT), fwd_hooks=hooks)[0, -1]
    assert np.abs(np.array(ours["data"]) - theirs.numpy()).max() < TOLERANCE


def test_a_batch_is_its_rows_and_says_whether_a_token_was_put_in_front(evaluate: Evaluate, tokenizer: Any) -> None:
    rows, alone, bases, tokens = run(
        evaluate,
        """| both first second |
        both := model forward: #('The cat sat' 'The dog sat').
        first := model forward: 'The cat sat'.
        second := model forward: both tokens second.
        Json write: {
            {(both logits at: 0) asArray. (both logits at: 1) asArray}.
            {first logits asArray. second logits asArray}.
            {both basis. first basis. second basis} collect: [ :each | each prependsBos ].
            both tokens}""",
    )
    assert np.abs(np.array(rows) - np.array(alone)).max() < TOLERANCE
    assert bases == [True, True, None]
    assert tokens == [ids(tokenizer, text)[0].tolist() for text in ("The cat sat", "The dog sat")]


def test_generation_is_greedy_token_by_token_as_in_transformers(
    evaluate: Evaluate, demo_bundle: Path, tokenizer: Any
) -> None:
    model = AutoModelForCausalLM.from_pretrained(demo_bundle, dtype=torch.float32, attn_implementation="eager").eval()
    positions = model.config.n_positions
    prompts = "#(" + " ".join(f"'{each}'" for each in PROMPTS) + ")"
    texts, tokens, none, full, bytes_left = run(
        evaluate,
        f"""| before |
        before := Engine default ledger at: 'bytes'.
        Json write: {{
            {prompts} collect: [ :each | model generate: each maxTokens: 12 ].
            {prompts} collect: [ :each | model generateTokens: (model tokenizer encodeWithBos: each) maxTokens: 12 ].
            model generate: 'The cat' maxTokens: 0.
            (model generateTokens: (Array new: {positions - 3} withAll: 5) maxTokens: 50) size.
            ((Engine default request: 'ledger' fields: #()) await at: 'bytes') - before}}""",
    )
    for prompt, text, found in zip(PROMPTS, texts, tokens, strict=True):
        start = ids(tokenizer, prompt)
        with torch.no_grad():
            theirs = model.generate(
                start, attention_mask=torch.ones_like(start), max_new_tokens=12, do_sample=False, pad_token_id=0
            )[0].tolist()
        if theirs[-1] == model.config.eos_token_id and len(theirs) > len(start[0]):
            theirs = theirs[:-1]
        assert found == theirs, prompt
        assert text == tokenizer.decode(theirs[1:])
    assert none == "The cat"
    assert full <= positions
    # Each step lets go of its logits by itself; what is left is small parts of them.
    assert bytes_left < 4 * 2**20


def test_a_hook_acts_in_every_step_of_a_generation(evaluate: Evaluate) -> None:
    lengths, steered, plain = run(
        evaluate,
        """| lengths steered |
        lengths := OrderedCollection new.
        steered := model
            withHooks: {ActivationHook layer: 3 component: #residual action: [ :a |
                lengths add: a offset + (a shape at: 2).
                a tanh * 5 ]}
            do: [ model generateTokens: #(0 5 6) maxTokens: 4 ].
        Json write: {lengths. steered size. (model generateTokens: #(0 5 6) maxTokens: 4) size}""",
    )
    assert lengths == list(range(3, 3 + len(lengths)))
    assert len(lengths) in (steered - 3, steered - 2)  # one more where the last step found the end of the text
    assert plain > 3


def test_a_block_may_post_more_operations_than_may_be_in_flight(evaluate: Evaluate) -> None:
    """The 257th operation waited for all that was posted, the block's own pass included, and so for ever."""
    assert (
        run(
            evaluate,
            """| norm |
        model
            withHooks: {ActivationHook layer: 1 component: #residual action: [ :a | | sum |
                sum := a * 0.
                600 timesRepeat: [ sum := sum + a ].
                norm := sum norm / a norm.
                nil ]}
            do: [ model forward: text ].
        Json write: norm rounded""",
        )
        == 600
    )


def test_a_process_that_is_terminated_in_its_pass_leaves_nothing(evaluate: Evaluate) -> None:
    before, after, passes, same = run(
        evaluate,
        """| plain count before hooks |
        plain := (model forward: text) logits at: 0 at: -1 at: 3.
        count := [ | ledger |
            ledger := Engine default ledger.
            {(ledger at: 'tensors') size. (ledger at: 'passes') size} ].
        hooks := {ActivationHook layer: 1 component: #residual action: [ :a | (a + 1) mean. Semaphore new wait ]}.
        before := count value.
        1 to: 20 do: [ :index | | process |
            process := [ model withHooks: hooks do: [ model runWithCaching: text ] ] fork.
            (Delay forMilliseconds: index * 3) wait.
            process terminate ].
        Json write: {before first. count value first. count value second.
            ((model forward: text) logits at: 0 at: -1 at: 3) = plain}""",
    )
    assert after == before
    assert passes == 0
    assert same is True


def test_forgotten_passes_never_fill_the_engine(evaluate: Evaluate) -> None:
    most, budget, cached = run(
        evaluate,
        """| most ids cached |
        most := cached := 0.
        ids := (1 to: 8) collect: [ :each | Array new: 60 withAll: each ].
        40 timesRepeat: [ | output |
            output := model runWithCaching: ids.
            output cachedActivations do: [ :each | cached := cached + each byteSize ].
            most := most max: ((Engine default request: 'ledger' fields: #()) await at: 'bytes') ].
        Json write: {most. Engine default ledger at: 'budget'. cached}""",
    )
    assert cached > budget / 2
    assert most < budget / 2


def test_an_unloaded_model_says_so_and_its_results_stay(evaluate: Evaluate) -> None:
    same, message, models = run(
        evaluate,
        """| output number message |
        output := model forward: text.
        number := output logits at: 0 at: -1 at: 3.
        model unload.
        message := [ model forward: #(1 2 3). 'none' ]
            on: UnknownModel
            do: [ :error | error return: error messageText ].
        Json write: {
            (output logits at: 0 at: -1 at: 3) = number.
            message.
            (Engine default ledger at: 'models') size}""",
    )
    assert same is True
    assert "not loaded" in message
    assert models == 0
