"""Measures the engine against its rivals, in one page of one Chromium, taking turns: transformers.js over ONNX Runtime
for WebAssembly, TensorFlow.js for WebGL2, and PyTorch beside them for what the machine itself can do.

A ratio is of medians. Before anything is timed, all must give the same logits; after it, a rival that is much slower
than it was found to be on a quiet machine makes the run fail, since beating it would say nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from neuroscope.bench import rival_model
from neuroscope.bench.places import Goal, Places, Times, call_worker, open_engine, open_page
from neuroscope.bench.rival_model import tokens_of
from neuroscope.errors import NeuroScopeError

THREADS = 2
LENGTHS = (10, 64)
DECODED = 24
LOGITS_TOLERANCE = 1e-3
TRANSFORMERS_VERSION = "4.3.1"
TENSORFLOW_VERSION = "4.22.0"

PRODUCTS = ((768, 2304), (3072, 768), (768, 50257))
PRODUCT_ROWS = (1, 10, 64)

# Milliseconds that the rivals took on two quiet cores without a GPU: T = 10 and 64, one position (and so a decoded
# token), and a product at T = 1, 10 and 64.
QUIET_TRANSFORMERS = {10: 75.0, 64: 249.0}
QUIET_DECODED = 48.0
QUIET_TENSORFLOW = {
    (768, 2304): (18.0, 23.0, 86.0),
    (3072, 768): (45.0, 35.0, 86.0),
    (768, 50257): (442.0, 731.0, 3593.0),
}
SLOWER_THAN_QUIET = 2.0
REST_MILLISECONDS = 300


def measure_engine(places: Places, *, rounds: int) -> dict[str, Any]:
    """Runs every measurement but those of storage.

    Raises: NeuroScopeError when the page is not isolated, a rival is not the one that is named, or the logits differ.
    """
    with open_page(places) as page:
        wasm = _measure_wasm(page, places, rounds)
        webgl = _measure_webgl(page, places, rounds)
    return {**wasm, **webgl}


def _pass(page: Any, length: int, only: str) -> float:
    return float(page.evaluate("([length, only]) => bench.pass(length, 1, only)", [length, only]))


def _rest(page: Any) -> None:
    """A rival's threads spin for a while after their work; the next one is not to be measured beside them."""
    page.wait_for_timeout(REST_MILLISECONDS)


def _measure_wasm(page: Any, places: Places, rounds: int) -> dict[str, Any]:
    opened = open_engine(page, places, places.bundle, "wasm")
    if opened.get("threads") != THREADS:
        raise NeuroScopeError(f"The engine runs {opened.get('threads')} threads, and the benchmark is of {THREADS}.")
    rival = _open_transformers(page, places, "plain")
    torch_model = _Torch(places.checkpoint)
    difference = _check_logits(page, torch_model)

    times = {length: Times() for length in LENGTHS}
    for _ in range(rounds):
        for length, taken in times.items():
            taken.add("ours", _pass(page, length, "everything"))
            taken.add("transformers.js", float(call_worker(page, "transformers", "pass", tokens_of(length))))
            _rest(page)
            taken.add("ours, capturing", _pass(page, length, "capture"))
            taken.add("PyTorch", torch_model.milliseconds(length))
            _rest(page)
    _refuse_slow(
        "transformers.js",
        {f"T = {length}": (times[length].median("transformers.js"), QUIET_TRANSFORMERS[length]) for length in LENGTHS},
    )

    page.evaluate("bench.closeWorker('transformers')")
    _open_transformers(page, places, "cached")
    decoding = _measure_decoding(page, max(2, rounds // 3))
    page.evaluate("bench.closeWorker('transformers')")
    page.evaluate("bench.close()")

    pairs = (
        ("ours", "transformers.js", 0.8, 0.8),
        ("ours, capturing", "ours", 1.3, 1.3),
        ("ours", "PyTorch", 1.5, 2.0),
    )
    goals = [
        Goal(f"forward, T = {length}: {name} / {other}", times[length].ratio(name, other), limit)
        for name, other, *limits in pairs
        for length, limit in zip(LENGTHS, limits, strict=True)
    ]
    goals.append(Goal("a decoded token: ours / transformers.js", decoding.ratio("ours", "transformers.js"), 0.5))
    return {
        "threads": THREADS,
        "transformers.js": rival["version"],
        "logitsDifference": difference,
        "forward": {str(length): {name: taken.median(name) for name in taken.runs} for length, taken in times.items()},
        "decode": {name: decoding.median(name) for name in decoding.runs},
        "wasmGoals": goals,
    }


def _measure_decoding(page: Any, rounds: int) -> Times:
    """Milliseconds from each greedily decoded token to the next; both rest before each turn, and go first in turns."""
    contestants: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": lambda: page.evaluate("([tokens, count]) => bench.decode(tokens, count)", [tokens_of(10), DECODED]),
        "transformers.js": lambda: call_worker(page, "transformers", "decode", tokens_of(10), DECODED),
    }
    for decode in contestants.values():  # what is compiled by use
        decode()
    times = Times()
    for turn in range(rounds):
        made = {}
        for name in sorted(contestants, reverse=turn % 2 == 1):
            _rest(page)
            made[name] = contestants[name]()
            for gap in made[name]["gaps"]:
                times.add(name, gap)
        ours, theirs = made["ours"]["tokens"], made["transformers.js"]["tokens"]
        if ours != theirs:
            raise NeuroScopeError(f"Greedy decoding gives {ours} here and {theirs} in the rival.")
    _refuse_slow("transformers.js", {"a decoded token": (times.median("transformers.js"), QUIET_DECODED)})
    return times


def _open_transformers(page: Any, places: Places, model: str) -> dict[str, Any]:
    page.evaluate("script => bench.openWorker('transformers', script)", "/bench/transformers_worker.js")
    rival: dict[str, Any] = call_worker(
        page,
        "transformers",
        "open",
        f"{places.rivals}/@huggingface/transformers/dist/transformers.min.js",
        f"{places.url}{places.rivals}/onnxruntime-web/dist/",
        places.models,
        model,
        THREADS,
    )
    if rival["version"] != TRANSFORMERS_VERSION or rival["threads"] != THREADS:
        raise NeuroScopeError(
            f"The rival is transformers.js {rival['version']} with {rival['threads']} threads, and the benchmark is "
            f"against {TRANSFORMERS_VERSION} with {THREADS}; remove build/rivals, so that it is installed anew."
        )
    return rival


class _Torch:
    """The same model in PyTorch."""

    def __init__(self, checkpoint: Path) -> None:
        import torch

        torch.set_num_threads(THREADS)
        self._torch = torch
        self._model = rival_model.open_model(checkpoint)

    def logits(self, length: int) -> Any:
        with self._torch.inference_mode():
            return self._model(self._torch.tensor([tokens_of(length)]), use_cache=False).logits[0, -1].numpy()

    def milliseconds(self, length: int) -> float:
        began = time.perf_counter()
        self.logits(length)
        return 1000 * (time.perf_counter() - began)


def _check_logits(page: Any, torch_model: _Torch) -> float:
    tokens = tokens_of(LENGTHS[0])
    expected = torch_model.logits(LENGTHS[0])
    found = {
        "the engine": page.evaluate("tokens => bench.logits(tokens)", tokens),
        "transformers.js": call_worker(page, "transformers", "logits", tokens),
    }
    differences = {name: float(np.abs(np.array(each) - expected).max()) for name, each in found.items()}
    for name, difference in differences.items():
        if not difference <= LOGITS_TOLERANCE:
            raise NeuroScopeError(
                f"The logits of {name} differ from PyTorch's by {difference:.3g}, and {LOGITS_TOLERANCE:g} is allowed; "
                "times of different results can't be compared."
            )
    return max(differences.values())


def _measure_webgl(page: Any, places: Places, rounds: int) -> dict[str, Any]:
    page.evaluate("script => bench.openWorker('products', script)", "/bench/products_worker.js")
    rival = call_worker(page, "products", "open", f"{places.rivals}/@tensorflow/tfjs/dist/tf.min.js")
    if rival != {"version": TENSORFLOW_VERSION, "backend": "webgl"}:
        raise NeuroScopeError(f"The rival is TensorFlow.js {rival}, and the benchmark is against {TENSORFLOW_VERSION}.")
    products: dict[str, dict[str, float]] = {}
    ratios, quiet = [], {}
    for inputs, outputs in PRODUCTS:
        for rows, known in zip(PRODUCT_ROWS, QUIET_TENSORFLOW[inputs, outputs], strict=True):
            name = f"{rows} x {inputs} x {outputs}"
            difference = call_worker(page, "products", "shape", rows, inputs, outputs)
            if not difference <= LOGITS_TOLERANCE:
                raise NeuroScopeError(f"The products {name} differ by {difference:.3g} from TensorFlow.js's.")
            count = max(1, min(8, int(400 / known)))
            taken = Times()
            for turn in range(1 + min(rounds, max(3, int(4000 / known / count)))):
                for who in ("ours", "theirs"):
                    milliseconds = call_worker(page, "products", "time", who, count)
                    if turn > 0:  # the first compiles
                        taken.add(who, milliseconds)
            products[name] = {"ours": taken.median("ours"), "TensorFlow.js": taken.median("theirs")}
            ratios.append(taken.ratio("ours", "theirs"))
            quiet[name] = (taken.median("theirs"), known)
    _refuse_slow("TensorFlow.js", quiet)
    page.evaluate("bench.closeWorker('products')")

    open_engine(page, places, places.bundle, "webgl")
    passes = {length: Times() for length in LENGTHS}
    for turn in range(1 + max(2, rounds // 3)):
        for length, taken in passes.items():
            for only in ("everything", "products"):
                milliseconds = _pass(page, length, only)
                if turn > 0:
                    taken.add(only, milliseconds)
    page.evaluate("bench.close()")
    goals = [Goal("WebGL2 products, geometric mean: ours / TensorFlow.js", math.exp(np.mean(np.log(ratios))), 0.5)]
    goals += [
        Goal(f"WebGL2 pass, T = {length}: whole / its products", taken.ratio("everything", "products"), 1.3)
        for length, taken in passes.items()
    ]
    return {
        "tensorflow.js": rival["version"],
        "products": products,
        "webglForward": {
            str(length): {name: each.median(name) for name in each.runs} for length, each in passes.items()
        },
        "webglGoals": goals,
    }


def _refuse_slow(rival: str, measured: dict[str, tuple[float, float]]) -> None:
    """By the geometric mean over the cases, since a single one may be unlucky."""
    slowdown = math.exp(np.mean([math.log(now / quiet) for now, quiet in measured.values()]))
    if slowdown > SLOWER_THAN_QUIET:
        cases = ", ".join(f"{name}: {now:.0f} ms for {quiet:.0f}" for name, (now, quiet) in measured.items())
        raise NeuroScopeError(
            f"{rival} ran {slowdown:.1f} times slower than on a quiet machine ({cases}), and {SLOWER_THAN_QUIET:g} is "
            "allowed; a slow rival is no rival: run the benchmark when nothing else runs."
        )


def goals_of(results: dict[str, Any]) -> list[Goal]:
    return [goal for value in results.values() if isinstance(value, list) for goal in value if isinstance(goal, Goal)]
