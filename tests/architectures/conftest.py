"""Checkpoints of every family, their bundles, and what PyTorch says of them: each made once a run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import RECIPES, Checkpoint, make_checkpoint
from engine_places import NODE, Site, run_in_page
from neuroscope.export.bundle import export_bundle
from neuroscope.export.oracles import Activations, Oracle, TorchOracle, best_oracle
from neuroscope.export.weight_files import write_widened
from neuroscope.kernels import build_kernels
from neuroscope.project import ROOT
from playwright.sync_api import Browser

RunJobs = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    base = tmp_path_factory.mktemp("families")
    return {name: make_checkpoint(base / name, name) for name in RECIPES}


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


@pytest.fixture(scope="session")
def logits_of(families: dict[str, Checkpoint]) -> Callable[[str], np.ndarray]:
    """transformers' own logits."""
    return cache(lambda name: families[name].logits())


@pytest.fixture(scope="session")
def kernels() -> Path:
    return build_kernels()


@pytest.fixture(scope="session")
def in_node(kernels: Path) -> RunJobs:
    def run(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        jobs = [{**job, "bundle": str(job["bundle"])} for job in jobs]
        done = subprocess.run(
            [NODE, ROOT / "tests/engine/run_jobs.ts"],
            input=json.dumps(jobs), capture_output=True, text=True, timeout=120, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results: list[dict[str, Any]] = json.loads(done.stdout)
        return results

    return run


@pytest.fixture(scope="session")
def in_page(tmp_path_factory: pytest.TempPathFactory, kernels: Path, browser: Browser) -> Iterator[RunJobs]:
    """One page for all families."""
    site = Site(tmp_path_factory.mktemp("site"), kernels)
    context = browser.new_context()
    page = context.new_page()

    def run(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return run_in_page(page, site, [{**job, "bundle": site.publish(job["bundle"])} for job in jobs])[0]

    yield run
    context.close()
    site.server.shutdown()
    site.server.server_close()
