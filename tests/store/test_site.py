"""The whole page when something is missing or dies: offline, isolated by a service worker, every gap, a dead engine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from neuroscope.site.build import write_service_worker
from neuroscope.site.server import serve
from playwright.sync_api import Page, expect
from safetensors.numpy import load, save

from tests.page.reader import SECONDS, do_it, open_lens, print_it
from tests.store.hub_server import Hub, Repository

# The engine's worker, so that a test can end it as a browser out of memory does: without a word.
REMEMBER_WORKERS = """
globalThis.workers = [];
globalThis.Worker = class extends Worker {
    constructor(...given) { super(...given); workers.push(this); }
};
"""

SERVICE_WORKER_READY = "navigator.serviceWorker.ready.then((ready) => ready.active.state)"


@pytest.fixture(scope="module")
def bare_url(demo_site: Path) -> Iterator[str]:
    """The site on a host that can't set headers, under a path of its own."""
    with serve({"/some/path/": demo_site}, isolated=False) as root:
        yield f"{root}/some/path/"


def logits(page: Page, model: str = "model") -> str:
    """A few logits after a text, printed."""
    source = f"({model} forward: 'The cat sat') logits numbers copyFrom: 1 to: 5"
    return print_it(page, source)


def test_the_service_worker_isolates_the_second_visit_and_serves_the_third_without_a_network(
    page: Page, demo_site: Path
) -> None:
    visits: list[str] = []
    page.on("framenavigated", lambda frame: visits.append(frame.url))
    with serve({"/some/path/": demo_site}, isolated=False) as root:
        url = f"{root}/some/path/"
        open_lens(page, url)
        assert page.evaluate("crossOriginIsolated") is False
        expect(page.locator("#gaps")).to_contain_text("until the next visit")
        assert page.evaluate(SERVICE_WORKER_READY) in ("activating", "activated")
        page.wait_for_timeout(500)
        assert visits == [url], "it never reloads the page"
        open_lens(page, url)
        assert page.evaluate("crossOriginIsolated") is True
        assert page.evaluate("typeof SharedArrayBuffer") == "function"
        picture = page.locator("[data-tool-class=InteractiveLens] svg.heat-map .value").all_text_contents()
        assert picture
        kept = page.evaluate(
            "caches.keys().then((names) => Promise.all(names.map((name) => caches.open(name))))"
            ".then((all) => Promise.all(all.map((one) => one.keys()))).then((all) => all.flat().map(({ url }) => url))"
        )
        assert len(kept) > 8
        assert not [each for each in kept if "/bundles/" in each or each.endswith("neuroscope.image")]
    # Nobody listens any more.
    open_lens(page, f"{url}?backend=wasm")
    assert page.evaluate("crossOriginIsolated") is True
    shown = page.locator("[data-tool-class=InteractiveLens] svg.heat-map .value").all_text_contents()
    assert shown == picture
    assert page.locator(".error-pane").count() == 0


def test_a_newer_build_waits_until_the_reader_takes_it(page: Page, demo_site: Path, tmp_path: Path) -> None:
    site = Path(shutil.copytree(demo_site, tmp_path / "site"))
    with serve({"/": site}) as root:
        open_lens(page, root)
        page.evaluate(SERVICE_WORKER_READY)
        [first] = page.evaluate("caches.keys()")
        index = site / "index.html"
        index.write_text(index.read_text(encoding="utf-8").replace("<title>", "<title>Newer: "), encoding="utf-8")
        write_service_worker(site)
        open_lens(page, root)
        assert not page.title().startswith("Newer"), "one page, one build"
        page.get_by_role("button", name="newer version").click(timeout=20 * SECONDS)
        page.wait_for_function("document.title.startsWith('Newer')")
        page.wait_for_function(
            "(first) => caches.keys().then(([one, ...more]) => one !== first && !more.length)", arg=first
        )


def test_a_build_of_which_a_file_is_another_is_not_kept(page: Page, demo_site: Path, tmp_path: Path) -> None:
    site = Path(shutil.copytree(demo_site, tmp_path / "site"))
    with (site / "page.css").open("a") as styles:
        styles.write("/* uploaded halfway */")
    with serve({"/": site}) as root:
        open_lens(page, root)
        page.wait_for_timeout(1000)
        assert page.evaluate("caches.keys()") == []
        assert page.evaluate("navigator.serviceWorker.controller") is None


def test_without_a_service_worker_the_one_that_was_there_goes(page: Page, bare_url: str) -> None:
    page.goto(bare_url)
    page.evaluate(SERVICE_WORKER_READY)
    open_lens(page, f"{bare_url}?without=sw")
    page.wait_for_function("navigator.serviceWorker.getRegistrations().then((all) => all.length === 0)")
    open_lens(page, f"{bare_url}?without=sw")
    assert page.evaluate("crossOriginIsolated") is False


@pytest.mark.parametrize("gap", ["threads", "simd", "webgl", "subtle", "indexeddb"])
def test_a_page_without_one_thing_works_and_says_so(page: Page, demo_site: Path, gap: str) -> None:
    with serve({"/": demo_site}) as root:
        open_lens(page, f"{root}?without={gap},sw")
        words = {"simd": "SIMD", "webgl": "WebGL2", "indexeddb": "IndexedDB", "subtle": "crypto.subtle"}
        expect(page.locator("#gaps")).to_contain_text(words.get(gap, gap))
        assert page.locator(".error-pane").count() == 0
        assert print_it(page, "(model forward: 'The cat') logits shape first") == "1"


def test_an_insecure_page_without_anything_works(page: Page, demo_site: Path) -> None:
    """What a teacher's laptop at a LAN address gives its pupils."""
    page.add_init_script(
        "for (const name of ['subtle']) Object.defineProperty(Crypto.prototype, name, { get: () => undefined });"
        "for (const name of ['serviceWorker', 'locks', 'storage'])"
        "  Object.defineProperty(Navigator.prototype, name, { get: () => undefined });"
    )
    with serve({"/": demo_site}, isolated=False) as root:
        open_lens(page, f"{root}?without=threads,simd,webgl,subtle,indexeddb,sw")
        for word in ("threads", "SIMD", "WebGL2", "IndexedDB", "service worker", "crypto.subtle"):
            expect(page.locator("#gaps")).to_contain_text(word)
        assert print_it(page, "(model forward: 'The cat') logits shape first") == "1"


def kill_engine(page: Page) -> None:
    page.evaluate("workers.at(-1).terminate()")


def test_a_killed_engine_ends_every_wait_and_the_next_request_starts_another(page: Page, demo_site: Path) -> None:
    page.add_init_script(REMEMBER_WORKERS)
    with serve({"/": demo_site}) as root:
        open_lens(page, f"{root}?without=sw,threads&backend=wasm")
        before = logits(page)
        do_it(page, "[ (model forward: 'The cat sat') logits numbers ] repeat")
        expect(page.locator("#running")).to_have_text("1 running")
        kill_engine(page)
        error = page.locator(".error-pane")
        expect(error).to_be_visible(timeout=20 * SECONDS)
        expect(error).to_contain_text("load the model again")
        expect(page.locator("#running")).to_have_text("", timeout=20 * SECONDS)
        assert page.evaluate("workers.length") == 1
        assert logits(page) == before
        assert page.evaluate("workers.length") == 2


@pytest.fixture
def demo_on_the_hub(hub: Hub, demo_bundle: Path) -> Hub:
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    files = {name: (demo_bundle / name).read_bytes() for name in names}
    # In float32, as the older models of the Hub are.
    tensors = {name: tensor.astype(np.float32) for name, tensor in load(files["model.safetensors"]).items()}
    hub.repositories["org/demo"] = Repository({**files, "model.safetensors": save(tensors)})
    return hub


def test_a_repository_opens_by_its_name_and_the_next_visit_asks_the_hub_for_nothing(
    page: Page, demo_site: Path, demo_on_the_hub: Hub
) -> None:
    hub = demo_on_the_hub
    with serve({"/": demo_site}) as root:
        url = f"{root}?without=sw&backend=wasm&hub={hub.url}"
        open_lens(page, url)
        expected = logits(page)
        assert logits(page, "(TransformerModel fromHuggingFace: 'org/demo')") == expected
        assert {asked.method for asked in hub.log} == {"GET"}
        hub.log.clear()
        open_lens(page, url)
        assert logits(page, "(TransformerModel fromHuggingFace: 'org/demo')") == expected
        assert hub.log == []


def test_what_int8_makes_of_a_repository_is_kept_in_its_place(
    page: Page, demo_site: Path, demo_on_the_hub: Hub
) -> None:
    hub = demo_on_the_hub
    int8 = "((ModelRequest repository: 'org/demo') int8; load)"
    with serve({"/": demo_site}) as root:
        url = f"{root}?without=sw&backend=wasm&hub={hub.url}"
        open_lens(page, url)
        first = logits(page, int8)
        weights = len(hub.repositories["org/demo"].files["model.safetensors"])
        sizes = bytes_kept(page)
        assert sum(asked.file == "model.safetensors" and asked.host == "cdn" for asked in hub.log) <= 2
        prepared = sum(size for key, size in sizes.items() if "#" in key and key.startswith("hub "))
        assert 0.25 * weights < prepared < 0.3 * weights
        assert not [key for key in sizes if "model.safetensors@" in key], "no chunk of floats is kept"
        hub.log.clear()
        open_lens(page, url)
        assert logits(page, int8) == first
        assert hub.log == []


def bytes_kept(page: Page) -> dict[str, int]:
    entries: list[dict[str, Any]] = page.evaluate(
        """() => new Promise((resolve) => {
            const opening = indexedDB.open("neuroscope");
            opening.onsuccess = () => {
                const reading = opening.result.transaction("entries").objectStore("entries").getAll();
                reading.onsuccess = () => { opening.result.close(); resolve(reading.result); };
            };
        })"""
    )
    return {each["key"]: each["bytes"] for each in entries}
