"""Runs a sweep on Ray: each worker loads the model once and takes batches; what a worker that dies had is run again.

Work that is done is known by its hash, so a sweep that was cut off goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroscope.errors import LabError, MissingProgramError
from neuroscope.lab.experiments import Experiment, check, run_all
from neuroscope.lab.registry import Registry, load_model
from neuroscope.lab.results import Result, Results
from neuroscope.lab.settings import ModelSource, Settings
from neuroscope.lab.sweep_spec import SweepSpec

MOST_FAILURES = 3  # of one batch: then it is the batch's fault


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands. Units: seconds."""

    done: int
    total: int
    elapsed: float
    left: float | None
    restarts: int


@dataclass(frozen=True)
class SweepReport:
    total: int
    ran: int
    known: int
    restarts: int
    seconds: float


class _Worker:
    """Runs batches on its own copy of the model. Wrapped as a Ray actor."""

    def __init__(self, source: ModelSource, threads: int) -> None:
        if source.engine == "torch":
            import torch

            torch.set_num_threads(threads)
        self._model = load_model(source)

    def run(self, batch: Sequence[Experiment]) -> list[Result]:
        return list(run_all(self._model, batch))


def plan(spec: SweepSpec) -> list[Experiment]:
    """Every experiment of the sweep, checked. Loads the model, for its shape and its tokenizer. Raises: LabError."""
    registry = Registry(Settings(models={spec.source.id: spec.source}))
    model = registry.load(spec.source.id)
    several = list(spec.experiments(model, registry))
    for experiment in several:
        check(model, experiment)
    return several


def run_sweep(
    spec: SweepSpec,
    results: Results,
    *,
    on: str | None = None,
    workers: int = 2,
    batch: int = 16,
    report: Callable[[Progress], None] = lambda progress: None,
) -> SweepReport:
    """Runs what is not done yet, on the Ray that this program has begun, or on one for this sweep alone.

    Raises: LabError when a batch fails again and again, MissingProgramError.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingProgramError("Ray is missing; `pip install neuroscope[ray]` installs it.") from error
    for name, value in (("workers", workers), ("batch", batch)):
        if value < 1:
            raise LabError(f"The sweep was given {value} as --{name}; give it 1 or more.", parameter=name)
    began = time.monotonic()
    several = plan(spec)
    done = results.done()
    missing = [each for each in several if each.hash not in done]
    known = len(several) - len(missing)
    if not missing:
        return SweepReport(len(several), 0, known, 0, time.monotonic() - began)
    begins = not ray.is_initialized()
    if begins:
        _begin(ray, on, workers)
    batches = deque(missing[start : start + batch] for start in range(0, len(missing), batch))
    pool = _Pool(ray, spec.source, min(workers, len(batches)))
    try:
        finished, behind_first = 0, (0.0, 0)
        for made in pool.run(batches):
            results.append(made)
            finished += len(made)
            elapsed = time.monotonic() - began
            # before the first batch the workers loaded the model, which no other batch waits for
            each = (elapsed - behind_first[0]) / (finished - behind_first[1])
            if behind_first[1] == 0:
                behind_first = (elapsed, finished)
            left = each * (len(missing) - finished)
            report(Progress(known + finished, len(several), elapsed, left, pool.restarts))
        return SweepReport(len(several), finished, known, pool.restarts, time.monotonic() - began)
    finally:
        pool.end()
        if begins:
            ray.shutdown()


def _begin(ray: Any, on: str | None, workers: int) -> None:
    package = Path(__file__).parents[1]
    environment: dict[str, Any] = {"py_modules": [str(package)]} if on else {}
    local: dict[str, Any] = {} if on else {"num_cpus": workers, "include_dashboard": False, "logging_level": "error"}
    ray.init(address=on, runtime_env=environment or None, log_to_driver=False, **local)


class _Pool:
    """Workers that are replaced when they die."""

    def __init__(self, ray: Any, source: ModelSource, workers: int) -> None:
        self._ray = ray
        self._actor = ray.remote(num_cpus=1)(_Worker)
        self._source = source
        self._started: list[Any] = []
        self._idle = [self._start() for _ in range(workers)]
        self.restarts = 0

    def _start(self) -> Any:
        worker = self._actor.remote(self._source, 1)
        self._started.append(worker)
        return worker

    def end(self) -> None:
        """Whatever they are doing; of those that are dead already nothing comes."""
        for worker in self._started:
            self._ray.kill(worker)

    def run(self, batches: deque[list[Experiment]]) -> Any:
        """Yields each batch's results as they come. Raises: LabError."""
        running: dict[Any, tuple[Any, list[Experiment], int]] = {}
        waiting = deque((batch, 0) for batch in batches)
        while waiting or running:
            while waiting and self._idle:
                batch, failures = waiting.popleft()
                worker = self._idle.pop()
                running[worker.run.remote(batch)] = (worker, batch, failures)
            finished, _ = self._ray.wait(list(running), num_returns=1)
            worker, batch, failures = running.pop(finished[0])
            try:
                made = self._ray.get(finished[0])
            except self._ray.exceptions.RayActorError as error:
                self._again(waiting, batch, failures + 1, error)
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise LabError(f"An experiment of the sweep failed: {error.cause}") from error
            self._idle.append(worker)
            yield made

    def _again(self, waiting: Any, batch: list[Experiment], failures: int, error: Exception) -> None:
        if failures >= MOST_FAILURES:
            raise LabError(
                f"A worker died {failures} times on the batch that begins with experiment {batch[0].hash} ({error}); "
                "give workers more memory, or make batches smaller."
            ) from error
        self.restarts += 1
        self._idle.append(self._start())
        waiting.appendleft((batch, failures))
