"""Who may call a lab, what one request may cost, and what becomes of the work of a client that has gone."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from demo_lab import HOST, PROMPT, SlowModel, chat
from fastapi.testclient import TestClient
from neuroscope.errors import LabError
from neuroscope.lab import wire
from neuroscope.lab.model import LabModel
from neuroscope.lab.settings import Settings
from safetensors.numpy import save

COMPLETIONS = "/v1/chat/completions"
WITH_ACTIVATIONS = "/v1/chat/completions/with_activations"


def refused(answer: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """The error, in OpenAI's shape, with a sentence that holds the words."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    for word in words:
        assert word in error["message"], error["message"]
    return error


# Who may call


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "lab.example.org", "::"])
def test_lab_beyond_loopback_demands_a_token(host: str) -> None:
    with pytest.raises(LabError, match="--token"):
        Settings(models={}, host=host)
    assert not Settings(models={}, host=host, token="t").is_loopback
    assert Settings(models={}).is_loopback  # what it is when nothing is said


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer ", "Basic c2VjcmV0", "Bearer sécret"])
def test_request_without_the_token_is_refused(make_lab: Any, given: str | None) -> None:
    lab = make_lab(token="secret", host="0.0.0.0")
    headers = {} if given is None else {"Authorization": given.encode()}
    for method, path in (("GET", "/v1/models"), ("POST", COMPLETIONS), ("GET", "/api/health"), ("GET", "/v1/none")):
        answer = lab.request(method, path, headers=headers)
        assert refused(answer, 401)["type"] == "authentication_error"
    assert lab.get("/health").status_code == 200
    assert lab.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "", "[::2]", "[", "a@b"]
)
def test_loopback_lab_answers_to_its_own_names_alone(lab: TestClient, host: str) -> None:
    refused(lab.get("/v1/models", headers={"Host": host}), 403, "127.0.0.1")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"])
def test_loopback_lab_answers_to_loopback_s_names(lab: TestClient, host: str) -> None:
    assert lab.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{HOST}:81", "https://127.0.0.1", ""])
def test_pages_of_other_origins_are_refused(lab: TestClient, origin: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        answer = lab.request(method, "/v1/activations/hooks", headers={"Origin": origin})
        refused(answer, 403, "--origin")
        assert "access-control-allow-origin" not in answer.headers


def test_page_of_the_lab_itself_may_call(lab: TestClient) -> None:
    assert lab.get("/v1/models", headers={"Origin": HOST}).status_code == 200


def test_listed_origin_may_call_and_another_may_not(make_lab: Any) -> None:
    lab = make_lab(origins=("https://page.example",), token="secret")
    page = {"Origin": "https://page.example"}
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    preflight = lab.options(COMPLETIONS, headers={**page, **ask})
    assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == page["Origin"]
    unauthorized = lab.get("/v1/models", headers=page)
    refused(unauthorized, 401)
    assert unauthorized.headers["access-control-allow-origin"] == page["Origin"]  # or the page could not read why
    answer = lab.get("/v1/models", headers={**page, "Authorization": "Bearer secret"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == page["Origin"]
    refused(lab.options(COMPLETIONS, headers={"Origin": "https://other.example", **ask}), 403)


# What one request may cost


@pytest.mark.parametrize(
    ("limits", "path", "body", "words"),
    [
        ({"prompt_tokens": 10}, COMPLETIONS, chat(PROMPT), ("15", "10")),
        ({"prompt_tokens": 10}, "/v1/experiments", {"input": PROMPT, "kind": "zero"}, ("10",)),
        ({"prompt_tokens": 10}, "/v1/passes", {"tokens": [[1] * 6] * 2}, ("2 rows of 6", "10")),
        ({"new_tokens": 7}, COMPLETIONS, chat(max_tokens=8), ("8 new tokens", "7")),
        ({"new_tokens": 7}, COMPLETIONS, chat(max_tokens=4, n=2), ("8 new tokens", "7")),
        ({"hooks": 1}, WITH_ACTIVATIONS, chat(activation_hooks=[{"layer_name": "h.1"}] * 2), ("2 hooks", "1")),
        ({"hooks": 1}, "/v1/activations/hooks", {"hooks": [{"layer_name": "h.1"}] * 2}, ("2 hooks", "1")),
        ({"interventions": 1}, COMPLETIONS, chat(interventions=[{}, {}]), ("2 interventions", "1")),
        (
            {"json_activation_bytes": 1000},
            WITH_ACTIVATIONS,
            chat(activation_hooks=[{"layer_name": "h.1"}]),
            ("json activation bytes", "1000"),
        ),
        (
            {"activation_bytes": 10_000},
            "/v1/passes",
            {"tokens": [[1] * 30], "capture": ["blocks.1.hook_resid_post"], "logits": False},
            ("15360 activation bytes", "10000"),
        ),
        ({"seconds": 5}, "/v1/passes", {"tokens": [[1]], "seconds": 6}, ("6 seconds", "5")),
    ],
)
def test_limit_is_told_with_its_number(
    make_lab: Any, limits: Any, path: str, body: Any, words: tuple[str, ...]
) -> None:
    refused(make_lab(limits=limits).post(path, json=body), 400, *words)


def test_activations_that_generation_adds_count_too(make_lab: Any) -> None:
    """The forecast knows the prompt's; each token's are added as they come."""
    lab = make_lab(limits={"activation_bytes": 128 * 4 * 20})
    body = chat("Once upon a time", activation_hooks=[{"layer_name": "transformer.h.1"}])
    binary = {"Accept": wire.BINARY}
    assert lab.post(WITH_ACTIVATIONS, json={**body, "max_tokens": 2}, headers=binary).status_code == 200
    refused(lab.post(WITH_ACTIVATIONS, json={**body, "max_tokens": 40}, headers=binary), 400, "activation bytes")


def test_prompt_that_fills_all_positions_is_refused(lab: TestClient) -> None:
    error = refused(lab.post(COMPLETIONS, json=chat("the " * 256)), 400, "256")
    assert error["code"] == "context_length_exceeded"


def test_body_beyond_the_limit_is_refused_told_or_chunked(make_lab: Any) -> None:
    lab = make_lab(limits={"request_bytes": 1000})
    large = json.dumps(chat("x" * 2000)).encode()
    kind = {"Content-Type": "application/json"}
    assert refused(lab.post(COMPLETIONS, content=large, headers=kind), 413, "1000")["code"] == "request_too_large"
    chunks = (large[start : start + 100] for start in range(0, len(large), 100))
    answer = lab.post(COMPLETIONS, content=chunks, headers=kind)
    assert "content-length" not in answer.request.headers
    assert refused(answer, 413, "1000")["code"] == "request_too_large"
    chunks = (large[start : start + 100] for start in range(0, len(large), 100))
    refused(lab.post("/v1/passes/any", content=chunks), 404)
    assert lab.post(COMPLETIONS, json=chat(max_tokens=1)).status_code == 200


def test_endless_body_is_refused_as_soon_as_it_is_too_long(serve: Any) -> None:
    with serve(limits={"request_bytes": 10_000}) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(30):  # never the chunk of no bytes that would end it
                connection.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("stream", [False, True])
def test_generation_ends_when_its_time_is_up(make_lab: Any, demo_model: LabModel, stream: bool) -> None:
    lab = make_lab(model=SlowModel(demo_model, 0.1), limits={"seconds": 0.25})
    answer = lab.post(COMPLETIONS, json=chat(max_tokens=50, stream=stream))
    if not stream:
        assert refused(answer, 408, "0.25 s")["code"] == "time_limit"
        return
    *tokens, error, end = answer.text.strip().split("\n\n")
    assert 1 <= len(tokens) <= 4 and end == "data: [DONE]"
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "time_limit"


def test_choices_and_other_texts_share_the_time_of_a_request(make_lab: Any, demo_model: LabModel) -> None:
    lab = make_lab(model=SlowModel(demo_model, 0.05), limits={"seconds": 0.3})
    refused(lab.post(COMPLETIONS, json=chat(max_tokens=4, n=4)), 408)
    body = {"input": PROMPT, "kind": "mean", "others": [PROMPT] * 20, "target": {"component": "mlp"}}
    refused(lab.post("/v1/experiments", json=body), 408)
    refused(lab.post("/v1/experiments/sweep", json={**body, "others": [PROMPT] * 4}), 408)
    assert lab.post(COMPLETIONS, json=chat(max_tokens=1)).status_code == 200


# The queue


def test_full_queue_refuses_with_when_to_come_again(serve: Any, demo_model: LabModel) -> None:
    """One request is at its turn and two wait; more than the threads of a usual pool were let in once and hung."""
    slow = SlowModel(demo_model, 0.3)
    with serve(model=slow, limits={"waiting_requests": 2}) as url, ThreadPoolExecutor(12) as clients:
        httpx.post(f"{url}/v1/models/load", json={"model": "demo"}, timeout=30)

        def ask(_: int) -> httpx.Response:
            return httpx.post(f"{url}{COMPLETIONS}", json=chat(max_tokens=4), timeout=60)

        answers = list(clients.map(ask, range(12)))
    statuses = sorted(answer.status_code for answer in answers)
    assert 3 <= statuses.count(200) <= 4 and set(statuses) == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert refused(answer, 429, "2 may")["type"] == "rate_limit_error"
            assert int(answer.headers["retry-after"]) >= 1


def test_many_waiting_requests_leave_the_rest_of_the_lab_awake(serve: Any, demo_model: LabModel) -> None:
    """A pool of threads was once full of requests that waited for a pass, whose client then got no thread to end it."""
    with serve(limits={"waiting_requests": 64}) as url, ThreadPoolExecutor(40) as clients:
        started = httpx.post(f"{url}/v1/passes", json={"tokens": [[1, 2]], "hooks": ["blocks.0.hook_resid_post"]})
        waiting = [
            clients.submit(httpx.post, f"{url}{COMPLETIONS}", json=chat(max_tokens=1), timeout=60) for _ in range(40)
        ]
        time.sleep(0.5)
        began = time.monotonic()
        assert httpx.post(f"{url}/v1/tokenize", json={"text": "Mary"}, timeout=10).status_code == 200
        ended = httpx.post(f"{url}/v1/passes/{head(started.content)['pass']}", timeout=10)
        assert head(ended.content)["kind"] == "done" and time.monotonic() - began < 5
        assert {each.result().status_code for each in waiting} == {200}


def head(content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    found: dict[str, Any] = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["neuroscope"])
    return found


# A client that goes away


def ticks(slow: SlowModel, seconds: float) -> int:
    """Passes that begin while so many seconds go by."""
    before = slow.passes
    time.sleep(seconds)
    return slow.passes - before


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_goes_away_stops_its_generation(serve: Any, demo_model: LabModel, stream: bool) -> None:
    slow = SlowModel(demo_model, 0.05)
    with serve(model=slow) as url:
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps(chat(max_tokens=200, stream=stream)).encode()
        request = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            deadline = time.monotonic() + 10
            while slow.passes < 3:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        time.sleep(0.5)
        assert ticks(slow, 0.5) == 0
        began = time.monotonic()
        assert httpx.post(f"{url}{COMPLETIONS}", json=chat(max_tokens=1), timeout=10).status_code == 200
        assert time.monotonic() - began < 2  # the turn is free


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_goes_away_leaves_the_queue(serve: Any, demo_model: LabModel, stream: bool) -> None:
    """A stream once looked for its client only behind the first token."""
    slow = SlowModel(demo_model, 0.0)
    with serve(model=slow) as url:
        started = httpx.post(f"{url}/v1/passes", json={"tokens": [[1, 2]], "hooks": ["blocks.0.hook_resid_post"]})
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}{COMPLETIONS}", json=chat(stream=stream), timeout=0.5)
        time.sleep(0.5)
        passes = slow.passes
        assert head(httpx.post(f"{url}/v1/passes/{head(started.content)['pass']}").content)["kind"] == "done"
        assert ticks(slow, 0.5) == 0 and slow.passes == passes


# Passes whose hooks a client answers


HOOKED = {"tokens": [[0, 5, 6]], "hooks": ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]}


def test_hook_is_answered_with_a_value_and_with_nothing(lab: TestClient, demo_model: LabModel) -> None:
    first = lab.post("/v1/passes", json=HOOKED)
    assert head(first.content)["name"] == "blocks.1.hook_resid_post"
    replacement = np.full((1, 3, 128), 0.5, np.float32)
    replacement[..., :64] = -1
    second = lab.post(f"/v1/passes/{head(first.content)['pass']}", content=save({"value": replacement}))
    assert head(second.content)["name"] == "blocks.2.hook_resid_post"
    done = lab.post(f"/v1/passes/{head(first.content)['pass']}")
    from safetensors.numpy import load

    tensor = {"shape": [1, 3, 128], "data": replacement.tolist()}
    change = {"hook": "blocks.1.hook_resid_post", "action": "set", "tensor": tensor}
    same = lab.post("/v1/passes", json={"tokens": HOOKED["tokens"], "interventions": [change]})
    np.testing.assert_array_equal(load(done.content)["logits"], load(same.content)["logits"])
    refused(lab.post(f"/v1/passes/{head(first.content)['pass']}"), 404)


def test_answer_of_another_shape_is_refused_and_the_pass_still_waits(lab: TestClient) -> None:
    id = head(lab.post("/v1/passes", json=HOOKED).content)["pass"]
    wrong = save({"value": np.zeros((1, 2, 128), np.float32)})
    refused(lab.post(f"/v1/passes/{id}", content=wrong), 400, "[1, 2, 128]", "[1, 3, 128]")
    refused(lab.post(f"/v1/passes/{id}", content=b"no block at all"), 400, "safetensors")
    assert head(lab.post(f"/v1/passes/{id}").content)["kind"] == "hook"
    assert lab.delete(f"/v1/passes/{id}").json() == {"status": "ended"}


@pytest.mark.parametrize("limits", [{}, {"seconds": 0.4}])
def test_pass_whose_hook_nobody_answers_ends_after_its_time(make_lab: Any, limits: dict[str, float]) -> None:
    lab = make_lab(limits=limits)
    started = lab.post("/v1/passes", json={**HOOKED, "seconds": 0.4})
    began = time.monotonic()
    assert lab.post(COMPLETIONS, json=chat(max_tokens=1)).status_code == 200
    assert 0.1 < time.monotonic() - began < 3
    refused(lab.post(f"/v1/passes/{head(started.content)['pass']}"), 404)


def test_pass_that_is_answered_all_the_time_ends_all_the_same(make_lab: Any) -> None:
    lab = make_lab(limits={"seconds": 0.5})
    answer = lab.post("/v1/passes", json={"tokens": [[1]], "hooks": [f"blocks.{i}.hook_resid_post" for i in range(4)]})
    id = head(answer.content)["pass"]
    for _ in range(4):
        time.sleep(0.2)
        answer = lab.post(f"/v1/passes/{id}")
    assert answer.status_code in (404, 408)
    assert lab.post(COMPLETIONS, json=chat(max_tokens=1)).status_code == 200


def test_client_of_a_pass_that_goes_away_ends_it(serve: Any, demo_model: LabModel) -> None:
    slow = SlowModel(demo_model, 1.0)
    with serve(model=slow) as url:
        httpx.post(f"{url}/v1/models/load", json={"model": "demo"}, timeout=30)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/passes", json={**HOOKED, "seconds": 60}, timeout=0.3)
        began = time.monotonic()
        assert httpx.post(f"{url}{COMPLETIONS}", json=chat(max_tokens=1), timeout=30).status_code == 200
        assert time.monotonic() - began < 5  # and not the minute that its hook would have waited


# Errors


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/none", 404), ("PUT", "/v1/models", 405), ("GET", "/", 404), ("GET", "/v1/experiments/zz", 422)],
)
def test_every_error_has_one_shape(lab: TestClient, method: str, path: str, status: int) -> None:
    answer = lab.request(method, path)
    refused(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"null", b"\xff", b'"' + b"[" * 100_000, b"[" * 100_000, b'{"messages": "\xff"}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "a"}], "model": "\\ud800"}',
        b'{"messages": [{"role": "user", "content": "a"}], "interventions": [{"hook": "\\udfff", "action": "zero"}]}',
    ],
)  # fmt: skip
def test_body_that_can_not_be_read_is_refused(lab: TestClient, body: bytes) -> None:
    answer = lab.post(COMPLETIONS, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 404, 422), answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"action": "scale", "by": 10**400},
        {"action": "scale", "by": 1e300},
        {"action": "add", "value": -1e39},
        {"action": "add", "tensor": {"shape": [1], "data": [10**400]}},
        {"action": "add", "tensor": {"shape": [1], "data": [1e300]}},
        {"action": "add", "tensor": {"shape": [10**30], "data": [1]}},
        {"action": "add", "tensor": {"shape": [1], "base64": "é"}},
        {"action": "add", "tensor": {"shape": [2, 2], "data": [[1, 2], [3]]}},
        {"action": "zero", "at": {"position": 10**30}},
        {"action": "zero", "at": {"neuron": -(10**30)}},
        {"action": "zero", "at": {"key": 0}},
        {"action": "patch", "tensor": {"shape": [1, 1, 1], "data": [1]}},
    ],
)
def test_intervention_that_can_not_be_is_refused(lab: TestClient, change: Any) -> None:
    body = chat(interventions=[{"hook": "blocks.1.hook_resid_post", **change}])
    answer = lab.post(COMPLETIONS, content=json.dumps(body), headers={"Content-Type": "application/json"})
    if "position" not in change.get("at", {}):  # a position further on is one that a later pass may compute
        assert refused(answer, 400)["param"] == "interventions"


def test_numbers_that_overflow_are_told(lab: TestClient) -> None:
    change = {"hook": "blocks.1.hook_resid_post", "action": "add", "value": 3e38}
    error = refused(lab.post(COMPLETIONS, json=chat(interventions=[change, change])), 400, "overflow")
    assert error["code"] == "not_finite"
    hooks = [{"layer_name": "transformer.h.1", "hook_id": "it"}]
    assert lab.post(WITH_ACTIVATIONS, json=chat(activation_hooks=hooks)).status_code == 200


def test_defect_is_told_without_its_stack(make_lab: Any, demo_model: LabModel) -> None:
    class Broken(SlowModel):
        def forward(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("/private/path")

    answer = make_lab(model=Broken(demo_model, 0)).post(COMPLETIONS, json=chat())
    error = refused(answer, 500, "ZeroDivisionError")
    assert "private" not in answer.text and "Traceback" not in answer.text and error["type"] == "server_error"


def test_lab_has_no_thread_left_behind(lab: TestClient) -> None:
    deadline = time.monotonic() + 5
    while any(thread.name.startswith(("pass ", "lab work")) for thread in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.05)
