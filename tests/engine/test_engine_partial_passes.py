"""Partial, padded and cached passes of every backend against PyTorch's whole ones, hook by hook."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_checkpoints import Checkpoint
from engine_oracle import TOLERANCE, bridge_of, cache_of
from engine_places import PLACES, run
from engine_script import Script

HOOKS = [
    "blocks.0.attn.hook_k",
    "blocks.1.attn.hook_pattern",
    "blocks.1.attn.hook_z",
    "blocks.1.mlp.hook_post",
    "blocks.1.hook_resid_post",
    "unembed.hook_out",
]


def whole(checkpoint: Checkpoint, tokens: list[list[int]], bridge: Any) -> dict[str, np.ndarray]:
    each = Checkpoint(checkpoint.folder, tokens, checkpoint.config)
    return {**cache_of(bridge, each), "logits": each.logits()}


@pytest.fixture(scope="module")
def batch(checkpoints: dict[str, Checkpoint]) -> dict[str, np.ndarray]:
    checkpoint = checkpoints["odd"]
    return whole(checkpoint, checkpoint.tokens, bridge_of(checkpoint))


@pytest.fixture(scope="module")
def rows(checkpoints: dict[str, Checkpoint]) -> list[tuple[list[int], dict[str, np.ndarray]]]:
    """Rows of several lengths, and what each alone gives."""
    checkpoint = checkpoints["round"]
    bridge = bridge_of(checkpoint)
    tokens = [checkpoint.tokens[0][:5], checkpoint.tokens[1], checkpoint.tokens[0][1:]]
    return [(row, whole(checkpoint, [row], bridge)) for row in tokens]


def close(ours: np.ndarray, theirs: np.ndarray, what: str) -> None:
    assert ours.shape == theirs.shape, what
    difference = np.abs(ours - theirs).max()
    assert difference <= TOLERANCE, f"{what}: {difference}"


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_passes_over_some_layers_and_positions_are_parts_of_the_whole(where, backend, checkpoints, batch, request):
    checkpoint = checkpoints["odd"]
    tokens, theirs, cut = checkpoint.tokens, batch, 7
    script = Script()
    stream = script.create(theirs["blocks.1.hook_resid_pre"])
    script.forward(HOOKS[1:], start={"layer": 1, "tensor": stream}, logits=True)
    script.forward([], tokens=tokens, stop=1, residual=True)
    cache = script.cache()
    script.forward([], tokens=[row[:cut] for row in tokens], cache=cache)
    for keep in (cut, cut, 3):
        script.forward(HOOKS, tokens=[row[keep:] for row in tokens], cache=cache, keep=keep, logits=True)
    script.forward([{"name": "blocks.1.hook_resid_post", "positions": [-1, 4]}], tokens=tokens)
    script.forward([], tokens=tokens, logits=True, logitPositions=[2, -1])
    [result] = run(where, backend, [{"bundle": checkpoint.folder, "passes": [], "script": script.steps}], request)
    started, stopped, _, *cached, positions, last = script.results(result)
    for name, value in started.items():
        close(value, theirs[name], f"started: {name}")
    close(stopped["residual"], theirs["blocks.1.hook_resid_pre"], "stopped")
    for keep, values in zip((cut, cut, 3), cached, strict=True):
        for name, value in values.items():
            rest = theirs[name][:, :, keep:] if name.endswith("pattern") else theirs[name][:, keep:]
            close(value, rest, f"behind {keep} cached positions: {name}")
    close(positions["blocks.1.hook_resid_post"], theirs["blocks.1.hook_resid_post"][:, [-1, 4]], "named positions")
    close(last["logits"], theirs["logits"][:, [2, -1]], "chosen logits")


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_padding_filled_with_nan_changes_no_number(where, backend, checkpoints, rows, request):
    checkpoint = checkpoints["round"]
    lengths, width = [len(row) for row, _ in rows], checkpoint.config["n_embd"]
    script = Script()
    nan = script.create(np.full(width, np.nan, dtype=np.float32))
    for side in ("right", "left"):
        tokens, interventions = [], []
        for at, (row, _) in enumerate(rows):
            fill = 33 - len(row)
            tokens.append([*row, *[0] * fill] if side == "right" else [*[0] * fill, *row])
            padding = list(range(len(row), 33)) if side == "right" else list(range(fill))
            if fill:
                place = {"batch": at, "position": padding}
                interventions.append({"hook": "blocks.0.hook_resid_pre", "action": "set", "tensor": nan, "at": place})
        script.forward(
            HOOKS, tokens=tokens, interventions=interventions, padding={"side": side, "lengths": lengths}, logits=True
        )
    [result] = run(where, backend, [{"bundle": checkpoint.folder, "passes": [], "script": script.steps}], request)
    for side, values in zip(("right", "left"), script.results(result), strict=True):
        for row, (tokens, theirs) in enumerate(rows):
            real = slice(0, len(tokens)) if side == "right" else slice(33 - len(tokens), 33)
            for name, value in values.items():
                ours = value[row : row + 1, :, real, real] if name.endswith("pattern") else value[row : row + 1, real]
                close(ours, theirs[name], f"{side}, row {row}: {name}")
