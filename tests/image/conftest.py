"""A minimal source tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from minimal import write_minimal


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    return write_minimal(tmp_path / "smalltalk")
