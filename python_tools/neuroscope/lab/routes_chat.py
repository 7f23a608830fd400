"""The activation server's API: models, chat completions with and without activations, hooks that stay."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from neuroscope.errors import LabError
from neuroscope.lab import completions, wire, work
from neuroscope.lab.hook_names import HookSpec
from neuroscope.lab.messages import ActivationHook, ChatRequest, HooksRequest, LoadRequest
from neuroscope.lab.registry import Registry


def chat_routes(registry: Registry) -> APIRouter:
    """The routes over one registry; the hooks that stay are theirs."""
    router = APIRouter(tags=["chat"])
    kept: list[ActivationHook] = []

    @router.get("/health")
    def health() -> dict[str, Any]:
        loaded = [model.description.id for model in registry.loaded()]
        return {"status": "ok", "model_loaded": bool(loaded), "models": loaded, "version": "1"}

    @router.get("/v1/models")
    def models() -> dict[str, Any]:
        loaded = {model.description.id: model.description for model in registry.loaded()}
        listed = [
            {**loaded[name].as_json(), "loaded": True, "hooks": list(loaded[name].hooks)}
            if name in loaded
            else {"id": name, "object": "model", "created": 0, "owned_by": "neuroscope", "loaded": False}
            for name in registry.settings.models
        ]
        return {"object": "list", "data": listed}

    @router.post("/v1/models/load")
    async def load(request: Request, body: LoadRequest) -> dict[str, Any]:
        name = body.model_path or body.model
        if not name:
            raise LabError("Which model to load is missing; give `model_path` or `model`.", parameter="model_path")
        model = await work.run(request, lambda _: registry.load(name))
        description = model.description
        return {
            "status": "loaded",
            "model": description.id,
            "model_path": name,
            "model_type": description.architecture,
            "supports_activations": True,
            **{key: value for key, value in description.as_json().items() if key not in ("object", "owned_by")},
        }

    @router.post("/v1/activations/hooks")
    def keep_hooks(body: HooksRequest) -> dict[str, Any]:
        hooks = body.all()
        registry.settings.limits.check("hooks", len(kept) + len(hooks), parameter="activation_hooks")
        for hook in hooks:
            _check(hook.spec(), registry)
        kept.extend(hooks)
        ids = [hook.spec().hook_id for hook in hooks]
        return {"status": "registered", "registered_hooks": ids, "hooks": [each.spec().hook_id for each in kept]}

    @router.delete("/v1/activations/hooks")
    def clear_hooks() -> dict[str, Any]:
        count = len(kept)
        kept.clear()
        return {"status": "cleared", "cleared": count}

    @router.post("/v1/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        return await _answer(request, body, body.activation_hooks)

    @router.post("/v1/chat/completions/with_activations")
    async def chat_with_activations(request: Request, body: ChatRequest) -> Response:
        return await _answer(request, body, body.activation_hooks or list(kept), always=True)

    async def _answer(
        request: Request, body: ChatRequest, hooks: Sequence[ActivationHook], *, always: bool = False
    ) -> Response:
        binary = wire.BINARY in request.headers.get("accept", "")
        shows = always or bool(hooks)
        planned = await work.run(request, lambda _: completions.plan(registry, body, hooks, is_json=not binary))

        def whole(cancelled: work.IsCancelled) -> bytes:
            answer, captured = completions.complete(registry, planned, cancelled)
            if not shows:
                return json.dumps(answer).encode()
            answer = completions.with_basis(planned, answer)
            if binary:
                return wire.as_binary(captured, answer)
            return json.dumps({**answer, "activations": wire.as_json(captured)}).encode()

        def events(cancelled: work.IsCancelled) -> Iterator[str]:
            for chunk, captured in completions.chunks(registry, planned, cancelled):
                if shows:
                    chunk["activations"] = wire.as_base64(captured) if binary else wire.as_json(captured)
                yield f"data: {json.dumps(chunk)}\n\n"

        # both make their text in the work's thread: a large one would keep all other clients waiting
        if body.stream:
            items = _to_the_end(await work.stream(request, events))
            return StreamingResponse(items, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        content = await work.run(request, whole)
        return Response(content, media_type=wire.BINARY if binary and shows else "application/json")

    return router


def _check(spec: HookSpec, registry: Registry) -> None:
    """Against the loaded model; without one the names can't be known yet."""
    for model in registry.loaded()[-1:]:
        spec.names(model.description.hooks, model.description.layers)


async def _to_the_end(events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Server-sent events. An error after the first token can have no status any more: it is an event."""
    try:
        async for event in events:
            yield event
    except LabError as error:
        yield f"data: {json.dumps({'error': error.as_json()})}\n\n"
    yield "data: [DONE]\n\n"
