"""What only a page has: chunks kept between visits, gaps of old browsers, a graphics context that goes away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_checkpoints import Checkpoint, unpack, write_manifest
from engine_oracle import far
from engine_places import Site, run_in_page
from playwright.sync_api import Page


@pytest.fixture
def bundle(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> Path:
    """A copy of a checkpoint with bundle.json, in chunks of 4 KB; under a name of its own."""
    folder = tmp_path / tmp_path.name
    shutil.copytree(checkpoints["odd"].folder, folder)
    write_manifest(folder, 4096)
    return folder


def job_of(checkpoint: Checkpoint, url: str, backend: str) -> dict[str, Any]:
    return {"bundle": url, "backend": backend, "passes": [{"tokens": checkpoint.tokens, "capture": []}]}


def check(result: dict[str, Any], checkpoint: Checkpoint) -> None:
    assert "error" not in result, result["error"]
    assert far("logits", unpack(result["passes"][0]["logits"]), checkpoint.logits()) is None


def test_the_second_visit_fetches_no_chunk(
    tab: Page, engine_site: Site, checkpoints: dict[str, Checkpoint], bundle: Path
) -> None:
    checkpoint, url = checkpoints["odd"], engine_site.publish(bundle)
    path = url.removeprefix(engine_site.url)
    fetched, cached = [], []
    for _ in range(2):
        engine_site.log.clear()
        [result], _ = run_in_page(tab, engine_site, [job_of(checkpoint, url, "wasm")])
        check(result, checkpoint)
        fetched.append(sorted(each.removeprefix(path) for each in engine_site.log if each.startswith(path)))
        cached.append(result["progress"]["cached"])
        assert result["progress"]["bytesLoaded"] == result["progress"]["bytesTotal"]
    assert fetched[0].count("/model.safetensors") > 3
    assert fetched[1] == ["/bundle.json"]
    assert cached == [0, result["progress"]["bytesTotal"]]


def test_a_damaged_chunk_is_fetched_once_more_then_refused(
    tab: Page, engine_site: Site, checkpoints: dict[str, Checkpoint], bundle: Path
) -> None:
    checkpoint, url = checkpoints["odd"], engine_site.publish(bundle)
    name = url.removeprefix(engine_site.url) + "/model.safetensors"
    bad = b"x" * (bundle / "model.safetensors").stat().st_size
    engine_site.tampered[name] = [bad]
    [result], _ = run_in_page(tab, engine_site, [job_of(checkpoint, url, "wasm")], without=["indexeddb"])
    check(result, checkpoint)
    engine_site.tampered[name] = [bad] * 20
    [result], _ = run_in_page(tab, engine_site, [job_of(checkpoint, url, "wasm")], without=["indexeddb"])
    assert result["error"]["name"] == "ChunkMismatch"
    assert result["error"]["file"] == "model.safetensors"
    engine_site.tampered.clear()


def test_without_what_an_old_browser_lacks_the_engine_still_runs(
    tab: Page, engine_site: Site, checkpoints: dict[str, Checkpoint], bundle: Path
) -> None:
    checkpoint, url = checkpoints["odd"], engine_site.publish(bundle)
    gaps = ["subtle", "indexeddb", "simd", "webgl"]
    [auto, wasm], logs = run_in_page(
        tab, engine_site, [job_of(checkpoint, url, backend) for backend in ("auto", "wasm")], without=gaps
    )
    check(auto, checkpoint)
    assert auto["loaded"]["backend"] == "reference"
    assert wasm["error"]["name"] == "BackendUnavailable"
    assert any("wasm" in line for line in logs)


def test_auto_is_the_first_that_opens_for_a_small_bundle(
    tab: Page, engine_site: Site, checkpoints: dict[str, Checkpoint], bundle: Path
) -> None:
    checkpoint, url = checkpoints["odd"], engine_site.publish(bundle)
    [result], _ = run_in_page(tab, engine_site, [job_of(checkpoint, url, "auto")])
    check(result, checkpoint)
    assert (result["loaded"]["backend"], result["loaded"]["probe"]) == ("wasm", {})


def test_the_fastest_backend_is_chosen_and_remembered_between_visits(tab: Page, engine_site: Site) -> None:
    tab.goto(f"{engine_site.url}/index.html")
    tab.wait_for_function("typeof chosenBackends === 'function'")
    first, next_visit, again = tab.evaluate("(settings) => chosenBackends(settings)", engine_site.settings())
    probe = first["probe"]
    assert set(probe) == {"wasm", "webgl"}
    assert first["chosen"] == min(probe, key=probe.get)
    assert first["refused"] == []
    assert next_visit["probe"] == probe, "it was measured again"
    assert again["probe"] != probe, "it was not measured again"


def test_nothing_is_read_from_the_gpu_before_it_is_asked_for(
    tab: Page, engine_site: Site, checkpoints: dict[str, Checkpoint], bundle: Path
) -> None:
    url = engine_site.publish(bundle)
    tab.goto(f"{engine_site.url}/index.html")
    tab.wait_for_function("typeof countReads === 'function'")
    before, after = tab.evaluate("([url, tokens]) => countReads(url, tokens)", [url, checkpoints["odd"].tokens])
    assert (before, after) == (0, 1)


def test_a_gpu_without_float_targets_is_refused_by_name(tab: Page, engine_site: Site, bundle: Path) -> None:
    url = engine_site.publish(bundle)
    tab.goto(f"{engine_site.url}/index.html")
    tab.wait_for_function("typeof withoutFloatTargets === 'function'")
    refused = tab.evaluate("(url) => withoutFloatTargets(url)", url)
    assert refused["name"] == "BackendUnavailable"
    assert "EXT_color_buffer_float" in refused["message"]


def test_four_draw_buffers_give_what_eight_give(tab: Page, engine_site: Site) -> None:
    tab.goto(f"{engine_site.url}/index.html")
    tab.wait_for_function("typeof productsWith === 'function'")
    four, eight = (tab.evaluate("(buffers) => productsWith(buffers)", buffers) for buffers in (4, 8))
    assert len(four) == 9 * 21
    np.testing.assert_allclose(four, eight, rtol=1e-6)
