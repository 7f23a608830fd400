"""What the engine's measurements share: where things are, the page that they run in, times and goals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from neuroscope import project
from neuroscope.errors import MissingProgramError, NeuroScopeError


@dataclass(frozen=True)
class Goal:
    """A ratio that is to be reached. `value` is ours over the other's."""

    work: str
    value: float
    limit: float

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit


def goal_lines(goals: Iterable[Goal]) -> list[str]:
    """A table of goals, each told met or missed."""
    return [
        f"{'':<58} ratio   goal",
        *(
            f"{each.work:<58} {each.value:>5.2f}  {each.limit:>5.2f}  {'met' if each.is_met else 'missed'}"
            for each in goals
        ),
    ]


@dataclass
class Times:
    """Milliseconds by contestant, of runs that took turns."""

    runs: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, milliseconds: float) -> None:
        self.runs.setdefault(name, []).append(milliseconds)

    def median(self, name: str) -> float:
        return median(self.runs[name])

    def ratio(self, name: str, other: str) -> float:
        return self.median(name) / self.median(other)


@dataclass(frozen=True)
class Places:
    """Where things are: URLs below the server's root, and folders on this machine."""

    url: str
    checkpoint: Path
    bundle_folder: Path
    kernels: str = "/site/kernels.wasm"
    engine: str = "/site/engine.js"
    watched_engine: str = "/bench/watched_engine.js"
    bundles: str = "/bundles"
    bundle: str = "gpt2-small-shaped"
    int8_bundle: str = "gpt2-small-shaped-int8"
    rivals: str = "/rivals/node_modules"
    models: str = "/models/"


@contextmanager
def open_page(places: Places) -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise MissingProgramError("Playwright is missing; `make setup-test` installs it and a browser.") from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=project.chromium_program(), args=list(project.CHROMIUM_FLAGS)
        )
        try:
            page = browser.new_page()
            page.set_default_timeout(300_000)
            page.goto(f"{places.url}/bench/index.html")
            page.wait_for_function("'bench' in globalThis")
            if not page.evaluate("bench.isIsolated()"):
                raise NeuroScopeError(
                    "The page of the benchmark is not cross-origin isolated, so nothing in it has threads; serve it "
                    "with Cross-Origin-Opener-Policy same-origin and Cross-Origin-Embedder-Policy require-corp."
                )
            yield page
        finally:
            browser.close()


def call_worker(page: Any, worker: str, method: str, *values: Any) -> Any:
    return page.evaluate(
        "([worker, method, values]) => bench.call(worker, method, ...values)", [worker, method, list(values)]
    )


def open_engine(page: Any, places: Places, bundle: str, backend: str, *, keeps: bool = False) -> dict[str, Any]:
    settings = {"kernels": places.kernels, "bundles": places.bundles, "without": [] if keeps else ["indexeddb"]}
    opened: dict[str, Any] = page.evaluate(
        "([script, settings, bundle, backend]) => bench.open(script, settings, bundle, backend)",
        [places.engine, settings, bundle, backend],
    )
    return opened
