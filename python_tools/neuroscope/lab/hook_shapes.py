"""The shapes of hooks' values, learned from two small passes: what an axis counts is what explains both its extents.

    first pass    1 row,  2 positions behind 1     B 1  T 2  S 3  B*T 2
    second pass   2 rows, 3 positions behind 4     B 2  T 3  S 7  B*T 6

An extent that stays is the model's own. A layer with a sliding window sees fewer keys, as many as its cache holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroscope.errors import LabError
from neuroscope.lab.model import Step, Watch

_LAYER = re.compile(r"^blocks\.(\d+)\.")
Forward = Callable[..., Step]


@dataclass(frozen=True)
class Pass:
    """The counts of one pass."""

    batch: int
    positions: int
    cached: int

    def keys(self, window: int | None) -> int:
        """How many keys a layer sees; of the cached ones, a window keeps one less than it is wide."""
        held = self.cached if window is None else min(self.cached, window - 1)
        return held + self.positions


# What an axis can count, by its letter.
_COUNTS: Mapping[str, Callable[[Pass, int | None], int]] = {
    "B": lambda each, _: each.batch,
    "T": lambda each, _: each.positions,
    "S": lambda each, window: each.keys(window),
    "B*T": lambda each, _: each.batch * each.positions,
}
_FIRST, _SECOND = Pass(1, 2, 1), Pass(2, 3, 4)
PROBED = _SECOND.cached + _SECOND.positions  # positions that the probing reaches


@dataclass(frozen=True)
class HookShapes:
    """Axes by hook name: a letter of `_COUNTS`, or the model's own extent."""

    axes: Mapping[str, Sequence[str | int]]
    windows: Sequence[int | None]  # by layer

    def shape(self, name: str, of: Pass) -> tuple[int, ...]:
        window = _window(name, self.windows)
        return tuple(axis if isinstance(axis, int) else _COUNTS[axis](of, window) for axis in self.axes[name])

    def bytes(self, name: str, of: Pass) -> int:
        """As float32. Raises: LabError for a name that no pass has."""
        if name not in self.axes:
            raise LabError(f"The model has no hook {name!r}.", code="unknown_hook", parameter="layer_name")
        size = 4
        for extent in self.shape(name, of):
            size *= extent
        return size


def learn_shapes(
    forward: Forward, names: Sequence[str], windows_of: Callable[[Any], Sequence[int | None]]
) -> HookShapes:
    """Of those among the names at which a value passes; `windows_of` reads the windows from a cache."""
    found = []
    windows: Sequence[int | None] = ()
    for each in (_FIRST, _SECOND):
        past = forward([[0] * each.cached] * each.batch, Watch()).past
        windows = windows_of(past)
        step = forward([[0] * each.positions] * each.batch, Watch(captures=names), past=past)
        found.append({name: value.shape for name, value in step.activations.items()})
    first, second = found
    axes = {
        name: [_axis(extents, _window(name, windows)) for extents in zip(first[name], second[name], strict=True)]
        for name in names
        if name in first and name in second
    }
    return HookShapes(axes, windows)


def _axis(extents: tuple[int, int], window: int | None) -> str | int:
    if extents[0] == extents[1]:
        return extents[0]
    for letter, count in _COUNTS.items():
        if extents == (count(_FIRST, window), count(_SECOND, window)):
            return letter
    raise AssertionError(f"extents {extents} count nothing that is known")


def _window(name: str, windows: Sequence[int | None]) -> int | None:
    layer = _LAYER.match(name)
    return windows[int(layer[1])] if layer is not None and int(layer[1]) < len(windows) else None
