"""`neuroscope bench lab`: the lab in a process of its own, as a table, and as JSON with --json.

The first run makes a model of GPT-2 small's shape in build/bench.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuroscope import project
from neuroscope.bench.lab import goals_of, make_model, measure_lab
from neuroscope.bench.places import goal_lines
from neuroscope.bench.rival_model import make_checkpoint
from neuroscope.errors import LabError

FOLDER = project.BUILD / "bench"
_START_WITHIN = 120.0  # seconds; importing PyTorch is most of it


def add_command(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = benchmarks.add_parser("lab", help="the lab's server: captures, binary against JSON, requests a second")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant, at most (default: 7)")
    parser.add_argument("--seconds", type=float, default=150, help="no round begins after them (default: 150)")
    parser.add_argument("--engine", default="torch", help="torch or mlx (default: torch)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    model = make_model(make_checkpoint(FOLDER / "gpt2-small-shaped"), FOLDER / "lab-model")
    with _lab(model, options.engine) as url:
        results = {"engine": options.engine, **measure_lab(url, rounds=options.rounds, seconds=options.seconds)}
    results["goals"] = [{**dataclasses.asdict(goal), "met": goal.is_met} for goal in goals_of(results)]
    print(json.dumps(results, indent=1) if options.json else as_table(results))
    return 0


@contextmanager
def _lab(model: Path, engine: str) -> Iterator[str]:
    """The URL of `neuroscope serve` with one model; it ends with the block. Raises: LabError when it does not start."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "neuroscope.cli.main", "serve", "--model", str(model), "--engine", engine]
        command += ["--port", str(port), "--database", str(Path(folder) / "lab.sqlite")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    raise LabError(f"The lab did not answer at {url} within {_START_WITHIN:g} s; what it said stands above.")


def as_table(results: dict[str, Any]) -> str:
    load = results["firstAnswerMilliseconds"] / 1000
    lines = [
        f"a request to the lab, ms, {results['engine']} engine, GPT-2 small's shape, float32; median of "
        f"{results['rounds']} rounds",
        f"  {'the first one, which loads the model, s':<48} {load:>10.1f}",
    ]
    lines += [f"  {name:<48} {time:>10.1f}" for name, time in results["milliseconds"].items()]
    lines += ["12 layers of [1, 128, 768], bytes"]
    lines += [f"  {name:<48} {size:>10,}" for name, size in results["bytes"].items()]
    lines += ["short generations, requests a second"]
    lines += [f"  {count + ' clients':<48} {rate:>10.1f}" for count, rate in results["requestsASecond"].items()]
    return "\n".join([*lines, "", *goal_lines(goals_of(results))])
