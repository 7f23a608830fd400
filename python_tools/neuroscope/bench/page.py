"""Times the page as a person meets it: a cleared profile, a slow line, from navigation to picture, image and lens.

The line is Chromium's own emulation (20 Mbit/s, 40 ms); the times are the page's performance marks, on its own clock.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from neuroscope import project
from neuroscope.errors import MissingProgramError, NeuroScopeError

MEGABITS_A_SECOND = 20
LATENCY_MILLISECONDS = 40
_TIMEOUT_MILLISECONDS = 60_000

_MARKS = """
() => Object.fromEntries(performance.getEntriesByType("mark").map(mark => [mark.name, mark.startTime]).reverse())
"""


@dataclass(frozen=True)
class PageTimes:
    """Milliseconds from navigation, medians over the visits."""

    first_picture: float
    first_expression: float
    first_live_lens: float
    visits: int


@dataclass(frozen=True)
class SiteSizes:
    """Bytes of a built site."""

    image: int
    image_compressed: int
    scripts: int
    scripts_compressed: int
    kernels: int


def measure_sizes(site: Path) -> SiteSizes:
    image = (site / "neuroscope.image").read_bytes()
    scripts = [(site / name).read_bytes() for name in ("page.js", "engine.js")]
    return SiteSizes(
        image=len(image),
        image_compressed=len(gzip.compress(image, 9)),
        scripts=sum(map(len, scripts)),
        scripts_compressed=sum(len(gzip.compress(script, 9)) for script in scripts),
        kernels=(site / "kernels.wasm").stat().st_size,
    )


def measure_page(url: str, *, visits: int = 3) -> PageTimes:
    """Visits the page with an empty profile each time.

    Raises: MissingProgramError without Playwright; NeuroScopeError when the page shows an error or no lens in time.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise MissingProgramError("Playwright is missing; `make setup-test` installs it and a browser.") from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=project.chromium_program(), args=list(project.CHROMIUM_FLAGS)
        )
        times = [_visit(browser, url) for _ in range(visits)]
        browser.close()
    return PageTimes(
        first_picture=median(each["picture"] for each in times),
        first_expression=median(each["neuroscope-evaluated"] for each in times),
        first_live_lens=median(each["neuroscope-view-InteractiveLens"] for each in times),
        visits=visits,
    )


def _visit(browser: Any, url: str) -> dict[str, float]:
    context = browser.new_context()
    page = context.new_page()
    session = context.new_cdp_session(page)
    bytes_a_second = MEGABITS_A_SECOND * 1_000_000 / 8
    session.send("Network.enable")
    session.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": LATENCY_MILLISECONDS,
            "downloadThroughput": bytes_a_second,
            "uploadThroughput": bytes_a_second,
        },
    )
    page.goto(url, wait_until="commit")
    page.wait_for_function("document.body?.dataset.image === 'ready'", timeout=_TIMEOUT_MILLISECONDS)
    page.click(".cm-content")
    page.keyboard.press("Control+Home")
    page.keyboard.type("3 + 4\n")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Control+p")
    try:
        page.wait_for_function(
            "performance.getEntriesByName('neuroscope-evaluated').length > 0"
            " && performance.getEntriesByName('neuroscope-view-InteractiveLens').length > 0",
            timeout=_TIMEOUT_MILLISECONDS,
        )
    except Exception as error:
        shown = page.inner_text("body")
        raise NeuroScopeError(
            f"{url} showed no live lens within {_TIMEOUT_MILLISECONDS / 1000:.0f} s: {shown[:300]!r}."
        ) from error
    marks: dict[str, float] = page.evaluate(_MARKS)
    paints = page.evaluate(
        "() => Object.fromEntries(performance.getEntriesByType('paint').map(paint => [paint.name, paint.startTime]))"
    )
    context.close()
    return {**marks, "picture": paints["first-contentful-paint"]}
