"""Sweeps on Ray: the numbers of experiments run one by one, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_lab import PROMPT
from neuroscope.errors import LabError
from neuroscope.lab.experiments import Experiment, run
from neuroscope.lab.model import LabModel
from neuroscope.lab.results import open_results
from neuroscope.lab.sweep import Progress, SweepReport, plan, run_sweep
from neuroscope.lab.sweep_spec import SweepSpec, read_spec

OTHER = "When Tom and Lucy went to the park, Tom gave a ball to"
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of Ray


@pytest.fixture
def spec(demo_folder: Path, tmp_path: Path) -> SweepSpec:
    """2 prompts x (2 kinds of layers + 2 of 8 heads) at 4 layers: 48 experiments."""
    return make_spec(tmp_path / "spec.json", model=str(demo_folder))


def make_spec(path: Path, **more: Any) -> SweepSpec:
    wanted = {
        "prompts": [
            {"input": PROMPT, "answer": " Mary", "foil": " John", "others": [OTHER]},
            {"input": OTHER, "others": [PROMPT]},
        ],
        "interventions": ["zero", "mean"],
        "components": ["mlp", "head"],
        "heads": [1, 6],
        "positions": [-1],
        **more,
    }
    path.write_text(json.dumps(wanted))
    return read_spec(path)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """Begun once for all sweeps here: it takes longer than what they compute."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def one_by_one(demo_model: LabModel) -> Callable[[Experiment], dict[str, Any]]:
    return lambda experiment: run(demo_model, experiment)


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """The results of a sweep by hash."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert len({row["hash"] for row in rows}) == len(rows)
        return {row["hash"]: json.loads(row["result"]) for row in rows}
    import sqlite3

    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT hash, result FROM experiments").fetchall()
    connection.close()
    return {hash: json.loads(result) for hash, result in rows}


def test_sweep_is_every_combination(spec: SweepSpec) -> None:
    several = plan(spec)
    targets = {(each.tokens, each.kind, each.target) for each in several}
    assert len(several) == len(targets) == len({each.hash for each in several}) == 2 * 2 * 4 * (1 + 2)
    assert {each.target.head for each in several if each.target.component == "head"} == {1, 6}
    assert {each.target.layer for each in several} == {0, 1, 2, 3}


def test_sweep_with_a_dying_worker_that_is_cut_off_goes_on_with_the_numbers_of_one_by_one(
    ray: None, spec: SweepSpec, tmp_path: Path, one_by_one: Callable[[Experiment], dict[str, Any]]
) -> None:
    """The process of one of two workers is killed behind the first batch, the sweep itself ends behind the fourth."""
    seen: list[Progress] = []

    class Enough(Exception):
        """Ends the sweep as Ctrl-C does."""

    def kill_one_and_stop(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 1:
            os.kill(next(workers()), signal.SIGKILL)
        if progress.restarts and len(seen) >= 4:
            raise Enough

    path = tmp_path / "sweep.sqlite"
    with pytest.raises(Enough):
        run_sweep(spec, open_results(path), workers=2, batch=4, report=kill_one_and_stop)
    assert seen[-1].restarts == 1
    assert [each.done for each in seen] == list(range(4, 4 * len(seen) + 1, 4))
    assert {each.total for each in seen} == {48} and all(each.left and each.left > 0 for each in seen)
    before = kept(path)
    assert len(before) == seen[-1].done < 48

    report: SweepReport = run_sweep(spec, open_results(path), workers=1, batch=16, report=seen.append)
    assert (report.total, report.ran, report.known) == (48, 48 - len(before), len(before))
    assert seen[-1].done == 48 and seen[-1].left == 0
    after = kept(path)
    assert before.items() <= after.items()
    assert after == {each.hash: json.loads(json.dumps(one_by_one(each))) for each in plan(spec)}
    again = run_sweep(spec, open_results(path))
    assert (again.ran, again.known) == (0, 48)
    assert not any(workers())


def test_parquet_keeps_a_batch_once_and_whole(
    spec: SweepSpec, tmp_path: Path, one_by_one: Callable[[Experiment], dict[str, Any]]
) -> None:
    """One batch has no heads at all; another is run twice; a writer was killed in the middle of a third."""
    path = tmp_path / "sweep.parquet"
    made = [(each, one_by_one(each)) for each in plan(spec)]
    layers, heads = ([each for each in made if (each[0].target.head is None) == alone] for alone in (True, False))
    for batch in (layers[:4], heads[:4], heads[:4]):
        open_results(path).append(batch)
    (path / "_part-unfinished.parquet").write_bytes(b"cut off")
    right = {experiment.hash: json.loads(json.dumps(result)) for experiment, result in (*layers[:4], *heads[:4])}
    assert kept(path) == right
    assert open_results(path).done() == right.keys()


def workers() -> Iterator[int]:
    """Processes of this one's descendants in which Ray runs a worker's batch or waits for one."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    for process, title in titles.items():
        ancestor = process
        while ancestor not in (0, os.getpid()):
            ancestor = parents.get(ancestor, 0)
        if ancestor and "_Worker" in title:
            yield process


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"interventions": ["zero", "explode"]}, "explode"),
        ({"layers": [4]}, "layer is 4"),
        ({"heads": [8]}, "head is 8"),
        ({"prompts": [{"input": PROMPT}]}, "mean takes other texts"),
        ({"prompts": [{"text": PROMPT}]}, "input, answer"),
        ({"interventions": ["patch"], "positions": [None], "prompts": [{"input": PROMPT, "others": ["a"]}]}, "tokens"),
        ({"layer": [1]}, "layer"),
        ({"engine": "jax"}, "'jax'; it is one of torch, mlx"),
        ({"dtype": "int8"}, "'int8'; it is one of float32"),
        ({"prompts": PROMPT}, "prompts, which has to be a list"),
        ({"positions": ["last"]}, "positions"),
        ({"seed": -1}, "seed of an experiment is -1"),
    ],
)
def test_sweep_that_means_nothing_is_refused_before_it_runs(
    demo_folder: Path, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        plan(make_spec(tmp_path / "spec.json", model=str(demo_folder), **more))


@pytest.mark.parametrize("option", ["workers", "batch"])
def test_sweep_without_workers_or_work_is_refused(spec: SweepSpec, tmp_path: Path, option: str) -> None:
    with pytest.raises(LabError, match=f"0 as --{option}; give it 1 or more"):
        run_sweep(spec, open_results(tmp_path / "sweep.sqlite"), **{option: 0})  # type: ignore[arg-type]


def test_results_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="not to"):
        open_results(tmp_path / "sweep.csv")
