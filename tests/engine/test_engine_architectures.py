"""Every family on every backend: logits against transformers, hooks against TransformerLens; processed weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Checkpoint, boot_bridge
from engine_checkpoints import unpack
from engine_places import PLACES, run

# Float32 sums of a few dozen terms in another order differ by less than 2e-5 here.
TOLERANCE = 1e-4

# TransformerLens can't boot these: it wants a bias on queries, and rows of a batch where OPT-350m flattens them.
WITHOUT_BRIDGE = ["gpt_neox_plain", "opt_after"]
# There its hook_attn_scores holds the pattern.
WITHOUT_SCORES = ["gpt_neo", "opt"]
# Points that the bridge lists for fused queries and keys, and never reaches.
UNREACHED = r"attn\.hook_rot_[qk]$"

OPTIONAL = ["hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in", "attn.hook_result"]


@dataclass(frozen=True)
class Oracle:
    logits: np.ndarray
    hooks: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def oracle(families: dict[str, Checkpoint]) -> Callable[..., Oracle]:
    """What PyTorch says: transformers' logits, and the bridge's hooks, in its compatibility mode where wanted."""

    @cache
    def answer(name: str, *switches: str) -> Oracle:
        checkpoint = families[name]
        if name in WITHOUT_BRIDGE:
            return Oracle(checkpoint.logits(), {})
        bridge = boot_bridge(checkpoint)
        for switch in switches:
            getattr(bridge, switch)(*([] if switch.startswith("enable") else [True]))
        with torch.no_grad():
            _, cache = bridge.run_with_cache(torch.tensor(checkpoint.tokens))
        hooks = {each: cache[each].float().numpy() for each in cache}
        if name == "opt":  # whose MLP flattens rows and positions
            rows = len(checkpoint.tokens)
            hooks = {each: v.reshape(rows, -1, v.shape[-1]) if v.ndim == 2 else v for each, v in hooks.items()}
        if name in WITHOUT_SCORES:
            factor = 1.0 if name == "gpt_neo" else hooks["blocks.0.attn.hook_q"].shape[-1] ** -0.5
            for each in [each for each in hooks if each.endswith("attn.hook_attn_scores")]:
                q, k = (hooks[each.replace("attn_scores", letter)] for letter in "qk")
                masked = hooks[each.replace("attn_scores", "pattern")] == 0
                hooks[each] = np.where(masked, -np.inf, np.einsum("bqhd,bkhd->bhqk", q, k) * factor)
        return Oracle(checkpoint.logits(), hooks)

    return answer


def far(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference; a masked score is infinite here, and about the least number of float32 there."""
    if ours.shape != theirs.shape:
        return float("inf")
    masked = np.isneginf(ours)
    if np.any(masked & (theirs > -1e30)):
        return float("inf")
    return float(np.abs(np.where(masked, 0, ours) - np.where(masked, 0, theirs)).max())


def differences(captured: dict[str, Any], oracle: Oracle, logits: np.ndarray) -> list[str]:
    """Each captured value that is too far, or has no oracle."""
    found = []
    for name, packed in captured.items():
        theirs = logits if name == "logits" else oracle.hooks.get(name)
        if theirs is None:
            if not re.search(UNREACHED, name):
                found.append(f"{name}: TransformerLens has none")
        elif (difference := far(unpack(packed), theirs)) > TOLERANCE:
            found.append(f"{name}: {difference}")
    return found


def jobs_of(families: dict[str, Checkpoint], names: list[str], **more: Any) -> list[dict[str, Any]]:
    return [
        {"bundle": families[name].folder, "passes": [{"tokens": families[name].tokens, "capture": "on"}], **more}
        for name in names
    ]


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_every_family_equals_its_oracles(where, backend, families, oracle, request):
    for name, result in zip(families, run(where, backend, jobs_of(families, list(families)), request), strict=True):
        assert "error" not in result, (name, result["error"])
        captured = result["passes"][0]
        assert "error" not in captured, (name, captured)
        theirs = oracle(name)
        hooks = captured if name not in WITHOUT_BRIDGE else {"logits": captured["logits"]}
        assert differences(hooks, theirs, theirs.logits) == [], name


@pytest.mark.parametrize("backend", ["reference", "wasm"])
def test_optional_hooks_equal_those_of_transformer_lens(backend, families, oracle, request):
    names = ["gpt_neox", "qwen3", "gemma2", "gpt_oss"]
    jobs = []
    for name in names:
        enable = [f"blocks.1.{hook}" for hook in OPTIONAL]
        split = [hook for hook in enable if not hook.endswith("attn_in")]
        together = [hook for hook in enable if hook.endswith("attn_in")]
        tokens = families[name].tokens
        passes = [{"tokens": tokens, "capture": hooks, "enable": hooks} for hooks in (split, together)]
        jobs.append({"bundle": families[name].folder, "passes": passes})
    for name, result in zip(names, run("node", backend, jobs, request), strict=True):
        split = oracle(name, "set_use_attn_result", "set_use_hook_mlp_in", "set_use_split_qkv_input")
        together = oracle(name, "set_use_attn_in")
        for captured, theirs in zip(result["passes"], (split, together), strict=True):
            assert "error" not in captured, captured
            assert differences(captured, theirs, theirs.logits) == [], name


PROCESSING = {"foldNorms": True, "centreWriting": True, "centreUnembedding": True, "foldValueBiases": True}


@pytest.mark.parametrize("backend", ["reference", "wasm"])
def test_processed_weights_equal_the_compatibility_mode(backend, families, oracle, request):
    names = ["gpt2", "gpt_neo", "gpt_neox", "opt", "llama_scaled", "qwen3", "gemma2"]
    jobs = jobs_of(families, names, load={"processing": PROCESSING})
    for name, result in zip(names, run("node", backend, jobs, request), strict=True):
        theirs = oracle(name, "enable_compatibility_mode")
        captured = result["passes"][0]
        assert "error" not in captured, (name, captured)
        logits = theirs.logits
        if name != "gemma2":  # where they are capped, their mean stays
            logits = logits - logits.mean(-1, keepdims=True)
        assert differences(captured, theirs, logits) == [], name


def test_processing_leaves_the_logits_of_every_family_as_they_are(families, request):
    """Also where TransformerLens's does not: it moves the value biases behind gpt_oss's sinks."""
    names = list(families)
    jobs = [
        {**job, "passes": [{**job["passes"][0], "capture": []}]}
        for job in jobs_of(families, names, load={"processing": PROCESSING})
    ]
    for name, result in zip(names, run("node", "wasm", jobs, request), strict=True):
        ours = unpack(result["passes"][0]["logits"])
        theirs = families[name].logits()
        if name != "gemma2":
            theirs = theirs - theirs.mean(-1, keepdims=True)
        assert far(ours, theirs) <= TOLERANCE, name
        words = result["loaded"]["basis"]["weights"]
        assert ("writing not centred: its norms" in words) == (
            not name.startswith(("gpt2", "gpt_neo", "opt")) or name == "opt_after"
        )
        assert ("value biases not folded" in words) == (name == "gpt_oss")


# What each changed setting makes of a checkpoint must be seen: the tests above then see the same mistake in the engine.
MUTATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "activation": ("gpt_neox", {"hidden_act": "gelu_new"}),
    "epsilon": ("llama_scaled", {"rms_norm_eps": 1e-6}),
    "window one wider": ("mistral", {"sliding_window": 5}),
    "window of other layers": ("gemma2", {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}),
    "local attention one wider": ("gpt_neo", {"window_size": 5}),
    "score scale": ("gemma2", {"query_pre_attn_scalar": 10}),
    "attention cap": ("gemma2", {"attn_logit_softcapping": 6.0}),
    "logit cap": ("gemma2", {"final_logit_softcapping": 4.0}),
    "attention bias left out": ("llama_scaled", {"attention_bias": False}),
    "mlp bias left out": ("llama_scaled", {"mlp_bias": False}),
    "sequential for parallel": ("gpt_neox", {"use_parallel_residual": False}),
    "norms before for after": ("opt_after", {"do_layer_norm_before": True, "_remove_final_layer_norm": False}),
    "rotary share": ("gpt_neox", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
    "rotary base": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    "rotary stretching": ("llama_linear", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    "expert limit": ("gpt_oss", {"swiglu_limit": 0.7}),
    "expert steepness": ("gpt_oss", {"swiglu_alpha": 1.5}),
    "experts per token": ("gpt_oss", {"num_experts_per_tok": 3}),
}  # fmt: skip


def test_each_setting_matters(families, tmp_path, request):
    jobs = []
    for name, (family, change) in MUTATIONS.items():
        folder = altered(
            families[family], tmp_path / name.replace(" ", "_"), lambda config, change=change: {**config, **change}
        )
        jobs.append({"bundle": folder, "passes": [{"tokens": families[family].tokens, "capture": []}]})
    for name, result in zip(MUTATIONS, run("node", "reference", jobs, request), strict=True):
        if "error" in result:  # a tensor that is now missing is seen as well
            assert result["error"]["name"] == "BundleRefused", name
            continue
        theirs = families[MUTATIONS[name][0]].logits()
        assert far(unpack(result["passes"][0]["logits"]), theirs) > 10 * TOLERANCE, name


def altered(checkpoint: Checkpoint, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """The same weights under another config.json."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(checkpoint.folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(change(checkpoint.config)))
    return folder


def older(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as the Hub has it from before transformers 5."""
    if "text_config" in config:
        return {**config, "text_config": older(name, config["text_config"])}
    config = dict(config)
    parameters = config.pop("rope_parameters", {})
    config.pop("layer_types", None)
    config.pop("attention_layers", None)
    if name.startswith("gemma3"):
        full = parameters["full_attention"]
        config |= {"rope_theta": full["rope_theta"], "rope_scaling": {"rope_type": "linear", "factor": full["factor"]}}
        config |= {"rope_local_base_freq": parameters["sliding_attention"]["rope_theta"], "sliding_window_pattern": 2}
        return config
    share = parameters.pop("partial_rotary_factor", None)
    if share is not None:
        config["rotary_pct" if name.startswith("gpt_neox") else "partial_rotary_factor"] = share
    base = parameters.pop("rope_theta", None)
    if base is not None:
        config["rotary_emb_base" if name.startswith("gpt_neox") else "rope_theta"] = base
    kind = parameters.pop("rope_type", "default")
    if kind != "default":
        config["rope_scaling"] = {"type": kind, **parameters}
        if kind == "longrope":
            config["original_max_position_embeddings"] = parameters["original_max_position_embeddings"]
    if name == "qwen2_sliding":
        config |= {"use_sliding_window": True, "max_window_layers": 1}
    return config


def test_older_spellings_of_config_mean_the_same(families, tmp_path, request):
    folders = {
        name: altered(checkpoint, tmp_path / name, lambda config, name=name: older(name, config))
        for name, checkpoint in families.items()
    }
    jobs = [{"bundle": folders[name], "passes": [{"tokens": families[name].tokens, "capture": []}]} for name in folders]
    for name, result in zip(folders, run("node", "wasm", jobs, request), strict=True):
        assert "error" not in result, (name, result["error"])
        assert far(unpack(result["passes"][0]["logits"]), families[name].logits()) <= TOLERANCE, name


def test_long_rope_turns_by_its_long_factors_beyond_the_first_context(families, request):
    checkpoint = families["phi3_long"]
    tokens = [[(7 * i) % 67 for i in range(length)] for length in (16, 17, 30)]
    passes = [{"tokens": [row], "capture": []} for row in tokens]
    [result] = run("node", "wasm", [{"bundle": checkpoint.folder, "passes": passes}], request)
    for row, captured in zip(tokens, result["passes"], strict=True):
        with torch.no_grad():
            theirs = checkpoint.model()(torch.tensor([row])).logits.numpy()
        assert far(unpack(captured["logits"]), theirs) <= TOLERANCE, len(row)


REFUSED = {
    "unknown family": ("llama", {"model_type": "mamba"}, r'model_type "mamba".*gpt2.*gpt_oss'),
    "unknown stretching": ("llama", {"rope_parameters": {"rope_type": "dynamic"}}, r'rope_type "dynamic".*llama3'),
    "unknown activation": ("llama", {"hidden_act": "mish"}, r"hidden_act = mish .*silu"),
    "no final norm": ("opt", {"_remove_final_layer_norm": True}, r"_remove_final_layer_norm = true"),
    "both directions": ("gemma3_text", {"use_bidirectional_attention": True}, r"use_bidirectional_attention"),
    "heads that don't divide": ("llama", {"num_key_value_heads": 4}, r"6 heads share 4"),
    "missing size": ("llama", {"hidden_size": None}, r"dimension D .*hidden_size"),
}  # fmt: skip


def test_what_is_not_supported_is_refused_with_its_field(families, tmp_path, request):
    jobs = []
    for name, (family, change, _) in REFUSED.items():
        folder = altered(
            families[family], tmp_path / name.replace(" ", "_"), lambda config, change=change: {**config, **change}
        )
        jobs.append({"bundle": folder, "passes": []})
    for name, result in zip(REFUSED, run("node", "reference", jobs, request), strict=True):
        assert result["error"]["name"] == "BundleRefused", (name, result)
        assert re.search(REFUSED[name][2], result["error"]["message"]), result["error"]["message"]
