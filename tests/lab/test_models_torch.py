"""What the lab's PyTorch engine has beyond both engines' tests: optional hooks, devices, and what it does not load."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_models import assert_close, bridge, checkpoint, model, tokens
from neuroscope.errors import LabError, MissingProgramError
from neuroscope.lab.model import Watch
from neuroscope.lab.registry import load_model
from neuroscope.lab.settings import ModelSource

SWITCHES = {
    "set_use_attn_result": ["attn.hook_result"],
    "set_use_attn_in": ["attn.hook_attn_in"],
    "set_use_split_qkv_input": ["attn.hook_q_input", "attn.hook_k_input", "attn.hook_v_input"],
    "set_use_hook_mlp_in": ["hook_mlp_in"],
}


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "gpt_oss"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_optional_hooks_are_those_of_transformer_lens_and_leave_the_next_pass_alone(name: str, switch: str) -> None:
    lab = model("torch", name)
    before = lab.forward(tokens(name), Watch())
    hooks = [f"blocks.{layer}.{hook}" for layer in range(lab.description.layers) for hook in SWITCHES[switch]]
    step = lab.forward(tokens(name), Watch(captures=hooks))
    getattr(bridge(name), switch)(True)
    try:
        with torch.no_grad():
            _, right = bridge(name).run_with_cache(torch.tensor(tokens(name)))
    finally:
        getattr(bridge(name), switch)(False)
    for hook in hooks:
        assert_close(step.activations[hook], right[hook].numpy(), hook)
        assert step.activations[hook].nbytes == lab.expected_bytes(hook, 2, len(tokens(name)[0]), 0)
    assert np.array_equal(lab.forward(tokens(name), Watch()).logits, before.logits)


@pytest.mark.parametrize(
    "names",
    [
        ("blocks.0.attn.hook_result", "blocks.0.attn.o.hook_out"),
        ("blocks.0.attn.hook_q_input", "blocks.1.attn.q.hook_in"),
        ("blocks.0.attn.hook_attn_in", "blocks.1.attn.hook_k_input"),
    ],
)
def test_points_that_no_one_pass_has_are_refused_together(names: tuple[str, str]) -> None:
    lab = model("torch", "llama")
    with pytest.raises(LabError, match="can't be looked at in one pass"):
        lab.forward(tokens("llama"), Watch(captures=names))
    assert set(lab.forward(tokens("llama"), Watch(captures=names[:1])).activations) == {names[0]}


def test_a_point_with_two_names_is_captured_behind_the_intervention_on_either() -> None:
    from neuroscope.lab.interventions import Intervention

    lab = model("torch", "llama")
    names = ["blocks.0.hook_out", "blocks.0.hook_resid_post"]
    for name in names:
        watch = Watch(captures=names, interventions=[Intervention(name, "zero")])
        step = lab.forward(tokens("llama"), watch)
        assert all(not step.activations[each].any() for each in names)


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate spreads a model over devices")
def test_a_model_spread_by_device_map_gives_the_same_values() -> None:
    lab = load_model(ModelSource("spread", checkpoint("llama").folder, devices="auto"))
    hooks = ["blocks.1.hook_resid_post", "blocks.0.attn.hook_pattern"]
    step, right = (each.forward(tokens("llama"), Watch(captures=hooks)) for each in (lab, model("torch", "llama")))
    for hook in hooks:
        assert_close(step.activations[hook], right.activations[hook], hook, 1e-5)


def test_devices_without_accelerate_are_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingProgramError, match="pip install accelerate"):
        load_model(ModelSource("spread", checkpoint("llama").folder, devices="auto"))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    shutil.copy(checkpoint("gpt2").folder / "config.json", tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LabError, match=r"pickled can't be loaded: .*safetensors") as refused:
        load_model(ModelSource("pickled", tmp_path))
    assert refused.value.code == "model_not_loadable"


def test_code_that_comes_with_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    """The folder's configuration names classes of a module beside it, which would leave a file behind."""
    shutil.copytree(checkpoint("gpt2").folder, tmp_path / "coded")
    left = tmp_path / "left"
    (tmp_path / "coded" / "modeling_coded.py").write_text(f"open({str(left)!r}, 'w').write('ran')\n")
    config = json.loads((tmp_path / "coded" / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "modeling_coded.Config", "AutoModelForCausalLM": "modeling_coded.Model"}
    for kind in ("gpt2", "coded"):
        (tmp_path / "coded" / "config.json").write_text(json.dumps({**config, "model_type": kind}))
        source = ModelSource("coded", tmp_path / "coded")
        if kind == "gpt2":
            assert load_model(source).description.architecture == "gpt2"  # transformers' own class
        else:
            with pytest.raises(LabError, match="coded can't be loaded"):
                load_model(source)
    assert not left.exists()


def test_a_model_that_reads_images_too_takes_text() -> None:
    lab = model("torch", "gemma3")
    assert lab.description.architecture == "gemma3"
    assert not any("vision" in hook for hook in lab.description.hooks)
