"""From what a client writes to a TransformerLens hook name: a module path with a component, or the name itself.

    transformer.h.5 + residual     ► blocks.5.hook_resid_post
    model.layers.5  + key, input   ► blocks.5.attn.k.hook_in
    blocks.5.attn.hook_z           ► itself

The ten components are the aliases of the architecture files.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from neuroscope import project
from neuroscope.errors import LabError

_LAYER = re.compile(r"(?:^|\.)(?:h|layers|blocks|block|layer)\.(\d+)(?:\.|$)")
_INPUTS = {
    "residual": "hook_resid_pre",
    "attention": "attn.hook_in",
    "mlp": "mlp.hook_in",
    "layernorm": "ln1.hook_in",
    "attention_pattern": "attn.hook_attn_scores",
    "key": "attn.k.hook_in",
    "query": "attn.q.hook_in",
    "value": "attn.v.hook_in",
}
_AXES = {
    "attn.hook_attn_scores": "B H T S",
    "attn.hook_pattern": "B H T S",
}


@cache
def components() -> dict[str, str]:
    """The ten component types, each with its hook's name within a layer."""
    table = json.loads((project.ROOT / "js_bridge" / "architectures" / "gpt2.json").read_text())
    return dict(table["aliases"])


@dataclass(frozen=True)
class HookSpec:
    """One hook of a request."""

    hook_id: str
    layer_name: str
    component: str
    capture_input: bool
    capture_output: bool

    def names(self, known: Collection[str], layers: int) -> list[tuple[str, bool]]:
        """The hook names to capture, each with whether it is the component's input.

        Raises: LabError for a layer, component or name that the model has not, with the near misses.
        """
        wanted = [(hook_name(self.layer_name, self.component, layers), False)] if self.capture_output else []
        if self.capture_input:
            wanted.append((input_name(self.layer_name, self.component, layers), True))
        for name, _ in wanted:
            check_name(name, known)
        return wanted


def layer_of(layer_name: str, layers: int) -> int:
    """The layer's number in a module path. Raises: LabError."""
    found = _LAYER.search(layer_name)
    if found is None:
        raise LabError(
            f"Layer name {layer_name!r} has no layer's number; write a module path such as transformer.h.5 or "
            "model.layers.5, or a TransformerLens name such as blocks.5.hook_resid_post.",
            code="unknown_layer",
            parameter="layer_name",
        )
    number = int(found[1])
    if number >= layers:
        raise LabError(
            f"Layer {number} was asked for in {layer_name!r}, and the model's layers are 0 to {layers - 1}.",
            code="unknown_layer",
            parameter="layer_name",
        )
    return number


def is_hook_name(layer_name: str) -> bool:
    return "hook_" in layer_name.rsplit(".", 1)[-1]


def hook_name(layer_name: str, component: str, layers: int) -> str:
    """Where the output of a component is."""
    if is_hook_name(layer_name):
        return layer_name
    alias = _alias(component)
    return alias if component == "embedding" else f"blocks.{layer_of(layer_name, layers)}.{alias}"


def input_name(layer_name: str, component: str, layers: int) -> str:
    """Where the input of a component is. Raises: LabError for a component that reads no activation."""
    if is_hook_name(layer_name):
        if layer_name.endswith("hook_out"):
            return layer_name.removesuffix("hook_out") + "hook_in"
        raise LabError(
            f"{layer_name} is a single point and has no input of its own; name the point before it instead.",
            code="no_input",
            parameter="capture_input",
        )
    _alias(component)
    if component not in _INPUTS:
        raise LabError(
            f"The component {component} reads no activation that could be captured; set capture_input to false.",
            code="no_input",
            parameter="capture_input",
        )
    return f"blocks.{layer_of(layer_name, layers)}.{_INPUTS[component]}"


def _alias(component: str) -> str:
    try:
        return components()[component]
    except KeyError:
        raise LabError(
            f"Component {component!r} is none of {', '.join(components())}.",
            code="unknown_component",
            parameter="component",
        ) from None


def check_name(name: str, known: Collection[str]) -> None:
    """Raises: LabError for a name that the model has not."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 5, 0.5)
        hint = f"near it are {', '.join(near)}" if near else "GET /v1/models lists all"
        raise LabError(f"The model has no hook {name!r}; {hint}.", code="unknown_hook", parameter="layer_name")


def axes_of(name: str, rank: int) -> list[str]:
    """The letters of a value's axes: B batch, T positions, S keys, H heads, and the last one's width as D.

    Experts' hooks have no batch axis: their rows are positions of all rows of the batch after one another.
    """
    inside = re.sub(r"^blocks\.\d+\.", "", name)
    if inside in _AXES:
        return _AXES[inside].split()
    return {4: ["B", "T", "H", "D"], 3: ["B", "T", "D"], 2: ["T", "D"], 1: ["D"]}.get(rank, ["B", "T", "D"])
