"""Gradients of a taped pass against PyTorch's: every plain hook point, three numbers, values changed on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_checkpoints import Checkpoint
from engine_oracle import bridge_of
from engine_places import PLACES, run
from gradient_oracle import NUMBERS, Edit, Script, far, numbers_of, reference_logits, torch_gradients
from neuroscope.export.checkpoint import open_checkpoint

Gradients = dict[str, dict[str, np.ndarray]]


def plain_names(checkpoint: Checkpoint) -> list[str]:
    return [point.name for point in open_checkpoint(checkpoint.folder).architecture.hook_points() if point.on]


def engine_script(checkpoint: Checkpoint, theirs: Gradients, **forward: Any) -> Script:
    """A taped pass, and the gradients of each number to all that PyTorch has."""
    script = Script()
    names = list(theirs["divergence"])
    shape = theirs["divergence"]["unembed.hook_out"].shape
    operands = {name: script.create(numbers) for name, numbers in forward.pop("operands", {}).items()}
    for intervention in forward.get("interventions", []):
        if "tensor" in intervention:
            intervention["tensor"] = operands[intervention["tensor"]]
    captured, logits = script.forward(checkpoint.tokens, names, **forward)
    for messages, _ in NUMBERS.values():
        of = messages(script, logits, checkpoint.tokens, reference_logits(shape))
        script.read(script.gradient(of, captured))
    script.post("release", tensors=list(range(1001, script.tensors + 1)))
    return script


def job_of(checkpoint: Checkpoint, script: Script) -> dict[str, Any]:
    return {"bundle": checkpoint.folder, "passes": [], "script": script.steps}


def check(theirs: Gradients, result: dict[str, Any]) -> None:
    assert "script" in result, result
    numbers = numbers_of(result["script"])
    ours = {number: {name: next(numbers) for name in theirs[number]} for number in NUMBERS}
    assert next(numbers, None) is None
    off = {number: far(ours[number], theirs[number]) for number in NUMBERS}
    assert not any(off.values()), off


@pytest.fixture(scope="module")
def by_torch(checkpoints: dict[str, Checkpoint]) -> dict[str, Gradients]:
    found = {}
    for shape in ("odd", "exact", "untied"):
        names = plain_names(checkpoints[shape])
        found[shape] = torch_gradients(bridge_of(checkpoints[shape]), checkpoints[shape].tokens, names)
        assert set(found[shape]["divergence"]) == set(names), "the bridge does not go on with what its hooks answer"
    return found


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_gradients_to_every_plain_hook_point_equal_pytorch(
    place: tuple[str, str],
    by_torch: dict[str, Gradients],
    checkpoints: dict[str, Checkpoint],
    request: pytest.FixtureRequest,
) -> None:
    jobs = [job_of(checkpoints[shape], engine_script(checkpoints[shape], each)) for shape, each in by_torch.items()]
    for theirs, result in zip(by_torch.values(), run(*place, jobs, request), strict=True):
        check(theirs, result)


def replaced(where: Any, make: Edit) -> Edit:
    """An edit that puts what `make` answers of the whole value, at the places of an index."""

    def edit(value: torch.Tensor) -> torch.Tensor:
        result = value.clone()
        result[where] = make(value)[where]
        return result

    return edit


def projected_out(direction: torch.Tensor) -> Edit:
    return lambda value: value - (value @ direction)[..., None] * direction / (direction @ direction)


@pytest.fixture(scope="module")
def changes(checkpoints: dict[str, Checkpoint]) -> tuple[dict[str, Any], Gradients]:
    """Every action at once, and a hook that answers an operation on its value; and the gradients with them."""
    checkpoint = checkpoints["odd"]
    random = np.random.default_rng(3)
    rows, positions, width = len(checkpoint.tokens), len(checkpoint.tokens[0]), checkpoint.config["n_embd"]
    operands = {
        "steering": random.normal(size=width).astype(np.float32),
        "stream": random.normal(size=(rows, positions, width)).astype(np.float32),
        "direction": random.normal(size=width).astype(np.float32),
    }
    steering, stream, direction = (torch.tensor(each) for each in operands.values())
    every = slice(None)
    made: dict[str, tuple[dict[str, Any], Edit]] = {
        "blocks.0.attn.hook_z": (
            {"action": "zero", "at": {"head": 1}},
            replaced((every, every, 1), torch.zeros_like),
        ),
        "blocks.0.attn.hook_pattern": (
            {"action": "scale", "by": 0.5, "at": {"head": 2}},
            replaced((every, 2), lambda value: 0.5 * value),
        ),
        "blocks.0.hook_attn_out": ({"action": "projectOut", "tensor": "direction"}, projected_out(direction)),
        "blocks.0.hook_mlp_out": (
            {"action": "scale", "by": -0.5, "at": {"position": 2}},
            replaced((every, 2), lambda value: -0.5 * value),
        ),
        "blocks.0.hook_resid_post": (
            {"action": "patch", "tensor": "stream", "at": {"position": [1, 4]}},
            replaced((every, [1, 4]), lambda value: stream),
        ),
        "blocks.1.hook_resid_pre": (
            {"action": "add", "tensor": "steering", "times": 2},
            lambda value: value + 2 * steering,
        ),
        "blocks.1.attn.hook_q": (
            {"action": "set", "value": 0.25, "at": {"head": 0, "position": 3}},
            replaced((every, 3, 0), lambda value: torch.full_like(value, 0.25)),
        ),
    }
    edits = {name: edit for name, (_, edit) in made.items()}
    edits["blocks.1.mlp.hook_post"] = lambda value: 0.3 * value
    forward = {
        "operands": operands,
        "interventions": [{"hook": name, **intervention} for name, (intervention, _) in made.items()],
        "at_hooks": {"blocks.1.mlp.hook_post": {"op": "multiply", "parameters": {"scalar": 0.3}}},
    }
    bridge = bridge_of(checkpoint)
    return forward, torch_gradients(bridge, checkpoint.tokens, plain_names(checkpoint), edits)


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_gradients_go_through_interventions_and_hooks_as_in_pytorch(
    place: tuple[str, str],
    changes: tuple[dict[str, Any], Gradients],
    by_torch: dict[str, Gradients],
    checkpoints: dict[str, Checkpoint],
    request: pytest.FixtureRequest,
) -> None:
    forward, theirs = changes
    assert len(far(by_torch["odd"]["divergence"], theirs["divergence"])) == len(theirs["divergence"])
    own = {**forward, "interventions": [dict(each) for each in forward["interventions"]]}
    [result] = run(*place, [job_of(checkpoints["odd"], engine_script(checkpoints["odd"], theirs, **own))], request)
    check(theirs, result)
