"""Exported bundles of every family in the engine: float32 and int8, in Node and in Chromium, on every backend.

The int8 ones are held against PyTorch with the same rounded weights: this is the engine's error, not the rounding's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import RECIPES
from distances import TOLERANCE, too_far
from engine_checkpoints import unpack
from engine_places import PLACES as ALL_PLACES
from engine_places import run
from mutations import Mutation, config_with, tensor_with
from neuroscope.export import manifest
from neuroscope.export.bundle import export_bundle
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.oracles import TorchOracle
from neuroscope.export.processing import compatible

# The reference backend is slow, and its own tests are in tests/engine; here it runs one bundle.
PLACES = [place for place in ALL_PLACES if place != ("node", "reference")]


def numbers(result: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the first pass of a job captured."""
    assert "error" not in result, result["error"]
    (captured,) = result["passes"]
    assert "error" not in captured, captured["error"]
    return {name: unpack(packed) for name, packed in captured.items()}


def jobs_of(names: list[str], families: Any, folder_of: Callable[[str], Path]) -> list[dict[str, Any]]:
    return [
        {"bundle": folder_of(name), "passes": [{"tokens": families[name].tokens, "capture": "on"}]} for name in names
    ]


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_every_hook_of_every_family_equals_the_oracles(families, bundle_of, oracle_of, where, backend, request):
    names = list(RECIPES)
    off = {}
    for name, result in zip(names, run(where, backend, jobs_of(names, families, bundle_of), request), strict=True):
        expected = {**oracle_of(name)[1], "logits": families[name].logits()}
        off[name] = too_far(numbers(result), expected)
    assert {name: found for name, found in off.items() if found} == {}


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_int8_bundles_equal_pytorch_with_the_same_rounded_weights(
    families, bundle_of, widened_of, where, backend, request
):
    names = list(RECIPES)
    jobs = jobs_of(names, families, lambda name: bundle_of(name, "int8"))
    off = {}
    for name, result in zip(names, run(where, backend, jobs, request), strict=True):
        off[name] = too_far(numbers(result), widened_of(name))
    assert {name: found for name, found in off.items() if found} == {}


def test_reference_backend_runs_a_bundle_too(families, bundle_of, oracle_of, request):
    (result,) = run("node", "reference", jobs_of(["gemma3"], families, bundle_of), request)
    assert too_far(numbers(result), oracle_of("gemma3")[1]) == []


def test_processed_bundles_run_with_the_biases_that_appeared_and_say_so(families, request, tmp_path):
    names = ["gpt2", "gpt_neo", "gpt_neox_plain", "qwen2", "gemma3"]
    folders, processings = {}, {}
    for name in names:
        source = families[name].folder
        processings[name] = compatible(open_checkpoint(source).architecture)
        made = export_bundle(source, tmp_path / name, processing=processings[name], with_reference=False)
        folders[name] = made.folder
    results = run("node", "wasm", jobs_of(names, families, folders.__getitem__), request)
    for name, result in zip(names, results, strict=True):
        assert too_far(numbers(result), TorchOracle(folders[name]).activations(families[name].tokens)) == [], name
        assert result["loaded"]["basis"]["weights"] == processings[name].describe()


# Mistakes in what the engine reads: each must be seen, so that the tests above would see it in the engine.


def halves_swapped(x: np.ndarray) -> np.ndarray:
    return np.roll(x, x.shape[0] // 2, axis=0)


BLOCK = "model.layers.1."
MUTATIONS: dict[str, tuple[str, str, Mutation]] = {
    "window one wider": ("mistral", "float32", config_with(sliding_window=5)),
    "score cap left out": ("gemma2", "float32", config_with(attn_logit_softcapping=None)),
    "another share is turned": ("phi3", "float32", config_with(rope_parameters={"rope_theta": 400.0})),
    "one expert less": ("gpt_oss", "float32", config_with(num_experts_per_tok=1)),
    "gate and linear exchanged": ("phi3", "float32", tensor_with(BLOCK + "mlp.gate_up_proj.weight", halves_swapped)),
    "sinks left out": ("gpt_oss", "float32", tensor_with(BLOCK + "self_attn.sinks", lambda x: np.full_like(x, -1e4))),
    "queries not normed by their weight": (
        "qwen3", "float32", tensor_with(BLOCK + "self_attn.q_norm.weight", np.ones_like),
    ),
    "norm's weight without its 1": (
        "gemma2", "float32", tensor_with(BLOCK + "post_attention_layernorm.weight", lambda x: x - 1),
    ),
    "positions off by one": (
        "opt", "float32", tensor_with("model.decoder.embed_positions.weight", lambda x: np.roll(x, 1, axis=0)),
    ),
    "codes one row off": ("llama", "int8", tensor_with(BLOCK + "mlp.down_proj.weight", lambda x: np.roll(x, 1, 0))),
    "factors of other outputs": (
        "llama", "int8", tensor_with(BLOCK + "self_attn.q_proj.weight.scale", lambda x: np.roll(x, 1)),
    ),
    "experts' factors exchanged": (
        "gpt_oss", "int8", tensor_with(BLOCK + "mlp.experts.down_proj.scale", lambda x: np.roll(x, 1, axis=0)),
    ),
}  # fmt: skip


def test_each_mistake_in_a_bundle_is_seen(families, bundle_of, oracle_of, widened_of, request, tmp_path):
    jobs = []
    for case, (name, dtype, mutate) in MUTATIONS.items():
        folder = tmp_path / case.replace(" ", "_").replace("'", "")
        shutil.copytree(bundle_of(name, dtype), folder)
        mutate(folder)
        fields = {key: value for key, value in manifest.read_manifest(folder).items() if key not in ("format", "files")}
        manifest.write_manifest(folder, **fields)
        jobs += jobs_of([name], families, lambda _, folder=folder: folder)
    unseen = []
    results = run("node", "wasm", jobs, request)
    for (case, (name, dtype, _)), result in zip(MUTATIONS.items(), results, strict=True):
        expected = oracle_of(name)[1] if dtype == "float32" else widened_of(name)
        if not too_far(numbers(result), expected, 2 * TOLERANCE):
            unseen.append(case)
    assert unseen == []
