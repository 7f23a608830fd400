"""The parity tests can fail: each of these mistakes in the engine, or in what it reads, is seen by them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_checkpoints import Checkpoint
from engine_oracle import all_far, bridge_of, cache_of
from engine_places import run_in_node
from mutations import Mutation, config_with, tensor_with


def without_first_third(x: np.ndarray) -> np.ndarray:
    return np.where(np.arange(x.size) < x.size // 3, 0, x).astype(x.dtype)


def nothing(folder: Path) -> None:
    pass


BLOCK = "transformer.h.1."
MUTATIONS: dict[str, tuple[Mutation, list[str]]] = {
    "exact GELU": (config_with(activation_function="gelu"), []),
    "epsilon": (config_with(layer_norm_epsilon=1e-3), []),
    "attention scale": (config_with(scale_attn_weights=False), []),
    "position offset": (tensor_with("transformer.wpe.weight", lambda x: np.roll(x, 1, axis=0)), []),
    "missing query bias": (tensor_with(BLOCK + "attn.c_attn.bias", without_first_third), []),
    "missing output bias": (tensor_with(BLOCK + "mlp.c_proj.bias", np.zeros_like), []),
    "missing norm bias": (tensor_with(BLOCK + "ln_2.bias", np.zeros_like), []),
    "heads swapped": (tensor_with(BLOCK + "attn.c_proj.weight", lambda x: np.roll(x, x.shape[0] // 3, axis=0)), []),
    "mask lets the next key through": (nothing, ["--mask-offset", "1"]),
    "mask hides the query's own key": (nothing, ["--mask-offset", "-1"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def oracle(checkpoints: dict[str, Checkpoint]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    checkpoint = checkpoints["odd"]
    return cache_of(bridge_of(checkpoint), checkpoint), checkpoint.logits()


def captured(folder: Path, checkpoint: Checkpoint, arguments: list[str]) -> dict[str, Any]:
    passes = [{"tokens": checkpoint.tokens, "capture": "on"}]
    [result] = run_in_node([{"bundle": str(folder), "backend": "reference", "passes": passes}], *arguments)
    values: dict[str, Any] = result["passes"][0]
    assert "error" not in values, values
    return values


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_moves_hooks_and_logits_beyond_the_tolerance(
    name: str,
    checkpoints: dict[str, Checkpoint],
    oracle: tuple[dict[str, np.ndarray], np.ndarray],
    tmp_path: Path,
) -> None:
    mutate, arguments = MUTATIONS[name]
    folder = tmp_path / "mutant"
    shutil.copytree(checkpoints["odd"].folder, folder)
    mutate(folder)
    found = all_far(captured(folder, checkpoints["odd"], arguments), *oracle)
    assert len([each for each in found if not each.startswith("logits")]) > 0
    assert any(each.startswith("logits") for each in found), found


def test_the_unchanged_copy_is_within_the_tolerance(
    checkpoints: dict[str, Checkpoint], oracle: tuple[dict[str, np.ndarray], np.ndarray]
) -> None:
    checkpoint = checkpoints["odd"]
    assert all_far(captured(checkpoint.folder, checkpoint, []), *oracle) == []
