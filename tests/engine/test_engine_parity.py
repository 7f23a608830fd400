"""Every hook of every backend against TransformerLens, and the logits against transformers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from engine_checkpoints import SHAPES, Checkpoint, pack, unpack
from engine_oracle import TOLERANCE, all_far, bridge_of, cache_of, far
from engine_places import PLACES, run
from neuroscope.project import DEMO_MODEL

OPTIONAL = ["hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in", "attn.hook_result"]


@pytest.fixture(scope="module")
def oracles(checkpoints: dict[str, Checkpoint]) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    return {name: (cache_of(bridge_of(each), each), each.logits()) for name, each in checkpoints.items()}


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_every_hook_equals_transformer_lens(where, backend, checkpoints, oracles, request):
    jobs = [
        {"bundle": each.folder, "passes": [{"tokens": each.tokens, "capture": "on"}]} for each in checkpoints.values()
    ]
    for name, result in zip(checkpoints, run(where, backend, jobs, request), strict=True):
        assert "error" not in result, result["error"]
        captured = result["passes"][0]
        assert "error" not in captured, captured
        assert len(captured) == 17 * SHAPES[name]["n_layer"] + 6 + 1, "the plain set and the logits"
        assert result["loaded"]["backend"] == backend
        cache, logits = oracles[name]
        # TransformerBridge scales the scores even where the config says not to: there only the logits are compared
        compared = {"logits": captured["logits"]} if name == "unscaled" else captured
        assert all_far(compared, cache, logits) == [], name


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_optional_hooks_equal_transformer_lens_and_change_nothing(where, backend, checkpoints, request):
    checkpoint = checkpoints["odd"]
    names = [f"blocks.{layer}.{name}" for layer in range(2) for name in OPTIONAL]
    split = [name for name in names if not name.endswith("attn_in")]
    passes = [
        {"tokens": checkpoint.tokens, "capture": names, "enable": names},
        {"tokens": checkpoint.tokens, "capture": [], "enable": [n for n in names if n.endswith("attn_in")]},
    ]
    [result] = run(where, backend, [{"bundle": checkpoint.folder, "passes": passes}], request)
    bridge = bridge_of(checkpoint)
    bridge.set_use_attn_in(True)
    cache = cache_of(bridge, checkpoint)
    bridge.set_use_attn_in(False)
    bridge.set_use_attn_result(True)
    bridge.set_use_hook_mlp_in(True)
    bridge.set_use_split_qkv_input(True)
    cache |= {name: value for name, value in cache_of(bridge, checkpoint).items() if name in split}
    for captured in result["passes"]:
        assert all_far(captured, cache, checkpoint.logits()) == []


def hooked_logits(bridge: Any, checkpoint: Checkpoint, hook: str, edit: Any) -> np.ndarray:
    with torch.no_grad():
        return bridge.run_with_hooks(torch.tensor(checkpoint.tokens), fwd_hooks=[(hook, edit)]).numpy()


def interventions(checkpoint: Checkpoint, donor: dict[str, np.ndarray]) -> list[tuple[dict[str, Any], Any]]:
    """Each as the engine's data, and as the function that TransformerLens calls with (value, hook)."""
    generator = np.random.default_rng(7)
    batch, width, heads = len(checkpoint.tokens), checkpoint.config["n_embd"], checkpoint.config["n_head"]

    def noise(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    direction, row, rows = noise(width), noise(width), noise(batch, 2, width)
    patched = {name: torch.tensor(donor[name]) for name in donor}

    def at(edit: Any) -> Any:
        def apply(value: torch.Tensor, hook: Any) -> torch.Tensor:
            value = value.clone()
            edit(value)
            return value

        return apply

    def assign(value: torch.Tensor, index: Any, new: Any) -> None:
        value[index] = new

    def project_out(value: torch.Tensor, index: Any = ...) -> None:
        unit = torch.tensor(direction / np.linalg.norm(direction))
        part = value[index]
        value[index] = part - (part @ unit)[..., None] * unit

    z, resid, pattern = "blocks.1.attn.hook_z", "blocks.0.hook_resid_post", "blocks.1.attn.hook_pattern"
    every, last = slice(None), heads - 1
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"hook": z, "action": "zero", "at": {"head": last}}, at(lambda v: assign(v, (every, every, last), 0))),
        ({"hook": z, "action": "zero"}, at(lambda v: assign(v, ..., 0))),
        ({"hook": "blocks.0.mlp.hook_post", "action": "scale", "by": -2.5, "at": {"neuron": [1, 4], "position": -1}},
         at(lambda v: assign(v, (every, -1, [1, 4]), v[:, -1, [1, 4]] * -2.5))),
        ({"hook": resid, "action": "add", "tensor": pack(row), "times": 3, "at": {"position": 2}},
         at(lambda v: assign(v, (every, 2), v[:, 2] + 3 * torch.tensor(row)))),
        ({"hook": resid, "action": "add", "value": 0.5, "at": {"neuron": 0}},
         at(lambda v: assign(v, (..., 0), v[..., 0] + 0.5))),
        ({"hook": resid, "action": "set", "tensor": pack(rows), "at": {"position": [4, 1]}},
         at(lambda v: assign(v, (every, [4, 1]), torch.tensor(rows)))),
        ({"hook": "hook_embed", "action": "set", "value": 0.25, "at": {"batch": 0, "position": [0, 3]}},
         at(lambda v: assign(v, (0, [0, 3]), 0.25))),
        ({"hook": "hook_pos_embed", "action": "scale", "by": -1}, at(lambda v: assign(v, ..., -v))),
        ({"hook": pattern, "action": "set", "value": 0.5, "at": {"head": 1, "position": 3, "key": 3}},
         at(lambda v: assign(v, (every, 1, 3, 3), 0.5))),
        ({"hook": resid, "action": "projectOut", "tensor": pack(direction)}, at(project_out)),
        ({"hook": resid, "action": "projectOut", "tensor": pack(direction), "at": {"position": 1}},
         at(lambda v: project_out(v, (every, 1)))),
    ]  # fmt: skip
    patches: list[tuple[str, dict[str, int], Any]] = [
        (resid, {"position": 2}, (every, 2)), (z, {"head": 0}, (every, every, 0)), (pattern, {}, ...),
        ("blocks.0.hook_attn_out", {}, ...), ("blocks.0.hook_mlp_out", {"batch": 0}, 0), ("hook_embed", {}, ...),
        ("blocks.1.attn.hook_q", {}, ...), ("blocks.1.attn.hook_k", {"position": 0}, (every, 0)),
        ("blocks.1.attn.hook_v", {}, ...), ("blocks.0.mlp.hook_pre", {}, ...),
        ("blocks.0.ln2.hook_normalized", {}, ...),
        ("blocks.1.ln1.hook_scale", {}, ...), ("ln_final.hook_scale", {}, ...), ("ln_final.hook_normalized", {}, ...),
        ("unembed.hook_in", {}, ...), ("unembed.hook_out", {"position": 1}, (every, 1)),
        ("blocks.1.hook_resid_pre", {"position": 0}, (every, 0)),
        ("blocks.1.attn.hook_attn_scores", {"head": 1}, (every, 1)),
    ]  # fmt: skip
    for hook, region, index in patches:
        edit = at(lambda v, hook=hook, index=index: assign(v, index, patched[hook][index]))
        cases.append(({"hook": hook, "action": "patch", "at": region, "tensor": pack(donor[hook])}, edit))
    return cases


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_interventions_equal_transformer_lens(where, backend, checkpoints, request):
    checkpoint = checkpoints["odd"]
    bridge = bridge_of(checkpoint)
    donor_tokens = [list(reversed(row)) for row in checkpoint.tokens]
    donor = cache_of(bridge, Checkpoint(checkpoint.folder, donor_tokens))
    donor = {name: np.where(value < -1e30, -np.inf, value) for name, value in donor.items()}
    cases = interventions(checkpoint, donor)
    passes = [{"tokens": checkpoint.tokens, "capture": [], "interventions": [data]} for data, _ in cases]
    [result] = run(where, backend, [{"bundle": checkpoint.folder, "passes": passes}], request)
    plain = checkpoint.logits()
    for (data, edit), captured in zip(cases, result["passes"], strict=True):
        assert "error" not in captured, (data, captured)
        expected = hooked_logits(bridge, checkpoint, data["hook"], edit)
        assert np.abs(expected - plain).max() > 10 * TOLERANCE, (
            f"{data['hook']} {data['action']}: too weak to show anything"
        )
        assert far(f"{data['hook']} {data['action']} {data.get('at')}", unpack(captured["logits"]), expected) is None


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_resid_mid_is_the_stream_itself(where, backend, checkpoints, request):
    """TransformerBridge's resid_mid is only what the MLP reads; ours is the stream, as its name says. So the oracle is
    an edit of attn_out, which is added to an unedited stream: the sum is the same."""
    checkpoint = checkpoints["odd"]
    shift = np.random.default_rng(3).standard_normal(checkpoint.config["n_embd"]).astype(np.float32)
    edit = {"hook": "blocks.0.hook_resid_mid", "action": "add", "tensor": pack(shift)}
    job = {
        "bundle": checkpoint.folder,
        "passes": [{"tokens": checkpoint.tokens, "capture": [], "interventions": [edit]}],
    }
    [result] = run(where, backend, [job], request)
    expected = hooked_logits(
        bridge_of(checkpoint), checkpoint, "blocks.0.hook_attn_out", lambda v, hook: v + torch.tensor(shift)
    )
    assert far("logits", unpack(result["passes"][0]["logits"]), expected) is None


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_replacements_at_hooks_equal_transformer_lens(where, backend, checkpoints, request):
    checkpoint = checkpoints["round"]
    hooks = {
        "blocks.0.attn.hook_q": 0.3,
        "blocks.1.hook_resid_post": -0.2,
        "blocks.2.mlp.hook_pre": 0.1,
        "hook_embed": 0.05,
    }
    job = {"bundle": checkpoint.folder, "passes": [{"tokens": checkpoint.tokens, "capture": [], "addAtHooks": hooks}]}
    [result] = run(where, backend, [job], request)
    with torch.no_grad():
        expected = bridge_of(checkpoint).run_with_hooks(
            torch.tensor(checkpoint.tokens),
            fwd_hooks=[(name, lambda value, hook, shift=shift: value + shift) for name, shift in hooks.items()],
        )
    assert far("logits", unpack(result["passes"][0]["logits"]), expected.numpy()) is None


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_optional_hooks_intervene_as_in_transformer_lens(where, backend, checkpoints, request):
    checkpoint = checkpoints["odd"]
    names = [f"blocks.1.{name}" for name in OPTIONAL if name not in ("hook_attn_in", "hook_mlp_in")]
    noise = np.random.default_rng(5).standard_normal(checkpoint.config["n_embd"]).astype(np.float32)
    passes = [
        {"tokens": checkpoint.tokens, "capture": [], "enable": [name],
         "interventions": [{"hook": name, "action": "add", "tensor": pack(noise), "at": {"head": 1}}]}
        for name in names
    ]  # fmt: skip
    [result] = run(where, backend, [{"bundle": checkpoint.folder, "passes": passes}], request)
    bridge = bridge_of(checkpoint)
    bridge.set_use_attn_result(True)
    bridge.set_use_split_qkv_input(True)

    def edit(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value = value.clone()
        value[:, :, 1] += torch.tensor(noise)
        return value

    for name, captured in zip(names, result["passes"], strict=True):
        assert far(name, unpack(captured["logits"]), hooked_logits(bridge, checkpoint, name, edit)) is None


@pytest.mark.skipif(not (DEMO_MODEL / "model.safetensors").exists(), reason=f"{DEMO_MODEL} holds no trained checkpoint")
@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_the_trained_demo_model_equals_transformers(where, backend, request):
    config = json.loads((DEMO_MODEL / "config.json").read_text())
    length = min(64, config["n_positions"])
    rows = np.random.default_rng(1).integers(0, config["vocab_size"], (2, length)).tolist()
    checkpoint = Checkpoint(DEMO_MODEL, rows, config)
    job = {"bundle": DEMO_MODEL, "passes": [{"tokens": rows, "capture": []}]}
    [result] = run(where, backend, [job], request)
    assert far("logits", unpack(result["passes"][0]["logits"]), checkpoint.logits()) is None
