"""A model over the wire for RemoteTransformerModel: description, tokens, and passes whose hooks the image answers.

An answer of /v1/passes is one safetensors block. Its metadata `neuroscope` is JSON: {"kind": "hook", "pass", "name"}
with the tensor `value`, or {"kind": "done", "names"} with the captured tensors `0`, `1`, … and `logits`. The reply to a
hook is such a block with a tensor `value`, or an empty body, which leaves the value as it is.

With `keep_past` the end also names a `past`, the keys and values of all positions so far, for one further pass.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from neuroscope.errors import LabError
from neuroscope.lab import wire, work
from neuroscope.lab.generation import chat_text
from neuroscope.lab.hook_names import check_name, components
from neuroscope.lab.hook_table import hook_table
from neuroscope.lab.interventions import read_intervention, read_tensor
from neuroscope.lab.messages import Message, Text
from neuroscope.lab.model import Floats, LabModel, Watch, basis
from neuroscope.lab.passes import Options, Passes, RunningPass, check_tokens
from neuroscope.lab.registry import Registry

_BLOCK: dict[int | str, dict[str, Any]] = {200: {"content": {wire.BINARY: {}}, "description": "a safetensors block"}}
ANSWER_WITHIN = 60.0  # seconds, where a client names none
Token = Annotated[int, Field(ge=0)]


class PassRequest(BaseModel):
    """`hooks` are answered by the client, `capture` comes with the end."""

    model: str | None = None
    tokens: Annotated[list[Annotated[list[Token], Field(min_length=1)]], Field(min_length=1, max_length=256)]
    capture: list[str] = []
    hooks: list[str] = []
    interventions: list[dict[str, Any]] = []
    logits: bool = True
    last_only: bool = False
    past: str | None = None
    keep_past: bool = False
    seconds: Annotated[float, Field(gt=0)] | None = None  # that a hook waits for its answer


class TokenizeRequest(BaseModel):
    """A text, or a conversation that the model's chat template makes one of."""

    model: str | None = None
    text: Annotated[Text, Field(max_length=1_000_000)] | None = None
    messages: Annotated[list[Message], Field(max_length=1000)] | None = None
    add_generation_prompt: bool = True


class DetokenizeRequest(BaseModel):
    model: str | None = None
    ids: Annotated[list[Token], Field(max_length=100_000)]


class LensRequest(BaseModel):
    """A residual stream: {"shape", "data" or "base64"}."""

    model: str | None = None
    tensor: dict[str, Any]


def pass_routes(registry: Registry) -> APIRouter:
    router = APIRouter(tags=["passes"])
    passes = Passes(registry)
    limits = registry.settings.limits
    hook_seconds = min(ANSWER_WITHIN, limits.seconds)

    @router.get("/v1/models/{name:path}/description")
    async def describe(request: Request, name: str) -> dict[str, Any]:
        return {**_description(await work.run(request, lambda _: registry.model(name))), "hook_seconds": hook_seconds}

    @router.get("/v1/models/{name:path}")
    def one(name: str) -> dict[str, Any]:
        source = registry.settings.source(name)
        loaded = {model.description.id: model.description.as_json() for model in registry.loaded()}
        unloaded = {"id": source.id, "object": "model", "created": 0, "owned_by": "neuroscope"}
        return {**loaded.get(source.id, unloaded), "loaded": source.id in loaded}

    @router.post("/v1/tokenize")
    async def tokenize(request: Request, body: TokenizeRequest) -> dict[str, Any]:
        model = await work.run(request, lambda _: registry.model(body.model))
        tokenizer = _tokenizer(model)
        text = body.text
        if (text is None) == (body.messages is None):
            raise LabError("Give either a text or messages to tokenize.", code="bad_body", parameter="text")
        if text is None:
            turns = [message.as_turn() for message in body.messages or []]
            text = chat_text(tokenizer, turns, add_generation_prompt=body.add_generation_prompt)
        ids = tokenizer.encode(text, add_special_tokens=False)
        return {"text": text, "ids": ids, "tokens": [tokenizer.decode([id]) for id in ids]}

    @router.post("/v1/detokenize")
    async def detokenize(request: Request, body: DetokenizeRequest) -> dict[str, Any]:
        model = await work.run(request, lambda _: registry.model(body.model))
        if body.ids:
            check_tokens(model, [[id] for id in body.ids], len(body.ids))
        tokenizer = _tokenizer(model)
        return {"text": tokenizer.decode(body.ids), "tokens": [tokenizer.decode([id]) for id in body.ids]}

    @router.post("/v1/lens", responses=_BLOCK, response_class=Response)
    async def lens(request: Request, body: LensRequest) -> Response:
        model = await work.run(request, lambda _: registry.model(body.model))
        residual = _tensor(body.tensor, model.description.width)

        def read(cancelled: work.IsCancelled) -> Floats:
            with registry.turns(model).turn(cancelled):
                return model.lens(residual)

        return _block({"kind": "done", "names": []}, {"logits": await work.run(request, read)})

    @router.post("/v1/passes", responses=_BLOCK, response_class=Response)
    async def start(request: Request, body: PassRequest) -> Response:
        model = await work.run(request, lambda _: registry.model(body.model))
        check_tokens(model, body.tokens, limits.prompt_tokens)
        limits.check("hooks", len(body.capture) + len(body.hooks), parameter="capture")
        limits.check("interventions", len(body.interventions), parameter="interventions")
        seconds = hook_seconds if body.seconds is None else body.seconds
        limits.check("seconds", seconds, parameter="seconds")
        interventions = [read_intervention(each) for each in body.interventions]
        for name in (*body.capture, *body.hooks, *(each.hook for each in interventions)):
            check_name(name, model.description.hooks)
        rows, length = len(body.tokens), len(body.tokens[0])
        past = None if body.past is None else passes.take_past(model, body.past)
        cached = 0 if past is None else past.positions
        forecast = await work.run(
            # what is captured leaves together, what is answered one after another
            request,
            lambda _: (
                sum(model.expected_bytes(name, rows, length, cached) for name in set(body.capture))
                + max((model.expected_bytes(name, rows, length, cached) for name in set(body.hooks)), default=0)
            ),
        )
        if body.logits:
            forecast += 4 * rows * (1 if body.last_only else length) * model.description.vocabulary
        limits.check("activation_bytes", forecast, parameter="capture")
        watch = Watch(body.capture, interventions, body.hooks)
        options = Options(seconds, body.logits, body.last_only, body.keep_past)
        running = passes.start(model, body.tokens, watch, options, past)
        return await _next(request, running)

    @router.delete("/v1/pasts/{id}")
    def forget(id: str) -> dict[str, Any]:
        passes.forget_past(id)
        return {"status": "forgotten"}

    @router.post("/v1/passes/{id}", responses=_BLOCK, response_class=Response)
    async def answer(request: Request, id: str) -> Response:
        running = passes.at(id)
        running.answer(_replacement(await request.body()))
        return await _next(request, running)

    @router.delete("/v1/passes/{id}")
    def end(id: str) -> dict[str, Any]:
        passes.at(id).end()
        return {"status": "ended"}

    async def _next(request: Request, running: RunningPass) -> Response:
        event = await work.run(request, lambda cancelled: passes.next_event(running, cancelled))
        if event.kind == "hook":
            assert event.value is not None
            return _block({"kind": "hook", "pass": running.id, "name": event.name}, {"value": event.value})
        assert event.step is not None
        activations = event.step.activations
        names = [name for name in dict.fromkeys(running.watch.captures) if name in activations]
        tensors = {str(index): activations[name] for index, name in enumerate(names)}
        if running.options.wants_logits:
            tensors["logits"] = event.step.logits
        head: dict[str, Any] = {"kind": "done", "names": names, "basis": basis(running.model.description, bos=False)}
        if running.options.keeps_past:
            head["past"] = event.past
        return _block(head, tensors)

    return router


def _description(model: LabModel) -> dict[str, Any]:
    description, tokenizer = model.description, model.tokenizer
    return {
        **description.as_json(),
        "hooks": hook_table(model.axes(), description),
        "aliases": components(),
        "dimensions": {
            "L": description.layers,
            "H": description.heads,
            "D": description.width,
            "V": description.vocabulary,
            "P": description.positions,
        },
        "tokenizer": None
        if tokenizer is None
        else {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "size": description.vocabulary},
    }


def _tokenizer(model: LabModel) -> Any:
    if model.tokenizer is None:
        raise LabError(
            f"{model.description.id} has no tokenizer; it reads token ids only.", status=409, code="no_tokenizer"
        )
    return model.tokenizer


def _tensor(json: dict[str, Any], width: int) -> Floats:
    tensor = read_tensor(json)
    if tensor.shape[-1] != width:
        raise LabError(
            f"The residual stream has shape {list(tensor.shape)}; its last axis has to be the model's width, {width}.",
            code="shape_mismatch",
            parameter="tensor",
        )
    return tensor


def _replacement(block: bytes) -> Floats | None:
    if not block:
        return None
    try:
        value = load(block)["value"]
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise LabError(
            f"The answer to a hook is a safetensors block with a tensor `value`, or empty; this one is "
            f"neither ({error}).",
            code="bad_body",
        ) from error
    return np.asarray(value, np.float32)


def _block(head: dict[str, Any], tensors: dict[str, Floats]) -> Response:
    content = save(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()},
        metadata={"neuroscope": json.dumps(head)},
    )
    return Response(content, media_type=wire.BINARY)
