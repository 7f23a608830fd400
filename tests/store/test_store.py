"""IndexedDB as it is in a browser: full, shared by two tabs, without locks, gone; and what is evicted when."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.store.conftest import Load, digest
from tests.store.hub_server import Hub, Repository, safetensors

MEBIBYTE = 2**20
LARGE = {"a": random.Random(5).randbytes(34 * MEBIBYTE)}
SMALL = {"a": random.Random(6).randbytes(MEBIBYTE)}


def publish(hub: Hub, name: str, tensors: dict[str, bytes]) -> None:
    files = {"config.json": b"{}", "model.safetensors": safetensors(tensors)}
    hub.repositories[name] = Repository(files, commit=digest(name.encode())[:40])


@pytest.fixture
def large(hub: Hub) -> None:
    publish(hub, "org/model", LARGE)


def kept(tab: Page) -> dict[str, int]:
    """Bytes by repository, the one used last first."""
    usage: dict[str, Any] = tab.evaluate("store.usage()")
    return {each["name"].rsplit("/", 1)[1]: each["bytes"] for each in usage["bundles"]}


def start(tab: Page, hub: Hub, name: str = "org/model", **wanted: Any) -> None:
    """Begins to read a repository; `ended` waits for the end."""
    tab.evaluate(
        "(wanted) => { globalThis.result = store.load(wanted); }",
        {"address": f"hub:{name}", "hub": hub.url, **wanted},
    )


def ended(tab: Page) -> dict[str, Any]:
    result: dict[str, Any] = tab.evaluate("result")
    return result


def loaded(tab: Page, hub: Hub, name: str) -> dict[str, Any]:
    start(tab, hub, name)
    return ended(tab)


def test_a_budget_that_is_full_is_told_and_costs_only_the_next_visit(
    hub: Hub, large: None, load: Load, tab: Page
) -> None:
    publish(hub, "org/small", SMALL)
    tab.evaluate("(bytes) => store.setBudget(bytes)", 10 * MEBIBYTE)
    result = load()
    assert result["digests"] == {"a": digest(LARGE["a"])}
    [warning] = result["warnings"]
    assert (warning["name"], warning["budget"]) == ("StorageFull", 10 * MEBIBYTE)
    assert "is fetched again" in warning["message"]
    assert load()["digests"] == result["digests"]
    # What does find room is kept as ever.
    assert load("org/small")["warnings"] == []
    hub.log.clear()
    assert load("org/small")["digests"] == {"a": digest(SMALL["a"])}
    assert hub.weights() == []


def test_a_disk_that_is_full_is_told_and_leaves_the_store_usable(
    hub: Hub, large: None, browser: Browser, tab: Page
) -> None:
    """The browser's own refusal, QuotaExceededError in the middle of a transaction."""
    publish(hub, "org/small", SMALL)
    context = browser.new_context()
    page = context.new_page()
    page.goto(tab.url)
    page.wait_for_function("typeof store === 'object'")
    # Before IndexedDB is first used: Chromium remembers for half a minute how much room there was.
    session = context.new_cdp_session(page)
    origin = page.evaluate("location.origin")
    session.send("Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": 10 * MEBIBYTE})
    page.evaluate("store.setBudget(1e12)")
    result = loaded(page, hub, "org/model")
    assert result["digests"] == {"a": digest(LARGE["a"])}
    [warning] = result["warnings"]
    assert (warning["name"], warning["budget"]) == ("StorageFull", 10**12)
    # What does find room is kept as ever.
    assert loaded(page, hub, "org/small")["warnings"] == []
    hub.log.clear()
    assert loaded(page, hub, "org/small")["digests"] == {"a": digest(SMALL["a"])}
    assert hub.log == []
    context.close()


def test_the_budget_evicts_what_was_used_least_recently(hub: Hub, load: Load, tab: Page) -> None:
    for name in ("org/first", "org/second", "org/third"):
        publish(hub, name, SMALL)
    tab.evaluate("(bytes) => store.setBudget(bytes)", 5 * MEBIBYTE // 2)
    for name in ("org/first", "org/second", "org/first", "org/third"):
        load(name)
    assert list(kept(tab)) == ["third", "first"]
    tab.evaluate("(name) => store.evict(name)", f"{hub.url}/org/third")
    assert list(kept(tab)) == ["first"]
    tab.evaluate("store.setBudget(0)")
    assert kept(tab) == {}


def test_of_two_tabs_one_fetches_and_the_other_reads(
    hub: Hub, large: None, tab: Page, open_tab: Callable[[], Page]
) -> None:
    other = open_tab()
    hub.delay = 0.2
    start(tab, hub)
    start(other, hub)
    for each in (tab, other):
        assert ended(each)["digests"] == {"a": digest(LARGE["a"])}
    chunks = [asked.range for asked in hub.weights() if asked.range and (asked.range[1] or 0) > MEBIBYTE]
    assert len(chunks) == len(set(chunks)) == 3
    other.close()


def test_two_tabs_of_a_browser_without_locks_both_succeed(hub: Hub, large: None, browser: Browser, tab: Page) -> None:
    context = browser.new_context()
    context.add_init_script("Object.defineProperty(Navigator.prototype, 'locks', { get: () => undefined })")
    tabs = [context.new_page(), context.new_page()]
    for each in tabs:
        each.goto(tab.url)
        each.wait_for_function("typeof store === 'object'")
        assert each.evaluate("navigator.locks === undefined")
        start(each, hub)
    for each in tabs:
        assert ended(each)["digests"] == {"a": digest(LARGE["a"])}
    context.close()


def test_a_tab_does_not_evict_what_another_tab_is_loading(
    hub: Hub, large: None, load: Load, tab: Page, open_tab: Callable[[], Page]
) -> None:
    publish(hub, "org/small", SMALL)
    tab.evaluate("(bytes) => store.setBudget(bytes)", 69 * MEBIBYTE // 2)
    other = open_tab()
    start(other, hub, pause=700)
    other.wait_for_timeout(500)
    [warning] = load("org/small")["warnings"] or [None]
    result = ended(other)
    assert result["digests"] == {"a": digest(LARGE["a"])}
    # Whichever found no room, what the other was loading is whole.
    assert (warning is None) != (result["warnings"] == [])
    other.close()


def test_a_browser_that_forbids_storage_works_without(hub: Hub, large: None, browser: Browser, tab: Page) -> None:
    context = browser.new_context()
    context.add_init_script(
        "IDBFactory.prototype.open = () => { throw new DOMException('A mutation operation is not allowed'); }"
    )
    page = context.new_page()
    page.goto(tab.url)
    page.wait_for_function("typeof store === 'object'")
    start(page, hub)
    result = ended(page)
    assert result["digests"] == {"a": digest(LARGE["a"])}
    assert any("IndexedDB could not be opened" in line for line in result["logs"])
    context.close()


def test_data_that_the_reader_clears_is_fetched_anew_by_the_same_page(hub: Hub, load: Load, tab: Page) -> None:
    publish(hub, "org/small", SMALL)
    load("org/small")
    tab.evaluate("store.clear()")
    assert load("org/small")["digests"] == {"a": digest(SMALL["a"])}
    assert kept(tab)["small"] > MEBIBYTE


def test_reading_what_is_kept_survives_the_collector(hub: Hub, large: None, load: Load, tab: Page) -> None:
    """Chromium collected streams of blobs that only their own pending reads referred to, and those never ended."""
    expected = load()["digests"]
    session = tab.context.new_cdp_session(tab)
    for _ in range(10):
        start(tab, hub)
        for _ in range(5):
            session.send("HeapProfiler.collectGarbage")
        tab.evaluate("() => void result.then(() => { globalThis.isOver = true; })")
        tab.wait_for_function("globalThis.isOver === true", timeout=30_000)
        tab.evaluate("() => { globalThis.isOver = false; }")
        assert ended(tab)["digests"] == expected


def test_prepared_tensors_take_the_place_of_weights(hub: Hub, large: None, load: Load, tab: Page) -> None:
    load(keep="prepared")
    assert sum(kept(tab).values()) < MEBIBYTE, "headers and configuration alone"
