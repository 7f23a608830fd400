"""What a reader of the page does: opens it, types into the Workspace, opens a tool, looks at numbers."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

SECONDS = 1000  # Playwright counts milliseconds


def open_lens(page: Page, url: str) -> None:
    """Opens the page and waits for its live lens."""
    page.goto(url)
    expect(page.locator("[data-tool-class=InteractiveLens]")).to_be_visible(timeout=60 * SECONDS)


def open_tool(page: Page, name: str, tool_class: str) -> Locator:
    page.get_by_role("navigation", name="Tools").get_by_role("button", name=name).click()
    pane = page.locator(f"[data-tool-class={tool_class}]")
    expect(pane).to_be_visible(timeout=20 * SECONDS)
    return pane


def type_it(page: Page, source: str) -> None:
    """Into the Workspace, instead of all that is there."""
    page.click(".cm-content")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)


def select_and_press(page: Page, source: str, keys: str) -> None:
    type_it(page, source)
    page.keyboard.press("Control+a")
    page.keyboard.press(keys)


def do_it(page: Page, source: str) -> None:
    select_and_press(page, source, "Control+d")


def inspect_it(page: Page, source: str) -> None:
    select_and_press(page, source, "Control+i")


def print_it(page: Page, source: str) -> str:
    """What the expression prints as."""
    select_and_press(page, source, "Control+p")
    expect(page.locator(".cm-content")).not_to_have_text(source, timeout=20 * SECONDS)
    return page.locator(".cm-content").inner_text().removeprefix(source).strip()


def shown(page: Page) -> dict[str, dict[str, str]]:
    """The numbers at the bars: series ► token ► text."""
    found: dict[str, dict[str, str]] = {}
    for label in page.locator(".bars text[data-series]").all():
        series, token = label.get_attribute("data-series"), label.get_attribute("data-label")
        assert series is not None and token is not None
        found.setdefault(series, {})[token] = label.text_content() or ""
    return found
