"""Mistakes put into a folder of weights and settings: what reads it must be seen to go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Mutation = Callable[[Path], None]


def config_with(**changes: Any) -> Mutation:
    def mutate(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return mutate


def tensor_with(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Mutation:
    """The change of a tensor that keeps its dtype."""

    def mutate(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors[name] = np.ascontiguousarray(change(tensors[name])).astype(tensors[name].dtype)
        save_file(tensors, path, metadata={"format": "pt"})

    return mutate
