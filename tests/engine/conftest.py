"""What the engine's tests share: kernels, which its modules in Node look for by themselves, and checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_checkpoints import SHAPES, Checkpoint, make_checkpoint


@pytest.fixture(scope="session", autouse=True)
def built_kernels(kernels: Path) -> Path:
    return kernels


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    base = tmp_path_factory.mktemp("checkpoints")
    return {shape: make_checkpoint(base / shape, shape) for shape in SHAPES}
