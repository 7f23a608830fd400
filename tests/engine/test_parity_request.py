"""The `parity` message where it is shown: a browser, on both of its backends. What it notices, Node's tests say."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_places import run
from neuroscope.export.bundle import export_bundle
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.processing import compatible
from neuroscope.project import DEMO_MODEL, ROOT


@pytest.mark.parametrize("backend", ["wasm", "webgl"])
def test_the_demo_model_is_right_in_chromium(backend: str, request: pytest.FixtureRequest) -> None:
    job = {
        "bundle": ROOT / "demo_model",
        "passes": [],
        "script": [{"message": {"kind": "parity", "model": None}}, {"message": {"kind": "ledger"}}],
    }
    [result] = run("chromium", backend, [job], request)
    found = result["script"][0]["message"]
    assert found["backend"] == backend
    assert len(found["rows"]) == sum(hook["on"] for hook in result["loaded"]["hooks"])
    assert [row["hook"] for row in found["rows"] if row["isOff"]] == []
    assert 0 < max(row["difference"] / row["allowed"] for row in found["rows"]) < 1
    assert result["script"][1]["message"]["bytes"] == 0


def test_a_bundle_with_processed_weights_is_held_against_its_own_reference(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    architecture = open_checkpoint(DEMO_MODEL).architecture
    export_bundle(DEMO_MODEL, tmp_path / "folded", processing=compatible(architecture))
    script = [{"message": {"kind": "parity", "model": None}}]
    [result] = run("node", "wasm", [{"bundle": tmp_path / "folded", "passes": [], "script": script}], request)
    assert "norms folded" in result["loaded"]["basis"]["weights"]
    found = result["script"][0]["message"]
    assert found["kind"] == "parity", found
    assert [row["hook"] for row in found["rows"] if row["isOff"]] == []
