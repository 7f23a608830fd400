"""What PyTorch says of a checkpoint, hook by hook, and how far is too far.

Tolerance 1e-4: float32 sums of a few dozen terms in another order differ by less than 1e-5 here.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from engine_checkpoints import Checkpoint, unpack

TOLERANCE = 1e-4


def bridge_of(checkpoint: Checkpoint) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TransformerBridge.boot_transformers(str(checkpoint.folder), device="cpu", dtype=torch.float32)


def cache_of(bridge: Any, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    with torch.no_grad():
        _, cache = bridge.run_with_cache(torch.tensor(checkpoint.tokens))
    return {name: cache[name].numpy() for name in cache}


def far(name: str, ours: np.ndarray, theirs: np.ndarray) -> str | None:
    """None when equal within tolerance; scores are compared where the mask lets them through."""
    if ours.shape != theirs.shape:
        return f"{name}: shape {ours.shape} against {theirs.shape}"
    if name.endswith("hook_attn_scores"):
        visible = np.tril(np.ones(ours.shape[-2:], dtype=bool))
        if not np.all(np.isneginf(ours[..., ~visible])):
            return f"{name}: a masked score is not -inf"
        ours, theirs = ours[..., visible], theirs[..., visible]
    difference = float(np.abs(ours - theirs).max())
    return None if difference <= TOLERANCE else f"{name}: {difference}"


def all_far(ours: dict[str, Any], cache: dict[str, np.ndarray], logits: np.ndarray) -> list[str]:
    found = [far(name, unpack(packed), logits if name == "logits" else cache[name]) for name, packed in ours.items()]
    return [each for each in found if each is not None]
