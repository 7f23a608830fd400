"""Both engines of the lab, by one set of tests: against TransformerLens, transformers, and sums written out."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from engine_models import BOTH, ENGINES, TORCH_ONLY, assert_close, blocks, bridge, checkpoint, model, plain, tokens
from neuroscope.errors import LabError
from neuroscope.lab.interventions import Intervention
from neuroscope.lab.model import LabModel, Watch

OPTIONAL = ("hook_result", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in")
STREAM = "blocks.0.hook_resid_post"
EVERY = [("mlx", name) for name in BOTH] + [("torch", name) for name in (*BOTH, *TORCH_ONLY)]
FEW = [(engine, name) for engine in ENGINES for name in ("gpt2", "gemma3")]


def plain_hooks(lab: LabModel) -> list[str]:
    """Those that need no switch."""
    return [name for name in lab.description.hooks if not name.endswith(OPTIONAL)]


@pytest.mark.parametrize("engine,name", EVERY)
def test_every_offered_hook_has_the_value_that_transformer_lens_gives_it(engine: str, name: str) -> None:
    lab = model(engine, name)
    hooks = plain_hooks(lab)
    step = lab.forward(tokens(name), Watch(captures=hooks))
    with torch.no_grad():
        logits, right = bridge(name).run_with_cache(torch.tensor(tokens(name)))
    assert set(step.activations) == set(hooks)
    for hook in hooks:
        value = step.activations[hook]
        if hook.endswith(("hook_pos_embed", "pos_embed.hook_in", "pos_embed.hook_out")):
            value = np.broadcast_to(value, right[hook].shape)  # the same for all rows, and computed once
        assert_close(value, right[hook].float().numpy(), hook)
    assert_close(step.logits, logits.float().numpy(), "logits")


@pytest.mark.parametrize("engine,name", EVERY)
def test_residual_streams_are_the_hidden_states_of_transformers(engine: str, name: str) -> None:
    lab = model(engine, name)
    layers = lab.description.layers
    step = lab.forward(tokens(name), Watch(captures=[f"blocks.{layer}.hook_resid_pre" for layer in range(layers)]))
    with torch.no_grad():
        right = plain(name)(torch.tensor(tokens(name)), output_hidden_states=True)
    for layer in range(layers):
        pre = f"blocks.{layer}.hook_resid_pre"
        assert_close(step.activations[pre], right.hidden_states[layer].numpy(), pre)
    assert_close(step.logits, right.logits.numpy(), "logits")


@pytest.mark.parametrize("engine,name", EVERY)
def test_the_lens_at_the_end_gives_the_logits(engine: str, name: str) -> None:
    lab = model(engine, name)
    last = f"blocks.{lab.description.layers - 1}.hook_resid_post"
    step = lab.forward(tokens(name), Watch(captures=[last]))
    assert_close(lab.lens(step.activations[last]), step.logits, "lens", 1e-5)


def directions(width: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=width).astype(np.float32)


def changes(width: int, shape: tuple[int, ...]) -> list[tuple[Intervention, Any]]:
    """Interventions at positions 2 and -1, each with the sum that it stands for."""
    at = {"position": [2, -1]}
    vector = directions(width)
    whole = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    unit = vector / np.linalg.norm(vector)
    return [
        (Intervention(STREAM, "zero", at), lambda x: 0 * x),
        (Intervention(STREAM, "scale", at, number=-0.5), lambda x: -0.5 * x),
        (Intervention(STREAM, "add", {**at, "neuron": [3]}, number=0.25), lambda x: x + 0.25 * (np.arange(width) == 3)),
        (Intervention(STREAM, "add", at, tensor=vector, times=2.0), lambda x: x + 2 * vector),
        (Intervention(STREAM, "set", at, number=0.125), lambda x: 0 * x + 0.125),
        (Intervention(STREAM, "set", at, tensor=vector), lambda x: 0 * x + vector),
        (Intervention(STREAM, "patch", at, tensor=whole), lambda x: whole[:, [2, -1]]),
        (Intervention(STREAM, "projectOut", at, tensor=vector), lambda x: x - (x @ unit)[..., None] * unit),
    ]


@pytest.mark.parametrize("engine,name", FEW)
@pytest.mark.parametrize("number", range(8))
def test_an_intervention_is_the_sum_that_it_stands_for(engine: str, name: str, number: int) -> None:
    lab = model(engine, name)
    ids = torch.tensor(tokens(name))
    change, by_hand = changes(lab.description.width, (*ids.shape, lab.description.width))[number]
    step = lab.forward(tokens(name), Watch(captures=[STREAM], interventions=[change]))

    made = []

    def replace(module: Any, inputs: Any, output: Any) -> Any:
        stream = output[0] if isinstance(output, tuple) else output
        changed = stream.clone()
        changed[:, [2, -1]] = torch.tensor(np.asarray(by_hand(stream[:, [2, -1]].numpy()), np.float32))
        made.append(changed.numpy())
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = blocks(name)[0].register_forward_hook(replace)
    try:
        with torch.no_grad():
            right = plain(name)(ids)
    finally:
        handle.remove()
    assert_close(step.activations[STREAM], made[0], STREAM)
    assert_close(step.logits, right.logits.numpy(), "logits")
    assert np.abs(step.logits - lab.forward(tokens(name), Watch()).logits).max() > 1e-3


@pytest.mark.parametrize("awaits", [False, True], ids=["intervention", "answer"])
@pytest.mark.parametrize("engine,name", [(engine, name) for engine in ENGINES for name in ("gpt2", "llama", "gemma3")])
def test_a_change_in_the_middle_of_a_block_changes_the_stream(engine: str, name: str, awaits: bool) -> None:
    """By hand: what attention adds to the stream is made to add the change as well. TransformerLens's own point there
    changes only what the feed-forward part reads."""
    lab = model(engine, name)
    ids = torch.tensor(tokens(name))
    middle, end = "blocks.0.hook_resid_mid", STREAM
    vector = directions(lab.description.width)
    block = blocks(name)[0]
    attention = getattr(block, "attn", None) or block.self_attn
    reads, adds = block, block.post_attention_layernorm if name == "gemma3" else attention
    stream: list[torch.Tensor] = []

    def change(middle: torch.Tensor) -> torch.Tensor:
        return torch.cat([middle[:, :2], -0.5 * middle[:, 2:3] + torch.tensor(vector), middle[:, 3:]], 1)

    def read(module: Any, inputs: Any, options: Any) -> None:
        stream.append(inputs[0] if inputs else options["hidden_states"])

    def add(module: Any, inputs: Any, output: Any) -> Any:
        made = output[0] if isinstance(output, tuple) else output
        changed = change(stream[-1] + made) - stream[-1]
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handles = [reads.register_forward_pre_hook(read, with_kwargs=True), adds.register_forward_hook(add)]
    try:
        with torch.no_grad():
            right = plain(name)(ids, output_hidden_states=True)
    finally:
        for handle in handles:
            handle.remove()

    at = {"position": [2]}
    asked = [Intervention(middle, "scale", at, number=-0.5), Intervention(middle, "add", at, tensor=vector)]
    watch = Watch(captures=[end], interventions=asked)
    if awaits:
        watch = Watch([end], awaited=[middle], on_hook=lambda _, value: change(torch.tensor(value)).numpy())
    step = lab.forward(tokens(name), watch)
    assert_close(step.activations[end], right.hidden_states[1].numpy(), end)
    assert_close(step.logits, right.logits.numpy(), "logits")
    assert np.abs(step.logits - lab.forward(tokens(name), Watch()).logits).max() > 1e-3


@pytest.mark.parametrize("engine,name", FEW)
def test_a_head_is_ablated_alone(engine: str, name: str) -> None:
    lab = model(engine, name)
    hook = "blocks.1.attn.hook_z"
    before = lab.forward(tokens(name), Watch(captures=[hook])).activations[hook]
    watch = Watch(captures=[hook], interventions=[Intervention(hook, "zero", {"head": [1], "batch": [-1]})])
    after = lab.forward(tokens(name), watch).activations[hook]
    right = before.copy()
    right[-1, :, 1] = 0
    assert_close(after, right, hook, 1e-6)


@pytest.mark.parametrize("engine,name", [(engine, name) for engine in ENGINES for name in ("gpt2", "llama", "gemma3")])
def test_a_cached_pass_sees_and_changes_what_the_whole_pass_does(engine: str, name: str) -> None:
    """Gemma 3's cache keeps 4 positions in two of three layers."""
    lab = model(engine, name)
    ids = tokens(name)
    hooks = [
        hook for hook in plain_hooks(lab) if hook.endswith(("hook_resid_post", "hook_pattern", "hook_k", "attn.hook_z"))
    ]
    watch = Watch(captures=hooks, interventions=[Intervention(STREAM, "scale", {"position": [1, 8]}, number=-2.0)])
    whole = lab.forward(ids, watch)
    past = None
    for start, end in [(0, 6), (6, 7), (7, 8), (8, 9), (9, 11)]:
        step = lab.forward([row[start:end] for row in ids], watch, past=past)
        past = step.past
        assert_close(step.logits, whole.logits[:, start:end], f"logits of {start}")
        for hook in hooks:
            right = whole.activations[hook]
            if hook.endswith("hook_pattern"):
                keys = step.activations[hook].shape[-1]
                right = right[:, :, start:end, end - keys : end]
            else:
                right = right[:, start:end]
            assert_close(step.activations[hook], right, f"{hook} from {start}")


@pytest.mark.parametrize("engine,name", FEW)
def test_only_the_last_logits_come_where_they_are_enough(engine: str, name: str) -> None:
    lab = model(engine, name)
    whole, last = (lab.forward(tokens(name), Watch(), last_only=only).logits for only in (False, True))
    assert_close(last, whole[:, -1:], "logits", 1e-5)


@pytest.mark.parametrize("engine,name", FEW)
def test_an_awaited_hook_takes_the_answer_and_keeps_the_value_without_one(engine: str, name: str) -> None:
    lab = model(engine, name)
    seen: list[tuple[str, np.ndarray]] = []

    def answer(hook: str, value: np.ndarray) -> np.ndarray | None:
        seen.append((hook, value))
        return None if hook.startswith("blocks.1") else value * 3

    names = [STREAM, "blocks.1.hook_resid_post"]
    step = lab.forward(tokens(name), Watch(captures=names, awaited=names, on_hook=answer))
    tripled = Watch(captures=names, interventions=[Intervention(STREAM, "scale", number=3.0)])
    right = lab.forward(tokens(name), tripled)
    assert [hook for hook, _ in seen] == names
    assert_close(step.activations[STREAM], seen[0][1] * 3, STREAM, 1e-6)
    assert_close(step.activations[names[1]], right.activations[names[1]], names[1], 1e-5)
    assert_close(step.logits, right.logits, "logits", 1e-5)


@pytest.mark.parametrize("engine,name", EVERY)
def test_expected_bytes_are_those_that_come(engine: str, name: str) -> None:
    lab = model(engine, name)
    ids = tokens(name)
    hooks = plain_hooks(lab)
    first = lab.forward([row[:7] for row in ids], Watch(captures=hooks))
    second = lab.forward([row[7:9] for row in ids], Watch(captures=hooks), past=first.past)
    for step, positions, cached in ((first, 7, 0), (second, 2, 7)):
        expected = {hook: lab.expected_bytes(hook, 2, positions, cached) for hook in hooks}
        assert expected == {hook: step.activations[hook].nbytes for hook in hooks}


@pytest.mark.parametrize("engine,name", FEW)
def test_two_rows_are_two_texts(engine: str, name: str) -> None:
    lab = model(engine, name)
    both = lab.forward(tokens(name), Watch(captures=[STREAM]))
    for number, row in enumerate(tokens(name)):
        alone = lab.forward([row], Watch(captures=[STREAM]))
        assert_close(both.activations[STREAM][number : number + 1], alone.activations[STREAM], STREAM, 1e-5)
        assert_close(both.logits[number : number + 1], alone.logits, "logits", 1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "rows,sentence",
    [
        ([[1, 2], [1]], "The rows have 2, 1 tokens"),
        ([], "The rows have no tokens"),
        ([[]], "The rows have 0 tokens"),
        ([[61]], "Token 61 is outside the vocabulary, which has 0 to 60"),
        ([[-1]], "Token -1 is outside"),
        ([[1] * 14], "The pass would reach position 13, and the model's positions are 0 to 12"),
    ],
)
def test_rows_that_no_pass_can_run_are_refused(engine: str, rows: list[list[int]], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        model(engine, "gpt2").forward(rows, Watch())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype,tolerance", [("float16", 0.02), ("bfloat16", 0.2)])
def test_half_precision_gives_float32_values_near_the_right_ones(engine: str, dtype: str, tolerance: float) -> None:
    lab = model(engine, "llama", dtype)
    step = lab.forward(
        tokens("llama"), Watch(captures=[STREAM], interventions=[Intervention(STREAM, "scale", number=1.0)])
    )
    right = model("torch", "llama").forward(tokens("llama"), Watch(captures=[STREAM]))
    assert lab.description.dtype == dtype
    assert step.activations[STREAM].dtype == step.logits.dtype == np.float32
    difference = np.abs(step.activations[STREAM] - right.activations[STREAM]).max()
    assert 1e-5 < difference < tolerance * np.abs(right.activations[STREAM]).max()


@pytest.mark.parametrize("engine", ENGINES)
def test_two_models_run_in_turns_from_several_threads_and_after_a_pass_that_failed(engine: str) -> None:
    names = ("llama", "mistral")  # mlx-lm has one class for the two
    hooks = [f"blocks.{layer}.attn.{point}" for layer in range(2) for point in ("hook_pattern", "hook_attn_scores")]
    right = {name: model("torch", name).forward(tokens(name), Watch(captures=hooks)) for name in names}
    labs = {name: model(engine, name) for name in names}

    def fail(hook: str, value: np.ndarray) -> np.ndarray:
        # another model runs in the middle of this one's pass
        check("mistral")
        raise RuntimeError("the client went away")

    def check(name: str) -> None:
        step = labs[name].forward(tokens(name), Watch(captures=hooks))
        for hook in hooks:
            assert_close(step.activations[hook], right[name].activations[hook], f"{hook} of {name}")

    with pytest.raises(RuntimeError, match="the client went away"):
        labs["llama"].forward(tokens("llama"), Watch(awaited=["blocks.0.attn.hook_pattern"], on_hook=fail))
    failed: list[BaseException] = []

    def often(name: str) -> None:
        try:
            for _ in range(3):
                check(name)
        except BaseException as error:  # told below, where pytest sees it
            failed.append(error)

    threads = [threading.Thread(target=often, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_without_a_tokenizer_takes_token_ids(engine: str) -> None:
    assert model(engine, "gpt2").tokenizer is None
    assert not (checkpoint("gpt2").folder / "tokenizer.json").exists()
