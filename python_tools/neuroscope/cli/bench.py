"""`neuroscope bench WHAT`: the benchmarks, each as a table or as JSON."""

from __future__ import annotations

import argparse

from neuroscope.cli import bench_engine, bench_lab, bench_page


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("bench", help="the benchmarks, as tables or as JSON")
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="WHAT")
    for part in (bench_page, bench_engine, bench_lab):
        part.add_command(benchmarks)
