"""Activations on the wire: as the JSON that clients of the activation server know, or as one binary safetensors block.

    JSON     {"hook_id", "layer_name", "component", "shape", "dtype", "is_input", "position", "data": nested lists}
    binary   tensor N is the N-th entry of the JSON, which has no data; the JSON stands in the block's metadata
    stream   an event's `activations` is the binary block in base64, or the JSON

Numbers that are not finite are null in JSON and themselves in binary.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from neuroscope.lab.hook_names import HookSpec
from neuroscope.lab.model import Floats

BINARY = "application/vnd.safetensors"


@dataclass(frozen=True)
class Captured:
    """One value of one hook in one pass."""

    spec: HookSpec
    is_input: bool
    position: int  # absolute, of the pass's first token
    value: Floats

    def describe(self) -> dict[str, Any]:
        return {
            "hook_id": self.spec.hook_id,
            "layer_name": self.spec.layer_name,
            "component": self.spec.component,
            "shape": list(self.value.shape),
            "dtype": "float32",
            "is_input": self.is_input,
            "position": self.position,
        }


def as_json(captured: Sequence[Captured]) -> dict[str, list[dict[str, Any]]]:
    """By hook_id, in the order of the passes."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in captured:
        found.setdefault(each.spec.hook_id, []).append({**each.describe(), "data": nested(each.value)})
    return found


def nested(value: Floats) -> Any:
    """Nested lists; null for what JSON lacks."""
    finite = np.isfinite(value)
    if finite.all():
        return value.tolist()
    shown = value.astype(object)
    shown[~finite] = None
    return shown.tolist()


def as_binary(captured: Sequence[Captured], answer: Mapping[str, Any] | None = None) -> bytes:
    """One safetensors block; `answer` is the rest of the response."""
    tensors = {str(index): np.ascontiguousarray(each.value) for index, each in enumerate(captured)}
    text = json.dumps({**(answer or {}), "activations": [each.describe() for each in captured]})
    return save(tensors, metadata={"neuroscope": text})


def read_binary(block: bytes) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The rest of the response, and the activations by hook_id with `data` an array."""
    length = int.from_bytes(block[:8], "little")
    header = json.loads(block[8 : 8 + length])
    answer = json.loads(header["__metadata__"]["neuroscope"])
    tensors = load(block)
    found: dict[str, list[dict[str, Any]]] = {}
    for index, entry in enumerate(answer.pop("activations")):
        found.setdefault(entry["hook_id"], []).append({**entry, "data": tensors[str(index)]})
    return answer, found


def as_base64(captured: Sequence[Captured]) -> str:
    return base64.b64encode(as_binary(captured)).decode()
