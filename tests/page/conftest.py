"""What the page's tests share."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

SECONDS = 1000  # Playwright counts milliseconds


class Requests:
    """The paths that the page has asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def of_file(self, name: str) -> list[str]:
        return [path for path in self.paths if path.endswith(f"/{name}")]


@pytest.fixture
def requests() -> Requests:
    return Requests()


def open_lens(page: Page, url: str) -> None:
    """Opens the page and waits for its live lens."""
    page.goto(url)
    expect(page.locator("[data-tool-class=InteractiveLens]")).to_be_visible(timeout=60 * SECONDS)
