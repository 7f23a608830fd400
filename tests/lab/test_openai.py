"""The `openai` library talks to the lab as to any server of that API."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from demo_lab import PROMPT, SlowModel
from neuroscope.lab.model import LabModel
from openai import OpenAI

TURNS: Any = [{"role": "user", "content": PROMPT}]
OPEN: Any = [{"role": "user", "content": "Once upon a time"}]  # several continuations are likely


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server}/v1", api_key="any", max_retries=0) as client:
        yield client


def ask(client: OpenAI, messages: Any = TURNS, **options: Any) -> Any:
    return client.chat.completions.create(model="demo", messages=messages, **{"temperature": 0, **options})


def test_completion_has_text_reason_and_usage(client: OpenAI) -> None:
    answer = ask(client, max_tokens=2)
    assert answer.choices[0].message.content == " Mary." and answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 2 == 17
    assert ask(client, max_completion_tokens=8).choices[0].finish_reason == "stop"


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").owned_by == "neuroscope"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_stream_is_the_completion_piece_by_piece(client: OpenAI) -> None:
    whole = ask(client, OPEN, max_tokens=12)
    chunks = list(ask(client, OPEN, max_tokens=12, stream=True))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 11 + ["length"]
    assert all(chunk.usage is None for chunk in chunks)


def test_stream_tells_its_usage_where_it_is_asked_to(client: OpenAI) -> None:
    *chunks, last = ask(client, OPEN, max_tokens=5, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage.completion_tokens == 5 == len(chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_choices_of_a_seed_differ_and_come_again(client: OpenAI) -> None:
    def choices() -> list[str]:
        answer = ask(client, OPEN, n=3, seed=7, temperature=1.2, max_tokens=10)
        assert [choice.index for choice in answer.choices] == [0, 1, 2] and answer.usage.completion_tokens <= 30
        return [choice.message.content for choice in answer.choices]

    first = choices()
    assert first == choices() and len(set(first)) > 1
    streamed = ["", "", ""]
    for chunk in ask(client, OPEN, n=3, seed=7, temperature=1.2, max_tokens=10, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content
    assert streamed == first
    assert ask(client, OPEN, seed=-7, max_tokens=1).choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_text_ends_before_a_stop_text(client: OpenAI, stream: bool) -> None:
    whole = ask(client, OPEN, max_tokens=12).choices[0].message.content
    stop = whole[5:9]
    answer = ask(client, OPEN, max_tokens=12, stop=["never said", stop], stream=stream)
    if stream:
        chunks = list(answer)
        text, reason = "".join(chunk.choices[0].delta.content for chunk in chunks), chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (text, reason) == (whole[: whole.index(stop)], "stop")


def test_log_probabilities_are_of_the_model_itself(client: OpenAI) -> None:
    content = ask(client, OPEN, max_tokens=4, logprobs=True, top_logprobs=5).choices[0].logprobs.content
    assert len(content) == 4
    for place in content:
        best = place.top_logprobs[0]
        assert (best.token, best.logprob) == (place.token, place.logprob)  # greedy
        assert [each.logprob for each in place.top_logprobs] == sorted(
            (each.logprob for each in place.top_logprobs), reverse=True
        )
        assert sum(math.exp(each.logprob) for each in place.top_logprobs) <= 1 + 1e-9
        assert bytes(place.bytes).decode() == place.token
    warm = ask(client, OPEN, max_tokens=1, logprobs=True, top_logprobs=5, temperature=2, seed=1).choices[0]
    assert warm.logprobs.content[0].top_logprobs == content[0].top_logprobs  # temperature is none of the model's


@pytest.mark.parametrize(
    ("options", "kind", "status"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, 404),
        ({"messages": []}, openai.UnprocessableEntityError, 422),
        ({"temperature": 1000}, openai.UnprocessableEntityError, 422),
        ({"max_tokens": 100000}, openai.BadRequestError, 400),
        ({"messages": [{"role": "user", "content": "word " * 300}]}, openai.BadRequestError, 400),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_refusal_is_an_exception_of_the_library(
    client: OpenAI, options: Any, kind: type[openai.APIStatusError], status: int, stream: bool
) -> None:
    with pytest.raises(kind) as raised:
        client.chat.completions.create(**{"model": "demo", "messages": TURNS, "stream": stream, **options})
    assert raised.value.status_code == status
    body: Any = raised.value.body
    assert body["type"] == "invalid_request_error" and body["message"].endswith(".") and body["code"]


def test_token_is_the_library_s_key(serve: Any) -> None:
    with serve(token="secret") as url:
        with (
            OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            ask(stranger)
        with OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as friend:
            assert ask(friend, max_tokens=1).choices[0].message.content == " Mary"


def test_full_queue_is_a_rate_limit(serve: Any, demo_model: LabModel) -> None:
    def refused(client: OpenAI) -> openai.RateLimitError | None:
        try:
            ask(client, max_tokens=2)
        except openai.RateLimitError as error:
            return error
        return None

    with (
        serve(model=SlowModel(demo_model, 0.3), limits={"waiting_requests": 1}) as url,
        OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
        ThreadPoolExecutor(5) as clients,
    ):
        ask(client, max_tokens=1)  # loads it
        errors = [error for error in clients.map(refused, [client] * 5) if error is not None]
    assert 2 <= len(errors) <= 3  # one is at its turn, one waits, and one may come when the first is done
    assert all(error.response.headers["retry-after"] == "1" for error in errors)
