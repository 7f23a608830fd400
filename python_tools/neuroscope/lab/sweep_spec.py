"""What a sweep runs: every combination of prompts, layers, heads and interventions, each an experiment of its own.

    {
      "model": "FOLDER",
      "prompts": [{"input": "When Mary and John …", "answer": " Mary", "foil": " John", "others": ["…"]}],
      "interventions": ["zero", "mean"],
      "components": ["head"],
      "layers": "all",
      "heads": "all",
      "positions": [-1],
      "seed": 0
    }

`layers` and `heads` are "all" or lists; heads only with the component head. An experiment's hash tells whether it was
run before.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from neuroscope.errors import LabError
from neuroscope.lab.experiments import COMPONENTS, KINDS, Experiment
from neuroscope.lab.model import LabModel
from neuroscope.lab.registry import Registry
from neuroscope.lab.routes_experiments import ExperimentBody, read_experiment
from neuroscope.lab.settings import ModelSource

_FIELDS = {
    "model", "engine", "dtype", "prompts", "interventions", "components", "layers", "heads", "positions", "seed",
    "direction", "scale",
}  # fmt: skip


@dataclass(frozen=True)
class SweepSpec:
    """A checked file."""

    source: ModelSource
    prompts: tuple[Mapping[str, Any], ...]
    interventions: tuple[str, ...]
    components: tuple[str, ...]
    layers: tuple[int, ...] | None
    heads: tuple[int, ...] | None
    positions: tuple[int | None, ...]
    more: Mapping[str, Any]  # seed, direction, scale

    def experiments(self, model: LabModel, registry: Registry) -> Iterator[Experiment]:
        """All of them, those on one prompt after one another. Raises: LabError."""
        description = model.description
        layers = self.layers or tuple(range(description.layers))
        for prompt, component in itertools.product(self.prompts, self.components):
            heads: tuple[int | None, ...] = (None,)
            if component == "head":
                heads = self.heads or tuple(range(description.heads))
            for kind, layer, head, position in itertools.product(self.interventions, layers, heads, self.positions):
                target = {"component": component, "layer": layer, "head": head, "position": position}
                fields = {**prompt, **self.more}
                if kind not in ("mean", "resample", "patch"):
                    fields.pop("others", None)
                try:
                    body = ExperimentBody.model_validate({"kind": kind, "target": target, **fields})
                except ValidationError as error:
                    first = error.errors()[0]
                    place = ".".join(str(part) for part in first["loc"])
                    raise LabError(f"{place} of an experiment is {first['input']!r}: {first['msg']}.") from error
                yield read_experiment(model, body, registry)


def read_spec(path: Path) -> SweepSpec:
    """Raises: LabError that names the field that is wrong."""
    try:
        json_spec = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LabError(f"{path} can't be read as JSON ({error}).") from error
    if not isinstance(json_spec, dict) or (set(json_spec) - _FIELDS):
        odd = sorted(set(json_spec) - _FIELDS)[0] if isinstance(json_spec, dict) else json_spec
        raise LabError(f"{path} has a field {odd!r}; a sweep has {', '.join(sorted(_FIELDS))}.")
    for name, kind in (("model", str), ("prompts", list), ("interventions", list)):
        if not json_spec.get(name):
            raise LabError(f"{path} lacks {name!r}; a sweep needs model, prompts and interventions.")
        if not isinstance(json_spec[name], kind):
            what = "a text" if kind is str else "a list"
            raise LabError(f"{path} has {json_spec[name]!r} as {name}, which has to be {what}.")
    folder = Path(json_spec["model"]).expanduser()
    source = ModelSource(
        id=folder.name if folder.is_dir() else json_spec["model"],
        folder=folder.resolve() if folder.is_dir() else None,
        engine=json_spec.get("engine", "torch"),
        dtype=json_spec.get("dtype", "float32"),
    )
    prompts = [each if isinstance(each, dict) else {"input": each} for each in json_spec["prompts"]]
    for prompt in prompts:
        odd_fields = set(prompt) - {"input", "answer", "foil", "others"}
        if odd_fields or "input" not in prompt:
            raise LabError(f"A prompt of {path} has the fields {sorted(prompt)}; it has input, answer, foil, others.")
    return SweepSpec(
        source=source,
        prompts=tuple(prompts),
        interventions=_choices(path, "interventions", json_spec["interventions"], KINDS),
        components=_choices(path, "components", json_spec.get("components", ["layer"]), COMPONENTS),
        layers=_numbers(path, "layers", json_spec.get("layers", "all")),
        heads=_numbers(path, "heads", json_spec.get("heads", "all")),
        positions=_positions(path, json_spec.get("positions")),
        more={name: json_spec[name] for name in ("seed", "direction", "scale") if name in json_spec},
    )


def _choices(path: Path, name: str, given: Any, allowed: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [each for each in given if each not in allowed] if isinstance(given, list) else [given]
    if wrong:
        raise LabError(f"{path} has {wrong[0]!r} among its {name}; they are a list of {', '.join(allowed)}.")
    return tuple(given)


def _positions(path: Path, given: Any) -> tuple[int | None, ...]:
    """Negative ones count from the end of a prompt; null is everywhere."""
    positions = [None] if given is None else given
    if not isinstance(positions, list) or not positions or any(not isinstance(each, int | None) for each in positions):
        raise LabError(f"{path} has {given!r} as positions; they are a list of whole numbers, or of null: everywhere.")
    return tuple(positions)


def _numbers(path: Path, name: str, given: Any) -> tuple[int, ...] | None:
    if given == "all":
        return None
    if not isinstance(given, list) or not given or any(not isinstance(each, int) or each < 0 for each in given):
        raise LabError(f'{path} has {given!r} as {name}; they are "all" or a list of numbers from 0 on.')
    return tuple(given)
