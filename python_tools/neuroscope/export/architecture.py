"""What js_bridge/architectures/NAME.json says, for the exporter: dimensions, tensors, hook points.

The browser reads the same files; nothing about an architecture's names is written a second time here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from neuroscope.errors import CheckpointError
from neuroscope.project import ROOT

FOLDER = ROOT / "js_bridge" / "architectures"
LAYER = "{layer}"


@dataclass(frozen=True)
class TensorRule:
    """One tensor of a checkpoint: its name below the prefix, its stored shape, and the parameters it holds."""

    name: str
    prefixes: tuple[str, ...]
    shape: tuple[int, ...]
    tied_to: str | None


@dataclass(frozen=True)
class HookPoint:
    """A hook point of one model: its full name, its axes as letters, and whether it is on without being asked for."""

    name: str
    axes: tuple[str, ...]
    on: bool


@dataclass(frozen=True)
class Architecture:
    """An architecture file together with the configuration of one model."""

    name: str
    declaration: Mapping[str, Any]
    config: Mapping[str, Any]
    dimensions: Mapping[str, int]

    @property
    def layers(self) -> int:
        return self.dimensions["L"]

    def option(self, name: str) -> Any:
        """A decoder option, e.g. `epsilon`: from the configuration, translated, or the file's own constant."""
        entry = self.declaration["decoder"][name]
        if not isinstance(entry, dict):
            return entry
        value = self.config.get(entry["config"])
        if value is None:
            value = entry["default"]
        names = entry.get("names")
        if names is None:
            return value
        if value not in names:
            raise CheckpointError(
                f"config.json has {entry['config']} {value!r}, and {self.name} is run with one of "
                f"{', '.join(sorted(names))}; this checkpoint can't be exported yet."
            )
        return names[value]

    @property
    def ties_unembedding(self) -> bool:
        """Whether the unembedding is the embedding's own matrix."""
        return bool(self.config.get("tie_word_embeddings", True))

    def tensors(self) -> list[TensorRule]:
        """Every tensor of the checkpoint, in forward order; without the tied one where it is tied."""
        rules = []
        entries = self.declaration["tensors"]
        before = [entry for entry in entries if LAYER not in entry["source"]]
        split = next(index for index, entry in enumerate(entries) if LAYER in entry["source"])
        for entry in before[:split]:
            rules.append(self._rule(entry, entry["source"]))
        for layer in range(self.layers):
            for entry in entries:
                if LAYER in entry["source"]:
                    rules.append(self._rule(entry, entry["source"].replace(LAYER, str(layer))))
        for entry in before[split:]:
            if not (entry.get("tiedTo") and self.ties_unembedding):
                rules.append(self._rule(entry, entry["source"]))
        return rules

    def _rule(self, entry: Mapping[str, Any], name: str) -> TensorRule:
        prefixes = tuple(entry.get("prefixes", self.declaration["tensorPrefixes"]))
        shape = tuple(self._extent(axis) for axis in entry["stored"])
        return TensorRule(name, prefixes, shape, entry.get("tiedTo"))

    def _extent(self, axis: str) -> int:
        factor, letter = re.fullmatch(r"(\d*)([A-Z])", axis).groups()  # type: ignore[union-attr]
        return int(factor or 1) * self.dimensions[letter]

    def is_ignored(self, tensor: str) -> bool:
        """Whether a checkpoint may have `tensor` without its being exported: masks, and tied copies."""
        patterns = [*self.declaration["ignoredTensors"]]
        patterns += [entry["source"] for entry in self.declaration["tensors"] if entry.get("tiedTo")]
        return any(
            re.fullmatch(re.escape(prefix + pattern).replace(re.escape(LAYER), r"\d+"), tensor)
            for pattern in patterns
            for prefix in self.declaration["tensorPrefixes"]
        )

    def hook_points(self) -> list[HookPoint]:
        """Every hook point of the model, in forward order."""
        points: list[HookPoint] = []
        per_layer: list[Mapping[str, Any]] = []
        for entry in self.declaration["hooks"]:
            if LAYER in entry["name"]:
                per_layer.append(entry)
                continue
            points += self._layers_of(per_layer)
            per_layer = []
            points.append(_hook_point(entry, entry["name"]))
        return points + self._layers_of(per_layer)

    def _layers_of(self, entries: list[Mapping[str, Any]]) -> list[HookPoint]:
        return [
            _hook_point(entry, entry["name"].replace(LAYER, str(layer)))
            for layer in range(self.layers if entries else 0)
            for entry in entries
        ]


def _hook_point(entry: Mapping[str, Any], name: str) -> HookPoint:
    return HookPoint(name, tuple(entry["shape"].split()), entry.get("on", True))


@cache
def _declarations() -> dict[str, Mapping[str, Any]]:
    """Every architecture file, by model type."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        declaration = json.loads(path.read_text())
        for model_type in declaration["modelTypes"]:
            found[model_type] = declaration
    return found


def architecture_of(config: Mapping[str, Any], folder: Path) -> Architecture:
    """The architecture that config.json of `folder` asks for.

    Raises: CheckpointError when there is no file for it, or when the model uses what the file refuses.
    """
    supported = _declarations()
    model_type = config.get("model_type")
    if model_type not in supported:
        raise CheckpointError(
            f"{folder / 'config.json'} has model_type {model_type!r}, and the supported architectures are "
            f"{', '.join(sorted(supported))}."
        )
    declaration = supported[model_type]
    for field, refused in declaration.get("refused", {}).items():
        if config.get(field) in refused:
            raise CheckpointError(
                f"{folder / 'config.json'} sets {field} to {config[field]!r}, which {declaration['architecture']} "
                "is not run with here; only checkpoints without it can be exported."
            )
    dimensions = _dimensions(declaration, config, folder)
    architecture = Architecture(declaration["architecture"], declaration, config, dimensions)
    for name in declaration["decoder"]:
        architecture.option(name)
    if "H" in dimensions and dimensions["D"] % dimensions["H"]:
        raise CheckpointError(
            f"{folder / 'config.json'} has width {dimensions['D']} and {dimensions['H']} heads; the width must be a "
            "multiple of the number of heads."
        )
    return architecture


def _dimensions(declaration: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> dict[str, int]:
    dimensions: dict[str, int] = {}

    def evaluate(rule: Any) -> int:
        if "quotient" in rule:
            top, bottom = (dimensions[letter] for letter in rule["quotient"])
            return top // bottom
        if "product" in rule:
            letter, factor = rule["product"]
            return int(dimensions[letter]) * int(factor)
        for field in (rule["config"], rule.get("or")):
            value = config.get(field)
            if value is not None:
                if not isinstance(value, int) or value < 1:
                    raise CheckpointError(
                        f"{folder / 'config.json'} has {field} {value!r}; it must be a whole number from 1 on."
                    )
                return value
        if "default" in rule:
            return evaluate(rule["default"])
        raise CheckpointError(f"{folder / 'config.json'} has no {rule['config']}, which gives the model its size.")

    for letter, rule in declaration["dimensions"].items():
        dimensions[letter] = evaluate(rule)
    return dimensions
