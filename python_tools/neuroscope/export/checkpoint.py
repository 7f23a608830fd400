"""A Hugging Face checkpoint folder, read and checked: configuration, tensors in one or several files, tokenizer.

Weights are read from safetensors only. A pickle may run code while it is read, so a folder that has nothing else is
refused with the way to convert it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroscope.errors import CheckpointError
from neuroscope.export.architecture import Architecture, architecture_of
from neuroscope.export.tensor_file import Floats, TensorFile

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
OTHER_FILES = ("generation_config.json",)


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint whose tensors are all there, with the right shapes."""

    folder: Path
    config: dict[str, Any]
    architecture: Architecture
    sources: dict[str, TensorFile]  # by full tensor name, in forward order; only the tensors that are exported

    def floats(self, tensor: str) -> Floats:
        return self.sources[tensor].floats(tensor)

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.sources[tensor].places[tensor].shape

    def license(self) -> str | None:
        """The SPDX identifier that the model card's header names."""
        card = self.folder / "README.md"
        if not card.exists():
            return None
        header = re.match(r"---\n(.*?)\n---", card.read_text(), re.DOTALL)
        found = re.search(r"^license:\s*(\S+)\s*$", header.group(1), re.MULTILINE) if header else None
        return found.group(1) if found else None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Opens the checkpoint in `folder`.

    Raises: CheckpointError when it is none, is not supported, or lacks a tensor; the text says which.
    """
    config = _read_json(folder / "config.json", "so it is no checkpoint; name a folder that save_pretrained made")
    architecture = architecture_of(config, folder)
    available = _tensor_files(folder)
    sources: dict[str, TensorFile] = {}
    for rule in architecture.tensors():
        name = next((prefix + rule.name for prefix in rule.prefixes if prefix + rule.name in available), None)
        if name is None:
            raise CheckpointError(
                f"{folder} has no tensor {rule.prefixes[0]}{rule.name} of shape {list(rule.shape)}, which "
                f"{architecture.name} with this config.json needs; the checkpoint is incomplete."
            )
        found = available[name].places[name].shape
        if found != rule.shape:
            raise CheckpointError(
                f"Tensor {name} of {folder} has shape {list(found)}, and config.json asks for {list(rule.shape)}; "
                "the two don't belong together."
            )
        sources[name] = available[name]
    for name in available:
        if name not in sources and not architecture.is_ignored(name):
            raise CheckpointError(
                f"{folder} has a tensor {name}, which {architecture.name} has no place for; without it the model "
                "would be another one."
            )
    return Checkpoint(folder, config, architecture, sources)


def weights_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over every exported tensor's name below its prefix and its numbers as float32.

    So float16 weights and the same weights widened have one digest.
    """
    digest = hashlib.sha256()
    for rule, name in zip(checkpoint.architecture.tensors(), checkpoint.sources, strict=True):
        digest.update(rule.name.encode() + b"\0")
        digest.update(checkpoint.floats(name).astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _read_json(path: Path, without: str) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no {path.name}, {without}.")
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: it is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it holds a {type(value).__name__}, not an object.")
    return value


def _tensor_files(folder: Path) -> dict[str, TensorFile]:
    """Every tensor's file, by the tensor's name."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        paths = [single]
    elif index.is_file():
        names = set(_read_json(index, "").get("weight_map", {}).values())
        paths = [folder / name for name in sorted(names)]
        for path in paths:
            if path.parent != folder or not path.is_file():
                raise CheckpointError(f"{folder} lacks {path.name}, which {index.name} names; fetch the file again.")
    elif any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.ckpt")):
        raise CheckpointError(
            f"{folder} has its weights only as a pickle, which may run code when it is read; save it again with "
            "save_pretrained, which writes model.safetensors."
        )
    else:
        raise CheckpointError(f"{folder} has no model.safetensors, so there are no weights to export.")
    return {name: file for file in map(TensorFile, paths) for name in file.places}
