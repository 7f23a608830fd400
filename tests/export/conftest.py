"""Random-weight GPT-2 checkpoints of odd shapes, made with NumPy alone.

The weights have a deviation of .4: with much less, an exact GELU in the place of the tanh one would pass unseen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")

Weights = dict[str, np.ndarray]
MakeCheckpoint = Callable[..., Path]

ODD = {"n_layer": 2, "n_embd": 24, "n_head": 3, "n_inner": 40, "vocab_size": 37, "n_positions": 19}


def gpt2_config(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        **ODD,
        **changes,
    }


def random_weights(config: dict[str, Any], prefix: str = "transformer.", seed: int = 1) -> Weights:
    source = np.random.default_rng(seed)
    width, inner = config["n_embd"], config["n_inner"] or 4 * config["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config["vocab_size"], width),
        "wpe.weight": (config["n_positions"], width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    for layer in range(config["n_layer"]):
        for name, shape in {
            "ln_1.weight": (width,), "ln_1.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width), "attn.c_proj.bias": (width,),
            "ln_2.weight": (width,), "ln_2.bias": (width,),
            "mlp.c_fc.weight": (width, inner), "mlp.c_fc.bias": (inner,),
            "mlp.c_proj.weight": (inner, width), "mlp.c_proj.bias": (width,),
        }.items():  # fmt: skip
            shapes[f"h.{layer}.{name}"] = shape
    weights = {prefix + name: source.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    if config.get("tie_word_embeddings") is False:
        weights["lm_head.weight"] = source.normal(0, 0.4, shapes["wte.weight"]).astype(np.float32)
    return weights


def write_checkpoint(folder: Path, config: dict[str, Any], weights: Weights) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Iterator[MakeCheckpoint]:
    """Makes a checkpoint folder; `edit` changes its weights before they are written, the rest its configuration."""

    def make(
        name: str = "odd",
        *,
        edit: Callable[[Weights], None] | None = None,
        prefix: str = "transformer.",
        **changes: Any,
    ) -> Path:
        config = gpt2_config(**changes)
        weights = random_weights(config, prefix)
        if edit:
            edit(weights)
        return write_checkpoint(tmp_path / name, config, weights)

    yield make
