"""Gradients of a taped pass of every decoder family against PyTorch's, at every plain hook point that has one.

TransformerLens's bridge runs most. What it leaves out (the patterns of gpt_neo and opt, which it works out beside its
own pass; gpt_neox with one block after the other; opt with norms after its parts) is read off the modules of
transformers, as far as these pass on what they show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Checkpoint
from engine_places import PLACES, run
from gradient_oracle import NUMBERS, Script, far, numbers_of, reference_logits, torch_gradients
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.module_points import ModulePoints
from neuroscope.export.oracles import LensOracle, is_run_by_lens
from transformers import AutoModelForCausalLM

NUMBER = "cross-entropy"

#: Family ► how many of its hook points have no gradient in PyTorch to compare with.
FAMILIES = {
    "gpt_neo": 3,  # the scores
    "gpt_neox": 4,  # queries and keys after the rotation
    "gpt_neox_sequential": 32,  # all but the ends of the parts, and the pattern
    "opt": 2,
    "opt_after": 29,  # also the ends, which the modules show before and after a projection
    "llama": 0,
    "mistral": 0,
    "qwen2": 0,
    "qwen3": 0,
    "phi3": 4,
    "gemma2": 0,
    "gemma3_text": 0,
    "gpt_oss": 6,  # of the choice of experts: some are read on the way, and the indices are no numbers
}


@dataclass
class Expected:
    checkpoint: Checkpoint
    names: list[str]
    gradients: dict[str, np.ndarray]
    logits: tuple[int, ...]


def module_gradients(checkpoint: Checkpoint) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """Those to what transformers' modules gave or were given, and went on with."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32, attn_implementation="eager")
    points = ModulePoints(model, open_checkpoint(checkpoint.folder).architecture)
    found = points.of_pass(torch.tensor(checkpoint.tokens))
    logits = found["unembed.hook_out"]
    number = NUMBERS[NUMBER][1](logits, checkpoint.tokens, None)
    values = {name: value for name, value in found.items() if value.requires_grad}
    gradients = torch.autograd.grad(number, list(values.values()), allow_unused=True)
    known = {name: each.numpy() for name, each in zip(values, gradients, strict=True) if each is not None}
    return known, tuple(logits.shape)


@pytest.fixture(scope="module")
def expected(families: dict[str, Checkpoint]) -> dict[str, Expected]:
    found = {}
    for family in FAMILIES:
        checkpoint = families[family]
        architecture = open_checkpoint(checkpoint.folder).architecture
        points = {point.name: point for point in architecture.hook_points() if point.on}
        by_modules, logits = module_gradients(checkpoint)
        gradients = by_modules
        if family not in ("gpt_neox_sequential", "opt_after"):
            assert is_run_by_lens(architecture)
            bridge = LensOracle(checkpoint.folder).bridge
            by_lens = torch_gradients(bridge, checkpoint.tokens, points, numbers=[NUMBER])[NUMBER]
            gradients = {**by_modules, **by_lens}
        for name in ("hook_embed", "unembed.hook_in") if family == "opt_after" else ():
            del gradients[name]
        for name, gradient in gradients.items():
            if name in points and gradient.ndim < len(points[name].axes):  # OPT flattens rows and positions
                gradients[name] = gradient.reshape(len(checkpoint.tokens), -1, *gradient.shape[1:])
        found[family] = Expected(checkpoint, list(points), gradients, logits)
    return found


def script_of(each: Expected) -> Script:
    script = Script()
    captured, logits = script.forward(each.checkpoint.tokens, each.names)
    of = NUMBERS[NUMBER][0](script, logits, each.checkpoint.tokens, reference_logits(each.logits))
    results = script.gradient(of, captured)
    script.read(results)
    script.post("release", tensors=list(range(1001, script.tensors + 1)))
    script.post("ledger")
    return script


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_gradients_of_every_family_equal_pytorch(
    where: str, backend: str, expected: dict[str, Expected], request: pytest.FixtureRequest
) -> None:
    jobs: list[dict[str, Any]] = [
        {"bundle": each.checkpoint.folder, "passes": [], "script": script_of(each).steps} for each in expected.values()
    ]
    off, missing = {}, {}
    for (family, each), result in zip(expected.items(), run(where, backend, jobs, request), strict=True):
        assert "script" in result, (family, result)
        *answers, ledger = result["script"]
        ours = dict(zip(each.names, numbers_of(answers), strict=True))
        known = {name: gradient for name, gradient in ours.items() if name in each.gradients}
        off[family] = far(known, each.gradients)
        missing[family] = len(ours) - len(known)
        assert all(np.isfinite(gradient).all() for gradient in ours.values()), family
        assert ledger["message"]["bytes"] == 0, (family, "a tape was left behind")
    assert not any(off.values()), {family: names for family, names in off.items() if names}
    assert missing == FAMILIES
