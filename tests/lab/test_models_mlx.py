"""What the lab's MLX engine offers by family, and what it refuses because mlx-lm would compute it otherwise."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import RECIPES, make_checkpoint
from engine_models import BOTH, assert_close, checkpoint, model, tokens
from neuroscope.errors import LabError
from neuroscope.lab.mlx_config import translate
from neuroscope.lab.model import Watch
from neuroscope.lab.registry import load_model
from neuroscope.lab.settings import ModelSource

# A block's points in each family, but for what `LACKS` names; and those outside the blocks.
BLOCK = [
    *(f"attn.hook_{point}" for point in ("q", "k", "v", "attn_scores", "pattern", "z")),
    *(f"hook_{point}" for point in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")),
    *(f"{norm}.hook_{point}" for norm in ("ln1", "ln2") for point in ("scale", "normalized")),
    *(f"mlp.hook_{point}" for point in ("pre", "pre_linear", "post")),
]
EVERYWHERE = ["hook_embed", "ln_final.hook_normalized", "ln_final.hook_scale"]
LACKS = {
    "gpt2": {"mlp.hook_pre_linear"},
    "gpt_neox": {"mlp.hook_pre_linear", "hook_resid_mid"},
    "gemma2": {"attn.hook_attn_scores", "attn.hook_pattern"},
}


@pytest.mark.parametrize("name", BOTH)
def test_a_family_offers_these_hooks(name: str) -> None:
    lab = model("mlx", name)
    block = [hook for hook in BLOCK if hook not in LACKS.get(name, ())]
    layers = [f"blocks.{layer}.{hook}" for layer in range(lab.description.layers) for hook in block]
    more = ["hook_pos_embed"] if name == "gpt2" else []
    assert list(lab.description.hooks) == sorted([*layers, *EVERYWHERE, *more])
    assert set(lab.description.hooks) <= set(model("torch", name).description.hooks)


@pytest.mark.parametrize("name", BOTH)
def test_every_hook_equals_pytorchs(name: str) -> None:
    hooks = model("mlx", name).description.hooks
    mlx, torch = (model(engine, name).forward(tokens(name), Watch(captures=hooks)) for engine in ("mlx", "torch"))
    assert_close(mlx.logits, torch.logits, "logits")
    for hook in hooks:
        assert_close(mlx.activations[hook], torch.activations[hook], hook)


def test_a_full_rotating_cache_shows_its_keys_by_position() -> None:
    """Its next key is written over the oldest, in the middle of the array."""
    hooks = [f"blocks.{layer}.attn.{point}" for layer in range(3) for point in ("hook_pattern", "hook_attn_scores")]
    past: dict[str, Any] = {"mlx": None, "torch": None}
    for start, end in [(0, 3), *((at, at + 1) for at in range(3, 11))]:
        found = {}
        for engine in past:
            ids = [row[start:end] for row in tokens("gemma3")]
            step = model(engine, "gemma3").forward(ids, Watch(captures=hooks), past=past[engine])
            past[engine], found[engine] = step.past, step.activations
        for hook in hooks:
            assert_close(found["mlx"][hook], found["torch"][hook], f"{hook} at {start}")


@pytest.mark.parametrize("name", ["mistral", "phi3", "gemma2", "qwen2_sliding"])
def test_positions_end_where_a_window_that_mlx_lm_has_not_would_begin(name: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / name, name, sliding_window=5)
    lab = load_model(ModelSource(name, made.folder, "mlx"))
    right = load_model(ModelSource(name, made.folder, "torch"))
    assert lab.description.positions == 5
    ids = [row[:5] for row in made.tokens]
    assert_close(lab.forward(ids, Watch()).logits, right.forward(ids, Watch()).logits, "logits")
    with pytest.raises(LabError, match="would reach position 5, and the model's positions are 0 to 4"):
        lab.forward([row[:6] for row in made.tokens], Watch())


@pytest.mark.parametrize(
    "name,changes,setting",
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}}, "rope_type"),
        ("llama_yarn", {"rope_parameters.attention_factor": 0.5}, "rope_parameters.attention_factor is 0.5"),
        ("phi3_long", {}, "rope_parameters.rope_type is 'longrope'"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True"),
        ("gemma2_uncapped", {}, "attn_logit_softcapping is None"),
        ("gemma3_text", {"final_logit_softcapping": 3.0}, "final_logit_softcapping is 3.0"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 2 + ["sliding_attention"]}, "layer_types"),
        ("gpt2", {}, "n_inner is 22, and mlx-lm takes None or 72"),
        ("gpt2", {"n_inner": None, "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt_neox", {}, "intermediate_size is 37, and mlx-lm takes 96"),
        ("gpt_neox", {"intermediate_size": 96, "attention_bias": False}, "attention_bias is False"),
        ("opt", {}, "model_type is 'opt'"),
        ("gpt_oss", {}, "model_type is 'gpt_oss'"),
    ],
)
def test_a_setting_that_mlx_lm_would_ignore_is_refused_by_name(
    name: str, changes: dict[str, Any], setting: str
) -> None:
    import transformers

    recipe = RECIPES[name]
    config = getattr(transformers, recipe.config)(**recipe.settings).to_dict()
    for path, value in changes.items():
        *parents, last = path.split(".")
        inner = config
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    with pytest.raises(LabError, match=re.escape(setting)) as refused:
        translate(config, name)
    assert "--engine torch" in str(refused.value)


def test_the_older_spelling_of_a_configuration_is_understood(tmp_path: Path) -> None:
    """rope_theta and rope_scaling stood by themselves before transformers 5."""
    folder = tmp_path / "old"
    shutil.copytree(checkpoint("llama_scaled").folder, folder)
    config = json.loads((folder / "config.json").read_text())
    rotary = config.pop("rope_parameters")
    config["rope_theta"] = rotary.pop("rope_theta")
    config["rope_scaling"] = rotary
    (folder / "config.json").write_text(json.dumps(config))
    found, right = (
        each.forward(tokens("llama_scaled"), Watch()).logits
        for each in (load_model(ModelSource("old", folder, "mlx")), model("mlx", "llama_scaled"))
    )
    assert_close(found, right, "logits", 1e-6)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_the_activation_is_the_configurations(name: str, activation: str, tmp_path: Path) -> None:
    """mlx-lm approximates GELU in both families, whatever the configuration says."""
    wide = {
        "gpt2": {"n_inner": None, "activation_function": activation},
        "gpt_neox": {"intermediate_size": 96, "hidden_act": activation},
    }[name]
    made = make_checkpoint(tmp_path / name, name, **wide)
    lab = load_model(ModelSource(name, made.folder, "mlx"))
    assert_close(lab.forward(made.tokens, Watch()).logits, made.logits(), "logits", 2e-5)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    shutil.copy(checkpoint("llama").folder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(LabError, match="No safetensors found"):
        load_model(ModelSource("pickled", tmp_path, "mlx"))


def test_code_that_comes_with_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    folder, left = tmp_path / "coded", tmp_path / "left"
    shutil.copytree(checkpoint("llama").folder, folder)
    (folder / "model.py").write_text(f"open({str(left)!r}, 'w').write('ran')\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_file": "model.py"}))
    with pytest.raises(LabError, match="custom module"):
        load_model(ModelSource("coded", folder, "mlx"))
    assert not left.exists()
