"""Models of a lab in the page, as a person uses them: `neuroscope serve` with the site, and a lab at another origin.

The page's own engine, on the same weights, is the oracle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from neuroscope.site.server import serve
from playwright.sync_api import Browser, Locator, Page, expect

from tests.lab.lab_process import serving
from tests.page.reader import SECONDS, do_it, open_lens, open_tool, shown

TOKEN = "a secret/with @ signs"
PROMPT = "When Mary and John went to the store, John gave a drink"


@dataclass(frozen=True)
class Chosen:
    """A page whose model is the lab's, and the bars of its lens when it still was the page's own."""

    page: Page
    tool: Locator  # for models
    before: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def lab(demo_bundle: Path, demo_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`neuroscope serve`, with the site."""
    database = tmp_path_factory.mktemp("lab") / "lab.sqlite"
    with serving("--model", f"demo={demo_bundle}", "--site", demo_site, "--database", database) as (url, _):
        yield url


@pytest.fixture(scope="module")
def chosen(browser: Browser, lab: str) -> Iterator[Chosen]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        open_lens(page, f"{lab}/")
        before = shown(page)
        tool = open_tool(page, "Model", "ModelTool")
        load(tool, f"demo, in the lab at {lab}")
        expect(page.locator("[data-tool-class=InteractiveLens]")).to_contain_text("float32, lab", timeout=60 * SECONDS)
        yield Chosen(page, tool, before)


def models(tool: Locator) -> Locator:
    return tool.get_by_role("combobox", name="Model")


def load(tool: Locator, label: str) -> None:
    expect(models(tool).locator("option", has_text=label)).to_have_count(1, timeout=20 * SECONDS)
    models(tool).select_option(label)
    expect(tool).to_contain_text("A lab computes it", timeout=20 * SECONDS)
    tool.get_by_role("button", name="Load").click()


def answer(page: Page, source: str) -> Any:
    """What the last expression of a program answers in the Workspace, which ends it with a full stop or not at all."""
    page.get_by_role("button", name="Clear").click()
    *statements, last = source.strip().rsplit(".\n", 1)
    do_it(page, "".join(f"{each}.\n" for each in statements) + f"Transcript show: (Json write: ({last}))")
    expect(page.locator("#transcript")).to_have_text(re.compile(r"[\]}\"]\s*$"), timeout=60 * SECONDS)
    return json.loads(page.locator("#transcript").inner_text())


def test_list_has_the_pages_own_and_the_labs(chosen: Chosen, lab: str) -> None:
    assert models(chosen.tool).locator("option").all_text_contents() == [
        "neuroscope-demo",
        f"demo, in the lab at {lab}",
        "the one written in the field",
    ]
    facts = chosen.tool.locator("table.data", has_text="architecture")
    expect(facts.locator("tr", has_text="source")).to_contain_text(f"{lab} (torch on cpu)")


def test_lens_shows_the_same_numbers(chosen: Chosen) -> None:
    assert chosen.before["clean"]
    for series, numbers in chosen.before.items():
        after = shown(chosen.page)[series]
        assert {token: float(text) for token, text in after.items()} == pytest.approx(
            {token: float(text) for token, text in numbers.items()}, abs=1.01e-4
        )


def test_attention_and_ablation_work(chosen: Chosen) -> None:
    lens = chosen.page.locator("[data-tool-class=InteractiveLens]")
    lens.get_by_role("combobox", name="Head").select_option("5")
    expect(lens).to_contain_text("Layer 0, head 5", timeout=20 * SECONDS)
    switch = chosen.page.get_by_role("button", name="Zero the output of: layer 0, attention")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "true", timeout=20 * SECONDS)
    ablated = shown(chosen.page)
    assert ablated["clean"] != ablated["ablated"]
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "false", timeout=20 * SECONDS)


def test_logits_and_captures_equal_the_pages_own(chosen: Chosen) -> None:
    kind, logits, captures = answer(
        chosen.page,
        f"""
        mine := TransformerModel fromHuggingFace: 'neuroscope-demo'.
        names := #('hook_embed' 'blocks.1.attn.hook_pattern' 'blocks.2.mlp.hook_post' 'blocks.3.hook_resid_post').
        here := mine runWithCaching: '{PROMPT}' names: names.
        there := model runWithCaching: '{PROMPT}' names: names.
        {{model class name. (here logits - there logits) abs max. names collect: [ :each |
            ((here cachedActivations at: each) - (there cachedActivations at: each)) abs max
                / ((here cachedActivations at: each) abs max max: 1) ]}}""",
    )
    assert kind == "RemoteTransformerModel"
    assert logits < 1e-4
    assert len(captures) == 4
    assert max(captures) < 1e-4


def test_block_that_replaces_acts_as_on_the_pages_own(chosen: Chosen) -> None:
    difference, effect, seen = answer(
        chosen.page,
        f"""
        seen := OrderedCollection new.
        hook := ActivationHook layer: 2 component: #residual action: [ :activation |
            seen add: activation shape. activation * (activation norm > 1 ifTrue: [ 0.5 ] ifFalse: [ 1 ]) ].
        mine := TransformerModel fromHuggingFace: 'neuroscope-demo'.
        plain := model forward: '{PROMPT}'.
        there := model withHooks: {{hook}} do: [ model forward: '{PROMPT}' ].
        here := mine withHooks: {{hook}} do: [ mine forward: '{PROMPT}' ].
        {{(here logits - there logits) abs max. (plain logits - there logits) abs max. seen asArray}}""",
    )
    assert difference < 1e-4
    assert effect > 0.1
    assert seen[0] == seen[1]
    assert seen[0][-1] == 128


def test_generation_is_that_of_the_pages_own(chosen: Chosen) -> None:
    tool = open_tool(chosen.page, "Generate", "GenerationTool")
    for label, text in (("Text to continue", PROMPT), ("Tokens", "4")):
        field = tool.get_by_role("textbox", name=label)
        field.fill(text)
        field.press("Enter")
    expect(tool).to_contain_text("at most 4 tokens, greedy", timeout=20 * SECONDS)
    tool.get_by_role("button", name="Generate").click()
    expect(tool).to_contain_text("ended by", timeout=60 * SECONDS)
    expect(tool).to_contain_text("float32, lab")
    mine = answer(
        chosen.page,
        f"""
        text := WriteStream on: String new.
        mine := TransformerModel fromHuggingFace: 'neuroscope-demo'.
        mine generate: '{PROMPT}' maxTokens: 4 do: [ :token | text nextPutAll: token text ].
        text contents""",
    )
    assert tool.locator("pre").first.inner_text() == PROMPT + mine
    assert mine.startswith(" to Mary")


def test_what_only_the_page_can_do_is_told(chosen: Chosen) -> None:
    tool = open_tool(chosen.page, "Parity", "ParityTool")
    expect(tool.locator(".error")).to_contain_text("A lab answers no parity of demo", timeout=20 * SECONDS)


def test_block_that_never_answers_is_left_and_the_page_goes_on(chosen: Chosen) -> None:
    sentence, rows = answer(
        chosen.page,
        """
        model hookSeconds: 1.
        hook := ActivationHook layer: 1 component: #residual action: [ :activation | Semaphore new wait ].
        sentence := [ model withHooks: {hook} do: [ model forward: 'The cat' ] ]
            on: TimedOut do: [ :error | error messageText ].
        {sentence. (model forward: 'The cat') logits shape first}""",
    )
    assert "blocks.1.hook_resid_post took longer than the 1 s that the lab waits" in sentence
    assert rows == 1


def test_tool_for_models_fits_a_phone(chosen: Chosen, lab: str) -> None:
    chosen.page.set_viewport_size({"width": 390, "height": 844})
    expect(chosen.tool).to_contain_text(lab)
    assert chosen.page.evaluate("document.documentElement.scrollWidth") <= 390
    for control in chosen.tool.locator("input, select, button").all():
        assert control.evaluate("node => (node.labels?.length ?? 0) > 0 || node.ariaLabel || node.textContent")


def test_unknown_model_of_the_lab_is_told_with_those_it_has(chosen: Chosen) -> None:
    tool = chosen.tool
    field = tool.get_by_role("textbox", name="Bundle, repository, or lab:NAME")
    field.fill("lab:gpt5")
    field.press("Enter")
    expect(tool).to_contain_text("A lab computes it", timeout=20 * SECONDS)
    tool.get_by_role("button", name="Load").click()
    error = tool.locator(".error")
    expect(error).to_contain_text("'gpt5' was not allowed when the lab started; allowed are demo", timeout=20 * SECONDS)


def test_static_host_is_asked_for_nothing_that_it_lacks(page: Page, demo_site: Path) -> None:
    refused: list[str] = []
    page.on("response", lambda response: refused.append(response.url) if response.status >= 400 else None)
    with serve({"/some/path/": demo_site}) as root:
        open_lens(page, f"{root}/some/path/")
        tool = open_tool(page, "Model", "ModelTool")
        expect(tool.locator("table.data", has_text="in use")).to_be_visible(timeout=20 * SECONDS)
        expect(models(tool).locator("option")).to_have_count(2)
    assert refused == []


def test_lab_elsewhere_wants_its_token_and_may_stop_in_the_middle(
    page: Page, demo_site: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    with serve({"/": demo_site}) as root:
        options = ("--model", f"demo={demo_bundle}", "--database", tmp_path / "lab.sqlite")
        with serving(*options, "--origin", root, "--token", TOKEN) as (there, process):
            open_lens(page, f"{root}/?lab={there}")
            tool = open_tool(page, "Model", "ModelTool")
            expect(tool).to_contain_text(f"{there}: This lab wants its token", timeout=20 * SECONDS)
            expect(tool.get_by_role("textbox", name="Address of a lab")).to_have_value(there)
            give_token(tool, "another")
            expect(tool).to_contain_text("has none or a wrong one", timeout=20 * SECONDS)
            give_token(tool, TOKEN)
            load(tool, f"demo, in the lab at {there}")
            expect(tool).to_contain_text("float32, lab", timeout=60 * SECONDS)
            assert "secret" not in page.content()
            do_it(
                page,
                """hook := ActivationHook layer: 1 component: #residual action: [ :activation |
                    Transcript show: 'waiting'. (Delay forSeconds: 3) wait. activation * 2 ].
                model withHooks: {hook} do: [ model forward: 'The cat' ]""",
            )
            expect(page.locator("#transcript")).to_contain_text("waiting", timeout=20 * SECONDS)
            process.kill()
            error = page.locator(".error-pane")
            expect(error).to_contain_text(f"FetchFailed: No lab answers at {there}", timeout=20 * SECONDS)
            expect(error).to_contain_text("neuroscope serve")
        tool.get_by_role("button", name="Ask for its models").click()
        expect(tool).to_contain_text(f"{there}: No lab answers at {there}", timeout=20 * SECONDS)
        expect(models(tool).locator("option")).to_have_count(2)


def give_token(tool: Locator, token: str) -> None:
    tool.get_by_label("Its token, if it wants one").fill(token)
    tool.get_by_role("button", name="Ask for its models").click()
