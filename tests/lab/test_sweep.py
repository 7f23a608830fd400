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


def test_sweep_with_a_dying_worker_gives_the_numbers_of_one_by_one(
    spec: SweepSpec, tmp_path: Path, one_by_one: Callable[[Experiment], dict[str, Any]]
) -> None:
    """Two workers; the process of one is killed behind the first batch. Then the sweep is asked for again."""
    seen: list[Progress] = []

    def kill_one(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 1:
            os.kill(next(workers()), signal.SIGKILL)

    path = tmp_path / "sweep.sqlite"
    report = run_sweep(spec, open_results(path), workers=2, batch=4, report=kill_one)
    assert (report.total, report.ran, report.known) == (48, 48, 0)
    assert report.restarts == seen[-1].restarts == 1
    assert [each.done for each in seen] == list(range(4, 49, 4)) and seen[-1].left == 0
    assert {each.total for each in seen} == {48} and all(each.left and each.left > 0 for each in seen[:-1])
    results = kept(path)
    assert results == {each.hash: json.loads(json.dumps(one_by_one(each))) for each in plan(spec)}
    assert run_sweep(spec, open_results(path)).ran == 0


def test_sweep_that_was_cut_off_goes_on(spec: SweepSpec, tmp_path: Path) -> None:
    class Enough(Exception):
        """Ends the sweep as Ctrl-C does."""

    def stop(progress: Progress) -> None:
        if progress.done >= 16:
            raise Enough

    path = tmp_path / "sweep.parquet"
    with pytest.raises(Enough):
        run_sweep(spec, open_results(path), workers=1, batch=8, report=stop)
    (path / "_part-unfinished.parquet").write_bytes(b"cut off")  # what a killed writer leaves behind
    before = kept(path)
    assert len(before) == 16
    report: SweepReport = run_sweep(spec, open_results(path), workers=1, batch=8)
    assert (report.total, report.ran, report.known) == (48, 32, 16)
    after = kept(path)
    assert after.keys() == {each.hash for each in plan(spec)} and before.items() <= after.items()


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
    ],
)
def test_sweep_that_means_nothing_is_refused_before_it_runs(
    demo_folder: Path, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        plan(make_spec(tmp_path / "spec.json", model=str(demo_folder), **more))


def test_results_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="not to"):
        open_results(tmp_path / "sweep.csv")
