"""Tiny random models of many families for the lab's engines, each made and loaded once a run."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoints import Checkpoint, boot_bridge, make_checkpoint
from neuroscope.lab.model import LabModel
from neuroscope.lab.registry import load_model
from neuroscope.lab.settings import ModelSource

torch.set_num_threads(1)
_BASE = tempfile.TemporaryDirectory(prefix="lab_models_")
# Settings of the recipes that mlx-lm has not: its feed-forward parts are four times as wide as the model, and windows
# are as wide as the tokens are many.
_CHANGES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_inner": None},
    "gpt_neox": {"intermediate_size": 96},
    "mistral": {"sliding_window": 11},
    "qwen2_sliding": {"sliding_window": 11},
    "phi3": {"sliding_window": 11},
    "gemma2": {"sliding_window": 11},
}
# What both engines open, and what PyTorch's does alone.
BOTH = ("gpt2", "gpt_neox", "llama", "llama_scaled", "mistral", "qwen2_sliding", "qwen3", "phi3", "gemma2", "gemma3")
TORCH_ONLY = ("opt", "gpt_oss")
ENGINES = ("torch", "mlx")


@cache
def checkpoint(name: str) -> Checkpoint:
    return make_checkpoint(Path(_BASE.name) / name, name, **_CHANGES.get(name, {}))


@cache
def model(engine: str, name: str, dtype: str = "float32") -> LabModel:
    return load_model(ModelSource(name, checkpoint(name).folder, engine, dtype))


@cache
def bridge(name: str) -> Any:
    """TransformerLens by itself."""
    return boot_bridge(checkpoint(name))


@cache
def plain(name: str) -> Any:
    """transformers by itself."""
    return checkpoint(name).model()


def tokens(name: str) -> list[list[int]]:
    return checkpoint(name).tokens


def blocks(name: str) -> Any:
    """The layers of `plain`."""
    body = plain(name)
    body = getattr(body, "model", None) or getattr(body, "transformer", None) or body.gpt_neox
    body = getattr(body, "language_model", body)
    body = getattr(body, "decoder", body)
    return getattr(body, "layers", None) or body.h


def assert_close(value: np.ndarray, right: np.ndarray, name: str, tolerance: float = 1e-4) -> None:
    """What a mask took away is -inf here and the smallest number there."""
    assert value.shape == right.shape, f"{name}: {value.shape}, should be {right.shape}"
    hidden = right < -1e30
    assert ((value < -1e30) == hidden).all(), f"{name}: other keys are hidden"
    difference = np.abs(np.where(hidden, 0, value) - np.where(hidden, 0, right)).max()
    assert difference <= tolerance, f"{name}: differs by {difference}"
