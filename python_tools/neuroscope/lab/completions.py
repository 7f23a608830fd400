"""Chat completions in OpenAI's shape, with the activations of every pass beside them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuroscope.errors import LabError
from neuroscope.lab import wire
from neuroscope.lab.generation import Generated, Request, generate, prompt_of
from neuroscope.lab.hook_names import HookSpec, check_name
from neuroscope.lab.messages import ActivationHook, ChatRequest
from neuroscope.lab.model import LabModel, Watch, basis
from neuroscope.lab.registry import Registry
from neuroscope.lab.settings import Spending
from neuroscope.lab.work import IsCancelled

DEFAULT_TOKENS = 256
LEAST = -9999.0  # OpenAI's logarithm of a probability of 0, for which JSON has no number


@dataclass(frozen=True)
class Planned:
    """A checked request: nothing has been computed yet."""

    model: LabModel
    request: Request
    wanted: tuple[tuple[HookSpec, str, bool], ...]  # spec, hook name, whether it is the input
    body: ChatRequest
    id: str
    created: int
    is_json: bool  # how the activations leave

    def captured(self, generated: Generated) -> list[wire.Captured]:
        return [
            wire.Captured(spec, is_input, generated.offset, generated.activations[name])
            for spec, name, is_input in self.wanted
            if name in generated.activations
        ]

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model.description.id,
        }


def plan(registry: Registry, body: ChatRequest, hooks: Sequence[ActivationHook], *, is_json: bool) -> Planned:
    """Everything about a request that can be wrong is told here. Raises: LabError."""
    model = registry.model(body.model)
    limits = registry.settings.limits
    description = model.description
    if model.tokenizer is None:
        raise LabError(f"{description.id} has no tokenizer, so it can't chat; use /v1/forward with token ids.")
    limits.check("hooks", len(hooks), parameter="activation_hooks")
    limits.check("interventions", len(body.interventions), parameter="interventions")
    wanted = [
        (spec, name, is_input)
        for spec in (hook.spec() for hook in hooks)
        for name, is_input in spec.names(description.hooks, description.layers)
    ]
    interventions = body.read_interventions()
    for each in interventions:
        check_name(each.hook, description.hooks)
    prompt = prompt_of(model.tokenizer, [message.as_turn() for message in body.messages])
    choices = body.n or 1
    count = body.max_completion_tokens or body.max_tokens or min(DEFAULT_TOKENS, limits.new_tokens // choices)
    limits.check("new_tokens", count * choices, parameter="max_tokens")
    names = sorted({name for _, name, _ in wanted})
    limits.check("prompt_tokens", len(prompt), parameter="messages")
    forecast = choices * sum(model.expected_bytes(name, 1, len(prompt), 0) for name in names)
    Spending(limits, is_json=is_json).check_bytes(forecast)
    watch = Watch(captures=names, interventions=interventions)
    likeliest = (body.top_logprobs or 0) if body.logprobs else 0
    request = Request(prompt, count, body.sampling(), body.stops(), watch, likeliest)
    id = f"chatcmpl-{secrets.token_hex(12)}"
    return Planned(model, request, tuple(wanted), body, id, int(time.time()), is_json)


def complete(registry: Registry, planned: Planned, is_cancelled: IsCancelled) -> tuple[dict[str, Any], list[Any]]:
    """The whole answer, and what was captured. Raises: LabError."""
    choices, captured, new_tokens = [], [], 0
    model, request, limits = planned.model, planned.request, registry.settings.limits
    spending = Spending(limits, is_cancelled, planned.is_json)
    for index in range(planned.body.n or 1):
        pieces: list[str] = []
        finish, logprobs = "stop", []
        with registry.turns(model).turn(is_cancelled):
            for generated in generate(model, _seeded(request, index), limits, spending):
                pieces.append(generated.text)
                finish = generated.finish or finish
                captured += planned.captured(generated)
                logprobs.append(_logprob(planned, generated))
                new_tokens += 1
        choice = {
            "index": index,
            "message": {"role": "assistant", "content": "".join(pieces)},
            "finish_reason": finish,
            "logprobs": {"content": logprobs} if planned.body.logprobs else None,
        }
        choices.append(choice)
    answer = {**planned.head("chat.completion"), "choices": choices, "usage": _usage(planned, new_tokens)}
    return answer, captured


def chunks(
    registry: Registry, planned: Planned, is_cancelled: IsCancelled
) -> Iterator[tuple[dict[str, Any], list[wire.Captured]]]:
    """The answer token by token, each with what its pass captured. Raises: LabError."""
    head, model, limits = planned.head("chat.completion.chunk"), planned.model, registry.settings.limits
    options = planned.body.stream_options
    shows_usage = options is not None and bool(options.include_usage)
    more: dict[str, Any] = {"usage": None} if shows_usage else {}
    spending = Spending(limits, is_cancelled, planned.is_json)
    new_tokens = 0
    for index in range(planned.body.n or 1):
        is_first = True
        with registry.turns(model).turn(is_cancelled):
            for generated in generate(model, _seeded(planned.request, index), limits, spending):
                delta = {"content": generated.text, **({"role": "assistant"} if is_first else {})}
                is_first = False
                new_tokens += 1
                choice = {
                    "index": index,
                    "delta": delta,
                    "finish_reason": generated.finish,
                    "logprobs": {"content": [_logprob(planned, generated)]} if planned.body.logprobs else None,
                    "token": generated.token,
                }
                yield {**head, "choices": [choice], **more}, planned.captured(generated)
    if shows_usage:
        yield {**head, "choices": [], "usage": _usage(planned, new_tokens)}, []


def with_basis(planned: Planned, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with what it rests on."""
    tokenizer = planned.model.tokenizer
    bos = tokenizer is not None and planned.request.prompt[0] == tokenizer.bos_token_id
    return {**answer, "basis": basis(planned.model.description, bos=bos)}


def _seeded(request: Request, index: int) -> Request:
    """Several choices of one seed would be the same choice several times."""
    if index == 0 or request.sampling.seed is None:
        return request
    return replace(request, sampling=replace(request.sampling, seed=request.sampling.seed + index))


def _logprob(planned: Planned, generated: Generated) -> dict[str, Any]:
    likeliest = [_told(planned, id, log_probability) for id, log_probability in generated.likeliest]
    return {**_told(planned, generated.token, generated.log_probability), "top_logprobs": likeliest}


def _told(planned: Planned, id: int, log_probability: float) -> dict[str, Any]:
    tokenizer = planned.model.tokenizer
    text = "" if tokenizer is None else tokenizer.decode([id])
    return {"token": text, "logprob": max(log_probability, LEAST), "bytes": list(text.encode())}


def _usage(planned: Planned, new_tokens: int) -> dict[str, int]:
    prompt = len(planned.request.prompt)
    return {"prompt_tokens": prompt, "completion_tokens": new_tokens, "total_tokens": prompt + new_tokens}
