"""LMStudioNeuroScopeClient: the lab's HTTP API as methods. Activations come as JSON, or in binary as NumPy arrays.

Not a model: nothing is computed here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from neuroscope.lab import wire

Messages = Sequence[Mapping[str, Any]]
Hooks = Sequence[Mapping[str, Any]]
DEFAULT_LAB = "http://127.0.0.1:8080"


class NeuroScopeLabError(Exception):
    """The lab refused: its sentence, with the HTTP status and the code for programs."""

    def __init__(self, message: str, status: int, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class LMStudioNeuroScopeClient:
    """One lab: that at `base_url`, else at NEUROSCOPE_LAB, else on this machine.

    `binary` False asks for activations as JSON, whose `data` are nested lists.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 600.0,
        binary: bool = False,
    ) -> None:
        key = token or os.environ.get("NEUROSCOPE_TOKEN")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.base_url = (base_url or os.environ.get("NEUROSCOPE_LAB") or DEFAULT_LAB).rstrip("/")
        self.binary = binary
        self._http = httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout)

    def __enter__(self) -> LMStudioNeuroScopeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def __del__(self) -> None:
        """A client that nobody refers to any more leaves no connection behind."""
        with contextlib.suppress(AttributeError, RuntimeError):  # it may not have come to be, or Python may be ending
            self._http.close()

    def health(self) -> dict[str, Any]:
        return self._ask("GET", "/health")

    def list_models(self) -> list[dict[str, Any]]:
        models: list[dict[str, Any]] = self._ask("GET", "/v1/models")["data"]
        return models

    def load_model(self, model_path: str) -> dict[str, Any]:
        """Loads a model that the lab allows, by its id or its folder. Raises: NeuroScopeLabError."""
        return self._ask("POST", "/v1/models/load", {"model_path": str(model_path)})

    def generate(self, messages: Messages, **settings: Any) -> dict[str, Any]:
        """A plain chat completion; `settings` as OpenAI names them."""
        return self._ask("POST", "/v1/chat/completions", {"messages": list(messages), **settings})

    def generate_with_activations(
        self,
        messages: Messages,
        activation_hooks: Hooks = (),
        *,
        max_tokens: int = 100,
        temperature: float = 0.7,
        stream: bool = False,
        **settings: Any,
    ) -> Any:
        """A chat completion with `activations`: hook_id to a list, one entry a pass.

        With `stream` an iterator of chunks, each with the activations of its token.
        Raises: NeuroScopeLabError.
        """
        body = {
            "messages": list(messages),
            "activation_hooks": list(activation_hooks),
            "max_tokens": max_tokens,
            "temperature": temperature,
            **settings,
        }
        path = "/v1/chat/completions/with_activations"
        if stream:
            return self._stream(path, {**body, "stream": True})
        if not self.binary:
            return self._ask("POST", path, body)
        response = self._http.post(path, json=body, headers={"Accept": wire.BINARY})
        _check(response)
        answer, activations = wire.read_binary(response.content)
        return {**answer, "activations": activations}

    def register_hooks(self, activation_hooks: Hooks) -> dict[str, Any]:
        """Hooks that stay for requests that name none."""
        return self._ask("POST", "/v1/activations/hooks", {"activation_hooks": list(activation_hooks)})

    def clear_hooks(self) -> dict[str, Any]:
        return self._ask("DELETE", "/v1/activations/hooks")

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        response = self._http.request(method, path, json=body)
        _check(response)
        answer: dict[str, Any] = response.json()
        return answer

    def _stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        headers = {"Accept": wire.BINARY if self.binary else "text/event-stream"}
        with self._http.stream("POST", path, json=body, headers=headers) as response:
            if response.is_error:
                response.read()
            _check(response)
            for line in response.iter_lines():
                data = line.removeprefix("data: ")
                if data == line or data == "[DONE]":
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise NeuroScopeLabError(chunk["error"]["message"], 200, chunk["error"]["code"])
                if isinstance(chunk.get("activations"), str):
                    chunk["activations"] = wire.read_binary(base64.b64decode(chunk["activations"]))[1]
                yield chunk


def _check(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        text = f"{response.url} answered {response.status_code}, and not as a lab does; check its address."
        raise NeuroScopeLabError(text, response.status_code, None) from None
    raise NeuroScopeLabError(error["message"], response.status_code, error["code"])
