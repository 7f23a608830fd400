"""The lab behind its server: what captures cost a generation, binary against JSON, requests a second.

The client is written out here, over HTTP alone, so that what is measured is what any client gets. Contestants take
turns; figures are medians. The model has GPT-2 small's shape and random weights, its tokenizer one word a token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroscope.bench.places import Goal, Times
from neuroscope.bench.rival_model import LAYERS, VOCABULARY, WIDTH
from neuroscope.errors import NeuroScopeError

BINARY = "application/vnd.safetensors"
CLIENTS = (1, 4, 16)
_PROMPT, _NEW = 16, 24  # tokens of a measured generation
_POSITIONS = 128  # of the capture that travels
_REQUESTS = 16  # of each number of clients, each round
_HOOKS = [{"layer_name": f"transformer.h.{layer}", "component": "residual"} for layer in range(LAYERS)]


@dataclass(frozen=True)
class Answer:
    """What came back, and how long it took until its activations were arrays."""

    milliseconds: float
    bytes: int
    arrays: dict[str, list[Any]]


def make_model(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint with a tokenizer beside it, unless it is there: every token is a word, w0, w1, …"""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if (folder / "tokenizer_config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((checkpoint / name).resolve())
    words = Tokenizer(models.WordLevel({f"w{id}": id for id in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


class LabClient:
    """One connection to a lab."""

    def __init__(self, url: str) -> None:
        import httpx

        self._http = httpx.Client(base_url=url, timeout=600)

    def complete(self, prompt: int, new: int, *, hooks: bool = False, binary: bool = False) -> Answer:
        """A greedy generation of `new` tokens behind `prompt` ones."""
        text = " ".join(f"w{(position * 7919) % VOCABULARY}" for position in range(prompt))
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": new,
            "temperature": 0,
            "activation_hooks": _HOOKS if hooks else [],
        }
        path = "/v1/chat/completions/with_activations" if hooks else "/v1/chat/completions"
        start = time.perf_counter()
        response = self._http.post(path, json=body, headers={"Accept": BINARY if binary else "application/json"})
        if response.status_code != 200:
            raise NeuroScopeError(f"The lab refused a request of the benchmark: {response.text}")
        arrays = _arrays(response.content, binary=binary) if hooks else {}
        return Answer(1000 * (time.perf_counter() - start), len(response.content), arrays)

    def close(self) -> None:
        self._http.close()


def _arrays(content: bytes, *, binary: bool) -> dict[str, list[Any]]:
    import numpy as np

    if not binary:
        found = json.loads(content)["activations"]
        return {name: [np.asarray(each["data"], np.float32) for each in entries] for name, entries in found.items()}
    from safetensors.numpy import load

    length = int.from_bytes(content[:8], "little")
    told = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["neuroscope"])["activations"]
    tensors = load(content)
    arrays: dict[str, list[Any]] = {}
    for index, entry in enumerate(told):
        arrays.setdefault(entry["hook_id"], []).append(tensors[str(index)])
    return arrays


def measure_lab(url: str, *, rounds: int) -> dict[str, Any]:
    """Everything, in turns. The lab at `url` has one model, of GPT-2 small's shape."""
    client = LabClient(url)
    times = Times()
    sizes: dict[str, int] = {}
    rates: dict[int, list[float]] = {count: [] for count in CLIENTS}
    contestants: dict[str, Callable[[], Answer]] = {
        "generation, plain": lambda: client.complete(_PROMPT, _NEW),
        "generation, all residuals captured": lambda: client.complete(_PROMPT, _NEW, hooks=True, binary=True),
        "pass, no capture": lambda: client.complete(_POSITIONS, 1),
        "pass, capture as binary": lambda: client.complete(_POSITIONS, 1, hooks=True, binary=True),
        "pass, capture as JSON": lambda: client.complete(_POSITIONS, 1, hooks=True),
    }
    try:
        for run in contestants.values():  # the model is loaded, both ways are warm
            run()
        for _ in range(rounds):
            for name, run in contestants.items():
                answer = run()
                times.add(name, answer.milliseconds)
                sizes[name] = answer.bytes
                _check(name, answer)
            for count in CLIENTS:
                rates[count].append(_requests_a_second(url, count))
    finally:
        client.close()
    return {
        "milliseconds": {name: times.median(name) for name in contestants},
        "bytes": {name: sizes[name] for name in ("pass, capture as binary", "pass, capture as JSON")},
        "requestsASecond": {str(count): sorted(runs)[len(runs) // 2] for count, runs in rates.items()},
        "rounds": rounds,
    }


def _check(name: str, answer: Answer) -> None:
    """A capture that lacked something would be measured as a fast one."""
    if "capture" not in name or "no capture" in name:
        return
    shapes = [[array.shape for array in entries] for entries in answer.arrays.values()]
    steps = [(1, _PROMPT, WIDTH), *[(1, 1, WIDTH)] * (_NEW - 1)] if "generation" in name else [(1, _POSITIONS, WIDTH)]
    if shapes != [steps] * LAYERS:
        raise AssertionError(f"{name}: the captures have the shapes {shapes}")


def _requests_a_second(url: str, count: int) -> float:
    """Short generations by `count` clients at once, each with its own connection."""
    clients = [LabClient(url) for _ in range(count)]
    try:
        with ThreadPoolExecutor(count) as pool:
            start = time.perf_counter()
            waiting = [pool.submit(clients[i % count].complete, 8, 2) for i in range(_REQUESTS)]
            for each in waiting:
                each.result()
            return _REQUESTS / (time.perf_counter() - start)
    finally:
        for client in clients:
            client.close()


def goals_of(results: dict[str, Any]) -> list[Goal]:
    times, sizes = results["milliseconds"], results["bytes"]
    without = times["pass, no capture"]
    binary, text = "pass, capture as binary", "pass, capture as JSON"
    return [
        Goal(
            "generation, all residuals captured / plain",
            times["generation, all residuals captured"] / times["generation, plain"],
            1.3,
        ),
        Goal("capture of 12 layers: bytes, binary / JSON", sizes[binary] / sizes[text], 0.3),
        # What the format costs: the pass itself is the same for both, and is taken away.
        Goal(
            "capture of 12 layers: time without the pass, binary / JSON",
            max(0.0, times[binary] - without) / (times[text] - without),
            0.1,
        ),
    ]
