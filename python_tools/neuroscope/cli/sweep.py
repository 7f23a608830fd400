"""`neuroscope sweep SPEC`: prompts x layers x heads x interventions on Ray, resumable."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sweep", help="prompts x layers x heads x interventions, on one machine or many")
    parser.add_argument("spec", type=Path, metavar="SPEC", help="a JSON file; lab/sweep_spec.py describes it")
    parser.add_argument("-o", "--output", type=Path, default=Path("sweep.sqlite"), help="NAME.sqlite or NAME.parquet")
    parser.add_argument("--on", metavar="ray://HOST:PORT", help="a cluster; this machine where not given")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16, help="experiments that a worker takes at once")
    parser.set_defaults(run=_run, extra="lab,ray")


def _run(options: argparse.Namespace) -> int:
    from neuroscope.lab.results import open_results
    from neuroscope.lab.sweep import Progress, run_sweep
    from neuroscope.lab.sweep_spec import read_spec

    def show(progress: Progress) -> None:
        left = "" if progress.left is None else f", {progress.left:.0f} s left"
        restarts = f", {progress.restarts} workers restarted" if progress.restarts else ""
        print(f"{progress.done} of {progress.total} experiments{left}{restarts}", file=sys.stderr, flush=True)

    report = run_sweep(
        read_spec(options.spec),
        open_results(options.output),
        on=options.on,
        workers=options.workers,
        batch=options.batch,
        report=show,
    )
    print(f"{report.ran} run, {report.known} known before, {report.seconds:.0f} s; {options.output}")
    return 0
