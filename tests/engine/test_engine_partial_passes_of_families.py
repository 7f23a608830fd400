"""Partial, padded and cached passes and generation of every family give the logits of transformers' whole passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Checkpoint
from engine_places import run
from engine_script import Script

# As in test_engine_architectures.py: sums of a few dozen terms in another order differ by less than 2e-5 here.
TOLERANCE = 1e-4
GENERATED = 3


@dataclass(frozen=True)
class Oracle:
    """What transformers says of the batch, of a short row alone, and of what follows the short row."""

    logits: np.ndarray
    short: list[int]
    alone: np.ndarray
    generated: list[int]
    log_probabilities: list[float]


@pytest.fixture(scope="module")
def oracles(families: dict[str, Checkpoint]) -> dict[str, Oracle]:
    return {name: _oracle(each) for name, each in families.items()}


def _oracle(checkpoint: Checkpoint) -> Oracle:
    model = checkpoint.model()

    def logits(rows: list[list[int]]) -> np.ndarray:
        with torch.no_grad():
            result: np.ndarray = model(torch.tensor(rows)).logits.numpy()
        return result

    short = checkpoint.tokens[0][: len(checkpoint.tokens[0]) // 2]
    text, found = list(short), []
    for _ in range(GENERATED):
        row = torch.log_softmax(torch.tensor(logits([text])[0, -1]), -1)
        text.append(int(row.argmax()))
        found.append(float(row.max()))
    return Oracle(logits(checkpoint.tokens), short, logits([short]), text[len(short) :], found)


@dataclass(frozen=True)
class Check:
    """What one forward of a script is compared with: its logits of a row, or of all, over some positions."""

    what: str
    rows: slice
    positions: slice
    wanted: np.ndarray


def script_of(checkpoint: Checkpoint, oracle: Oracle) -> tuple[Script, list[Check | None]]:
    tokens, whole = checkpoint.tokens, oracle.logits
    positions, every = len(tokens[0]), slice(None)
    config = checkpoint.config.get("text_config", checkpoint.config)
    layers = config.get("num_hidden_layers", config.get("n_layer", config.get("num_layers")))
    script, checks = Script(), []

    def forward(check: Check | None, capture: list[Any] | None = None, **message: Any) -> dict[str, int]:
        checks.append(check)
        script.forward(capture or [], logits=check is not None, **message)
        return script.names[-1]

    streams = [f"blocks.{layer}.hook_resid_pre" for layer in range(layers)]
    named = forward(Check("whole", every, every, whole), list(streams), tokens=tokens)
    for layer, stream in enumerate(streams):
        start = {"layer": layer, "tensor": named[stream]}
        forward(Check(f"from layer {layer}", every, every, whole), start=start)
    checks.append(None)
    script.forward([], tokens=tokens, stop=layers, residual=True)
    last = {"layer": layers, "tensor": script.names[-1]["residual"]}
    forward(Check("from the final norm", every, every, whole), start=last)

    cache = script.cache()
    for begin, end, keep in ((0, 2, 0), (2, 3, 2), (3, positions, 3), (1, positions, 1)):
        check = Check(f"positions {begin} to {end} behind a cache", every, every, whole[:, begin:end])
        forward(check, tokens=[row[begin:end] for row in tokens], cache=cache, keep=keep)

    size = config.get("hidden_size", config.get("n_embd"))
    nan = script.create(np.full(size, np.nan, dtype=np.float32))
    length = len(oracle.short)
    for side in ("right", "left"):
        fill = [0] * (positions - length)
        row = [*oracle.short, *fill] if side == "right" else [*fill, *oracle.short]
        real = slice(0, length) if side == "right" else slice(positions - length, positions)
        padding = [at for at in range(positions) if at not in range(*real.indices(positions))]
        message: dict[str, Any] = {
            "tokens": [row, tokens[0]],
            "padding": {"side": side, "lengths": [length, positions]},
            "interventions": [
                {"hook": streams[0], "action": "set", "tensor": nan, "at": {"batch": 0, "position": padding}}
            ],
        }
        forward(Check(f"padded on the {side}", slice(0, 1), real, oracle.alone), **message)
        forward(Check(f"beside a row padded on the {side}", slice(1, 2), every, whole[:1]), **message)
    script.post(
        kind="generate", model=None, tokens=oracle.short, maxTokens=GENERATED, sampling={"temperature": 0}, stop=[],
        **{"pass": 1},
    )  # fmt: skip
    return script, checks


@pytest.mark.parametrize(("where", "backend"), [("node", "reference"), ("node", "wasm"), ("chromium", "webgl")])
def test_parts_of_passes_give_the_logits_of_whole_ones(
    where: str,
    backend: str,
    families: dict[str, Checkpoint],
    oracles: dict[str, Oracle],
    request: pytest.FixtureRequest,
) -> None:
    scripts = {name: script_of(families[name], oracles[name]) for name in families}
    jobs = [{"bundle": families[name].folder, "passes": [], "script": scripts[name][0].steps} for name in families]
    found = []
    for name, result in zip(families, run(where, backend, jobs, request), strict=True):
        script, checks = scripts[name]
        for check, values in zip(checks, script.results(result), strict=True):
            if check is None:
                continue
            ours = values["logits"][check.rows, check.positions]
            assert ours.shape == check.wanted.shape, (name, check.what)
            difference = float(np.abs(ours - check.wanted).max())
            if not difference <= TOLERANCE:
                found.append(f"{name}, {check.what}: {difference}")
        generated = result["script"][-1]
        if generated["message"]["tokens"] != oracles[name].generated:
            found.append(f"{name} goes on with {generated['message']['tokens']}, not {oracles[name].generated}")
            continue
        told = np.array([event["logProbability"] for event in generated["tokens"]])
        difference = float(np.abs(told - np.array(oracles[name].log_probabilities)).max())
        if difference > TOLERANCE:
            found.append(f"{name}, log-probabilities: {difference}")
    assert found == []
