"""Activations that a bundle is held against, from PyTorch: by transformers with hooks, or by TransformerLens.

Two oracles, because they share little: transformers' modules are hooked here and the values in between are worked out
from what the modules were given; TransformerLens has the hook points itself. Both run in float32 on the processor.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroscope.errors import MissingProgramError
from neuroscope.export.architecture import Architecture
from neuroscope.export.tensor_file import Floats

if TYPE_CHECKING:
    import torch

Activations = dict[str, Floats]
Oracle = Callable[[Path, Architecture, list[int]], Activations]


def has_torch() -> bool:
    """Whether PyTorch and transformers are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def has_transformer_lens() -> bool:
    return has_torch() and importlib.util.find_spec("transformer_lens") is not None


def best_oracle(architecture: Architecture) -> tuple[str, Oracle]:
    """The oracle to use, with its name and version: TransformerLens where it is installed and right.

    Its bridge scales attention scores by the root of the head's width also where the configuration says not to.

    Raises: MissingProgramError without PyTorch.
    """
    from importlib.metadata import version

    if has_transformer_lens() and architecture.option("scaleScores"):
        return f"transformer-lens {version('transformer-lens')}", transformer_lens_activations
    if has_torch():
        return f"transformers {version('transformers')}", transformers_activations
    raise MissingProgramError(
        "PyTorch is not installed, and activations of a checkpoint come from it; install it with "
        "`pip install neuroscope[torch]`, or verify without --against, which uses the bundle's own reference."
    )


def _load(folder: Path) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.requires_grad_(False)
    return model


def _mask_future(scores: torch.Tensor) -> torch.Tensor:
    """Scores of keys after their query as -infinity, whatever number stood there. Shapes: … T T"""
    import torch

    length = scores.shape[-1]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf)


def transformers_activations(folder: Path, architecture: Architecture, tokens: list[int]) -> Activations:
    """Every hook point that is on, of one row of tokens. Shapes: those of the architecture file with B = 1."""
    import torch

    model = _load(folder)
    seen: dict[str, torch.Tensor] = {}

    def keep(module: torch.nn.Module, *, given: str | None = None, gave: str | None = None) -> None:
        def note(_: torch.nn.Module, inputs: Any, output: Any) -> None:
            if given:
                seen[given] = inputs[0]
            if gave:
                seen[gave] = output[0] if isinstance(output, tuple) else output

        module.register_forward_hook(note)

    body = model.transformer
    keep(body.wte, gave="hook_embed")
    keep(body.wpe, gave="hook_pos_embed")
    for layer, block in enumerate(body.h):
        name = f"blocks.{layer}"
        keep(block, gave=f"{name}.hook_resid_post")
        keep(block.ln_1, given=f"{name}.hook_resid_pre")
        keep(block.attn.c_attn, gave=f"{name}.qkv")
        keep(block.attn.c_proj, given=f"{name}.z", gave=f"{name}.hook_attn_out")
        keep(block.ln_2, given=f"{name}.hook_resid_mid")
        keep(block.mlp.c_fc, gave=f"{name}.mlp.hook_pre")
        keep(block.mlp.c_proj, given=f"{name}.mlp.hook_post", gave=f"{name}.hook_mlp_out")
    keep(body.ln_f, given="stream", gave="unembed.hook_in")
    with torch.no_grad():
        answer = model(torch.tensor([tokens]), output_attentions=True)

    heads, width = architecture.dimensions["H"], architecture.dimensions["K"]
    epsilon = float(architecture.option("epsilon"))
    seen["unembed.hook_out"] = answer.logits
    seen["hook_pos_embed"] = seen["hook_pos_embed"].expand_as(seen["hook_embed"])
    _add_norm(seen, "ln_final", seen["stream"], epsilon)
    for layer, pattern in enumerate(answer.attentions):
        name = f"blocks.{layer}"
        _add_norm(seen, f"{name}.ln1", seen[f"{name}.hook_resid_pre"], epsilon)
        _add_norm(seen, f"{name}.ln2", seen[f"{name}.hook_resid_mid"], epsilon)
        query, key, value = (_heads(part, heads, width) for part in seen[f"{name}.qkv"].chunk(3, dim=-1))  # B T H K
        scores = torch.einsum("bqhk,bthk->bhqt", query, key)  # B H T T
        if architecture.option("scaleScores"):
            scores = scores / math.sqrt(width)
        seen[f"{name}.attn.hook_q"], seen[f"{name}.attn.hook_k"], seen[f"{name}.attn.hook_v"] = query, key, value
        seen[f"{name}.attn.hook_attn_scores"] = _mask_future(scores)
        seen[f"{name}.attn.hook_pattern"] = pattern
        seen[f"{name}.attn.hook_z"] = _heads(seen[f"{name}.z"], heads, width)
    return {point.name: seen[point.name].numpy() for point in architecture.hook_points() if point.on}


def _heads(value: torch.Tensor, heads: int, width: int) -> torch.Tensor:
    return value.reshape(*value.shape[:-1], heads, width)  # B T H K


def _add_norm(seen: dict[str, torch.Tensor], name: str, value: torch.Tensor, epsilon: float) -> None:
    centred = value - value.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + epsilon).sqrt()  # B T 1
    seen[f"{name}.hook_scale"] = scale
    seen[f"{name}.hook_normalized"] = centred / scale


def transformer_lens_activations(folder: Path, architecture: Architecture, tokens: list[int]) -> Activations:
    """As `transformers_activations`, from TransformerLens's bridge with raw weights."""
    # booting may call pip for packages that a text model never needs; this keeps it from the network
    for setting, text in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", ""), ("PIP_CONFIG_FILE", os.devnull)):
        os.environ.setdefault(setting, text)
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    bridge: Any = TransformerBridge.boot_transformers(str(folder), hf_model=_load(folder), device="cpu")
    with torch.no_grad():
        _, cache = bridge.run_with_cache(torch.tensor([tokens]))
    activations: Activations = {}
    for point in architecture.hook_points():
        if point.on:
            value = cache[point.name].detach()
            if point.name.endswith("hook_attn_scores"):
                value = _mask_future(value)
            activations[point.name] = value.numpy()
    return activations
