"""The explorer's API: a conversation whose every token shows what each layer would have said (the logit lens)."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from neuroscope.errors import LabError
from neuroscope.lab import work
from neuroscope.lab.generation import Request as Generation
from neuroscope.lab.generation import generate, prompt_of
from neuroscope.lab.messages import Message, Text
from neuroscope.lab.model import Floats, LabModel, Watch, basis
from neuroscope.lab.registry import Registry
from neuroscope.lab.sampling import Sampling, log_softmax
from neuroscope.lab.settings import Spending


class ExplorerRequest(BaseModel):
    """`messages` are the whole conversation; `message` alone is a conversation of one turn."""

    model: str | None = None
    message: Text | None = None
    messages: list[Message] = []
    max_tokens: Annotated[int, Field(ge=1)] = 32
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    top_k: Annotated[int, Field(ge=1, le=100)] = 5
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


def explorer_routes(registry: Registry) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["explorer"])

    @router.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "healthy", "model_loaded": bool(registry.loaded())}

    @router.get("/model_info")
    async def model_info(request: Request) -> dict[str, Any]:
        description = (await work.run(request, lambda _: registry.model(None))).description
        return {
            "model_name": description.id,
            "num_layers": description.layers,
            "hidden_size": description.width,
            "num_heads": description.heads,
            "vocab_size": description.vocabulary,
            "max_position_embeddings": description.positions,
            "num_parameters": description.parameters,
            "device": description.device,
            "dtype": description.dtype,
        }

    @router.post("/chat")
    async def chat(request: Request, body: ExplorerRequest) -> dict[str, Any]:
        return await work.run(request, lambda cancelled: _chat(registry, body, cancelled))

    return router


def _chat(registry: Registry, body: ExplorerRequest, is_cancelled: work.IsCancelled) -> dict[str, Any]:
    model = registry.model(body.model)
    tokenizer = model.tokenizer
    turns = [message.as_turn() for message in body.messages]
    if body.message is not None:
        turns.append({"role": "user", "content": body.message})
    if not turns or tokenizer is None:
        raise LabError("A chat needs a `message`, or `messages`, and a model with a tokenizer.", parameter="messages")
    prompt = prompt_of(tokenizer, turns)
    spending = Spending(registry.settings.limits, is_cancelled)
    streams = [f"blocks.{layer}.hook_resid_post" for layer in range(model.description.layers)]
    limits = registry.settings.limits
    # of every position and layer the logits pass through memory, a layer at a time
    limits.check("activation_bytes", 4 * len(prompt) * model.description.vocabulary, parameter="messages")
    wanted = Generation(prompt, body.max_tokens, Sampling(body.temperature, seed=body.seed), watch=Watch(streams))
    tokens, pieces = list(prompt), []
    collected: dict[str, list[Floats]] = {name: [] for name in streams}
    with registry.turns(model).turn(is_cancelled):
        for generated in generate(model, wanted, limits, spending):
            for name in streams:
                collected[name].append(generated.activations[name][0])  # T D
            tokens.append(generated.token)
            pieces.append(generated.text)
        lens = []
        for name in streams:
            spending.go_on()
            lens.append(_layer(model, np.concatenate(collected[name]), tokens, body.top_k))
    read = len(tokens) - 1  # the last token was made and not read
    return {
        "response": "".join(pieces),
        "model": model.description.id,
        "tokens": [
            {
                "position": position,
                "id": tokens[position],
                "text": tokenizer.decode([tokens[position]]),
                "is_generated": position >= len(prompt),
                "layers": [{"layer": layer, **rows[position]} for layer, rows in enumerate(lens)]
                if position < read
                else [],
            }
            for position in range(len(tokens))
        ],
        "num_layers": len(streams),
        "basis": basis(model.description, bos=prompt[0] == tokenizer.bos_token_id),
    }


def _layer(model: LabModel, stream: Floats, tokens: list[int], top_k: int) -> list[dict[str, Any]]:
    """What one layer would say after each position: its likeliest tokens, and how it ranks the one that came."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    log_probabilities = log_softmax(model.lens(stream[None])[0])  # T V
    rows = []
    for position, row in enumerate(log_probabilities):
        best = np.argsort(-row, kind="stable")[:top_k]
        came = tokens[position + 1]
        rows.append(
            {
                "top_k": [
                    {"id": int(id), "token": tokenizer.decode([int(id)]), "probability": float(np.exp(row[id]))}
                    for id in best
                ],
                "next": {
                    "id": came,
                    "probability": float(np.exp(row[came])),
                    "rank": int((row > row[came]).sum()),
                },
            }
        )
    return rows
