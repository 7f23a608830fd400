"""The page's tools in a real browser: generation, parity, storage, loading in another way, and stopping what runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.page.conftest import Requests
from tests.page.reader import SECONDS, do_it, open_lens, open_tool

WEIGHTS = "model.safetensors"


def test_text_is_generated_as_transformers_does_and_each_token_has_its_probability(
    lens: Page, demo_bundle: Path
) -> None:
    prompt = "When Mary and John went to the store, John gave a drink"
    tool = open_tool(lens, "Generate", "GenerationTool")
    field = tool.get_by_label("Text to continue")
    field.fill(prompt)
    field.press("Enter")
    tokens = tool.get_by_label("Tokens")
    tokens.fill("3")
    tokens.press("Enter")
    expect(tool).to_contain_text("at most 3 tokens, greedy", timeout=20 * SECONDS)
    tool.get_by_role("button", name="Generate").click()
    expect(tool).to_contain_text("ended by", timeout=20 * SECONDS)
    tokenizer = AutoTokenizer.from_pretrained(demo_bundle)
    model = AutoModelForCausalLM.from_pretrained(demo_bundle, dtype=torch.float32).eval()
    row = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(prompt)]])
    probabilities = []
    with torch.no_grad():
        for _ in range(3):
            last = model(row).logits[0, -1].softmax(-1)
            probabilities.append(float(last.max()))
            row = torch.cat([row, last.argmax().reshape(1, 1)], dim=1)
    assert tool.locator("pre").first.inner_text() == tokenizer.decode(row[0, 1:])
    shown = [float(text) for text in tool.locator("table.data tr td:nth-child(3)").all_text_contents()]
    assert shown == pytest.approx(probabilities, abs=1.01e-4)


def test_a_setting_out_of_range_is_told_with_what_is_allowed(lens: Page) -> None:
    tool = open_tool(lens, "Generate", "GenerationTool")
    field = tool.get_by_label("Top-p")
    field.fill("1.5")
    field.press("Enter")
    expect(tool.locator(".error")).to_contain_text("1.5", timeout=20 * SECONDS)
    expect(tool.locator(".error")).to_contain_text("up to 1")


def test_parity_is_checked_in_this_browser_and_shown_for_every_hook(lens: Page, demo_bundle: Path) -> None:
    tool = open_tool(lens, "Parity", "ParityTool")
    expect(tool.locator(".badge")).to_contain_text("all within what is allowed", timeout=60 * SECONDS)
    expect(lens.locator("#parity")).to_contain_text(re.compile(r"Parity \d\.\de-\d"))
    hooks = tool.locator("table.data tr td:first-child").all_text_contents()
    assert "blocks.0.attn.hook_pattern" in hooks
    assert "unembed.hook_out" in hooks
    assert len(hooks) == len(set(hooks)) > 60
    with lens.expect_download() as download:
        tool.get_by_role("button", name="Save as JSON").click()
    rows = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert len(rows) == len(hooks)
    assert all(0 <= row["max |Δ|"] <= row["allowed"] and row["compared"] > 0 for row in rows)
    assert any(row["max |Δ|"] > 0 for row in rows), "nothing was compared"


def test_what_is_kept_is_shown_and_can_be_evicted(lens: Page, url: str, requests: Requests) -> None:
    tool = open_tool(lens, "Storage", "StorageTool")
    row = tool.locator("table.data tr", has_text="neuroscope-demo")
    expect(row).to_be_visible(timeout=20 * SECONDS)
    assert float(row.locator("td").nth(1).inner_text()) > 1
    requests.paths.clear()
    open_lens(lens, url)
    assert requests.of_file(WEIGHTS) == []
    tool = open_tool(lens, "Storage", "StorageTool")
    tool.get_by_role("button", name="Evict neuroscope-demo").click()
    expect(tool.locator("table.data tr", has_text="neuroscope-demo")).to_have_count(0, timeout=20 * SECONDS)
    open_lens(lens, url)
    assert requests.of_file(WEIGHTS)


def test_folded_weights_say_so_below_every_result(lens: Page) -> None:
    """The lens moves over to the new model, and shows the same probabilities: folding changes none."""
    lens_pane = lens.locator("[data-tool-class=InteractiveLens]")
    before = lens_pane.locator(".bars text[data-series=clean]").all_text_contents()
    tool = open_tool(lens, "Model", "ModelTool")
    tool.get_by_label("Weights").select_option("folded and centred")
    tool.get_by_role("button", name="Load").click()
    expect(lens_pane).to_contain_text("norms folded", timeout=60 * SECONDS)
    expect(tool).to_contain_text("norms folded", timeout=20 * SECONDS)
    after = lens_pane.locator(".bars text[data-series=clean]").all_text_contents()
    assert before
    assert [float(text) for text in after] == pytest.approx([float(text) for text in before], abs=1.01e-4)


def test_the_backends_are_listed_with_what_they_took(lens: Page) -> None:
    tool = open_tool(lens, "Model", "ModelTool")
    table = tool.locator("table.data", has_text="backend").first
    expect(table).to_contain_text("in use", timeout=20 * SECONDS)
    tool.get_by_role("button", name="Measure again").click()
    row = table.locator("tr", has_text="in use").locator("td").nth(1)
    expect(row).to_have_text(re.compile(r"^\d+(\.\d+)?$"), timeout=60 * SECONDS)


def test_a_load_is_cancelled_by_its_button(page: Page, url: str) -> None:
    """The weights never come; the page stays at work, and says why there is no lens."""
    page.route(f"**/{WEIGHTS}", lambda route: None)
    page.goto(url)
    page.get_by_role("button", name="Cancel: Weights").click(timeout=60 * SECONDS)
    expect(page.locator(".error-pane")).to_contain_text("LoadCancelled", timeout=20 * SECONDS)
    expect(page.locator(".progress")).to_have_count(0)


def test_a_do_it_that_never_ends_is_stopped(lens: Page) -> None:
    """So is the pass that it waits for: what it holds in the engine is let go of."""
    waiting = (
        "model withHooks: {ActivationHook layer: 0 component: #residual action: [ :a | Semaphore new wait ]} "
        "do: [ model forward: 'The cat' ]"
    )
    for source in ("[ true ] whileTrue", waiting):
        do_it(lens, source)
        expect(lens.locator("#running")).to_have_text("1 running", timeout=20 * SECONDS)
        lens.get_by_role("button", name="Stop").click()
        expect(lens.locator("#running")).to_have_text("", timeout=20 * SECONDS)
        expect(lens.get_by_role("button", name="Stop")).to_be_hidden()
    do_it(lens, "Transcript show: 'passes: ', (Engine default ledger at: 'passes') size printString")
    expect(lens.locator("#transcript")).to_contain_text("passes: 0", timeout=20 * SECONDS)
    assert lens.locator(".error-pane").count() == 0


def test_what_the_browser_lacks_is_said_in_one_line(page: Page, url: str) -> None:
    open_lens(page, f"{url}?without=threads,simd,webgl,indexeddb,subtle,sw")
    gaps = page.locator("#gaps").inner_text()
    assert gaps.count(".") <= 2
    for word in ("threads", "SIMD", "WebGL2", "IndexedDB", "crypto.subtle", "service worker"):
        assert word in gaps


def test_being_offline_is_said(lens: Page) -> None:
    expect(lens.locator("#network")).to_have_text("")
    lens.context.set_offline(True)
    expect(lens.locator("#network")).to_contain_text("Offline", timeout=20 * SECONDS)
    lens.context.set_offline(False)
    expect(lens.locator("#network")).to_have_text("", timeout=20 * SECONDS)


def test_every_tool_fits_a_phone_and_has_its_labels(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_lens(page, url)
    tools = [
        ("Model", "ModelTool"),
        ("Generate", "GenerationTool"),
        ("Parity", "ParityTool"),
        ("Storage", "StorageTool"),
    ]
    for name, tool_class in tools:
        tool = open_tool(page, name, tool_class)
        expect(tool.get_by_role("heading", level=2)).to_be_in_viewport(timeout=20 * SECONDS)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        for control in tool.locator("input, select, button").all():
            assert control.evaluate("node => (node.labels?.length ?? 0) > 0 || node.ariaLabel || node.textContent"), (
                name
            )
