"""NeuroScopeActivationBridge: hook specifications for common analyses, and activations as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hook = dict[str, Any]


class NeuroScopeActivationBridge:
    """`layer_pattern` is how the model's layers are called; a TransformerLens name works too."""

    def __init__(self, layer_pattern: str = "transformer.h.{layer}") -> None:
        self.layer_pattern = layer_pattern

    def create_hook_specs_for_circuit_analysis(
        self, model_layers: int, components: Sequence[str] = ("residual", "attention", "mlp")
    ) -> list[Hook]:
        """A hook for each component of each layer."""
        return [self._hook(layer, component) for layer in range(model_layers) for component in components]

    def create_attention_analysis_hooks(
        self, model_layers: int, target_layers: Sequence[int] | None = None
    ) -> list[Hook]:
        """Scores, pattern, queries, keys and values of the target layers, of all where none are named.

        Raises: ValueError for a layer that the model has not.
        """
        layers = range(model_layers) if target_layers is None else target_layers
        outside = [layer for layer in layers if not 0 <= layer < model_layers]
        if outside:
            raise ValueError(
                f"Layer {outside[0]} was asked for, and the model's layers are 0 to {model_layers - 1}; leave it out."
            )
        parts = ("attention_scores", "attention_pattern", "query", "key", "value")
        return [self._hook(layer, part) for layer in layers for part in parts]

    def convert_activations(
        self, activations: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, list[NDArray[np.float32]]]:
        """Arrays by hook_id, one a pass. Null becomes NaN."""
        return {
            hook_id: [
                np.asarray(entry["data"], dtype=object).astype(np.float32).reshape(entry["shape"]) for entry in entries
            ]
            for hook_id, entries in activations.items()
        }

    def _hook(self, layer: int, component: str) -> Hook:
        return {
            "layer_name": self.layer_pattern.format(layer=layer),
            "component": component,
            "hook_id": f"layer_{layer}_{component}",
            "capture_input": False,
            "capture_output": True,
        }
