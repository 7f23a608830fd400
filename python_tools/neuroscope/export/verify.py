"""verify_bundle: every hook point of a bundle against PyTorch, and the first one that is off by name.

Two errors, never mixed: the engine's, against PyTorch with the very weights that the bundle has, which has a limit; and
the rounding's (rounding.py), which has none.

The tolerance is 1e-4, relative to the largest reference number of the hook where that is above 1: float32 carries 24
bits, so a residual stream that reaches 3,000, as GPT-2's does, can't be right to 1e-4 in absolute terms. Where only
samples are known, the norm watches the numbers between them; rounding errors cancel in it, so it is held to 1e-5 of
itself.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroscope.errors import BundleError, ParityError
from neuroscope.export import manifest
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.hosts import open_host
from neuroscope.export.oracles import Activations, best_oracle
from neuroscope.export.processing import Processing
from neuroscope.export.reference import NAME as REFERENCE
from neuroscope.export.reference import HookReference, finite_norm, read_reference, reference_prompts
from neuroscope.export.rounding import RoundingReport, rounding_report
from neuroscope.export.tensor_file import Floats
from neuroscope.export.weight_files import write_rounded

TOLERANCE = 1e-4
NORM_TOLERANCE = 1e-5


@dataclass(frozen=True)
class HookParity:
    """How far one hook point is from its reference, over all prompts. Units: those of the activation.

    A distance is None where the value has another shape, or a number that is not finite and should be.
    """

    hook: str
    difference: float | None  # the largest
    allowed: float
    norm_difference: float | None  # relative to the norm
    compared: int  # numbers

    @property
    def strain(self) -> float:
        """How much of its tolerance it takes up: above 1 it is off."""
        if self.difference is None or self.norm_difference is None:
            return np.inf
        return max(self.difference / self.allowed, self.norm_difference / NORM_TOLERANCE)

    @property
    def is_off(self) -> bool:
        return not self.strain <= 1

    def describe(self) -> str:
        """The distance and what is allowed, in words."""
        if self.difference is None or self.norm_difference is None:
            return "has another shape, or a number that is not finite, and must have neither"
        if self.difference > self.allowed:
            return f"differs by {self.difference:.3g}, and {self.allowed:.3g} is allowed"
        return f"has a norm that differs by {self.norm_difference:.3g} of itself, and {NORM_TOLERANCE:g} is allowed"

    def as_json(self) -> dict[str, Any]:
        return {
            "hook": self.hook,
            "difference": self.difference,
            "allowed": self.allowed,
            "normDifference": self.norm_difference,
            "compared": self.compared,
        }


@dataclass(frozen=True)
class ParityReport:
    """The hook points of one run of `verify`, in forward order."""

    bundle: Path
    host: str
    backend: str
    oracle: str
    hooks: tuple[HookParity, ...]
    rounding: RoundingReport | None = None

    @property
    def first_off(self) -> HookParity | None:
        return next((hook for hook in self.hooks if hook.is_off), None)

    @property
    def largest(self) -> HookParity:
        """The hook point that comes closest to its limit, or is furthest beyond it."""
        return max(self.hooks, key=lambda hook: hook.strain)

    def raise_if_off(self) -> None:
        """Raises: ParityError that names the first hook point that is off, with value and tolerance."""
        off = self.first_off
        if off is None:
            return
        raise ParityError(
            f"{off.hook} of {self.bundle} in {self.host} ({self.backend}) {off.describe()} against {self.oracle}; "
            f"it is the first of {sum(hook.is_off for hook in self.hooks)} hook points that are off, so look at what "
            "computes it."
        )

    def as_json(self) -> dict[str, Any]:
        off = self.first_off
        return {
            "host": self.host,
            "backend": self.backend,
            "oracle": self.oracle,
            "tolerance": TOLERANCE,
            "normTolerance": NORM_TOLERANCE,
            "firstOff": off.hook if off else None,
            "hooks": [hook.as_json() for hook in self.hooks],
            **({"rounding": self.rounding.as_json()} if self.rounding else {}),
        }


def verify_bundle(
    bundle: Path, *, against: Path | None = None, host: str = "onnx", backend: str | None = None
) -> ParityReport:
    """Compares every hook point in `host` with PyTorch on the checkpoint `against`, else with the bundle's reference.

    A float16 or int8 bundle is held against the checkpoint's weights rounded in the same way and widened: this
    measures the engine, not the rounding. How much the rounding itself moved is the report's `rounding`, a figure
    without a limit, known only with the checkpoint. Writes parity.json, also when a hook point is off; `raise_if_off`
    on the report makes that an error.
    Raises: BundleError, CheckpointError; MissingProgramError when this machine lacks what the host needs.
    """
    described = manifest.read_manifest(bundle)
    manifest.check_files(bundle, described)
    architecture = open_checkpoint(bundle).architecture
    rounding: RoundingReport | None = None
    prompts: list[tuple[list[int], dict[str, HookReference]]]
    if against is not None:
        name, activations, rounding = _against(against, bundle, described)
        prompts = [(tokens, {hook: _whole(value) for hook, value in values.items()}) for tokens, values in activations]
    else:
        if not (bundle / REFERENCE).is_file():
            raise BundleError(
                f"{bundle} has no {REFERENCE}, since none was made when it was exported; name the checkpoint with "
                "--against."
            )
        reference = read_reference(bundle / REFERENCE)
        name = f"{REFERENCE} ({reference.made_with})"
        prompts = [(prompt.tokens, dict(prompt.hooks)) for prompt in reference.prompts]

    found: dict[str, HookParity] = {}
    with open_host(host, bundle, architecture, backend) as running:
        for tokens, expected in prompts:
            for parity in _compare(expected, running.activations(tokens)):
                found[parity.hook] = _worse(found.get(parity.hook), parity)
        report = ParityReport(bundle, host, running.backend, name, tuple(found.values()), rounding)
    _record(report)
    return report


def _against(
    checkpoint: Path, bundle: Path, described: dict[str, Any]
) -> tuple[str, list[tuple[list[int], Activations]], RoundingReport | None]:
    """What PyTorch computes with the weights of the bundle; and how far that is from what it computes with the
    checkpoint's own, where the bundle has rounded them."""
    processing = Processing.of_json(described.get("processing", {}))
    architecture = open_checkpoint(bundle).architecture
    prompts = reference_prompts(bundle, architecture)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {kind: Path(temporary) / kind for kind in ("rounded", "original")}
        for folder in folders.values():
            folder.mkdir()
        write_rounded(checkpoint, folders["rounded"], described["dtype"], processing)
        oracle = best_oracle(folders["rounded"])
        rounded = [(tokens, oracle.activations([tokens])) for tokens in prompts]
        if described["dtype"] == "float32":
            return oracle.name, rounded, None
        write_rounded(checkpoint, folders["original"], "float32", processing)
        exact = best_oracle(folders["original"])
        original = [exact.activations([tokens]) for tokens in prompts]
    return (
        oracle.name,
        rounded,
        rounding_report([values for _, values in rounded], original, cap=architecture.option("logitSoftCap")),
    )


def _whole(value: Floats) -> HookReference:
    flat = value.reshape(-1)
    return HookReference(finite_norm(flat), np.arange(flat.size), flat)


def _compare(expected: dict[str, HookReference], values: Activations) -> Iterator[HookParity]:
    for name, reference in expected.items():
        finite = np.isfinite(reference.samples)
        scale = float(np.abs(reference.samples[finite]).max(initial=1.0))
        allowed = TOLERANCE * scale
        flat = np.asarray(values[name], np.float32).reshape(-1) if name in values else np.zeros(0, np.float32)
        difference, norm_difference = None, None
        if flat.size > reference.places[-1]:
            mine = flat[reference.places]
            if np.array_equal(mine[~finite], reference.samples[~finite]) and np.isfinite(mine[finite]).all():
                difference = float(np.abs(mine[finite] - reference.samples[finite]).max(initial=0.0))
                norm_difference = abs(finite_norm(flat) - reference.norm) / max(reference.norm, TOLERANCE)
        yield HookParity(name, difference, allowed, norm_difference, int(reference.places.size))


def _worse(before: HookParity | None, now: HookParity) -> HookParity:
    """Of one hook point in two prompts, the one that is closer to its limit."""
    if before is None:
        return now
    return replace(max(before, now, key=lambda hook: hook.strain), compared=before.compared + now.compared)


def _record(report: ParityReport) -> None:
    """Puts the report into parity.json, in the place of the last one with the same host and backend."""
    path = report.bundle / manifest.PARITY
    runs: list[dict[str, Any]] = []
    if path.is_file():
        try:
            runs = json.loads(path.read_text())["runs"]
        except (ValueError, KeyError, TypeError):
            runs = []  # a damaged report is not worth an error: this run writes a new one
    kept = [run for run in runs if (run.get("host"), run.get("backend")) != (report.host, report.backend)]
    path.write_text(json.dumps({"format": 1, "runs": [*kept, report.as_json()]}, indent=1, allow_nan=False) + "\n")
