"""What js_bridge/architectures/NAME.json says, for the exporter: dimensions, tensors, hook points.

The browser reads the same files; nothing about an architecture's names is written a second time here. What each key
means stands in js_bridge/schemas/architecture.schema.json. What the decoder is told is in decoder.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from neuroscope.errors import CheckpointError
from neuroscope.project import ROOT

FOLDER = ROOT / "js_bridge" / "architectures"
LAYER = "{layer}"
FOLDED_BIASES = "folded_biases"  # the field of config.json with which processing.py asks for biases that it makes


@dataclass(frozen=True)
class TensorRule:
    """One tensor of a checkpoint: its name below the prefix, its stored shape, and the parameters it holds.

    With several parts the outputs are dealt out to them in turn, `sizes` at a time, until all are dealt.
    """

    name: str
    prefixes: tuple[str, ...]
    shape: tuple[int, ...]
    use: str  # matrix, table (a matrix that is also looked up), rows (looked up only), vector
    transpose: bool  # a matrix that is stored as [outputs, inputs]
    parts: tuple[str, ...]
    sizes: tuple[int, ...]
    tied_to: str | None = None
    appears: bool = False  # only where weights were processed: a bias that the family does not have

    @property
    def outputs(self) -> int:
        """How many there are: what is added to, for a vector."""
        return self.shape[-2] if self.use == "matrix" and self.transpose else self.shape[-1]


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
    config: Mapping[str, Any]  # of the text model, where the checkpoint has others too
    dimensions: Mapping[str, int]

    @property
    def layers(self) -> int:
        return self.dimensions["L"]

    def value(self, entry: Any) -> Any:
        """What an entry of the file comes to: itself, or a field of the configuration, translated."""
        if not (isinstance(entry, dict) and "config" in entry):
            return entry
        value = _field(self.config, entry["config"])
        if value is None and "or" in entry:
            value = _field(self.config, entry["or"])
        if value is None and not (entry.get("nullable") and _is_there(self.config, entry["config"])):
            value = entry.get("default")
        names = entry.get("names")
        if names is None or value is None:
            return value
        if isinstance(value, list):
            return [self._translated(entry, each) for each in value]
        return self._translated(entry, value)

    def _translated(self, entry: Mapping[str, Any], value: Any) -> Any:
        names = entry["names"]
        key = str(value).lower() if isinstance(value, bool) else value
        if key not in names:
            raise CheckpointError(
                f"config.json has {entry['config']} {value!r}, and {self.name} is run with one of "
                f"{', '.join(sorted(names))}; this checkpoint can't be exported yet."
            )
        return names[key]

    def option(self, name: str) -> Any:
        """A decoder option, e.g. `epsilon`."""
        return self.value(self.declaration["decoder"].get(name))

    @property
    def ties_unembedding(self) -> bool:
        """Whether the unembedding is the embedding's own matrix."""
        return bool(self.option("tied"))

    def is_there(self, condition: Any) -> bool:
        """Whether a row of the tables with this `when` belongs to the model."""
        if condition is None:
            return True
        if isinstance(condition, dict) and "differ" in condition:
            one, other = condition["differ"]
            return self.extent(one) != self.extent(other)
        value = self.value({name: entry for name, entry in condition.items() if name != "is"})
        return bool(value == condition["is"] if "is" in condition else value)

    def tensors(self) -> list[TensorRule]:
        """Every tensor of the checkpoint, in forward order; without the tied one where it is tied."""
        rules = []
        entries = [entry for entry in self.declaration["tensors"] if self.is_there(entry.get("when"))]
        split = next(index for index, entry in enumerate(entries) if LAYER in entry["source"])
        per_layer = [entry for entry in entries if LAYER in entry["source"]]
        for entry in entries[:split]:
            rules.append(self._rule(entry, None))
        for layer in range(self.layers):
            rules += [self._rule(entry, layer) for entry in per_layer]
        for entry in entries[split:]:
            if LAYER not in entry["source"] and not (entry.get("tiedTo") and self.ties_unembedding):
                rules.append(self._rule(entry, None))
        return rules

    def _rule(self, entry: Mapping[str, Any], layer: int | None) -> TensorRule:
        def named(pattern: str) -> str:
            return pattern.replace(LAYER, str(layer))

        shape = tuple(self.extent(axis) for axis in entry["stored"])
        use = entry.get("use", "vector" if len(shape) == 1 else "matrix")
        transpose = entry.get("transpose", False)
        parts = tuple(named(part) for part in entry["parts"])
        outputs = shape[-2] if transpose else shape[-1]
        sizes = tuple(self.extent(size) for size in entry.get("split", {}).get("sizes", ()))
        sizes = sizes or (outputs // len(parts),) * len(parts)
        return TensorRule(
            named(entry["source"]),
            tuple(entry.get("prefixes", self.declaration["tensorPrefixes"])),
            shape, use, transpose, parts, sizes, entry.get("tiedTo"),
            entry.get("when", {}).get("config") == FOLDED_BIASES,
        )  # fmt: skip

    def extent(self, term: str) -> int:
        """`H*K+2*KV*K`, `3D`, `P+2`: sums of products of dimensions and numbers."""
        total = 0
        for product in term.split("+"):
            extent = 1
            for factor in product.split("*"):
                digits, letters = _FACTOR.fullmatch(factor).groups()  # type: ignore[union-attr]
                extent *= int(digits or 1) * self.dimensions.get(letters, 1)
            total += extent
        return total

    def is_ignored(self, tensor: str) -> bool:
        """Whether a checkpoint may have `tensor` without its being exported: masks, tied copies, towers for images."""
        if any(tensor.startswith(prefix) for prefix in self.declaration.get("ignoredPrefixes", ())):
            return True
        prefixes = self.declaration["tensorPrefixes"]
        patterns = [prefix + name for name in self.declaration["ignoredTensors"] for prefix in prefixes]
        for entry in self.declaration["tensors"]:
            if entry.get("tiedTo"):
                patterns += [prefix + entry["source"] for prefix in (*prefixes, *entry.get("prefixes", ()))]
        return any(re.fullmatch(re.escape(each).replace(re.escape(LAYER), r"\d+"), tensor) for each in patterns)

    @cached_property
    def points(self) -> dict[str, HookPoint]:
        return {point.name: point for point in self.hook_points()}

    def hook_points(self) -> list[HookPoint]:
        """Every hook point of the model, in forward order."""
        points: list[HookPoint] = []
        per_layer: list[Mapping[str, Any]] = []
        for entry in self.declaration["hooks"]:
            if not self.is_there(entry.get("when")):
                continue
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


_FACTOR = re.compile(r"(\d*)([A-Z]*)")


def _field(config: Mapping[str, Any], path: str) -> Any:
    """A field, or with dots one inside of it; None where it is not there."""
    value: Any = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _is_there(config: Mapping[str, Any], path: str) -> bool:
    """Whether a field is there, be it null."""
    *outer, last = path.split(".")
    inner = _field(config, ".".join(outer)) if outer else config
    return isinstance(inner, Mapping) and last in inner


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
    inner = config.get(declaration.get("nested", ""))
    if isinstance(inner, Mapping):
        config = {**inner, **{name: config[name] for name in ("tie_word_embeddings",) if name in config}}
    for field, refused in declaration.get("refused", {}).items():
        if _field(config, field) in refused:
            raise CheckpointError(
                f"{folder / 'config.json'} sets {field} to {_field(config, field)!r}, which "
                f"{declaration['architecture']} is not run with here; only checkpoints without it can be exported."
            )
    dimensions = _dimensions(declaration, config, folder)
    return Architecture(declaration["architecture"], declaration, config, dimensions)


def _dimensions(declaration: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> dict[str, int]:
    dimensions: dict[str, int] = {}

    def evaluate(rule: Any) -> int:
        if isinstance(rule, int):
            return rule
        if "quotient" in rule:
            top, bottom = rule["quotient"]
            if dimensions[top] % dimensions[bottom]:
                raise CheckpointError(
                    f"{folder / 'config.json'} has width {dimensions[top]} and {dimensions[bottom]} heads; the width "
                    "must be a multiple of the number of heads."
                )
            return dimensions[top] // dimensions[bottom]
        if "product" in rule:
            letter, factor = rule["product"]
            return int(dimensions[letter]) * int(factor)
        for field in (rule["config"], rule.get("or")):
            value = _field(config, field) if field else None
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
    if dimensions["H"] % dimensions.get("KV", dimensions["H"]):
        raise CheckpointError(
            f"{folder / 'config.json'} has {dimensions['H']} heads and {dimensions['KV']} key-value heads; the first "
            "must be a multiple of the second."
        )
    return dimensions
