"""Forward passes as messages of a job's script, each with its results read back."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from engine_checkpoints import pack, unpack

# One engine may run several scripts, and names are never given twice.
_names = itertools.count(1)


class Script:
    """Messages of a job; each forward's results are read back by `results`."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.names: list[dict[str, int]] = []

    def cache(self) -> int:
        cache = next(_names)
        self.post(kind="createCache", cache=cache, model=None)
        return cache

    def create(self, numbers: np.ndarray) -> int:
        tensor = next(_names)
        self.steps.append(
            {
                "message": {"kind": "create", "tensor": tensor, "shape": list(numbers.shape)},
                "attachments": [pack(numbers)],
            }
        )
        return tensor

    def post(self, **message: Any) -> None:
        self.steps.append({"message": message})

    def forward(self, capture: list[str | dict[str, Any]], **more: Any) -> None:
        message = {"kind": "forward", "pass": len(self.steps) + 1, "model": None, **more}
        captures = [{"name": each} if isinstance(each, str) else each for each in capture]
        names = {}
        for each in captures:
            names[each["name"]] = each["tensor"] = next(_names)
        for result in ("logits", "residual"):
            if message.get(result):
                names[result] = message[result] = next(_names)
        self.post(**message, capture=captures)
        self.names.append(names)
        for tensor in names.values():
            self.post(kind="read", tensor=tensor)

    def results(self, result: dict[str, Any]) -> list[dict[str, np.ndarray]]:
        assert "error" not in result, result["error"]
        answers = result["script"]
        errors = [answer for answer in answers if answer is not None and "error" in answer]
        assert errors == []
        numbers = {
            answer["message"]["tensor"]: unpack({**answer["attachments"][0], "shape": answer["message"]["shape"]})
            for answer in answers
            if answer is not None and answer["message"]["kind"] == "numbers"
        }
        return [{name: numbers[tensor] for name, tensor in names.items()} for names in self.names]
