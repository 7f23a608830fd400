"""The lab behind its server: what captures cost a generation, binary against JSON, requests a second.

The client is written out here, over HTTP alone, so that what is measured is what any client gets. Contestants take
turns, so that a machine with other work is as slow for all of them; figures are medians. The model has GPT-2 small's
shape and random weights, its tokenizer one word a token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from neuroscope.bench.places import Goal, Times
from neuroscope.bench.rival_model import LAYERS, VOCABULARY, WIDTH
from neuroscope.errors import NeuroScopeError

BINARY = "application/vnd.safetensors"
CLIENTS = (1, 4, 16)
PLAIN, CAPTURING = "generation, plain", "generation, all residuals captured"
PASS, AS_BINARY, AS_JSON = "pass, no capture", "pass, capture as binary", "pass, capture as JSON"


@dataclass(frozen=True)
class Work:
    """What is asked of which model. Units: tokens."""

    layers: int = LAYERS
    width: int = WIDTH
    vocabulary: int = VOCABULARY
    prompt: int = 16  # of a measured generation
    new: int = 24
    positions: int = 128  # of the capture that travels
    requests: int = 16  # of each number of clients, each round


@dataclass(frozen=True)
class Answer:
    """What came back, and how long it took until its activations were arrays."""

    milliseconds: float
    bytes: int
    arrays: dict[str, list[Any]]


def make_model(checkpoint: Path, folder: Path, *, vocabulary: int = VOCABULARY) -> Path:
    """The checkpoint with a tokenizer beside it, unless it is there: every token is a word, w0, w1, …"""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if (folder / "tokenizer_config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((checkpoint / name).resolve())
    words = Tokenizer(models.WordLevel({f"w{id}": id for id in range(vocabulary)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


class LabClient:
    """One connection to a lab."""

    def __init__(self, url: str, work: Work) -> None:
        import httpx

        self._work = work
        self._hooks = [
            {"layer_name": f"transformer.h.{layer}", "component": "residual"} for layer in range(work.layers)
        ]
        self._http = httpx.Client(base_url=url, timeout=600)

    def complete(self, prompt: int, new: int, *, hooks: bool = False, binary: bool = False) -> Answer:
        """A greedy generation of `new` tokens behind `prompt` ones."""
        text = " ".join(f"w{(position * 7919) % self._work.vocabulary}" for position in range(prompt))
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": new,
            "temperature": 0,
            "activation_hooks": self._hooks if hooks else [],
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


def measure_lab(url: str, *, rounds: int, seconds: float, work: Work | None = None) -> dict[str, Any]:
    """Everything, in turns: `rounds` of them, or as many as begin within `seconds`. The lab at `url` has one model."""
    work = work or Work()
    client = LabClient(url, work)
    times = Times()
    sizes: dict[str, int] = {}
    rates: dict[int, list[float]] = {count: [] for count in CLIENTS}
    contestants: dict[str, Callable[[], Answer]] = {
        PLAIN: lambda: client.complete(work.prompt, work.new),
        CAPTURING: lambda: client.complete(work.prompt, work.new, hooks=True, binary=True),
        PASS: lambda: client.complete(work.positions, 1),
        AS_BINARY: lambda: client.complete(work.positions, 1, hooks=True, binary=True),
        AS_JSON: lambda: client.complete(work.positions, 1, hooks=True),
    }
    try:
        first = client.complete(1, 1).milliseconds  # which loads the model
        client.complete(work.positions, 2, hooks=True, binary=True)
        began = time.perf_counter()
        taken = 0
        while taken == 0 or (taken < rounds and time.perf_counter() - began < seconds):
            for name, run in contestants.items():
                answer = run()
                times.add(name, answer.milliseconds)
                sizes[name] = answer.bytes
                check_captures(name, answer, work)
            for count in CLIENTS:
                rates[count].append(_requests_a_second(url, count, work))
            taken += 1
    finally:
        client.close()
    return {
        "firstAnswerMilliseconds": first,
        "milliseconds": {name: times.median(name) for name in contestants},
        "leastMilliseconds": {name: min(times.runs[name]) for name in contestants},
        "capturingOverPlain": median(
            with_hooks / plain for with_hooks, plain in zip(times.runs[CAPTURING], times.runs[PLAIN], strict=True)
        ),
        "bytes": {name: sizes[name] for name in (AS_BINARY, AS_JSON)},
        "requestsASecond": {str(count): median(runs) for count, runs in rates.items()},
        "rounds": taken,
    }


def check_captures(name: str, answer: Answer, work: Work) -> None:
    """A capture that lacked something would be measured as a fast one. Raises: AssertionError."""
    if name in (PLAIN, PASS):
        return
    shapes = [[array.shape for array in entries] for entries in answer.arrays.values()]
    passes = [(1, work.positions, work.width)]
    if name == CAPTURING:
        passes = [(1, work.prompt, work.width), *[(1, 1, work.width)] * (work.new - 1)]
    if shapes != [passes] * work.layers:
        raise AssertionError(f"{name}: the captures have the shapes {shapes}, and should have {passes} in each layer")


def _requests_a_second(url: str, count: int, work: Work) -> float:
    """Short generations by `count` clients at once, each with its own connection."""
    clients = [LabClient(url, work) for _ in range(count)]
    try:
        with ThreadPoolExecutor(count) as pool:
            start = time.perf_counter()
            waiting = [pool.submit(clients[i % count].complete, 8, 2) for i in range(work.requests)]
            for each in waiting:
                each.result()
            return work.requests / (time.perf_counter() - start)
    finally:
        for client in clients:
            client.close()


def goals_of(results: dict[str, Any]) -> list[Goal]:
    sizes, least = results["bytes"], results["leastMilliseconds"]
    # What the format costs: the pass itself is the same for both, and is taken away. The least of each, since what a
    # pass waited for other work would be more than what is left.
    binary, text = (max(0.0, least[name] - least[PASS]) for name in (AS_BINARY, AS_JSON))
    return [
        Goal("generation, all residuals captured / plain", results["capturingOverPlain"], 1.3),
        Goal("capture of all layers: bytes, binary / JSON", sizes[AS_BINARY] / sizes[AS_JSON], 0.3),
        Goal("capture of all layers: time without the pass, binary / JSON", binary / text if text else 1.0, 0.1),
    ]
