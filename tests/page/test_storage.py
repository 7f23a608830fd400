"""Weights between visits: kept by their SHA-256, checked each time, refused by name when they do not match."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import Requests
from tests.page.reader import SECONDS, open_lens

WEIGHTS = "model.safetensors"

FLIP_A_STORED_BYTE = """
async () => {
    const done = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
    const database = await done(indexedDB.open("neuroscope"));
    const chunks = () => database.transaction("chunks", "readwrite").objectStore("chunks");
    const keys = await done(chunks().getAllKeys());
    const kept = await Promise.all(keys.map((key) => done(chunks().get(key))));
    const largest = kept.reduce((best, each, i) => (each.blob.size > kept[best].blob.size ? i : best), 0);
    const bytes = new Uint8Array(await kept[largest].blob.arrayBuffer());
    bytes[1000] ^= 1;
    await done(chunks().put({ ...kept[largest], blob: new Blob([bytes]) }, keys[largest]));
    database.close();
    return keys.length;
}
"""


@pytest.fixture
def site(demo_site: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(demo_site, tmp_path / "site"))


def test_a_flipped_byte_in_the_store_refetches_exactly_one_chunk(page: Page, url: str, requests: Requests) -> None:
    open_lens(page, url)
    assert page.evaluate(FLIP_A_STORED_BYTE) > 1
    requests.paths.clear()
    open_lens(page, url)
    assert len(requests.of_file(WEIGHTS)) == 1
    requests.paths.clear()
    open_lens(page, url)
    assert requests.of_file(WEIGHTS) == []


def test_a_chunk_that_does_not_match_is_fetched_once_more_and_then_refused_by_name(
    page: Page, url: str, site: Path, requests: Requests
) -> None:
    weights = next(site.glob(f"bundles/*/{WEIGHTS}"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    page.goto(url)
    error = page.locator(".error-pane")
    expect(error).to_be_visible(timeout=60 * SECONDS)
    expect(error).to_contain_text(WEIGHTS)
    expect(error).to_contain_text("SHA-256")
    assert len(requests.of_file(WEIGHTS)) == 2


def test_without_its_kernels_the_page_says_which_file_is_missing(page: Page, url: str, site: Path) -> None:
    for file in site.glob("kernels*.wasm"):
        file.unlink()
    page.goto(f"{url}?backend=wasm")
    error = page.locator(".error-pane")
    expect(error).to_be_visible(timeout=60 * SECONDS)
    expect(error).to_contain_text("kernels.wasm")


def test_webgl_that_is_asked_for_and_missing_is_refused_by_name(page: Page, url: str) -> None:
    page.goto(f"{url}?backend=webgl&without=webgl")
    error = page.locator(".error-pane")
    expect(error).to_be_visible(timeout=60 * SECONDS)
    expect(error).to_contain_text("webgl")


def test_webgl_draws_the_same_lens(page: Page, url: str) -> None:
    open_lens(page, f"{url}?backend=wasm")
    wasm = page.locator("[data-tool-class=InteractiveLens] svg.heat-map .value").all_text_contents()
    open_lens(page, f"{url}?backend=webgl")
    expect(page.locator("[data-tool-class=InteractiveLens]")).to_contain_text("webgl")
    assert page.locator("[data-tool-class=InteractiveLens] svg.heat-map .value").all_text_contents() == wasm


def test_without_a_store_the_page_works_and_fetches_anew(page: Page, url: str, requests: Requests) -> None:
    open_lens(page, f"{url}?without=indexeddb")
    requests.paths.clear()
    open_lens(page, f"{url}?without=indexeddb")
    assert requests.of_file(WEIGHTS)
