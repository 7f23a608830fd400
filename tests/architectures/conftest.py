"""Bundles of every family, and what PyTorch says of them: each made once a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from checkpoints import Checkpoint
from neuroscope.export.bundle import export_bundle
from neuroscope.export.oracles import Activations, Oracle, TorchOracle, best_oracle
from neuroscope.export.weight_files import write_widened


@pytest.fixture(scope="session")
def bundle_of(families: dict[str, Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The bundle of a family, of a dtype."""
    base = tmp_path_factory.mktemp("bundles")

    @cache
    def export(name: str, dtype: str = "float32") -> Path:
        folder = base / f"{name}_{dtype}"
        return export_bundle(families[name].folder, folder, dtype=dtype, with_reference=False).folder

    return export


@pytest.fixture(scope="session")
def oracle_of(families: dict[str, Checkpoint]) -> Callable[[str], tuple[Oracle, Activations]]:
    """The best oracle of a family, and what it says of the family's tokens."""

    @cache
    def answer(name: str) -> tuple[Oracle, Activations]:
        oracle = best_oracle(families[name].folder)
        return oracle, oracle.activations(families[name].tokens)

    return answer


@pytest.fixture(scope="session")
def widened_of(
    families: dict[str, Checkpoint], bundle_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Activations]:
    """What PyTorch says with the numbers that a family's int8 codes stand for."""
    base = tmp_path_factory.mktemp("widened")

    @cache
    def answer(name: str) -> Activations:
        folder = base / name
        folder.mkdir()
        return TorchOracle(write_widened(bundle_of(name, "int8"), folder)).activations(families[name].tokens)

    return answer
