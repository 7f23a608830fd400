"""Requests that nobody thought of: made from the lab's own description, and many at once.

NEUROSCOPE_LAB_SECONDS is how long the 16 clients go on, 4 where it is not set; NEUROSCOPE_LAB_EXAMPLES how many
requests each operation is sent.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from demo_lab import PROMPT, chat
from hypothesis import HealthCheck, Phase, given, settings
from neuroscope.lab import wire
from safetensors.numpy import load

SECONDS = float(os.environ.get("NEUROSCOPE_LAB_SECONDS", "4"))
EXAMPLES = int(os.environ.get("NEUROSCOPE_LAB_EXAMPLES", "12"))
LONGEST = 20.0  # seconds of one request; the lab's own limit is well below
LIMITS = {"seconds": 5.0, "new_tokens": 8, "prompt_tokens": 128}
OPERATIONS = [
    ("GET", "/health"), ("GET", "/v1/models"), ("POST", "/v1/models/load"), ("GET", "/v1/models/{name}"),
    ("GET", "/v1/models/{name}/description"), ("POST", "/v1/activations/hooks"), ("DELETE", "/v1/activations/hooks"),
    ("POST", "/v1/chat/completions"), ("POST", "/v1/chat/completions/with_activations"), ("POST", "/v1/tokenize"),
    ("POST", "/v1/detokenize"), ("POST", "/v1/lens"), ("POST", "/v1/passes"), ("POST", "/v1/passes/{id}"),
    ("DELETE", "/v1/pasts/{id}"), ("DELETE", "/v1/passes/{id}"),
    ("GET", "/api/health"), ("GET", "/api/model_info"), ("POST", "/api/chat"),
    ("POST", "/v1/experiments"), ("POST", "/v1/experiments/sweep"), ("GET", "/v1/experiments"),
    ("GET", "/v1/experiments/compare"), ("GET", "/v1/experiments/export"), ("GET", "/v1/experiments/{hash}"),
    ("DELETE", "/v1/experiments/{hash}"), ("POST", "/v1/experiments/{hash}/replay"),
]  # fmt: skip


@pytest.fixture(scope="module")
def described(serve: Any) -> Iterator[Any]:
    """The description of a running lab; what a 500 was is printed by its server."""
    with serve(limits=LIMITS) as url:
        httpx.post(f"{url}/v1/models/load", json={"model": "demo"}, timeout=30)
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_description_names_every_operation(described: Any) -> None:
    paths = described.raw_schema["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_of_the_description_breaks_the_lab(described: Any, method: str, path: str) -> None:
    """Half of them are right by the description, half wrong; a body may name a model, hooks and tokens that are not."""
    operation = described[path][method]
    wrong = operation.as_strategy(schemathesis.GenerationMode.NEGATIVE)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy() | wrong)
    def send(case: Any) -> None:
        response = case.call(timeout=LONGEST)  # a hang is an exception
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    send()


def test_lab_still_computes_after_all_of_them(described: Any) -> None:
    url = described.location.removesuffix("/openapi.json")
    answer = httpx.post(f"{url}/v1/chat/completions", json=chat(PROMPT, max_tokens=2), timeout=LONGEST)
    assert answer.json()["choices"][0]["message"]["content"] == " Mary."


def test_sixteen_clients_at_once_lose_nothing(serve: Any) -> None:
    """Each asks for something whose answer it knows, in JSON, in binary, as a stream, as an experiment, as a pass."""
    with serve(limits={"waiting_requests": 16}) as url:
        asks = [completion, activations, stream, experiment, hooked_pass]
        with httpx.Client(base_url=url, timeout=60) as client:
            expected = [ask(client, turn) for ask in asks for turn in (0, 1)]
        until = time.monotonic() + SECONDS
        done, wrong = Counter[str](), []

        def work(number: int) -> None:
            with httpx.Client(base_url=url, timeout=60) as client:
                turn = number
                while time.monotonic() < until:
                    kind, which = turn % len(asks), turn // len(asks) % 2
                    try:
                        answer = asks[kind](client, which)
                        if not same(answer, expected[2 * kind + which]):
                            wrong.append((asks[kind].__name__, answer))
                    except Exception as error:  # each of them is told below
                        wrong.append((asks[kind].__name__, repr(error)))
                    done[asks[kind].__name__] += 1
                    turn += 1

        threads = [threading.Thread(target=work, args=[number]) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS + 60)
            assert not thread.is_alive()
    assert wrong == []
    assert len(done) == len(asks), done
    print(f"{sum(done.values())} requests of 16 clients in {SECONDS:g} s: {dict(done)}")


TEXTS = (PROMPT, "Once upon a time")
HOOKS = [{"layer_name": "transformer.h.2", "component": "mlp", "hook_id": "it"}]


def completion(client: httpx.Client, which: int) -> Any:
    return client.post("/v1/chat/completions", json=chat(TEXTS[which])).raise_for_status().json()["choices"]


def activations(client: httpx.Client, which: int) -> Any:
    response = client.post(
        "/v1/chat/completions/with_activations",
        json=chat(TEXTS[which], activation_hooks=HOOKS),
        headers={"Accept": wire.BINARY},
    )
    _, found = wire.read_binary(response.raise_for_status().content)
    return np.concatenate([entry["data"][0] for entry in found["it"]])


def stream(client: httpx.Client, which: int) -> Any:
    lines = []
    with client.stream("POST", "/v1/chat/completions", json=chat(TEXTS[which], stream=True)) as response:
        lines = [line for line in response.raise_for_status().iter_lines() if line]
    return [json.loads(line[6:])["choices"] if line[6:] != "[DONE]" else line for line in lines]


def experiment(client: httpx.Client, which: int) -> Any:
    """A new one each time, for the store, and with the same numbers: a zero asks no seed."""
    body = {"input": TEXTS[which], "kind": "zero", "target": {"component": "mlp", "layer": 1}, "seed": next(SEEDS)}
    return client.post("/v1/experiments", json=body).raise_for_status().json()["result"]


def hooked_pass(client: httpx.Client, which: int) -> Any:
    body = {"tokens": [[which, 2, 3]], "hooks": ["blocks.1.hook_resid_post", "blocks.3.hook_resid_post"]}
    first = client.post("/v1/passes", json=body).raise_for_status().content
    id = json.loads(first[first.index(b'"{') + 1 : first.index(b'}"') + 1].replace(b'\\"', b'"'))["pass"]
    client.post(f"/v1/passes/{id}").raise_for_status()
    done = client.post(f"/v1/passes/{id}").raise_for_status().content
    return load(done)["logits"]


SEEDS = itertools.count()


def same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)
