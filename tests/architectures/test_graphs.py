"""model.onnx of every family: transformers' logits, and the oracle's number at every hook point; and mutations show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import RECIPES
from distances import TOLERANCE, distance, too_far
from neuroscope.errors import CheckpointError
from neuroscope.export.bundle import export_bundle
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.oracles import LensOracle, TorchOracle, is_run_by_lens
from transformers import AutoModelForCausalLM


def run_graph(bundle: Path, tokens: list[list[int]]) -> dict[str, np.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle / "model.onnx", settings)
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, session.run(names, {"input_ids": np.array(tokens)}), strict=True))
    return {"logits": values["unembed.hook_out"], **values}


@pytest.mark.parametrize("name", RECIPES)
def test_every_hook_point_of_the_graph_equals_the_oracles(families, bundle_of, oracle_of, name):
    found = run_graph(bundle_of(name), families[name].tokens)
    _, expected = oracle_of(name)
    points = {point.name for point in open_checkpoint(bundle_of(name)).architecture.hook_points() if point.on}
    assert points == expected.keys() == found.keys() - {"logits"}
    assert too_far(found, expected) == []
    assert distance(found["logits"], families[name].logits()) <= TOLERANCE


@pytest.mark.parametrize("name", RECIPES)
def test_hooks_on_modules_agree_with_transformer_lens(families, oracle_of, name):
    """The two oracles share little, so where both know a point they watch each other."""
    oracle, expected = oracle_of(name)
    if not isinstance(oracle, LensOracle):
        assert not is_run_by_lens(open_checkpoint(families[name].folder).architecture)
        return
    found = TorchOracle(families[name].folder).activations(families[name].tokens)
    watched = {point: value for point, value in found.items() if point not in oracle.completed}
    assert len(watched) > 0.5 * len(expected)
    assert too_far(expected, watched, 1e-5) == []


@pytest.mark.parametrize("name", RECIPES)
def test_transformers_opens_the_bundle_of_a_family(families, bundle_of, name):
    """Also that of a multimodal checkpoint's text tower, whose other tensors stay behind."""
    model = AutoModelForCausalLM.from_pretrained(bundle_of(name), dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(families[name].tokens)).logits.numpy()
    assert distance(logits, families[name].logits()) <= 1e-6


def test_points_that_transformer_lens_lacks_are_named(oracle_of):
    assert oracle_of("llama")[0].completed == set()
    assert {point.rpartition(".")[2] for point in oracle_of("phi3")[0].completed} == {"hook_rot_q", "hook_rot_k"}
    assert {point.rpartition(".")[2] for point in oracle_of("gpt_neo")[0].completed} == {"hook_attn_scores"}


@pytest.mark.parametrize("name", RECIPES)
def test_int8_graph_equals_pytorch_with_the_same_rounded_weights(families, bundle_of, widened_of, name):
    assert too_far(run_graph(bundle_of(name, "int8"), families[name].tokens), widened_of(name)) == []


def sliding(*layers: int) -> list[str]:
    return ["sliding_attention" if layer in layers else "full_attention" for layer in range(3)]


# Each is a mistake that a graph like this one could have. The weights stay, the configuration is another one.
MUTATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "other activation": ("gpt_neox", {"hidden_act": "gelu_new"}),
    "gate with another activation": ("llama", {"hidden_act": "gelu"}),
    "epsilon": ("llama_scaled", {"rms_norm_eps": 1e-3}),
    "epsilon of queries": ("qwen3", {"rms_norm_eps": 1e-2}),
    "sequential for parallel": ("gpt_neox", {"use_parallel_residual": False}),
    "norms before for after": ("opt_after", {"do_layer_norm_before": True}),
    "window one wider": ("mistral", {"sliding_window": 5}),
    "window one narrower": ("gpt_neo", {"window_size": 3}),
    "window in other layers": ("gemma2", {"layer_types": sliding(1)}),
    "no window": ("gpt_oss", {"sliding_window": None}),
    "rotary base": ("mistral", {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}),
    "rotary share": (
        "gpt_neox", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ),
    "rotary not scaled": ("llama_yarn", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    "rotary alike in all layers": ("gemma3_text", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
    "score scale": ("gemma2", {"query_pre_attn_scalar": 8}),
    "score cap": ("gemma2", {"attn_logit_softcapping": None}),
    "logit cap": ("gemma2", {"final_logit_softcapping": None}),
    "fewer experts": ("gpt_oss", {"num_experts_per_tok": 1}),
    "expert limit": ("gpt_oss", {"swiglu_limit": 0.9}),
    "keys shared by others": ("llama", {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 20}),
    "unembedding tied": ("llama", {"tie_word_embeddings": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", MUTATIONS)
def test_mistake_in_the_graph_is_seen(families, oracle_of, tmp_path, case):
    name, changes = MUTATIONS[case]
    checkpoint = families[name]
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "model.safetensors").symlink_to(checkpoint.folder / "model.safetensors")
    (changed / "config.json").write_text(json.dumps(checkpoint.config | changes))
    try:
        bundle = export_bundle(changed, tmp_path / "bundle", with_reference=False).folder
    except CheckpointError as refusal:  # with these tensors it can't even be built
        assert case == "norms before for after" and "no tensor" in str(refusal)
        return
    found = run_graph(bundle, checkpoint.tokens)
    off = too_far({"logits": found["logits"]}, {"logits": checkpoint.logits()}, 2 * TOLERANCE)
    assert off or too_far(found, oracle_of(name)[1], 2 * TOLERANCE)
