"""The activation server's API, field for field as its documentation shows it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from demo_lab import chat
from fastapi.testclient import TestClient
from neuroscope.lab import wire
from neuroscope.lab.generation import prompt_of
from neuroscope.lab.model import LabModel
from transformers import AutoModelForCausalLM

COMPONENTS = (
    "residual", "attention", "mlp", "embedding", "layernorm", "attention_scores", "attention_pattern", "key", "query",
    "value",
)  # fmt: skip
HOOKS = [
    {"layer_name": "transformer.h.1", "component": "residual", "hook_id": "layer_1_residual"},
    {"layer_name": "model.layers.3", "component": "attention", "hook_id": "layer_3_attention"},
]
WITH_ACTIVATIONS = "/v1/chat/completions/with_activations"


@pytest.fixture(scope="module")
def hub_model(demo_folder: Any) -> Any:
    """The same checkpoint in transformers alone."""
    return AutoModelForCausalLM.from_pretrained(demo_folder, dtype=torch.float32, attn_implementation="eager").eval()


def prompt(model: LabModel, text: str = "Once upon a time") -> list[int]:
    assert model.tokenizer is not None
    return prompt_of(model.tokenizer, [{"role": "user", "content": text}])


def test_health_tells_whether_a_model_is_loaded(make_lab: Any) -> None:
    lab = make_lab()
    assert lab.get("/health").json() == {"status": "ok", "model_loaded": False, "models": [], "version": "1"}
    lab.post("/v1/models/load", json={"model": "demo"})
    assert lab.get("/health").json() == {"status": "ok", "model_loaded": True, "models": ["demo"], "version": "1"}


def test_model_is_loaded_by_its_folder(lab: TestClient, demo_folder: Any) -> None:
    answer = lab.post("/v1/models/load", json={"model_path": str(demo_folder)}).json()
    assert answer["status"] == "loaded" and answer["model"] == "demo" and answer["supports_activations"] is True
    assert (answer["layers"], answer["heads"], answer["width"], answer["vocabulary"]) == (4, 8, 128, 2590)
    listed = lab.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [(each["id"], each["object"], each["loaded"]) for each in listed["data"]] == [("demo", "model", True)]
    assert "blocks.3.hook_resid_post" in listed["data"][0]["hooks"]


@pytest.mark.parametrize("name", ["gpt2", "/etc", "../demo", "~nobody", "\0", "a" * 5000, "", None])
def test_model_that_was_not_allowed_is_refused(lab: TestClient, name: str | None) -> None:
    answer = lab.post("/v1/models/load", json={"model_path": name})
    assert answer.status_code == (404 if name else 400)
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_completion_is_the_greedy_text_of_transformers(lab: TestClient, demo_model: LabModel, hub_model: Any) -> None:
    ids = prompt(demo_model)
    made = hub_model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0)[0, len(ids) :]
    answer = lab.post("/v1/chat/completions", json=chat(max_tokens=6, model="demo")).json()
    assert answer["object"] == "chat.completion" and answer["model"] == "demo" and answer["id"].startswith("chatcmpl-")
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": demo_model.tokenizer.decode(made.tolist()),  # type: ignore[union-attr]
    }
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": len(ids), "completion_tokens": 6, "total_tokens": len(ids) + 6}
    assert "activations" not in answer


def test_activations_have_the_documented_fields_and_the_numbers_of_transformers(
    lab: TestClient, demo_model: LabModel, hub_model: Any
) -> None:
    answer = lab.post(WITH_ACTIVATIONS, json=chat(max_tokens=3, activation_hooks=HOOKS)).json()
    assert set(answer["activations"]) == {"layer_1_residual", "layer_3_attention"}
    entries = answer["activations"]["layer_1_residual"]
    ids = prompt(demo_model)
    assert [entry["shape"] for entry in entries] == [[1, len(ids), 128], [1, 1, 128], [1, 1, 128]]
    assert [entry["position"] for entry in entries] == [0, len(ids), len(ids) + 1]
    first = entries[0]
    assert {name: first[name] for name in ("hook_id", "layer_name", "component", "dtype", "is_input")} == {
        "hook_id": "layer_1_residual",
        "layer_name": "transformer.h.1",
        "component": "residual",
        "dtype": "float32",
        "is_input": False,
    }
    text = answer["choices"][0]["message"]["content"]
    assert demo_model.tokenizer is not None
    read = [*ids, *demo_model.tokenizer.encode(text, add_special_tokens=False)][: len(ids) + 2]
    with torch.no_grad():
        states = hub_model(torch.tensor([read]), output_hidden_states=True).hidden_states
    captured = np.concatenate([np.array(entry["data"], np.float32)[0] for entry in entries])
    np.testing.assert_allclose(captured, states[2][0].numpy(), atol=1e-5)  # behind block 1


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_type_can_be_hooked(lab: TestClient, demo_model: LabModel, component: str) -> None:
    hook = {"layer_name": "transformer.h.2", "component": component, "hook_id": "it"}
    answer = lab.post(WITH_ACTIVATIONS, json=chat(max_tokens=1, activation_hooks=[hook]))
    assert answer.status_code == 200, answer.text
    [entry] = answer.json()["activations"]["it"]
    length = len(prompt(demo_model))
    shapes = {
        "attention_scores": [1, 8, length, length],
        "attention_pattern": [1, 8, length, length],
        **{name: [1, length, 8, 16] for name in ("key", "query", "value")},
    }
    assert entry["shape"] == shapes.get(component, [1, length, 128]) == list(np.shape(entry["data"]))


def test_input_and_output_of_a_component_are_told_apart(lab: TestClient) -> None:
    hook = {"layer_name": "transformer.h.2", "hook_id": "it", "capture_input": True, "capture_output": True}
    before = {"layer_name": "transformer.h.1", "hook_id": "before"}
    answer = lab.post(WITH_ACTIVATIONS, json=chat(max_tokens=1, activation_hooks=[hook, before])).json()
    by_side = {entry["is_input"]: entry["data"] for entry in answer["activations"]["it"]}
    assert by_side[True] == answer["activations"]["before"][0]["data"] != by_side[False]


def test_layer_name_may_be_a_hook_name(lab: TestClient) -> None:
    hooks = [{"layer_name": "blocks.1.hook_resid_post", "hook_id": "name"}, HOOKS[0]]
    found = lab.post(WITH_ACTIVATIONS, json=chat(max_tokens=1, activation_hooks=hooks)).json()["activations"]
    assert found["name"][0]["data"] == found["layer_1_residual"][0]["data"]


def test_binary_activations_are_those_of_the_json(lab: TestClient) -> None:
    body = chat(max_tokens=3, activation_hooks=HOOKS)
    shown = lab.post(WITH_ACTIVATIONS, json=body).json()
    response = lab.post(WITH_ACTIVATIONS, json=body, headers={"Accept": wire.BINARY})
    assert response.headers["content-type"] == wire.BINARY
    answer, activations = wire.read_binary(response.content)
    assert answer["choices"] == shown["choices"] and answer["basis"] == shown["basis"]
    for id, entries in shown["activations"].items():
        for entry, binary in zip(entries, activations[id], strict=True):
            np.testing.assert_array_equal(np.array(entry.pop("data"), np.float32), binary.pop("data"))
            assert entry == binary


@pytest.mark.parametrize("binary", [False, True])
def test_stream_has_each_token_with_its_activations(lab: TestClient, binary: bool) -> None:
    body = chat(max_tokens=5, activation_hooks=HOOKS)
    whole = lab.post(WITH_ACTIVATIONS, json=body).json()
    headers = {"Accept": wire.BINARY} if binary else {}
    response = lab.post(WITH_ACTIVATIONS, json={**body, "stream": True}, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end = [line.removeprefix("data: ") for line in response.text.strip().split("\n\n")]
    assert end == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert len(chunks) == 5 and {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["length"]
    for index, chunk in enumerate(chunks):
        found = chunk["activations"]
        if binary:
            import base64

            _, read = wire.read_binary(base64.b64decode(found))
            found = {id: [{**e, "data": e["data"].tolist()} for e in entries] for id, entries in read.items()}
        assert found == {id: [entries[index]] for id, entries in whole["activations"].items()}


def test_hooks_stay_until_they_are_cleared(make_lab: Any) -> None:
    lab = make_lab()
    lab.post("/v1/models/load", json={"model": "demo"})
    kept = lab.post("/v1/activations/hooks", json={"activation_hooks": HOOKS}).json()
    assert kept["status"] == "registered" and kept["registered_hooks"] == ["layer_1_residual", "layer_3_attention"]
    assert set(lab.post(WITH_ACTIVATIONS, json=chat()).json()["activations"]) == set(kept["registered_hooks"])
    assert "activations" not in lab.post("/v1/chat/completions", json=chat()).json()
    assert lab.delete("/v1/activations/hooks").json() == {"status": "cleared", "cleared": 2}
    assert lab.post(WITH_ACTIVATIONS, json=chat()).json()["activations"] == {}


@pytest.mark.parametrize(
    ("hook", "word"),
    [
        ({"layer_name": "transformer.h.4"}, "0 to 3"),
        ({"layer_name": "wte"}, "no layer's number"),
        ({"layer_name": "transformer.h.1", "component": "soul"}, "attention_pattern"),
        ({"layer_name": "blocks.1.hook_resid_pots"}, "blocks.1.hook_resid_post"),
        ({"layer_name": "transformer.h.1", "component": "attention_scores", "capture_input": True}, "capture_input"),
    ],
)
def test_hook_that_can_not_be_is_refused_with_what_can(lab: TestClient, hook: dict[str, Any], word: str) -> None:
    for path, body in (
        (WITH_ACTIVATIONS, chat(activation_hooks=[hook])),
        ("/v1/activations/hooks", {"activation_hooks": [hook]}),
    ):
        answer = lab.post(path, json=body)
        assert answer.status_code == 400 and word in answer.json()["error"]["message"], answer.text


def test_intervention_is_live_at_every_generated_token(lab: TestClient) -> None:
    """A stream replaced everywhere says the same after whatever text; replaced at the first position, not."""
    change = {"hook": "blocks.3.hook_resid_post", "action": "set", "value": 0.5}
    hooks = [{"layer_name": "transformer.h.3", "hook_id": "end"}]
    answer = lab.post(WITH_ACTIVATIONS, json=chat(interventions=[change], activation_hooks=hooks)).json()
    for entry in answer["activations"]["end"]:
        assert set(np.ravel(entry["data"])) == {0.5}
    change["at"] = {"position": 0}  # type: ignore[assignment]
    answer = lab.post(WITH_ACTIVATIONS, json=chat(interventions=[change], activation_hooks=hooks)).json()
    values = np.concatenate([np.array(entry["data"])[0] for entry in answer["activations"]["end"]])
    assert (values == 0.5).all(-1).tolist() == [True] + [False] * (len(values) - 1)


def test_chat_without_a_template_is_its_contents_behind_the_first_token(demo_model: LabModel) -> None:
    assert demo_model.tokenizer is not None
    assert prompt(demo_model)[0] == demo_model.tokenizer.bos_token_id
