"""A graphics context that goes away under a running engine, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_checkpoints import Checkpoint
from engine_places import Site
from neuroscope.project import ROOT
from neuroscope.site.scripts import bundle_script
from playwright.sync_api import Page

Lose = Callable[[int | None, bool], dict[str, Any]]


@pytest.fixture
def lose(tab: Page, engine_site: Site, checkpoints: dict[str, Checkpoint], tmp_path: Path) -> Lose:
    """A pass, then a lost context at a draw of the next one (or before it), then two passes more."""
    script = tmp_path / "lost_context.js"
    bundle_script(ROOT / "tests/engine/lost_context.ts", script, minify=False, format="iife")
    checkpoint = checkpoints["odd"]
    url = engine_site.publish(checkpoint.folder)
    tab.goto(f"{engine_site.url}/index.html")
    tab.add_script_tag(path=script)

    def run(at_draw: int | None, can_come_back: bool) -> dict[str, Any]:
        found: dict[str, Any] = tab.evaluate(
            "(given) => loseContext(...given)", [url, checkpoint.tokens, at_draw, can_come_back]
        )
        return found

    return run


def test_after_a_lost_context_the_next_pass_brings_the_weights_back(lose: Lose) -> None:
    found = lose(None, True)
    assert len(found["before"]) > 10
    assert found["during"] == found["before"]
    assert found["after"] == found["before"]
    whole, lost, during, after = found["ledgers"]
    assert lost == {"webgl": None, "states": ["poisoned"], "passes": 0, "bytes": 0}
    assert whole == during == after


@pytest.mark.parametrize("draw", [1, 17])
def test_a_pass_that_loses_its_context_fails_and_may_be_run_again(lose: Lose, draw: int) -> None:
    found = lose(draw, True)
    assert found["during"]["name"] == "ContextLost"
    assert found["during"]["retriable"] is True
    assert "run the pass again" in found["during"]["message"]
    assert found["after"] == found["before"]
    whole, lost, after = found["ledgers"]
    assert {**lost, "states": []} == {"webgl": None, "states": [], "passes": 0, "bytes": 0}
    assert after["webgl"] == whole["webgl"]


def test_a_context_that_does_not_come_back_is_explained(lose: Lose) -> None:
    found = lose(None, False)
    for error in (found["during"], found["after"]):
        assert error["name"] == "ContextLost"
        assert error["retriable"] is False
        assert "WebGL2 is missing here" in error["message"]
        assert "backend wasm" in error["message"]
