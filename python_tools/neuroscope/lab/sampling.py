"""The next token from a row of logits, with the meanings that transformers and OpenAI's API give the settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import LabError


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 takes the likeliest; top_p keeps the least set of likeliest tokens whose sum reaches it."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, value, allowed, is_right in (
            ("temperature", self.temperature, "0 to 100", 0 <= self.temperature <= 100),
            ("top_p", self.top_p, "above 0, to 1", 0 < self.top_p <= 1),
            ("top_k", self.top_k, "1 or more", self.top_k is None or self.top_k >= 1),
        ):
            if not is_right:
                raise LabError(f"{name} is {value}, and has to be {allowed}.", code="bad_sampling", parameter=name)


class Sampler:
    """Draws tokens; the same seed and logits give the same tokens."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    def next(self, logits: NDArray[np.float32]) -> tuple[int, float]:
        """The token, and the logarithm of the probability that the model itself gave it. Shapes: V"""
        log_probabilities = log_softmax(logits)
        token = self._choose(log_probabilities)
        return token, float(log_probabilities[token])

    def _choose(self, log_probabilities: NDArray[np.float64]) -> int:
        settings = self._sampling
        if settings.temperature == 0:
            return int(log_probabilities.argmax())
        scaled = log_probabilities / settings.temperature
        if settings.top_k is not None and settings.top_k < scaled.size:
            scaled = np.where(scaled < np.partition(scaled, -settings.top_k)[-settings.top_k], -np.inf, scaled)
        probabilities = np.exp(log_softmax(scaled))
        if settings.top_p < 1:
            order = np.argsort(-probabilities, kind="stable")
            before = np.cumsum(probabilities[order]) - probabilities[order]
            probabilities[order[before >= settings.top_p]] = 0
            probabilities /= probabilities.sum()
        return int(self._random.choice(probabilities.size, p=probabilities))


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Along the last axis, in float64. Raises: LabError for logits that are no numbers."""
    if not np.isfinite(logits.max(initial=-np.inf)) or np.isnan(logits).any():
        raise LabError(
            "The model's numbers overflowed, so it has no next token; make the interventions or the scale smaller, or "
            "load the model as float32.",
            code="not_finite",
            parameter="interventions",
        )
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    answer: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return answer
