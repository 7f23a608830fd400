"""A model's hooks as a client needs them before a pass: in the order of a pass, with their shapes in letters.

    blocks.0.attn.hook_z   B T H 16      blocks.0.attn.hook_pattern   B H T T      blocks.3.mlp.experts.hook_out   B*T D

The second T is the keys', as in the architecture files of js_bridge; a number is the model's own extent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from neuroscope.lab.model import Description

_LAYER = re.compile(r"^blocks\.(\d+)\.")
# TransformerLens has these only where they are asked for: some of them take the place of others.
_OPTIONAL = ("hook_result", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in")

Axes = Mapping[str, Sequence[str | int]]


def hook_table(axes: Axes, description: Description) -> list[dict[str, Any]]:
    """Name, letters, and whether the hook is there without being asked for."""
    return [
        {
            "name": name,
            "shape": " ".join(letters_of(axes[name], description)),
            "on": not name.endswith(_OPTIONAL),
        }
        for name in sorted(axes, key=_order)
    ]


def letters_of(axes: Sequence[str | int], description: Description) -> list[str]:
    """One for each axis."""
    heads_at = next(
        (at for at, axis in enumerate(axes) if at > 0 and len(axes) == 4 and axis == description.heads), None
    )
    widths = {description.width: "D", description.vocabulary: "V"}
    letters = []
    for at, axis in enumerate(axes):
        if isinstance(axis, str):
            letters.append("T" if axis == "S" else axis)
        else:
            letters.append("H" if at == heads_at else widths.get(axis, str(axis)))
    return letters


def _order(name: str) -> tuple[int, int, str]:
    layer = _LAYER.match(name)
    if layer is not None:
        return 1, int(layer[1]), name
    return (0 if "embed" in name and not name.startswith("unembed") else 2), 0, name
