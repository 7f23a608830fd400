"""How far activations are from those of an oracle, and how far is too far.

Tolerance 1e-4, or 1e-4 of the largest number where that is above 1: float32 sums of a few dozen terms in another order
differ by less than 1e-5 here, and no reference is noisier, so nothing is held to 2e-4.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-4


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, relative where numbers are above 1; infinite where shapes or masks differ."""
    if ours.shape != theirs.shape:
        return np.inf
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite]) or not np.isfinite(ours[finite]).all():
        return np.inf
    scale = max(1.0, float(np.abs(theirs[finite]).max(initial=0.0)))
    return float(np.abs(ours[finite] - theirs[finite]).max(initial=0.0)) / scale


def too_far(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float = TOLERANCE) -> list[str]:
    """Every name of `theirs` that is missing or off in `ours`."""
    found = []
    for name, expected in theirs.items():
        away = distance(ours[name], expected) if name in ours else np.nan
        if not away <= tolerance:
            found.append(f"{name}: {away}")
    return found
