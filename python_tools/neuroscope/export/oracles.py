"""Activations that a bundle is held against, from PyTorch: by TransformerLens, and by transformers with forward hooks.

Two oracles, because they share little: TransformerLens has the hook points itself; transformers' modules are hooked by
module_points.py, which has a few points less. Both run in float32 on the processor.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from neuroscope.errors import CheckpointError, MissingProgramError
from neuroscope.export.architecture import Architecture
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.decoder import decoder_of
from neuroscope.export.int8 import Int8Tensor
from neuroscope.export.tensor_file import Floats

if TYPE_CHECKING:
    import torch

    from neuroscope.export.module_points import ModulePoints

Activations = dict[str, Floats]
Tokens = Sequence[Sequence[int]]


class Oracle(Protocol):
    """Something that knows the right numbers of one checkpoint."""

    name: str
    completed: set[str]  # the points that came from modules of transformers though it is another oracle

    def activations(self, tokens: Tokens) -> Activations:
        """The hook points that are on and that it knows, in forward order. Shapes: those of the architecture file."""
        ...


def has_torch() -> bool:
    """Whether PyTorch and transformers are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def has_transformer_lens() -> bool:
    return has_torch() and importlib.util.find_spec("transformer_lens") is not None


def best_oracle(folder: Path) -> Oracle:
    """TransformerLens where it is installed and runs the model, completed by hooks on transformers' modules.

    Raises: MissingProgramError without PyTorch.
    """
    if not has_torch():
        raise MissingProgramError(
            "PyTorch is not installed, and activations of a checkpoint come from it; install it with "
            "`pip install neuroscope[torch]`, or verify without --against, which uses the bundle's own reference."
        )
    architecture = open_checkpoint(folder).architecture
    return LensOracle(folder) if has_transformer_lens() and is_run_by_lens(architecture) else TorchOracle(folder)


def is_run_by_lens(architecture: Architecture) -> bool:
    """Whether TransformerLens 4.3's bridge runs a model as transformers does. Not:

    - GPT-2 without the root under its scores: they are divided by it all the same
    - GPT-NeoX without biases: one of query, key and value is asked for
    - OPT with its norms after attention and MLP, as opt-350m has them: rows and positions are flattened on the way
    """
    if architecture.name == "gpt2":
        return bool(architecture.option("scaleScores"))
    if architecture.name == "gpt_neox":
        return architecture.config.get("attention_bias") is not False
    return bool(architecture.option("normPlacement") != "after")


# Points that the bridge has with other numbers: in these families the scores are the pattern over again.
_WRONG_IN_LENS = {"gpt_neo": "hook_attn_scores", "opt": "hook_attn_scores"}


def _load(folder: Path) -> Any:
    """The model, with the biases that processing gave to layers which have none in transformers' own class."""
    checkpoint = open_checkpoint(folder)
    if any(isinstance(tensor, Int8Tensor) for tensor in checkpoint.tensors.values()):
        raise CheckpointError(
            f"{folder} has its weights as int8 codes, which transformers would take for the weights themselves; widen "
            "them first."
        )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    for name, rule in checkpoint.rules.items():
        if rule.appears:
            numbers = torch.from_numpy(checkpoint.tensors[name].rows(0, 1)[0])
            is_unembedding = rule.parts == ("unembed.b_U",)
            module = (
                model.get_output_embeddings() if is_unembedding else model.get_submodule(name.removesuffix(".bias"))
            )
            module.bias = torch.nn.Parameter(numbers)
    model.requires_grad_(False)
    return model


class TorchOracle:
    """transformers, with forward hooks on its modules."""

    def __init__(self, folder: Path) -> None:
        from importlib.metadata import version

        from neuroscope.export.module_points import ModulePoints

        self.name = f"transformers {version('transformers')}"
        self.completed: set[str] = set()
        self._architecture = open_checkpoint(folder).architecture
        self._model = _load(folder)
        self._points = ModulePoints(self._model, self._architecture)

    def activations(self, tokens: Tokens) -> Activations:
        import torch

        with torch.no_grad():
            found = self._points.of_pass(torch.tensor([list(row) for row in tokens]))
        return _in_order(self._architecture, found)


class LensOracle:
    """TransformerLens's bridge with raw weights, and hooks on the modules below it where it has no such point."""

    def __init__(self, folder: Path) -> None:
        # booting may call pip for packages that a text model never needs; this keeps it from the network
        for setting, text in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", ""), ("PIP_CONFIG_FILE", os.devnull)):
            os.environ.setdefault(setting, text)
        from importlib.metadata import version

        from transformer_lens.model_bridge import TransformerBridge

        self.name = f"transformer-lens {version('transformer-lens')}"
        self.completed: set[str] = set()
        self._architecture = open_checkpoint(folder).architecture
        model = _load(folder)
        self._folder = folder
        self._points: ModulePoints | None = None
        self.bridge: Any = TransformerBridge.boot_transformers(
            str(folder), hf_model=model, tokenizer=_no_tokenizer(), device="cpu"
        )

    def activations(self, tokens: Tokens) -> Activations:
        import torch

        from neuroscope.export.module_points import ModulePoints

        ids = torch.tensor([list(row) for row in tokens])
        with torch.no_grad():
            _, cache = self.bridge.run_with_cache(ids)
        found = lens_points(cache, self._architecture, len(ids))
        missing = {point.name for point in self._architecture.hook_points() if point.on} - found.keys()
        if missing:
            if self._points is None:  # of another model: the bridge changes the modules of its own
                self._points = ModulePoints(_load(self._folder), self._architecture)
            with torch.no_grad():
                others = self._points.of_pass(ids)
            self.completed |= missing & others.keys()
            found |= {name: value for name, value in others.items() if name in missing}
        return _in_order(self._architecture, found)


def lens_points(cache: Any, architecture: Architecture, batch: int) -> dict[str, torch.Tensor]:
    """What a cache of the bridge has of the points that are on, with the axes of the architecture file."""
    from neuroscope.export.module_points import mask_future

    windows = decoder_of(architecture).windows
    found = {}
    for point in architecture.hook_points():
        wrong = _WRONG_IN_LENS.get(architecture.name)
        if not point.on or point.name not in cache or (wrong and point.name.endswith(wrong)):
            continue
        value = cache[point.name].detach().float()
        if point.name.endswith("hook_attn_scores"):
            value = mask_future(value, windows[int(point.name.split(".")[1])])
        elif point.axes[:2] == ("B", "T") and value.ndim < len(point.axes):
            value = value.reshape(batch, -1, *value.shape[1:])  # OPT flattens rows and positions before its MLP
        found[point.name] = value
    return found


def _in_order(architecture: Architecture, found: dict[str, torch.Tensor]) -> Activations:
    return {
        point.name: found[point.name].contiguous().numpy()
        for point in architecture.hook_points()
        if point.on and point.name in found
    }


def _no_tokenizer() -> Any:
    """A tokenizer of no use, which keeps the bridge from looking for one: tokens come as numbers here."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"0": 0}, unk_token="0")))  # type: ignore[no-untyped-call]
