"""The explorer's API: a conversation with what each layer would have said, against the logit lens in plain PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from demo_lab import PROMPT
from fastapi.testclient import TestClient
from neuroscope.lab.model import LabModel
from transformers import AutoModelForCausalLM


def test_health_and_model_info_have_the_documented_fields(lab: TestClient) -> None:
    assert lab.get("/api/model_info").json() == {
        "model_name": "demo",
        "num_layers": 4,
        "hidden_size": 128,
        "num_heads": 8,
        "vocab_size": 2590,
        "max_position_embeddings": 256,
        "num_parameters": 1157632,
        "device": "cpu",
        "dtype": "float32",
    }
    assert lab.get("/api/health").json() == {"status": "healthy", "model_loaded": True}


def test_every_token_shows_what_each_layer_would_have_said(lab: TestClient, demo_folder: Any) -> None:
    answer = lab.post("/api/chat", json={"message": PROMPT, "max_tokens": 3, "top_k": 4}).json()
    tokens = answer["tokens"]
    ids = [token["id"] for token in tokens]
    assert [token["position"] for token in tokens] == list(range(len(ids)))
    assert [token["is_generated"] for token in tokens] == [False] * (len(ids) - 3) + [True] * 3
    assert [token["text"] for token in tokens[-3:]] == [" Mary", ".", "<|endoftext|>"]
    assert answer["response"] == " Mary."
    assert answer["num_layers"] == 4 and tokens[-1]["layers"] == []

    hub = AutoModelForCausalLM.from_pretrained(demo_folder, dtype=torch.float32, attn_implementation="eager").eval()
    streams: list[torch.Tensor] = []
    for block in hub.transformer.h:
        block.register_forward_hook(lambda module, inputs, output: streams.append(output[0]))
    with torch.no_grad():
        hub(torch.tensor([ids]))
        lens = [hub.lm_head(hub.transformer.ln_f(stream)).reshape(len(ids), -1).softmax(-1) for stream in streams]
    for layer, probabilities in enumerate(lens):
        for position in range(len(ids) - 1):
            shown = tokens[position]["layers"][layer]
            best = probabilities[position].topk(4)
            assert shown["layer"] == layer
            assert [each["id"] for each in shown["top_k"]] == best.indices.tolist()
            np.testing.assert_allclose([each["probability"] for each in shown["top_k"]], best.values, rtol=1e-3)
            came = probabilities[position, ids[position + 1]]
            assert shown["next"]["id"] == ids[position + 1]
            assert shown["next"]["probability"] == pytest.approx(float(came), rel=1e-3)
            assert shown["next"]["rank"] == int((probabilities[position] > came).sum())


def test_conversation_of_several_turns_is_read_whole(lab: TestClient, demo_model: LabModel) -> None:
    turns = [{"role": "user", "content": "Mary went"}, {"role": "assistant", "content": "to the store"}]
    body = {"messages": turns, "message": "Then", "max_tokens": 1}
    tokens = lab.post("/api/chat", json=body).json()["tokens"]
    read = [token["id"] for token in tokens if not token["is_generated"]]
    assert demo_model.tokenizer is not None
    assert demo_model.tokenizer.decode(read[1:]) == "Mary went\nto the store\nThen"
    assert lab.post("/api/chat", json={}).status_code == 400


def test_sampled_conversation_is_the_same_for_the_same_seed(lab: TestClient) -> None:
    said = [
        lab.post("/api/chat", json={"message": "Once", "temperature": 1.5, "seed": seed, "max_tokens": 12}).json()
        for seed in (1, 1, 2)
    ]
    assert said[0] == said[1] and said[0]["response"] != said[2]["response"]
