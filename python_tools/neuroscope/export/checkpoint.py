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

import numpy as np

from neuroscope.errors import CheckpointError
from neuroscope.export.architecture import Architecture, TensorRule, architecture_of
from neuroscope.export.int8 import SCALE, Int8Tensor, Rows, stored_shape
from neuroscope.export.mxfp4 import BLOCKS, SCALES, Mxfp4Tensor
from neuroscope.export.tensor_file import PlainTensor, TensorFile, row_ranges

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
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
    rules: dict[str, TensorRule]  # by full tensor name, in forward order; only the tensors that are exported
    tensors: dict[str, Rows]  # the same

    def license(self) -> str | None:
        """The SPDX identifier that the model card's header names."""
        card = self.folder / "README.md"
        if not card.exists():
            return None
        header = re.match(r"---\n(.*?)\n---", card.read_text(), re.DOTALL)
        found = re.search(r"^license:\s*(\S+)\s*$", header.group(1), re.MULTILINE) if header else None
        return found.group(1) if found else None

    @property
    def source(self) -> str:
        """Where it comes from: a Hub id where the folder lies in a Hub cache, otherwise the folder's name."""
        cached = self._place_in_hub_cache()
        return cached[0] if cached else self.folder.resolve().name

    @property
    def revision(self) -> str | None:
        """The commit on the Hub, where it is known."""
        cached = self._place_in_hub_cache()
        if cached:
            return cached[1]
        noted = self.config.get("_commit_hash")
        return noted if isinstance(noted, str) and noted else None

    def _place_in_hub_cache(self) -> tuple[str, str] | None:
        """Id and commit, from a folder models--OWNER--NAME/snapshots/COMMIT."""
        folder = self.folder.resolve()
        repository = folder.parent.parent.name
        if folder.parent.name != "snapshots" or not repository.startswith("models--"):
            return None
        return repository.removeprefix("models--").replace("--", "/"), folder.name


def open_checkpoint(folder: Path) -> Checkpoint:
    """Opens the checkpoint in `folder`.

    Raises: CheckpointError when it is none, is not supported, or lacks a tensor; the text says which.
    """
    config = _read_json(folder / "config.json", "so it is no checkpoint; name a folder that save_pretrained made")
    architecture = architecture_of(config, folder)
    method = (config.get("quantization_config") or {}).get("quant_method")
    if method not in (None, "mxfp4"):
        raise CheckpointError(
            f"{folder / 'config.json'} has quantization_config.quant_method {method!r}, and weights can be read "
            "plain or as 'mxfp4'; export the checkpoint from which it was quantised."
        )
    available = _tensor_files(folder)
    rules: dict[str, TensorRule] = {}
    tensors: dict[str, Rows] = {}
    used: set[str] = set()
    for rule in architecture.tensors():
        for prefix in rule.prefixes:
            tensor, parts = _tensor_named(prefix + rule.name, rule, available)
            if tensor is not None:
                break
        else:
            raise CheckpointError(
                f"{folder} has no tensor {rule.prefixes[0]}{rule.name} of shape {list(rule.shape)}, which "
                f"{architecture.name} with this config.json needs; the checkpoint is incomplete."
            )
        name = prefix + rule.name
        if tensor.shape != rule.shape:
            raise CheckpointError(
                f"Tensor {name} of {folder} has shape {list(tensor.shape)}, and config.json asks for "
                f"{list(rule.shape)}; the two don't belong together."
            )
        rules[name], tensors[name] = rule, tensor
        used |= parts
    for name in available:
        if name not in used and not architecture.is_ignored(name):
            raise CheckpointError(
                f"{folder} has a tensor {name}, which {architecture.name} has no place for; without it the model "
                "would be another one."
            )
    return Checkpoint(folder, config, architecture, rules, tensors)


def _tensor_named(name: str, rule: TensorRule, available: dict[str, TensorFile]) -> tuple[Rows | None, set[str]]:
    """The tensor in whatever way the files have it, and the names that it takes up there."""
    if name in available:
        if available[name].places[name].dtype != "I8" or name + SCALE not in available:
            return PlainTensor(name, available[name]), {name}
        coded = Int8Tensor(name, rule, available[name], available[name + SCALE])
        found = available[name].places[name].shape
        if found != stored_shape(rule):
            return PlainTensor(name, available[name]), {name}  # whose shape is then told
        return coded, {name, name + SCALE}
    blocks, scales = name + BLOCKS, name + SCALES
    if blocks in available and scales in available:
        return Mxfp4Tensor(name, available[blocks], available[scales]), {blocks, scales}
    return None, set()


def weights_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over every exported tensor's name below its prefix and its numbers as float32.

    So float16 weights and the same weights widened have one digest.
    """
    digest = hashlib.sha256()
    for name, rule in checkpoint.rules.items():
        digest.update(rule.name.encode() + b"\0")
        tensor = checkpoint.tensors[name]
        for start, stop in row_ranges(tensor.shape):
            digest.update(np.ascontiguousarray(tensor.rows(start, stop), "<f4").data)
            tensor.forget()
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
