"""What the demo model never sees in training, and the questions that are made of it.

A split is a rule, not a list: the CRC-32 of a combination's name decides, so that it is the same on every machine
and in every run, and a new template or name moves nothing that was held out before.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A prompt that ends right before `answer`; `rival` is the wrong answer that a shallow rule would give."""

    prompt: str
    answer: str
    rival: str | None = None


def is_held_out(percent: int, *parts: object) -> bool:
    """Whether the combination `parts` belongs to the held-out `percent` of all combinations."""
    return zlib.crc32("|".join(map(str, parts)).encode()) % 100 < percent


def held_out_choice(count: int, *parts: object) -> int:
    """Which one of `count` alternatives is held out for the combination `parts`."""
    return zlib.crc32("|".join(map(str, parts)).encode()) % count
