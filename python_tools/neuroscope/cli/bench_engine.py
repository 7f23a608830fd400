"""`neuroscope bench engine`: the engine against its rivals, as a table, and as JSON with --json.

The first run installs the rivals into build/rivals and makes a model of GPT-2 small's shape in build/bench.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from neuroscope import project
from neuroscope.bench import rival_model
from neuroscope.bench.engine import goals_of, measure_engine
from neuroscope.bench.loading import measure_loading
from neuroscope.bench.places import Places, goal_lines
from neuroscope.cli.demo import make_demo_site
from neuroscope.errors import MissingProgramError
from neuroscope.export.bundle import export_bundle
from neuroscope.site.scripts import bundle_script
from neuroscope.site.server import serve

FOLDER = project.BUILD / "bench"
RIVALS = project.BUILD / "rivals"
SCRIPTS = project.ROOT / "js_bridge" / "benchmark"


def add_command(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = benchmarks.add_parser("engine", help="passes, decoding, products and loading, against rivals")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contestant (default: 9)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    _install_rivals()
    checkpoint = rival_model.make_checkpoint(FOLDER / "gpt2-small-shaped")
    graphs = rival_model.make_graphs(checkpoint, FOLDER / "graphs")
    bundles = _make_bundles(checkpoint)
    mounts = {
        "/site/": make_demo_site(),
        "/bench/": _make_page(),
        "/bundles/": bundles,
        "/rivals/": RIVALS,
        "/models/": graphs,
    }
    with serve(mounts) as url:
        places = Places(url=url, checkpoint=checkpoint, bundle_folder=bundles)
        results = measure_engine(places, rounds=options.rounds) | measure_loading(places, rounds=3)
    print(json.dumps(results, indent=1, default=dataclasses.asdict) if options.json else _table(results))
    return 0


def _install_rivals() -> None:
    if (RIVALS / "node_modules").is_dir():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise MissingProgramError("npm is missing, and it installs the rivals of the benchmark; install Node.")
    RIVALS.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).parents[1] / "bench" / "rivals"
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(source / name, RIVALS / name)
    finished = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=RIVALS,
        check=False,
        capture_output=True,
        text=True,
    )
    if finished.returncode != 0:
        raise MissingProgramError(f"The rivals could not be installed: {finished.stderr.strip()[-500:]}")


def _make_bundles(checkpoint: Path) -> Path:
    folder = FOLDER / "bundles"
    for dtype, name in (("float32", "gpt2-small-shaped"), ("int8", "gpt2-small-shaped-int8")):
        if not (folder / name).is_dir():
            export_bundle(checkpoint, folder / name, id=name, dtype=dtype)
    return folder


def _make_page() -> Path:
    folder = FOLDER / "page"
    for source in ("page", "transformers_worker", "products_worker", "storage_worker", "watched_engine"):
        bundle_script(SCRIPTS / f"{source}.ts", folder / f"{source}.js")
    (folder / "index.html").write_text(
        '<!doctype html><meta charset="utf-8"><title>NeuroScope benchmark</title>'
        '<link rel="icon" href="data:,"><script type="module" src="page.js"></script>\n',
        encoding="utf-8",
    )
    return folder


def _table(results: dict[str, Any]) -> str:
    lines = [f"forward pass, ms, {results['threads']} threads, GPT-2 small's shape, float32"]
    for length, times in results["forward"].items():
        lines += [f"  T = {length:<4} {name:<24} {time:>9.1f}" for name, time in times.items()]
    lines += ["decoding with a cache, ms a token"]
    lines += [f"           {name:<24} {time:>9.1f}" for name, time in results["decode"].items()]
    lines += ["WebGL2 products, ms                    ours  TensorFlow.js"]
    lines += [
        f"  {name:<30} {times['ours']:>10.2f} {times['TensorFlow.js']:>14.2f}"
        for name, times in results["products"].items()
    ]
    lines += ["WebGL2 pass, ms                       whole   its products"]
    lines += [
        f"  T = {length:<26} {times['everything']:>10.1f} {times['products']:>14.1f}"
        for length, times in results["webglForward"].items()
    ]
    lines += ["loading"]
    lines += [f"  {name:<48} {value:>16,.0f}" for name, value in results["loading"].items()]
    return "\n".join([*lines, "", *goal_lines(goals_of(results))])
