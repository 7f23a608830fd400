"""Rotary positions: by how much a position turns each pair of a head's numbers, under every published way of scaling.

A turn is position · frequency; cosines and sines are multiplied by `magnitude`. Computed here once, while a graph is
built; what depends on the length of the text (longrope) gives two tables, and the graph chooses.
Source: Su et al. 2021 (RoFormer); Chen et al. 2023 (linear); Peng et al. 2023, sections 3.2-3.4 (YaRN); Ding et al.
2024 (LongRoPE); Llama 3's model card (llama3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope.errors import CheckpointError
from neuroscope.export.tensor_file import Floats

KINDS = ("default", "linear", "llama3", "yarn", "longrope")


@dataclass(frozen=True)
class Rotary:
    """The turns of one kind of layer. Units: radians a position."""

    frequencies: Floats  # one for each pair of numbers
    magnitude: float
    beyond: int | None = None  # texts longer than this take `long`
    long: Floats | None = None


def rotary(
    width: int, *, theta: float, kind: str, settings: Mapping[str, Any], positions: int, original: int | None
) -> Rotary:
    """The turns for `width` numbers of a head.

    `settings` are the fields of rope_parameters (or rope_scaling), `positions` the longest text of the model and
    `original` the longest that it was first trained for.
    Raises: CheckpointError for a way of scaling that is not known.
    """
    powers = np.arange(0, width, 2, dtype=np.float64) / width
    plain = 1 / theta**powers
    if kind == "default":
        return Rotary(_float32(plain), 1.0)
    if kind == "linear":
        return Rotary(_float32(plain / float(settings["factor"])), 1.0)
    first = int(settings.get("original_max_position_embeddings") or original or positions)
    if kind == "llama3":
        return Rotary(_float32(_by_wavelength(plain, first, settings)), 1.0)
    if kind == "yarn":
        return _yarn(plain, width, theta, first, settings, positions)
    if kind == "longrope":
        return _longrope(plain, first, settings, positions)
    raise CheckpointError(
        f"config.json scales rotary positions by {kind!r}, and what is known is {', '.join(KINDS)}; this checkpoint "
        "can't be exported yet."
    )


def _float32(numbers: Any) -> Floats:
    return np.asarray(numbers, np.float32)


def _by_wavelength(plain: Any, original: int, settings: Mapping[str, Any]) -> Any:
    """Fast turns stay, slow ones are divided by the factor, and those in between change over smoothly."""
    factor, low, high = (float(settings[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = original * plain / (2 * math.pi)  # in the original length
    share = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - share) * plain / factor + share * plain


def _yarn(plain: Any, width: int, theta: float, original: int, settings: Mapping[str, Any], positions: int) -> Rotary:
    factor = float(settings.get("factor") or positions / original)

    def pair_that_turns(times: float) -> float:
        return width * math.log(original / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = pair_that_turns(float(settings.get("beta_fast") or 32))
    high = pair_that_turns(float(settings.get("beta_slow") or 1))
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    slow = np.clip((np.arange(width // 2) - low) / max(high - low, 0.001), 0, 1)
    frequencies = plain / factor * slow + plain * (1 - slow)
    return Rotary(_float32(frequencies), _yarn_magnitude(factor, settings))


def _yarn_magnitude(factor: float, settings: Mapping[str, Any]) -> float:
    def growth(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1 if factor > 1 else 1.0

    given = settings.get("attention_factor")
    if given is not None:
        return float(given)
    scale, scale_of_all = settings.get("mscale"), settings.get("mscale_all_dim")
    if scale and scale_of_all:
        return growth(float(scale)) / growth(float(scale_of_all))
    return growth(1)


def _longrope(plain: Any, original: int, settings: Mapping[str, Any], positions: int) -> Rotary:
    short, long = (np.asarray(settings[name], np.float64) for name in ("short_factor", "long_factor"))
    magnitude = settings.get("attention_factor")
    if magnitude is None:
        factor = float(settings.get("factor") or positions / original)
        magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return Rotary(_float32(plain / short), float(magnitude), original, _float32(plain / long))
