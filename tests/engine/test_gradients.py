"""Gradients of a taped pass against PyTorch's: every plain hook point, three numbers, interventions, replaced values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_checkpoints import Checkpoint
from engine_oracle import bridge_of
from engine_places import PLACES, run
from gradient_oracle import NUMBERS, Edit, Script, far, numbers_of, reference_logits, torch_gradients


def plain_names(layers: int) -> list[str]:
    norm = ["hook_scale", "hook_normalized"]
    attention = ["hook_q", "hook_k", "hook_v", "hook_attn_scores", "hook_pattern", "hook_z"]
    block = [
        "hook_resid_pre", *[f"ln1.{each}" for each in norm], *[f"attn.{each}" for each in attention],
        "hook_attn_out", "hook_resid_mid", *[f"ln2.{each}" for each in norm],
        "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post",
    ]  # fmt: skip
    inner = [f"blocks.{layer}.{each}" for layer in range(layers) for each in block]
    ends = ["hook_embed", "hook_pos_embed"], [f"ln_final.{each}" for each in norm], ["unembed.hook_in", "unembed.hook_out"]
    return [*ends[0], *inner, *ends[1], *ends[2]]


def compare(
    where: str,
    backend: str,
    checkpoint: Checkpoint,
    request: pytest.FixtureRequest,
    edits: dict[str, Edit] | None = None,
    names: list[str] | None = None,
    **forward: Any,
) -> None:
    """Fails where a gradient is off; `forward` does to the engine's pass what `edits` do to PyTorch's."""
    wanted = names or plain_names(checkpoint.config["n_layer"])
    theirs = torch_gradients(bridge_of(checkpoint), checkpoint.tokens, wanted, edits)
    shape = theirs["divergence"]["unembed.hook_out"].shape
    script = Script()
    for build in forward.pop("before", []):
        forward.update(build(script))
    captured, logits = script.forward(checkpoint.tokens, wanted, **forward)
    order = []
    for number, (messages, _) in NUMBERS.items():
        of = messages(script, logits, checkpoint.tokens, reference_logits(shape))
        script.read(script.gradient(of, captured))
        order += [(number, name) for name in captured]
    job = {"bundle": checkpoint.folder, "passes": [], "script": script.steps}
    [result] = run(where, backend, [job], request)
    assert "script" in result, result
    ours: dict[str, dict[str, np.ndarray]] = {number: {} for number in NUMBERS}
    for (number, name), gradient in zip(order, numbers_of(result["script"]), strict=True):
        ours[number][name] = gradient
    off = {number: far(ours[number], theirs[number]) for number in NUMBERS}
    assert not any(off.values()), off
    assert all(np.abs(gradient).max() > 0 for gradient in ours["cross-entropy"].values()), "nothing was compared"


@pytest.mark.parametrize(("where", "backend"), PLACES)
@pytest.mark.parametrize("shape", ["odd", "exact", "untied"])
def test_gradients_to_every_plain_hook_point_equal_pytorch(
    shape: str, where: str, backend: str, checkpoints: dict[str, Checkpoint], request: pytest.FixtureRequest
) -> None:
    compare(where, backend, checkpoints[shape], request)
