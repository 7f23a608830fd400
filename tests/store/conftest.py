"""A page that reads a model's files in Chromium, and an imitated Hub beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from neuroscope import project
from neuroscope.site.scripts import bundle_script
from neuroscope.site.server import serve
from playwright.sync_api import Browser, Page

from tests.store.hub_server import Hub, serve_hub

Load = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def store_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store_page")
    bundle_script(project.ROOT / "tests/store/page.ts", folder / "page.js", minify=False)
    (folder / "index.html").write_text(
        '<!doctype html><link rel="icon" href="data:,"><script type="module" src="page.js"></script>'
    )
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(Hub()) as served:
        yield served


@pytest.fixture(scope="module")
def open_tab(browser: Browser, store_page: Path) -> Iterator[Callable[[], Page]]:
    """Opens tabs that share their storage, as those of one person do."""
    context = browser.new_context()
    with serve({"/": store_page}) as url:

        def opened() -> Page:
            page = context.new_page()
            page.goto(f"{url}/")
            page.wait_for_function("typeof store === 'object'")
            return page

        yield opened
        context.close()


@pytest.fixture(scope="module")
def lasting_tab(open_tab: Callable[[], Page]) -> Page:
    return open_tab()


@pytest.fixture
def tab(lasting_tab: Page) -> Page:
    """A tab in which nothing is kept yet."""
    lasting_tab.evaluate("store.clear()")
    return lasting_tab


@pytest.fixture
def load(tab: Page, hub: Hub) -> Load:
    """Reads a repository in the page: what came, or `error`."""

    def run(name: str = "org/model", **wanted: Any) -> dict[str, Any]:
        result: dict[str, Any] = tab.evaluate(
            "(wanted) => store.load(wanted)", {"address": f"hub:{name}", "hub": hub.url, **wanted}
        )
        return result

    return run


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
