"""Causal experiments: something is changed inside a model, and what it says next is compared with what it said before.

    zero        the component adds nothing
    mean        it adds its mean over other texts, and their positions
    resample    it adds what it added in another text, drawn by the seed
    patch       it has the value that it had in another text, position by position
    add         a direction is added to the residual stream, `scale` times

An experiment is data: run again it gives the same numbers, and its hash is made of all that they rest on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import LabError
from neuroscope.lab.interventions import Floats, Intervention
from neuroscope.lab.model import LabModel, Watch, basis
from neuroscope.lab.sampling import log_softmax

KINDS = ("zero", "mean", "resample", "patch", "add")
COMPONENTS = ("layer", "attention", "mlp", "head", "residual")
SHOWN = 10  # of the likeliest tokens


@dataclass(frozen=True)
class Target:
    """Where a model is changed. `head` only with the component head; `position` None is everywhere."""

    component: str
    layer: int
    head: int | None = None
    position: int | None = None

    def hooks(self, kind: str) -> tuple[str, ...]:
        """The points that the component writes to. A layer is what it adds to the stream, or for a patch the stream."""
        block = f"blocks.{self.layer}"
        if self.component == "head":
            return (f"{block}.attn.hook_z",)
        if self.component == "attention":
            return (f"{block}.hook_attn_out",)
        if self.component == "mlp":
            return (f"{block}.hook_mlp_out",)
        if self.component == "layer" and kind != "patch":
            return (f"{block}.hook_attn_out", f"{block}.hook_mlp_out")
        return (f"{block}.hook_resid_post",)

    def region(self) -> dict[str, list[int]]:
        region = {} if self.position is None else {"position": [self.position]}
        return region if self.head is None else {**region, "head": [self.head]}


@dataclass(frozen=True)
class Experiment:
    """One experiment, whole: tokens, not texts, so that it does not depend on a tokenizer."""

    model: str
    weights: str
    engine: str
    dtype: str
    tokens: tuple[int, ...]
    kind: str
    target: Target
    others: tuple[tuple[int, ...], ...] = ()  # other texts: of mean, resample and patch
    direction: tuple[float, ...] | None = None  # of add
    scale: float = 1.0
    answer: int | None = None  # the token that is looked at; None: the likeliest of the clean run
    foil: int | None = None  # with it the logit difference answer - foil is told
    seed: int = 0

    @property
    def hash(self) -> str:
        """SHA-256 over everything that the result rests on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        return {"hash": self.hash, **json.loads(json.dumps(asdict(self)))}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Experiment:
        fields = {name: value for name, value in stored.items() if name != "hash"}
        return Experiment(
            **{
                **fields,
                "tokens": tuple(fields["tokens"]),
                "others": tuple(tuple(row) for row in fields["others"]),
                "direction": None if fields["direction"] is None else tuple(fields["direction"]),
                "target": Target(**fields["target"]),
            }
        )


def check(model: LabModel, experiment: Experiment) -> None:
    """Raises: LabError for what can't be run, before anything is."""
    target, description = experiment.target, model.description
    if experiment.kind not in KINDS:
        raise _bad(f"The kind {experiment.kind!r} is none of {', '.join(KINDS)}", "kind")
    if target.component not in COMPONENTS:
        raise _bad(f"The component {target.component!r} is none of {', '.join(COMPONENTS)}", "component")
    for name, index, extent in (
        ("layer", target.layer, description.layers),
        ("head", target.head, description.heads),
        ("position", target.position, len(experiment.tokens)),
    ):
        if index is not None and not (-extent if name == "position" else 0) <= index < extent:
            raise _bad(f"The {name} is {index}, and there are {extent}, counted from 0", name)
    if (target.component == "head") != (target.head is not None):
        raise _bad(f"The component {target.component} was given head {target.head}; a head belongs to `head`", "head")
    missing = [hook for hook in target.hooks(experiment.kind) if hook not in description.hooks]
    if missing:
        raise _bad(f"{description.id} has no {missing[0]}, which the component {target.component} needs", "component")
    needs_others = experiment.kind in ("mean", "resample", "patch")
    if needs_others != bool(experiment.others):
        raise _bad(f"{experiment.kind} takes {'other texts' if needs_others else 'no other texts'}", "others")
    if experiment.kind == "patch" and len(experiment.others) != 1:
        raise _bad(f"patch takes one other text, and {len(experiment.others)} were given", "others")
    if experiment.kind in ("patch", "resample") and target.position is None:
        wrong = [len(row) for row in experiment.others if len(row) != len(experiment.tokens)]
        if wrong:
            raise _bad(
                f"{experiment.kind} at every position takes texts of {len(experiment.tokens)} tokens, and one has "
                f"{wrong[0]}; choose texts of one length, or name a position",
                "others",
            )
    if experiment.kind == "add":
        if target.component not in ("layer", "residual"):
            raise _bad("add works on the residual stream; its component is residual", "component")
        if experiment.direction is None or len(experiment.direction) != description.width:
            raise _bad(f"add takes a direction of {description.width} numbers", "direction")


GoOn = Callable[[], None]  # raises when the work is to end; called between passes


def run(model: LabModel, experiment: Experiment, go_on: GoOn = lambda: None) -> dict[str, Any]:
    """The clean and the changed run, compared. The caller has the model's turn. Raises: LabError."""
    return next(run_all(model, [experiment], go_on))[1]


def at_layers(experiment: Experiment, layers: Sequence[int]) -> list[Experiment]:
    """The same experiment at each of the layers."""
    return [replace(experiment, target=replace(experiment.target, layer=layer)) for layer in layers]


def run_all(
    model: LabModel, several: Sequence[Experiment], go_on: GoOn = lambda: None
) -> Iterator[tuple[Experiment, dict[str, Any]]]:
    """One after another; experiments on the same tokens share their clean run.

    Raises: LabError, and whatever `go_on` raises.
    """
    tokens: tuple[int, ...] | None = None
    clean: Floats = np.zeros(0, np.float32)
    for experiment in several:
        check(model, experiment)
        go_on()
        if experiment.tokens != tokens:
            tokens, clean = experiment.tokens, _last_logits(model, experiment.tokens, ())
        changed = _last_logits(model, tokens, interventions_of(model, experiment, go_on))
        yield experiment, compare(model, experiment, clean, changed)


def interventions_of(model: LabModel, experiment: Experiment, go_on: GoOn = lambda: None) -> list[Intervention]:
    """The experiment as interventions on its tokens; what has to be known of other texts is run for."""
    target, kind = experiment.target, experiment.kind
    region = target.region()
    hooks = target.hooks("patch" if kind == "add" else kind)
    if kind == "zero":
        return [Intervention(hook, "zero", region) for hook in hooks]
    if kind == "add":
        direction = np.array(experiment.direction, np.float32)
        return [Intervention(hook, "add", region, None, direction, experiment.scale) for hook in hooks]
    rows = experiment.others
    if kind == "resample":
        rows = (rows[int(np.random.default_rng(experiment.seed).integers(len(rows)))],)
    seen = []
    for row in rows:
        go_on()
        seen.append(model.forward([row], Watch(captures=hooks), last_only=True).activations)
    if kind == "mean":
        means = {hook: _mean([each[hook] for each in seen]) for hook in hooks}
        return [Intervention(hook, "set", region, None, _in_region(target, means[hook])) for hook in hooks]
    return [_patch(hook, seen[0][hook], experiment) for hook in hooks]


def _mean(values: Sequence[Floats]) -> Floats:
    """Over the positions of all texts, each counted once. Shapes: 1 T … ► …"""
    rows = np.concatenate([value[0] for value in values]).astype(np.float64)
    mean: Floats = rows.mean(0).astype(np.float32)
    return mean


def _in_region(target: Target, mean: Floats) -> Floats:
    """Of a head's hook, H K: the head's own row."""
    return mean if target.head is None else mean[target.head : target.head + 1]


def _patch(hook: str, value: Floats, experiment: Experiment) -> Intervention:
    target = experiment.target
    if target.position is None:
        return Intervention(hook, "patch", target.region(), None, value)
    if not -value.shape[1] <= target.position < value.shape[1]:
        raise _bad(f"The other text has {value.shape[1]} tokens, and so no position {target.position}", "position")
    return Intervention(hook, "set", target.region(), None, _in_region(target, value[0, target.position]))


def compare(model: LabModel, experiment: Experiment, clean: Floats, changed: Floats) -> dict[str, Any]:
    """What the change did to the next token's distribution. Shapes: V"""
    before, after = log_softmax(clean), log_softmax(changed)
    answer = int(clean.argmax()) if experiment.answer is None else experiment.answer
    result: dict[str, Any] = {
        "clean": _likeliest(model, clean, before),
        "intervened": _likeliest(model, changed, after),
        "answer": {
            "id": answer,
            "token": _text(model, answer),
            "cleanProbability": float(np.exp(before[answer])),
            "intervenedProbability": float(np.exp(after[answer])),
            "change": float(np.exp(after[answer]) - np.exp(before[answer])),
            "cleanRank": int((before > before[answer]).sum()),
            "intervenedRank": int((after > after[answer]).sum()),
        },
        "logitDifference": None,
        "kl": float(np.sum(np.exp(before) * (before - after))),
        "basis": dict(basis(model.description, bos=_begins(model, experiment.tokens))),
    }
    if experiment.foil is not None:
        differences = [float(row[answer]) - float(row[experiment.foil]) for row in (clean, changed)]
        result["logitDifference"] = {
            "foil": experiment.foil,
            "clean": differences[0],
            "intervened": differences[1],
            "change": differences[1] - differences[0],
        }
    return result


def _begins(model: LabModel, tokens: Sequence[int]) -> bool:
    return model.tokenizer is not None and tokens[0] == model.tokenizer.bos_token_id


def _last_logits(model: LabModel, tokens: Sequence[int], interventions: Sequence[Intervention]) -> Floats:
    logits: Floats = model.forward([tokens], Watch(interventions=interventions), last_only=True).logits[0, -1]
    return logits


def _likeliest(model: LabModel, logits: Floats, log_probabilities: NDArray[np.float64]) -> list[dict[str, Any]]:
    return [
        {
            "id": int(id),
            "token": _text(model, int(id)),
            "probability": float(np.exp(log_probabilities[id])),
            "logit": float(logits[id]),
        }
        for id in np.argsort(-log_probabilities, kind="stable")[:SHOWN]
    ]


def _text(model: LabModel, id: int) -> str | None:
    return None if model.tokenizer is None else model.tokenizer.decode([id])


def _bad(text: str, parameter: str) -> LabError:
    return LabError(f"{text}.", code="bad_experiment", parameter=parameter)
