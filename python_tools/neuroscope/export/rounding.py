"""What rounding the weights did to a model: PyTorch with the rounded weights against PyTorch with the original ones.

No engine takes part, so this is never mixed with an engine's error; and it has no limit, since it is a property of the
bundle that a reader should know, not a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope.export.oracles import Activations
from neuroscope.export.tensor_file import Floats

LOGITS = "unembed.hook_out"


@dataclass(frozen=True)
class HookRounding:
    """How far rounding moved one hook point, over all prompts. Units: of the activation; and of its norm."""

    hook: str
    difference: float  # the largest
    relative: float  # norm of the difference / norm of the original


@dataclass(frozen=True)
class RoundingReport:
    """The error of rounding. `divergence` is KL(original ‖ rounded) of the next token, the mean over positions, in
    nats; `agreement` the share of positions whose likeliest token stays the same."""

    agreement: float
    divergence: float
    positions: int
    hooks: tuple[HookRounding, ...]

    @property
    def largest(self) -> HookRounding:
        return max((hook for hook in self.hooks if not hook.hook.endswith("_indices")), key=lambda hook: hook.relative)

    def describe(self) -> str:
        return (
            f"rounding the weights leaves the likeliest token at {self.agreement:.1%} of {self.positions} positions, "
            f"KL {self.divergence:.3g} nats; it moves {self.largest.hook} most, by {self.largest.relative:.2%} of its "
            "norm"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "top1Agreement": self.agreement,
            "klNats": self.divergence,
            "positions": self.positions,
            "hooks": [
                {"hook": hook.hook, "difference": hook.difference, "relative": hook.relative} for hook in self.hooks
            ],
        }


def rounding_report(
    rounded: Sequence[Activations], original: Sequence[Activations], *, cap: float | None = None
) -> RoundingReport:
    """Compares prompt by prompt, hook by hook; numbers that are not finite (masked scores) are left out.

    `cap` is that of the logits, which the hook points do not show.
    """
    hooks = []
    for name in original[0]:
        pairs = [
            (mine[name].reshape(-1), theirs[name].reshape(-1)) for mine, theirs in zip(rounded, original, strict=True)
        ]
        ours, exact = (np.concatenate(part) for part in zip(*pairs, strict=True))
        finite = np.isfinite(exact)
        away = ours[finite] - exact[finite]
        norm = float(np.linalg.norm(exact[finite]))
        hooks.append(
            HookRounding(name, float(np.abs(away).max(initial=0.0)), float(np.linalg.norm(away)) / max(norm, 1e-30))
        )
    ours, exact = (
        np.concatenate([values[LOGITS].reshape(-1, values[LOGITS].shape[-1]) for values in side])
        for side in (rounded, original)
    )
    if cap is not None:
        ours, exact = (np.asarray(cap * np.tanh(side / cap), np.float32) for side in (ours, exact))
    log_p, log_q = _log_softmax(exact), _log_softmax(ours)
    divergence = float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean())
    agreement = float((ours.argmax(axis=-1) == exact.argmax(axis=-1)).mean())
    return RoundingReport(agreement, max(0.0, divergence), len(exact), tuple(hooks))


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
