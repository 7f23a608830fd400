"""Processed bundles equal TransformerLens's compatibility mode, hook by hook, and leave the model what it is."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import make_checkpoint as make_family
from neuroscope.errors import CheckpointError
from neuroscope.export import manifest
from neuroscope.export.bundle import export_bundle
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.oracles import LensOracle, lens_points
from neuroscope.export.processing import RAW, Processing, compatible
from neuroscope.export.verify import verify_bundle
from safetensors.numpy import load_file

TOLERANCE = 1e-4  # what is seen is below 1e-5
# Tied and untied, with and without biases, fused and grouped, parallel, gated, capped, normed twice, with experts.
FAMILIES = [
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "opt",
    "llama_scaled",
    "qwen2",
    "qwen3",
    "phi3",
    "gemma2",
    "gemma3",
    "gpt_oss",
]


def run_graph(bundle, tokens):
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input_ids": np.array(tokens)}), strict=True))


def off(found, expected):
    return [
        name
        for name, value in expected.items()
        if found[name].shape != value.shape
        or not np.array_equal(np.isfinite(found[name]), np.isfinite(value))
        or np.abs(np.where(np.isfinite(value), found[name] - value, 0)).max() > TOLERANCE
    ]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_every_hook_equals_the_compatibility_mode(tmp_path, name):
    checkpoint = make_family(tmp_path / "checkpoint", name)
    architecture = open_checkpoint(checkpoint.folder).architecture
    processing = compatible(architecture)
    bundle = export_bundle(checkpoint.folder, tmp_path / "bundle", processing=processing, with_reference=False).folder
    found = run_graph(bundle, checkpoint.tokens)

    oracle = LensOracle(checkpoint.folder)
    oracle.bridge.enable_compatibility_mode(
        disable_warnings=True,
        fold_ln=processing.fold_norms,
        center_writing_weights=processing.centre_writing,
        center_unembed=processing.centre_unembedding,
        fold_value_biases=processing.fold_value_biases,
    )
    with torch.no_grad():
        _, cache = oracle.bridge.run_with_cache(torch.tensor(checkpoint.tokens))
    expected = {hook: value.numpy() for hook, value in lens_points(cache, architecture, len(checkpoint.tokens)).items()}
    assert len(expected) > 30 and off(found, expected) == []

    ours, theirs = found.get("logits", found["unembed.hook_out"]), checkpoint.logits()
    if processing.centre_unembedding:
        theirs = theirs - theirs.mean(axis=-1, keepdims=True)
    assert np.abs(ours - theirs).max() < TOLERANCE


def test_each_change_does_what_its_name_says(tmp_path):
    checkpoint = make_family(tmp_path / "checkpoint", "gpt2").folder
    raw = load_file(checkpoint / "model.safetensors")

    def weights(**changes: bool):
        folder = tmp_path / "-".join(changes)
        export_bundle(checkpoint, folder, processing=Processing(**changes), with_reference=False)
        return load_file(folder / "model.safetensors")

    folded = weights(fold_norms=True)
    for norm in ("h.0.ln_1", "h.1.ln_2", "ln_f"):
        assert (folded[f"transformer.{norm}.weight"] == 1).all() and (folded[f"transformer.{norm}.bias"] == 0).all()
    assert np.abs(folded["transformer.h.0.mlp.c_fc.weight"].mean(axis=0)).max() < 1e-6
    np.testing.assert_array_equal(folded["transformer.wte.weight"], raw["transformer.wte.weight"])
    assert "lm_head.weight" in folded and folded["lm_head.bias"].shape == (61,)

    centred = weights(centre_writing=True)
    for name in ("transformer.wte.weight", "transformer.wpe.weight", "transformer.h.1.mlp.c_proj.weight"):
        assert np.abs(centred[name].mean(axis=-1)).max() < 1e-6
    np.testing.assert_array_equal(centred["lm_head.weight"], raw["transformer.wte.weight"])
    assert "lm_head.bias" not in centred

    unembedding = weights(centre_unembedding=True)["lm_head.weight"]
    assert np.abs(unembedding.mean(axis=0)).max() < 1e-6

    values = weights(fold_value_biases=True)
    assert (values["transformer.h.0.attn.c_attn.bias"][36:] == 0).all()
    np.testing.assert_array_equal(
        values["transformer.h.0.attn.c_attn.bias"][:36], raw["transformer.h.0.attn.c_attn.bias"][:36]
    )
    assert "lm_head.weight" not in values


def test_basis_is_recorded_and_the_bundle_verifies_as_int8_too(tmp_path):
    checkpoint = make_family(tmp_path / "checkpoint", "gpt_neo").folder
    made = export_bundle(
        checkpoint, tmp_path / "bundle", dtype="int8", processing=Processing(fold_norms=True, fold_value_biases=True)
    )
    assert made.weights == "norms folded, value biases folded"
    described = manifest.read_manifest(made.folder)
    assert described["processing"] == {"foldNorms": True, "foldValueBiases": True}
    assert Processing.of_json(described["processing"]).describe() == made.weights
    assert json.loads((made.folder / "config.json").read_text())["tie_word_embeddings"] is False
    assert verify_bundle(made.folder).first_off is None
    assert verify_bundle(made.folder, against=checkpoint).first_off is None


def test_raw_bundle_says_nothing_of_processing(make_checkpoint, tmp_path):
    made = export_bundle(make_checkpoint(), tmp_path / "bundle", with_reference=False)
    assert made.weights == "raw" and "processing" not in manifest.read_manifest(made.folder)
    assert Processing.of_json({}) == RAW


REFUSED = {
    "llama": (
        Processing(centre_writing=True),
        "llama can't be exported with its writing to be centred: its norms keep",
    ),
    "gemma2": (Processing(centre_unembedding=True), "its logits are capped"),
    "gpt_oss": (Processing(fold_value_biases=True), "its patterns leave a share to the sinks"),
    "opt_after": (Processing(fold_norms=True), "its norms come after what they would be folded into"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_change_that_would_make_another_model_is_refused(tmp_path, name):
    processing, text = REFUSED[name]
    checkpoint = make_family(tmp_path / "checkpoint", name).folder
    with pytest.raises(CheckpointError, match=text):
        export_bundle(checkpoint, tmp_path / "bundle", processing=processing, with_reference=False)
    assert not (tmp_path / "bundle").exists()
