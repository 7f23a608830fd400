"""The `parity` message where it is shown: a browser, on both of its backends. What it notices, Node's tests say."""

from __future__ import annotations

import pytest
from engine_places import run
from neuroscope.project import ROOT


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
