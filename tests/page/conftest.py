"""The demo's site behind a server, and its page opened, with what it has asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from neuroscope.site.server import serve
from playwright.sync_api import Page

from tests.page.reader import open_lens


class Requests:
    """The paths that the page has asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def of_file(self, name: str) -> list[str]:
        return [path for path in self.paths if path.endswith(f"/{name}")]


@pytest.fixture
def requests() -> Requests:
    return Requests()


@pytest.fixture
def site(demo_site: Path) -> Path:
    return demo_site


@pytest.fixture
def url(site: Path, requests: Requests) -> Iterator[str]:
    """The site under a path, as a static host may have it."""
    with serve({"/some/path/": site}, on_request=requests.paths.append) as root:
        yield f"{root}/some/path/"


@pytest.fixture
def lens(page: Page, url: str) -> Page:
    """The page with its live lens."""
    open_lens(page, url)
    return page
