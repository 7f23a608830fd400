"""Random-weight GPT-2 checkpoints of odd shapes, their bundles, and what PyTorch says of them.

The weights have a standard deviation of 0.2: with the usual 0.02 a wrong GELU or epsilon would hide.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel


@dataclass(frozen=True)
class Checkpoint:
    """A folder as Hugging Face writes it, and a batch of token ids that fits it."""

    folder: Path
    tokens: list[list[int]]
    config: dict[str, Any] = field(default_factory=dict)

    def model(self) -> GPT2LMHeadModel:
        model = GPT2LMHeadModel.from_pretrained(self.folder, attn_implementation="eager", dtype=torch.float32)
        return model.eval()

    def logits(self) -> np.ndarray:
        with torch.no_grad():
            return self.model()(torch.tensor(self.tokens)).logits.numpy()


# Odd in every dimension: widths that are no multiple of 4 or 8, one head, one layer, more rows than a block has.
SHAPES: dict[str, dict[str, Any]] = {
    "odd": {"vocab_size": 61, "n_positions": 13, "n_embd": 18, "n_layer": 2, "n_head": 3, "n_inner": 22},
    "round": {"vocab_size": 96, "n_positions": 40, "n_embd": 32, "n_layer": 3, "n_head": 4},
    "single": {"vocab_size": 7, "n_positions": 5, "n_embd": 6, "n_layer": 1, "n_head": 1, "n_inner": 3},
    "untied": {
        "vocab_size": 33, "n_positions": 9, "n_embd": 20, "n_layer": 2, "n_head": 5, "tie_word_embeddings": False,
    },
    "exact": {
        "vocab_size": 29, "n_positions": 8, "n_embd": 12, "n_layer": 2, "n_head": 2,
        "activation_function": "gelu", "layer_norm_epsilon": 1e-2,
    },
    "unscaled": {
        "vocab_size": 29, "n_positions": 8, "n_embd": 12, "n_layer": 2, "n_head": 2, "scale_attn_weights": False,
    },
}  # fmt: skip

TOKENS: dict[str, tuple[int, int]] = {
    "odd": (3, 11),
    "round": (2, 33),
    "single": (1, 1),
    "untied": (2, 9),
    "exact": (1, 7),
    "unscaled": (2, 8),
}


def make_checkpoint(folder: Path, shape: str, seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    config = GPT2Config(**{"bos_token_id": 0, "eos_token_id": 0, **SHAPES[shape]})
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = "ln_" in name and name.endswith("weight")
            parameter.normal_(1 if is_scale else 0, 0.2)
    model.save_pretrained(folder)
    batch, positions = TOKENS[shape]
    tokens = torch.randint(0, config.vocab_size, (batch, positions)).tolist()
    return Checkpoint(folder, tokens, json.loads((folder / "config.json").read_text()))


def write_manifest(folder: Path, chunk: int = 16 * 2**20) -> dict[str, Any]:
    """A bundle.json over all files of a folder, in chunks small enough to straddle tensors if wanted."""
    files = []
    for path in sorted(folder.iterdir()):
        if path.name == "bundle.json":
            continue
        content = path.read_bytes()
        pieces = [(start, content[start : start + chunk]) for start in range(0, len(content), chunk)]
        files.append(
            {
                "name": path.name,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "chunks": [
                    {"offset": start, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
                    for start, piece in pieces
                ],
            }
        )
    manifest = {
        "format": 1, "id": folder.name, "source": folder.name, "revision": None,
        "dtype": "float32", "license": None, "architecture": "gpt2", "files": files,
    }  # fmt: skip
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return manifest


def pack(tensor: Any) -> dict[str, Any]:
    numbers = np.asarray(tensor, dtype="<f4", order="C")
    return {"shape": list(numbers.shape), "base64": base64.b64encode(numbers.tobytes()).decode()}


def unpack(packed: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["base64"]), dtype="<f4").reshape(packed["shape"])
