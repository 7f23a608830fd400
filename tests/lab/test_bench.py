"""The lab's benchmark, on a model so small that it takes seconds: here its checks count, and not its figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from neuroscope.bench.lab import AS_BINARY, CLIENTS, LabClient, Work, check_captures, goals_of, make_model, measure_lab
from neuroscope.cli.bench_lab import as_table
from neuroscope.lab.registry import load_model
from neuroscope.lab.settings import ModelSource
from transformers import GPT2Config, GPT2LMHeadModel

WORK = Work(layers=2, width=16, vocabulary=64, prompt=4, new=3, positions=24, requests=4)


@pytest.fixture(scope="module")
def url(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bench")
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=WORK.layers, n_embd=WORK.width, n_head=2, n_positions=32, vocab_size=WORK.vocabulary,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder / "checkpoint")
    made = make_model(folder / "checkpoint", folder / "model", vocabulary=WORK.vocabulary)
    with serve(model=load_model(ModelSource("demo", made))) as place:
        yield place


def test_benchmark_measures_every_contestant_and_judges_its_goals(url: str) -> None:
    results = measure_lab(url, rounds=50, seconds=0, work=WORK)
    assert results["rounds"] == 1  # the one that begins before the time is up
    assert all(each > 0 for each in results["milliseconds"].values()) and len(results["milliseconds"]) == 5
    assert results["requestsASecond"].keys() == {str(count) for count in CLIENTS}
    capturing, size, time = goals_of(results)
    assert (capturing.limit, size.limit, time.limit) == (1.3, 0.3, 0.1)
    assert capturing.value == results["capturingOverPlain"]
    assert 4 * WORK.layers * WORK.positions * WORK.width < results["bytes"][AS_BINARY]
    assert size.value < 0.5
    table = as_table({"engine": "torch", **results})
    assert [line.rsplit(None, 1)[1] for line in table.splitlines()[-3:]] == [
        "met" if goal.is_met else "missed" for goal in (capturing, size, time)
    ]


def test_capture_that_lacks_a_layer_is_no_fast_one(url: str) -> None:
    client = LabClient(url, WORK)
    answer = client.complete(WORK.positions, 1, hooks=True, binary=True)
    client.close()
    check_captures(AS_BINARY, answer, WORK)
    for wrong in (replace(WORK, layers=3), replace(WORK, positions=23)):
        with pytest.raises(AssertionError, match="captures have the shapes"):
            check_captures(AS_BINARY, answer, wrong)
