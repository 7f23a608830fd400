"""Repositories of the Hub, read in Chromium across origins, from a Hub that misbehaves in every way it is known to."""

from __future__ import annotations

import json
import random

import pytest
from playwright.sync_api import Page

from tests.store.conftest import Load, digest
from tests.store.hub_server import Hub, Repository, safetensors

MEBIBYTE = 2**20
CONFIG = b'{"model_type": "gpt2"}'
SMALL = {"a": random.Random(1).randbytes(5000), "b": random.Random(2).randbytes(3001)}
# Three chunks of 16 MiB, and a tensor across the first two cuts.
LARGE = {"a": random.Random(3).randbytes(3 * MEBIBYTE), "b": random.Random(4).randbytes(34 * MEBIBYTE)}


def repository(tensors: dict[str, bytes], *, align: int = 8, **more: bytes) -> Repository:
    files = {"config.json": CONFIG, "tokenizer.json": b"{}", "model.safetensors": safetensors(tensors, align=align)}
    return Repository({**files, **more})


@pytest.fixture
def small(hub: Hub) -> Repository:
    hub.repositories["org/model"] = repository(SMALL)
    return hub.repositories["org/model"]


@pytest.fixture
def large(hub: Hub) -> Repository:
    hub.repositories["org/model"] = repository(LARGE)
    return hub.repositories["org/model"]


def digests(tensors: dict[str, bytes]) -> dict[str, str]:
    return {name: digest(content) for name, content in tensors.items()}


def test_a_repository_is_read_at_one_commit_by_single_ranges_without_a_preflight(
    hub: Hub, large: Repository, load: Load
) -> None:
    result = load()
    assert result["digests"] == digests(LARGE)
    assert (result["id"], result["revision"]) == (f"{hub.url}/org/model", large.commit)
    assert result["hasTokenizer"] is True
    progress = result["progress"]
    assert progress["bytesLoaded"] == progress["bytesTotal"] >= len(large.files["model.safetensors"])
    assert {asked.method for asked in hub.log} == {"GET"}
    assert all(not name.startswith("X-") and name != "Authorization" for asked in hub.log for name in asked.headers)
    named = [asked.path.split("/resolve/")[1].split("/")[0] for asked in hub.log if "/resolve/" in asked.path]
    assert named[0] == "main"
    assert set(named[1:]) == {large.commit}
    spans = sorted(asked.range for asked in hub.weights() if asked.range)
    assert len(spans) == 1 + 3, "the header, and three chunks"
    assert [last - first + 1 for first, last in spans[1:3] if last] == [16 * MEBIBYTE] * 2


def test_the_second_visit_asks_for_nothing(hub: Hub, large: Repository, load: Load) -> None:
    first = load()
    hub.log.clear()
    second = load()
    assert hub.log == []
    assert (second["digests"], second["revision"]) == (first["digests"], large.commit)
    assert second["progress"]["cached"] == second["progress"]["bytesLoaded"]


def test_a_revision_that_is_asked_for_is_looked_up_anew(hub: Hub, small: Repository, load: Load) -> None:
    load()
    small.commit = "f" * 40
    hub.log.clear()
    assert load()["revision"] != small.commit, "what is pinned stays"
    assert hub.log == []
    assert load(revision="main")["revision"] == small.commit
    assert load(revision="f" * 40)["revision"] == small.commit


def test_without_exposed_headers_the_api_tells_the_commit(hub: Hub, large: Repository, load: Load) -> None:
    hub.exposes = False
    result = load()
    assert (result["revision"], result["digests"]) == (large.commit, digests(LARGE))


def test_where_nobody_tells_the_commit_nothing_is_kept(hub: Hub, small: Repository, load: Load, tab: Page) -> None:
    hub.exposes = hub.api = False
    result = load()
    assert (result["revision"], result["digests"]) == (None, digests(SMALL))
    assert any("commit could not be learnt" in line for line in result["logs"])
    assert tab.evaluate("store.usage()")["bytes"] == 0


def test_a_host_that_ignores_ranges_is_asked_once(hub: Hub, large: Repository, load: Load) -> None:
    hub.ranges = False
    assert load()["digests"] == digests(LARGE)
    assert len(hub.weights()) == 1


def test_a_line_that_breaks_goes_on_where_it_broke(hub: Hub, large: Repository, load: Load) -> None:
    hub.cuts, hub.cut_after = 3, 5 * MEBIBYTE
    result = load()
    assert result["digests"] == digests(LARGE)
    assert result["progress"]["bytesLoaded"] == result["progress"]["bytesTotal"]
    # The browser may drop what it had not yet handed over.
    begins = [asked.range[0] % (16 * MEBIBYTE) for asked in hub.weights() if asked.range]
    assert sum(MEBIBYTE < begin <= 5 * MEBIBYTE for begin in begins) >= 2, begins


def test_a_line_that_always_breaks_is_given_up_by_name(hub: Hub, small: Repository, load: Load) -> None:
    hub.cuts, hub.cut_after = 10**6, 0
    error = load()["error"]
    assert error["name"] == "FetchFailed"
    assert "model.safetensors" in error["message"]


def test_a_range_from_the_wrong_place_is_asked_for_again_and_then_refused(
    hub: Hub, large: Repository, load: Load
) -> None:
    hub.mangled = 1
    assert load(store=False)["digests"] == digests(LARGE)
    hub.mangled = 10**6
    error = load(store=False)["error"]
    assert error["name"] == "FetchFailed"
    assert "were asked for, and bytes" in error["message"]


def test_a_file_that_changes_between_two_ranges_is_refused(hub: Hub, large: Repository, load: Load) -> None:
    hub.changes_after = 2
    error = load()["error"]
    assert error["name"] == "FetchFailed"
    assert "changed while it was read" in error["message"]


@pytest.mark.parametrize("align", [1, 8])
def test_headers_need_not_be_aligned(hub: Hub, load: Load, align: int) -> None:
    hub.repositories["org/model"] = repository({"name": b"123", **SMALL}, align=align)
    assert load()["digests"] == digests({"name": b"123", **SMALL})


def test_shards_are_read_as_the_index_says(hub: Hub, load: Load) -> None:
    shards = {f"model-0000{i + 1}-of-00002.safetensors": {name: SMALL[name]} for i, name in enumerate("ab")}
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    index = json.dumps({"metadata": {"total_size": 8001}, "weight_map": weight_map}).encode()
    files = {file: safetensors(tensors) for file, tensors in shards.items()}
    hub.repositories["org/model"] = Repository({"config.json": CONFIG, "model.safetensors.index.json": index, **files})
    result = load()
    assert result["digests"] == digests(SMALL)
    assert result["hasTokenizer"] is False


def test_a_truncated_file_is_refused_by_its_size(hub: Hub, load: Load) -> None:
    hub.repositories["org/model"] = repository(SMALL)
    files = hub.repositories["org/model"].files
    files["model.safetensors"] = files["model.safetensors"][:-1]
    error = load()["error"]
    assert error["name"] == "BundleRefused"
    assert f"it has {len(files['model.safetensors'])}" in error["message"]


def test_a_gated_repository_says_how_to_get_at_it(hub: Hub, small: Repository, load: Load) -> None:
    small.gated = True
    for exposes in (True, False):
        hub.exposes = exposes
        error = load()["error"]
        assert error["name"] == "GatedRepository"
        assert error["repository"] == "org/model"
        for hint in (f"{hub.url}/org/model", "hf download", "neuroscope export"):
            assert hint in error["message"]


@pytest.mark.parametrize("exposes", [True, False])
def test_repository_revision_and_file_that_are_missing_are_told_apart(
    hub: Hub, small: Repository, load: Load, exposes: bool
) -> None:
    hub.exposes = exposes
    assert "no repository org/nothing" in load("org/nothing")["error"]["message"]
    assert "no revision v9" in load(revision="v9")["error"]["message"]
    del small.files["config.json"]
    error = load(revision="main")["error"]
    assert "has no config.json" in error["message"]
    assert "model.safetensors" in error["message"]
    del small.files["model.safetensors"]
    small.files["config.json"] = CONFIG
    assert "has no model.safetensors" in load(revision="main")["error"]["message"]


def test_a_repository_of_pickles_is_refused_with_the_way_out(hub: Hub, small: Repository, load: Load) -> None:
    small.files["pytorch_model.bin"] = small.files.pop("model.safetensors")
    error = load()["error"]
    assert error["name"] == "BundleRefused"
    assert "pytorch_model.bin" in error["message"]
    assert "neuroscope export" in error["message"]


def test_a_busy_hub_is_waited_for_and_then_left_alone(hub: Hub, small: Repository, load: Load) -> None:
    hub.busy = 2
    assert load(store=False)["digests"] == digests(SMALL)
    hub.busy, hub.retry_after = 10**6, "3600"
    error = load(store=False)["error"]
    assert (error["name"], error["seconds"]) == ("RateLimited", 3600)
    hub.retry_after = None
    error = load(store=False, line={"patience": 1500})["error"]
    assert (error["name"], error["seconds"]) == ("RateLimited", None)


def test_a_host_that_allows_no_other_origin_is_explained(hub: Hub, small: Repository, load: Load) -> None:
    hub.cors = False
    error = load()["error"]
    assert error["name"] == "FetchFailed"
    assert "CORS" in error["message"]
    assert hub.url in error["message"]
    assert {asked.method for asked in hub.log} == {"GET"}


def test_a_damaged_chunk_of_a_repository_is_fetched_again(hub: Hub, large: Repository, load: Load, tab: Page) -> None:
    load()
    tab.evaluate("store.damage()")
    hub.log.clear()
    assert load()["digests"] == digests(LARGE)
    assert len(hub.weights()) == 1


def test_a_cancelled_load_leaves_what_it_fetched_to_the_next(hub: Hub, large: Repository, load: Load) -> None:
    assert load(cancelAfter=1)["error"]["name"] == "LoadCancelled"
    hub.log.clear()
    result = load()
    assert result["digests"] == digests(LARGE)
    assert result["progress"]["cached"] >= 16 * MEBIBYTE
    assert len(hub.weights()) < 3
