"""Interventions as data, with the meaning that js_bridge/protocol.ts gives them: what happens at a hook point.

    {"hook": "blocks.5.hook_resid_post", "action": "scale", "by": 0.5, "at": {"position": -1}}

Positions are absolute: in cached generation, where each pass computes one position, they count from the first token;
negative ones count from the end of what has been read so far. A tensor is {"shape": […], "data": […]}, or with
"base64" instead of "data" its little-endian float32 bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import LabError
from neuroscope.lab.hook_names import axes_of

Floats = NDArray[np.float32]
ACTIONS = ("zero", "scale", "add", "set", "patch", "projectOut")
_LARGEST = float(np.finfo(np.float32).max)
_AXIS_OF = {"batch": "B", "position": "T", "head": "H", "key": "S", "neuron": "D"}


class Arrays(Protocol):
    """What an engine's arrays can do; the rest is Python's operators and indexing."""

    def of(self, numbers: Floats, like: Any) -> Any: ...
    def index(self, places: NDArray[np.int64], like: Any) -> Any: ...
    def copy(self, value: Any) -> Any: ...
    def zeros_like(self, value: Any) -> Any: ...
    def broadcast(self, value: Any, shape: tuple[int, ...]) -> Any: ...
    def sum_last(self, value: Any) -> Any: ...


@dataclass(frozen=True)
class Intervention:
    """One change at one hook point."""

    hook: str
    action: str
    at: Mapping[str, Sequence[int]] = field(default_factory=dict)
    number: float | None = None  # `by` of scale, `value` of add and set
    tensor: Floats | None = None
    times: float = 1.0

    def apply(self, arrays: Arrays, value: Any, offset: int) -> Any:
        """The value after it; `offset` is the absolute position of the value's first.

        Raises: LabError for a region outside the value, or a tensor that does not fit.
        """
        shape = tuple(int(extent) for extent in value.shape)
        places = self._places(shape, offset)
        if any(len(each) == 0 for each in places):
            return value  # a position that another pass computes
        grid = tuple(arrays.index(each, value) for each in np.ix_(*places))
        result = arrays.copy(value)
        result[grid] = self._changed(arrays, value[grid], shape, places)
        return result

    def _changed(self, arrays: Arrays, part: Any, shape: tuple[int, ...], places: Sequence[NDArray[np.int64]]) -> Any:
        if self.action == "zero":
            return arrays.zeros_like(part)
        if self.action == "scale":
            return part * self.number
        if self.action == "projectOut":
            direction = self._operand(arrays, part, (shape[-1],))
            along = arrays.sum_last(part * direction) / arrays.sum_last(direction * direction)
            return part - along * direction
        if self.action == "patch":
            assert self.tensor is not None
            if self.tensor.shape != shape:
                raise self._misfit(f"patch takes a tensor of the hook's whole shape {list(shape)}")
            return arrays.of(self.tensor[np.ix_(*places)], part)
        if self.tensor is None:
            return part + self.number if self.action == "add" else arrays.zeros_like(part) + self.number
        operand = self._operand(arrays, part, tuple(part.shape))
        return part + self.times * operand if self.action == "add" else operand

    def _operand(self, arrays: Arrays, part: Any, shape: tuple[int, ...]) -> Any:
        assert self.tensor is not None
        try:
            np.broadcast_shapes(self.tensor.shape, shape)
            return arrays.broadcast(arrays.of(self.tensor, part), shape)
        except (ValueError, RuntimeError) as error:
            raise self._misfit(f"{self.action} takes one that broadcasts to {list(shape)}") from error

    def _misfit(self, allowed: str) -> LabError:
        shape = None if self.tensor is None else list(self.tensor.shape)
        return LabError(
            f"The intervention at {self.hook} has a tensor of shape {shape}; {allowed}.",
            code="shape_mismatch",
            parameter="interventions",
        )

    def _places(self, shape: tuple[int, ...], offset: int) -> list[NDArray[np.int64]]:
        axes = axes_of(self.hook, len(shape))
        unknown = [name for name in self.at if _AXIS_OF[name] not in axes]
        if unknown:
            raise LabError(
                f"{self.hook} has the axes {' '.join(axes)}, and so no {unknown[0]} that an intervention could name.",
                code="bad_region",
                parameter="interventions",
            )
        by_axis = {_AXIS_OF[name]: indices for name, indices in self.at.items()}
        return [self._along(axis, extent, by_axis.get(axis), offset) for axis, extent in zip(axes, shape, strict=True)]

    def _along(self, axis: str, extent: int, indices: Sequence[int] | None, offset: int) -> NDArray[np.int64]:
        if indices is None:
            return np.arange(extent)
        total = offset + extent if axis == "T" else extent
        places = [index + total if index < 0 else index for index in indices]
        if axis == "T":
            if any(place < 0 for place in places):
                raise self._outside(indices, total)
            return np.array([place - offset for place in places if offset <= place < total], np.int64)
        if any(not 0 <= place < extent for place in places):
            raise self._outside(indices, extent)
        return np.array(places, np.int64)

    def _outside(self, indices: Sequence[int], extent: int) -> LabError:
        return LabError(
            f"The intervention at {self.hook} names {list(indices)} along an axis of {extent}.",
            code="bad_region",
            parameter="interventions",
        )


def read_intervention(json: Mapping[str, Any]) -> Intervention:
    """From its JSON. Raises: LabError that names what is wrong."""
    hook, action = json.get("hook"), json.get("action")
    if not isinstance(hook, str):
        raise _bad(f"An intervention names its hook as a text, not as {hook!r}")
    if action not in ACTIONS:
        raise _bad(f"The action {action!r} at {hook} is none of {', '.join(ACTIONS)}")
    unknown = set(json) - {"hook", "action", "at", "by", "value", "tensor", "times"}
    if unknown:
        raise _bad(f"The intervention at {hook} has a field {sorted(unknown)[0]!r}, which means nothing")
    tensor = None if json.get("tensor") is None else read_tensor(json["tensor"])
    number = json.get("by" if action == "scale" else "value")
    times = json.get("times", 1.0)
    for name, each in (("number", number), ("times", times)):
        if each is not None and not _is_finite(each):
            raise _bad(f"The {name} of {action} at {hook} is {each!r}, and has to be a finite number")
    if action == "scale" and number is None:
        raise _bad(f"scale at {hook} needs a number `by`")
    if action in ("patch", "projectOut") and tensor is None:
        raise _bad(f"{action} at {hook} needs a `tensor`")
    if action in ("add", "set") and (number is None) == (tensor is None):
        raise _bad(f"{action} at {hook} needs either a `value` or a `tensor`")
    region = _read_region(hook, json.get("at") or {})
    if action == "projectOut" and "neuron" in region:
        raise _bad(f"projectOut at {hook} works on whole vectors; leave out `neuron`")
    return Intervention(hook, action, region, number, tensor, float(times))


def _is_finite(value: Any) -> bool:
    """As a float32, which a long whole number is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _read_region(hook: str, json: Any) -> dict[str, list[int]]:
    if not isinstance(json, Mapping):
        raise _bad(f"The region of the intervention at {hook} is {json!r}, and has to be an object")
    region = {}
    for name, given in json.items():
        if name not in _AXIS_OF:
            raise _bad(f"The region at {hook} names {name!r}; it can name {', '.join(_AXIS_OF)}")
        indices = given if isinstance(given, list) else [given]
        if not indices or any(isinstance(index, bool) or not isinstance(index, int) for index in indices):
            raise _bad(f"{name} of the region at {hook} is {given!r}, and has to be a whole number or a list of such")
        region[name] = indices
    return region


def read_tensor(json: Any) -> Floats:
    """A tensor from its JSON. Raises: LabError."""
    if not isinstance(json, Mapping) or not isinstance(json.get("shape"), list):
        raise _bad('A tensor is {"shape": […], "data": […]} or {"shape": […], "base64": "…"}')
    shape = json["shape"]
    if any(isinstance(extent, bool) or not isinstance(extent, int) or extent < 1 for extent in shape):
        raise _bad(f"A tensor's shape is {shape!r}, and has to be a list of whole numbers from 1 on")
    try:
        if "base64" in json:
            flat = np.frombuffer(base64.b64decode(json["base64"], validate=True), "<f4")
        else:
            with np.errstate(over="ignore"):  # beyond float32 is not finite, which is refused below
                flat = np.asarray(json.get("data"), np.float32).reshape(-1)
        tensor = flat.astype(np.float32).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise _bad(f"The numbers of a tensor of shape {shape} can't be read ({error})") from error
    if not np.isfinite(tensor).all():
        raise _bad(f"A tensor of shape {shape} holds a number that is not finite")
    return tensor


def _bad(text: str) -> LabError:
    return LabError(f"{text}.", code="bad_intervention", parameter="interventions")
