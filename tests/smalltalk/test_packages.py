"""The Smalltalk packages below Bridge, tested by their own tests on two virtual machines, without a host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from system_images import build

from tests.machines import Run

SUMMARY = re.compile(r"(\d+) run, (\d+) passed, (\d+) failed, (\d+) errors, (\d+) skipped")


@pytest.fixture(scope="module")
def tested_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("images") / "tests.image", "TestSuite runAllAndQuit")


@pytest.fixture(scope="module")
def plain_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("images") / "plain.image", None)


def test_every_test_passes(run_image: Run, tested_image: Path) -> None:
    lines = run_image(tested_image)
    summary = SUMMARY.fullmatch(lines[-1])
    assert summary, lines[-20:]
    run, passed, failed, errors, skipped = map(int, summary.groups())
    assert failed + errors == 0, "\n".join(lines)
    assert passed + skipped == run
    assert passed > 500


def test_an_image_without_a_host_says_so_and_quits(run_image: Run, plain_image: Path) -> None:
    assert run_image(plain_image) == ["NeuroScope image"]
