"""Stub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neuroscope.export.checkpoint import Checkpoint


@dataclass(frozen=True)
class Processing:
    fold_norms: bool = False

    def as_json(self) -> dict[str, bool]:
        return {}

    @staticmethod
    def of_json(value: dict[str, Any]) -> Processing:
        return RAW

    def describe(self) -> str:
        return "raw"


RAW = Processing()


def processed(source: Checkpoint, processing: Processing) -> Checkpoint:
    return source
