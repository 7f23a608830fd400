"""Experiments against the same change made by hand: hooks on the modules of transformers, and nnsight."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_lab import PROMPT
from fastapi.testclient import TestClient
from neuroscope import project
from neuroscope.lab.experiments import Experiment, Target
from neuroscope.lab.model import LabModel
from transformers import AutoModelForCausalLM

OTHER = "When Tom and Lucy went to the park, Tom gave a ball to"
Change = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def by_hand(demo_folder: Any, demo_model: LabModel) -> ByHand:
    return ByHand(demo_folder, demo_model)


class ByHand:
    """The checkpoint in transformers alone, with a change where a module writes."""

    def __init__(self, folder: Any, model: LabModel) -> None:
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.model: Any = loaded.eval()
        self._tokenizer = model.tokenizer

    def ids(self, text: str) -> list[int]:
        assert self._tokenizer is not None
        return [0, *self._tokenizer.encode(text, add_special_tokens=False)]

    def log_probabilities(self, text: str, *changes: tuple[Any, Change]) -> torch.Tensor:
        """Of the token behind the text, in float64. Shapes: V"""
        with ExitStack() as stack, torch.no_grad():
            for module, change in changes:
                stack.enter_context(changed(module, change))
            logits = self.model(torch.tensor([self.ids(text)])).logits[0, -1]
        return logits.double().log_softmax(-1)

    def written(self, text: str, module: Any) -> torch.Tensor:
        """What the module writes on reading the text. Shapes: T …"""
        seen: list[torch.Tensor] = []

        def note(value: torch.Tensor) -> torch.Tensor:
            seen.append(value)
            return value

        self.log_probabilities(text, (module, note))
        return seen[0][0]


@contextmanager
def changed(module: Any, change: Change) -> Iterator[None]:
    """A block of transformers may answer a tuple, whose first is the stream; `c_proj` is changed where it reads."""

    def behind(_: Any, inputs: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = module.register_forward_hook(behind)
    try:
        yield
    finally:
        handle.remove()


def zero(value: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(value)


def ask(lab: TestClient, kind: str, target: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = lab.post("/v1/experiments", json={"input": PROMPT, "kind": kind, "target": target, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def check(result: dict[str, Any], clean: torch.Tensor, after: torch.Tensor, answer: int | None = None) -> None:
    """Every number of a result, from the two distributions."""
    answer = int(clean.argmax()) if answer is None else answer
    told = result["answer"]
    assert told["id"] == answer
    assert told["cleanProbability"] == pytest.approx(float(clean[answer].exp()), rel=1e-3, abs=1e-9)
    assert told["intervenedProbability"] == pytest.approx(float(after[answer].exp()), rel=1e-3, abs=1e-9)
    assert told["change"] == pytest.approx(float(after[answer].exp() - clean[answer].exp()), rel=1e-2, abs=1e-6)
    assert told["cleanRank"] == int((clean > clean[answer]).sum())
    assert told["intervenedRank"] == int((after > after[answer]).sum())
    assert result["kl"] == pytest.approx(float((clean.exp() * (clean - after)).sum()), rel=1e-3, abs=1e-6)
    for name, row in (("clean", clean), ("intervened", after)):
        best = row.topk(10)
        assert [each["id"] for each in result[name]] == best.indices.tolist()
        shown = [each["probability"] for each in result[name]]
        np.testing.assert_allclose(shown, best.values.exp(), rtol=1e-3, atol=1e-9)


def test_zero_ablated_layer_adds_nothing(lab: TestClient, by_hand: ByHand) -> None:
    block = by_hand.model.transformer.h[1]
    after = by_hand.log_probabilities(PROMPT, (block.attn, zero), (block.mlp, zero))
    result = ask(lab, "zero", {"component": "layer", "layer": 1})["result"]
    check(result, by_hand.log_probabilities(PROMPT), after)
    assert result["kl"] > 0.01  # or the comparison would say little


@pytest.mark.parametrize("position", [None, -1, 3])
def test_zero_ablated_mlp_adds_nothing_at_its_position(lab: TestClient, by_hand: ByHand, position: int | None) -> None:
    def zero_there(value: torch.Tensor) -> torch.Tensor:
        kept = value.clone()
        kept[:, slice(None) if position is None else position] = 0
        return kept

    after = by_hand.log_probabilities(PROMPT, (by_hand.model.transformer.h[0].mlp, zero_there))
    target = {"component": "mlp", "layer": 0, "position": position}
    check(ask(lab, "zero", target)["result"], by_hand.log_probabilities(PROMPT), after)


def test_zero_ablated_head_leaves_the_other_heads(lab: TestClient, by_hand: ByHand) -> None:
    """By the projection: without the head's 16 rows of its weight nothing of the head is written."""
    projection = by_hand.model.transformer.h[2].attn.c_proj
    kept = projection.weight.data.clone()
    projection.weight.data[5 * 16 : 6 * 16] = 0
    after = by_hand.log_probabilities(PROMPT)
    projection.weight.data = kept
    result = ask(lab, "zero", {"component": "head", "layer": 2, "head": 5})["result"]
    check(result, by_hand.log_probabilities(PROMPT), after)


def test_mean_ablation_is_the_mean_over_all_positions_of_the_others(lab: TestClient, by_hand: ByHand) -> None:
    attention = by_hand.model.transformer.h[1].attn
    others = [OTHER, "Once upon a time there was a king"]
    mean = torch.cat([by_hand.written(text, attention) for text in others]).mean(0)
    after = by_hand.log_probabilities(PROMPT, (attention, lambda value: mean.expand_as(value)))
    result = ask(lab, "mean", {"component": "attention", "layer": 1}, others=others)["result"]
    check(result, by_hand.log_probabilities(PROMPT), after)


def test_resample_ablation_draws_one_of_the_others_by_its_seed(lab: TestClient, by_hand: ByHand) -> None:
    mlp = by_hand.model.transformer.h[0].mlp
    others = [OTHER, "When Anna and Peter went to the house, Anna gave a book to"]
    assert len({len(by_hand.ids(text)) for text in (PROMPT, *others)}) == 1
    drawn = set()
    for seed in range(6):
        choice = int(np.random.default_rng(seed).integers(2))
        drawn.add(choice)
        other = by_hand.written(others[choice], mlp)
        after = by_hand.log_probabilities(PROMPT, (mlp, lambda value, other=other: other[None]))
        result = ask(lab, "resample", {"component": "mlp", "layer": 0}, others=others, seed=seed)["result"]
        check(result, by_hand.log_probabilities(PROMPT), after)
    assert drawn == {0, 1}


def test_patched_stream_at_every_position_says_what_the_other_text_says(lab: TestClient, by_hand: ByHand) -> None:
    result = ask(lab, "patch", {"component": "layer", "layer": 3}, others=[OTHER])["result"]
    check(result, by_hand.log_probabilities(PROMPT), by_hand.log_probabilities(OTHER))


def test_patched_position_has_the_value_of_the_other_text(lab: TestClient, by_hand: ByHand) -> None:
    block = by_hand.model.transformer.h[1]
    other = by_hand.written(OTHER, block)

    def patch(value: torch.Tensor) -> torch.Tensor:
        patched = value.clone()
        patched[0, 2] = other[2]
        return patched

    target = {"component": "residual", "layer": 1, "position": 2}
    result = ask(lab, "patch", target, others=[OTHER])["result"]
    check(result, by_hand.log_probabilities(PROMPT), by_hand.log_probabilities(PROMPT, (block, patch)))


def test_added_direction_steers_the_stream(lab: TestClient, by_hand: ByHand) -> None:
    direction = np.random.default_rng(3).standard_normal(128).astype(np.float32)
    block = by_hand.model.transformer.h[2]
    after = by_hand.log_probabilities(PROMPT, (block, lambda value: value + 2.5 * torch.from_numpy(direction)))
    target = {"component": "residual", "layer": 2}
    more = {"direction": direction.tolist(), "scale": 2.5, "answer": " Mary", "foil": " John"}
    result = ask(lab, "add", target, **more)["result"]
    mary, john = (by_hand.ids(name)[1] for name in (" Mary", " John"))
    clean = by_hand.log_probabilities(PROMPT)
    check(result, clean, after, mary)
    difference = result["logitDifference"]
    assert difference["foil"] == john
    for name, row in (("clean", clean), ("intervened", after)):
        assert difference[name] == pytest.approx(float(row[mary] - row[john]), abs=1e-3)
    assert difference["change"] == pytest.approx(difference["intervened"] - difference["clean"])


@pytest.fixture(scope="module")
def prompt_ids(lab: TestClient) -> list[int]:
    ids: list[int] = lab.post("/v1/tokenize", json={"text": PROMPT}).json()["ids"]
    return ids


def test_nnsight_stays_out_of_this_process() -> None:
    """It puts a method on Python's own object type; MLX, imported behind it, aborts the process."""
    sources = [path for folder in ("python_tools", "tests") for path in (project.ROOT / folder).rglob("*.py")]
    importing = [path for path in sources if re.search(r"^\s*(from|import) nnsight\b", path.read_text(), re.M)]
    assert importing == [Path(__file__).with_name("nnsight_logits.py")]
    assert "nnsight" not in sys.modules


@pytest.fixture(scope="module")
def nnsight_logits(prompt_ids: list[int], demo_folder: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("nnsight") / "logits.safetensors"
    program = Path(__file__).with_name("nnsight_logits.py")
    subprocess.run([sys.executable, program, demo_folder, json.dumps(prompt_ids), out], check=True, timeout=300)
    return block(out.read_bytes())


@pytest.mark.parametrize("action", ["zero", "scale", "set", "add"])
def test_intervention_over_the_api_equals_the_same_in_nnsight(
    lab: TestClient, prompt_ids: list[int], nnsight_logits: dict[str, Any], action: str
) -> None:
    numbers: dict[str, dict[str, Any]] = {
        "zero": {},
        "scale": {"by": -1.5},
        "set": {"value": 0.25},
        "add": {"value": 2.5, "at": {"neuron": [*range(40)]}},
    }
    change = {"hook": "blocks.1.hook_mlp_out", "action": action, **numbers[action]}
    answer = lab.post("/v1/passes", json={"tokens": [prompt_ids], "interventions": [change]})
    ours = block(answer.content)["logits"]
    clean = block(lab.post("/v1/passes", json={"tokens": [prompt_ids]}).content)["logits"]
    assert abs(ours - clean).max() > 0.1
    np.testing.assert_allclose(ours, nnsight_logits[action], atol=1e-4)


def block(content: bytes) -> Any:
    from safetensors.numpy import load

    return load(content)


# Storing


def test_experiment_is_stored_once_under_its_hash(make_lab: Any) -> None:
    lab = make_lab()
    first = ask(lab, "zero", {"component": "mlp", "layer": 0})
    again = ask(lab, "zero", {"component": "mlp", "layer": 0})
    assert (first.pop("stored"), again.pop("stored")) == (False, True)
    assert first == again == lab.get(f"/v1/experiments/{first['hash']}").json()
    assert len(lab.get("/v1/experiments").json()["experiments"]) == 1
    assert first["experiment"]["hash"] == first["hash"] == Experiment.from_json(first["experiment"]).hash


BASE = Experiment(
    model="m", weights="w", engine="torch", dtype="float32", tokens=(0, 1), kind="zero", target=Target("head", 1, 2, 3)
)
OTHERWISE = {
    "model": "n", "weights": "v", "engine": "mlx", "dtype": "bfloat16", "tokens": (0, 2), "kind": "mean",
    "target": Target("head", 1, 2, 4), "others": ((1,),), "direction": (1.0,), "scale": 2.0, "answer": 1, "foil": 1,
    "seed": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Experiment)])
def test_hash_changes_with_every_ingredient(name: str) -> None:
    other = replace(BASE, **{name: OTHERWISE[name]})
    assert other.hash != BASE.hash
    assert Experiment.from_json(json.loads(json.dumps(other.as_json()))) == other


@pytest.mark.parametrize("name", ["component", "layer", "head", "position"])
def test_hash_changes_with_every_part_of_the_target(name: str) -> None:
    other = replace(BASE.target, **{name: "mlp" if name == "component" else None if name != "layer" else 0})
    assert replace(BASE, target=other).hash != BASE.hash


def test_replay_gives_the_same_numbers(make_lab: Any) -> None:
    lab = make_lab()
    direction = [0.1] * 128
    made = [
        ask(lab, "zero", {"component": "head", "layer": 1, "head": 3}),
        ask(lab, "mean", {"component": "mlp", "layer": 2}, others=[OTHER]),
        ask(lab, "add", {"component": "residual", "layer": 0}, direction=direction, scale=3),
    ]
    for each in made:
        replayed = lab.post(f"/v1/experiments/{each['hash']}/replay").json()
        assert replayed == {"hash": each["hash"], "equal": True, "result": each["result"]}


def test_replay_tells_a_result_that_is_no_longer_the_same(make_lab: Any, tmp_path: Any) -> None:
    import sqlite3

    lab = make_lab(database=tmp_path / "lab.sqlite")
    made = ask(lab, "zero", {"component": "mlp", "layer": 1})
    made["result"]["kl"] *= 1.0000001
    with sqlite3.connect(tmp_path / "lab.sqlite") as connection:
        connection.execute("UPDATE experiments SET result = ?", [json.dumps(made["result"])])
    connection.close()
    assert lab.post(f"/v1/experiments/{made['hash']}/replay").json()["equal"] is False


def test_replay_wants_the_weights_it_was_made_with(make_lab: Any, tmp_path: Any, demo_model: LabModel) -> None:
    from types import SimpleNamespace

    made = ask(make_lab(database=tmp_path / "lab.sqlite"), "zero", {"component": "mlp", "layer": 1})
    description = replace(demo_model.description, weights="f" * 64)
    other = SimpleNamespace(description=description, tokenizer=None, expected_bytes=lambda *_: 0)
    answer = make_lab(database=tmp_path / "lab.sqlite", model=other).post(f"/v1/experiments/{made['hash']}/replay")
    assert answer.status_code == 409 and "f" * 16 in answer.json()["error"]["message"]


def test_experiments_are_listed_by_what_is_asked_for(make_lab: Any) -> None:
    lab = make_lab()
    made = [
        ask(lab, kind, {"component": component, "layer": layer}, **({"others": [OTHER]} if kind == "mean" else {}))
        for kind in ("zero", "mean")
        for component in ("mlp", "attention")
        for layer in (0, 2)
    ]

    def hashes(**filters: Any) -> set[str]:
        return {each["hash"] for each in lab.get("/v1/experiments", params=filters).json()["experiments"]}

    def expected(**wanted: Any) -> set[str]:
        flat = [{**each["experiment"], **each["experiment"]["target"], "hash": each["hash"]} for each in made]
        return {each["hash"] for each in flat if all(each[name] == value for name, value in wanted.items())}

    for filters in ({}, {"kind": "mean"}, {"component": "mlp"}, {"layer": 2}, {"kind": "zero", "layer": 0}):
        assert hashes(**filters) == expected(**filters) != set()
    assert hashes(model="other") == set()
    assert hashes(limit=3) | hashes(limit=5, offset=3) == hashes()
    assert lab.delete(f"/v1/experiments/{made[0]['hash']}").status_code == 200
    assert lab.get(f"/v1/experiments/{made[0]['hash']}").status_code == 404
    assert len(hashes()) == 7


def test_two_experiments_are_compared_by_what_differs(make_lab: Any) -> None:
    lab = make_lab()
    one, other = (ask(lab, "zero", {"component": "mlp", "layer": layer}) for layer in (0, 1))
    answer = lab.get("/v1/experiments/compare", params={"a": one["hash"], "b": other["hash"]}).json()
    assert answer["differences"]["experiment"] == {
        "target": [one["experiment"]["target"], other["experiment"]["target"]]
    }
    assert answer["differences"]["result"]["kl"] == other["result"]["kl"] - one["result"]["kl"]
    changes = [each["result"]["answer"]["change"] for each in (one, other)]
    assert answer["differences"]["result"]["change"] == changes[1] - changes[0]


def test_export_holds_every_experiment(make_lab: Any) -> None:
    lab = make_lab()
    made = lab.post(
        "/v1/experiments/sweep",
        json={"input": PROMPT, "kind": "zero", "target": {"component": "head", "head": 1, "position": -1}},
    ).json()["map"]
    lines = [json.loads(line) for line in lab.get("/v1/experiments/export").text.splitlines()]
    assert {line["hash"]: line["result"] for line in lines} == {each["hash"]: each["result"] for each in made}
    table = list(csv.DictReader(io.StringIO(lab.get("/v1/experiments/export?form=csv").text)))
    assert {(row["hash"], row["layer"], row["head"], row["position"]) for row in table} == {
        (each["hash"], str(each["layer"]), "1", "-1") for each in made
    }
    for row in table:
        [result] = [each["result"] for each in made if each["hash"] == row["hash"]]
        assert (float(row["kl"]), float(row["change"])) == (result["kl"], result["answer"]["change"])


def test_map_over_layers_is_the_experiments_one_by_one(make_lab: Any) -> None:
    lab = make_lab()
    body = {"input": PROMPT, "kind": "zero", "target": {"component": "attention"}}
    rows = lab.post("/v1/experiments/sweep", json=body).json()["map"]
    assert [row["layer"] for row in rows] == [0, 1, 2, 3]
    other = make_lab()
    for row in rows:
        alone = ask(other, "zero", {"component": "attention", "layer": row["layer"]})
        assert (row["hash"], row["result"]) == (alone["hash"], alone["result"])
    some = lab.post("/v1/experiments/sweep", json={**body, "layers": [3, 1]}).json()["map"]
    assert some == [rows[3], rows[1]]


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"kind": "zero", "target": {"layer": 4}}, "layer"),
        ({"kind": "zero", "target": {"component": "head", "head": 8}}, "head"),
        ({"kind": "zero", "target": {"component": "mlp", "head": 1}}, "head"),
        ({"kind": "zero", "target": {"position": 99}}, "position"),
        ({"kind": "mean", "target": {}}, "others"),
        ({"kind": "patch", "target": {}, "others": ["a much shorter text"]}, "others"),
        ({"kind": "add", "target": {"component": "mlp"}, "direction": [0.0] * 128}, "component"),
        ({"kind": "add", "target": {"component": "residual"}, "direction": [0.0]}, "direction"),
        ({"kind": "zero", "answer": " Mary and John"}, "answer"),
    ],
)
def test_experiment_that_means_nothing_is_refused(lab: TestClient, body: dict[str, Any], parameter: str) -> None:
    answer = lab.post("/v1/experiments", json={"input": PROMPT, **body})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == parameter, answer.text
