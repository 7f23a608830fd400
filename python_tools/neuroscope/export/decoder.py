"""What the decoder of one model is told: an architecture file's `decoder` section, worked out against a configuration.

The same words as js_bridge/engine/decoder/architecture.ts; the tables of both are the same files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroscope.errors import CheckpointError
from neuroscope.export.architecture import Architecture
from neuroscope.export.rotary import Rotary, rotary

SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Experts:
    """Of a mixture: each token goes to `chosen` of them; a gate is cut off at `limit` and sharpened by `alpha`."""

    chosen: int
    alpha: float
    limit: float


@dataclass(frozen=True)
class Decoder:
    """Settings of the forward pass. Lists have one entry a layer."""

    is_centred: bool  # layer norm, not that of the root mean square
    weight_offset: float  # added to a norm's weight
    norm_placement: str  # before, after, both: of attention and MLP
    has_final_norm: bool
    epsilon: float
    learned_positions: bool
    position_offset: int
    rotary: tuple[Rotary, ...]
    turned: int  # numbers of a head that are turned
    embedding_scale: float
    activation: str  # geluTanh, geluErf, relu, silu
    is_gated: bool
    is_parallel: bool
    score_divisor: float
    norms_queries: bool
    has_sinks: bool
    attention_cap: float | None
    logit_cap: float | None
    windows: tuple[int | None, ...]
    experts: Experts | None


def decoder_of(architecture: Architecture) -> Decoder:
    """Raises: CheckpointError for a setting that can't be run."""
    option, dimensions = architecture.option, architecture.dimensions
    windows = _windows(architecture)
    experts = option("experts")
    scale = {"rootOfWidth": math.sqrt(dimensions["D"]), None: 1.0}[option("embeddingScale")]
    turns, turned = _rotary(architecture, windows)
    return Decoder(
        is_centred=option("norm") == "layerNorm",
        weight_offset=float(option("normWeightOffset") or 0),
        norm_placement=option("normPlacement"),
        has_final_norm=bool(option("finalNorm")),
        epsilon=float(option("epsilon")),
        learned_positions=option("positions") == "learned",
        position_offset=int(option("positionOffset") or 0),
        rotary=turns,
        turned=turned,
        embedding_scale=scale,
        activation=option("activation"),
        is_gated=bool(option("gated")),
        is_parallel=bool(option("parallel")),
        score_divisor=math.sqrt(option("scoreScale") or dimensions["K"]) if option("scaleScores") else 1.0,
        norms_queries=bool(option("queryKeyNorm")),
        has_sinks=bool(option("sinks")),
        attention_cap=option("attentionSoftCap"),
        logit_cap=option("logitSoftCap"),
        windows=windows,
        experts=experts
        and Experts(
            dimensions["X"], float(architecture.value(experts["alpha"])), float(architecture.value(experts["limit"]))
        ),
    )


def _windows(architecture: Architecture) -> tuple[int | None, ...]:
    """How many keys a query of each layer sees, its own included; None is all."""
    layers, window = architecture.layers, architecture.declaration["decoder"].get("window")
    size = architecture.value(window["size"]) if window else None
    if size is None or not architecture.value(window["when"]):
        return (None,) * layers
    slides = architecture.value(window["layers"])
    if slides is None:
        slides = [_slides(architecture, window["otherwise"], layer) for layer in range(layers)]
    if len(slides) < layers:
        raise CheckpointError(
            f"config.json has {window['layers']['config']} for {len(slides)} layers, and the model has {layers}; "
            "the two don't belong together."
        )
    return tuple(int(size) if slides[layer] else None for layer in range(layers))


def _slides(architecture: Architecture, rule: Any, layer: int) -> bool:
    if rule == "every":
        return True
    if "except" in rule:
        return (layer + 1) % int(architecture.value(rule["except"])) != 0
    if "from" in rule:
        return layer >= int(architecture.value(rule["from"]))
    kinds = [kind for pattern, count in architecture.value(rule["runs"]) for kind in pattern * count]
    return bool(kinds[layer % len(kinds)] == rule["sliding"])


def _rotary(architecture: Architecture, windows: tuple[int | None, ...]) -> tuple[tuple[Rotary, ...], int]:
    """The turns of each layer, and how many numbers of a head they turn."""
    entry = architecture.declaration["decoder"].get("rotary")
    if not entry:
        return (), 0
    value, config = architecture.value, architecture.config
    parameters = config.get(entry["parameters"]) or {}
    older = config.get(entry["scaling"]) or {}
    turned = int(architecture.dimensions["K"] * float(value(entry["share"])))

    def turns(is_sliding: bool) -> Rotary:
        own: Mapping[str, Any] = parameters.get(SLIDING if is_sliding else FULL, parameters)
        base = value(entry["base"])
        if not parameters and is_sliding and "localBase" in entry:
            base = value(entry["localBase"])
        elif not parameters:
            own = older
        kind = str(own.get("rope_type") or own.get("type") or "default")
        if kind not in entry["kinds"]:
            raise CheckpointError(
                f"config.json scales rotary positions by {kind!r}, and {architecture.name} is run with one of "
                f"{', '.join(entry['kinds'])}; this checkpoint can't be exported yet."
            )
        return rotary(
            turned,
            theta=float(own.get("rope_theta") or base),
            kind=kind,
            settings=own,
            positions=architecture.dimensions["P"],
            original=value(entry.get("original")),
        )

    kinds = {is_sliding: turns(is_sliding) for is_sliding in {window is not None for window in windows}}
    return tuple(kinds[window is not None] for window in windows), turned
