"""What a person sees of objects in the page: facts with their basis and numbers, and the question at a Warning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from playwright.sync_api import Locator, Page, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.page.reader import SECONDS, do_it, inspect_it, open_lens

BASIS = "neuroscope-demo, raw weights, BOS, float16, wasm, 2 threads"


@pytest.fixture
def lens(page: Page, url: str) -> Page:
    """With the backend that the facts are to name."""
    open_lens(page, f"{url}?without=sw&backend=wasm")
    return page


def inspect(page: Page, source: str) -> Locator:
    """The pane of an inspector on what the source answers."""
    inspect_it(page, source)
    pane = page.locator("[data-tool-class=Inspector]")
    expect(pane).to_contain_text("Variables of", timeout=60 * SECONDS)
    return pane


def facts_of(page: Page, source: str) -> tuple[dict[str, str], Locator]:
    """What the inspector's first table says, and its pane."""
    pane = inspect(page, source)
    rows = pane.locator("table.data").first.locator("tr").all()[1:]
    found = {row.locator("td").nth(0).inner_text(): row.locator("td").nth(1).inner_text() for row in rows}
    return found, pane


def close(pane: Locator) -> None:
    pane.get_by_role("button", name="Close this pane").click()


def test_what_is_inspected_shows_its_basis_and_the_reference_numbers(lens: Page, demo_bundle: Path) -> None:
    """A tensor's statistics, what comes next, a generated text: against PyTorch."""
    tokenizer = AutoTokenizer.from_pretrained(demo_bundle)
    reference = AutoModelForCausalLM.from_pretrained(demo_bundle, dtype=torch.float32).eval()
    row = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode("The cat sat")]])
    with torch.no_grad():
        logits = reference(row).logits

    facts, pane = facts_of(lens, "(model forward: 'The cat sat') logits")
    assert facts["basis"] == BASIS
    assert facts["shape"] == f"#({' '.join(str(extent) for extent in logits.shape)})"
    assert float(facts["mean"]) == pytest.approx(float(logits.mean()), abs=1e-3)
    assert float(facts["standard deviation"]) == pytest.approx(float(logits.std(unbiased=False)), abs=1e-3)
    assert float(facts["greatest"]) == pytest.approx(float(logits.max()), abs=1e-2)
    shown = pane.locator("table.data").nth(1).locator("tr").nth(2).locator("td").all_text_contents()
    assert [float(text) for text in shown[1:]] == pytest.approx(logits[0, 1, :8].tolist(), abs=2e-4)
    close(pane)

    facts, pane = facts_of(lens, "model forward: 'The cat sat'")
    assert facts["basis"] == BASIS
    assert facts["time"].endswith("ms in the engine")
    likeliest = pane.locator("table.data").nth(1).locator("tr").nth(1).locator("td").all_text_contents()
    best = logits[0, -1].softmax(-1)
    assert likeliest[0].replace("␣", " ") == tokenizer.decode(best.argmax())
    assert float(likeliest[1]) == pytest.approx(float(best.max()), abs=1.01e-4)
    close(pane)

    facts, pane = facts_of(lens, "model generate: 'The cat sat' with: (GenerationOptions maxTokens: 2)")
    assert facts["basis"] == BASIS
    with torch.no_grad():
        generated = reference.generate(row, max_new_tokens=2, do_sample=False)
    assert pane.locator("pre").inner_text() == tokenizer.decode(generated[0, 1:])


def test_everything_answers_to_inspect(lens: Page) -> None:
    things = {
        "model": ["4 layers, 8 heads in each", "MB in memory, stored as float16"],
        "model tokenizer": ["2590 tokens", "<|endoftext|>, id 0"],
        "(model runWithCaching: 'The') cachedActivations": ["blocks.3.attn.hook_pattern", "74 activations"],
        "model gradientsOf: [ :l :o | o loss ] at: 'hook_embed' for: 'The cat'": [BASIS, "1 activation,"],
        "model checkParity": ["all within what is allowed", "torch", "wasm"],
        "[ model foo ] on: Error do: [ :error | error ]": ["does not understand #foo"],
        "[ model hookName: 'hook_embd' ] on: Error do: [ :error | error ]": ["near it are hook_embed"],
    }
    for source, words in things.items():
        pane = inspect(lens, source)
        for word in words:
            expect(pane).to_contain_text(word)
        for wrong in ("asking failed", "printing a", "takes more than"):
            assert wrong not in pane.inner_text(), source
        close(pane)


def test_a_warning_is_a_question_and_the_answer_decides(lens: Page) -> None:
    """Go on resumes it; Stop, the pane's own button and the Workspace's Stop end the do-it without an error."""
    question = lens.locator("[data-tool-class=Question]")
    answers = [
        question.get_by_role("button", name="Go on"),
        question.get_by_role("button", name="Stop"),
        question.get_by_role("button", name="Close this pane"),
        lens.locator("#stop-it"),
    ]
    for number, answer in enumerate(answers):
        do_it(lens, f"Warning signal: 'Nearly full'. Transcript show: 'went on {number}'; cr")
        expect(question).to_contain_text("Nearly full", timeout=20 * SECONDS)
        answer.click()
        expect(lens.locator("#running")).to_have_text("", timeout=20 * SECONDS)
        expect(question).to_have_count(0)
    assert lens.locator("#transcript").inner_text().strip() == "went on 0"
    assert lens.locator(".error-pane").count() == 0


def test_a_big_cache_is_asked_about_with_its_numbers(lens: Page) -> None:
    do_it(lens, "model runWithCaching: (Array new: 12 withAll: (1 to: model positions) asArray)")
    question = lens.locator("[data-tool-class=Question]")
    expect(question).to_contain_text("MB that tensors may take", timeout=20 * SECONDS)
    question.get_by_role("button", name="Stop").click()
    expect(lens.locator("#running")).to_have_text("", timeout=20 * SECONDS)
    do_it(lens, "Transcript show: 'passes: ', (Engine default ledger at: 'passes') size printString")
    expect(lens.locator("#transcript")).to_contain_text("passes: 0", timeout=20 * SECONDS)
