"""What tests ask a lab with the demo model, and that model slowed down."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from neuroscope.lab.model import LabModel, Step, Watch

HOST = "http://127.0.0.1"
PROMPT = "When Mary and John went to the store, John gave a drink to"


def chat(text: str = "Once upon a time", **more: Any) -> dict[str, Any]:
    """The body of a chat completion, greedy unless told otherwise."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0, **more}


class SlowModel:
    """The demo model, a pass of which takes a while; `passes` counts those that began."""

    def __init__(self, model: LabModel, seconds: float) -> None:
        self.description = model.description
        self.tokenizer = model.tokenizer
        self.lens = model.lens
        self.expected_bytes = model.expected_bytes
        self.passes = 0
        self._model = model
        self._seconds = seconds

    def forward(
        self, tokens: Sequence[Sequence[int]], watch: Watch, *, past: Any = None, last_only: bool = False
    ) -> Step:
        self.passes += 1
        time.sleep(self._seconds)
        return self._model.forward(tokens, watch, past=past, last_only=last_only)
