"""`neuroscope bench page`: measures the demo site and the demo model, prints a table, and JSON with --json."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from neuroscope import project
from neuroscope.bench.page import measure_page, measure_sizes
from neuroscope.cli.demo import DEMO_NAME, make_demo_site
from neuroscope.cli.machine import MachineRun, capture_in_chromium, capture_in_node, capture_on_upstream
from neuroscope.cli.site import smalltalk_string
from neuroscope.image.build import build_image
from neuroscope.site.server import serve

LENGTHS = (1, 10, 64)

_FORWARD_SOURCE = """
(TransformerModel fromHuggingFace: %s) benchmarkLengths: #(%s) repetitions: %d
"""


def add_command(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = benchmarks.add_parser("page", help="sizes, and times from navigation to a live lens")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--visits", type=int, default=3, help="visits of the page, each with a cleared profile")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    results = measure(visits=options.visits)
    print(json.dumps(results, indent=1) if options.json else _table(results))
    return 0


def measure(*, visits: int) -> dict[str, Any]:
    report = build_image(project.SMALLTALK, project.IMAGE)
    site = make_demo_site()
    with serve({"/": site}) as url:
        page = measure_page(f"{url}/", visits=visits)
    return {
        "image": {
            "bytes": report.bytes,
            "withoutTests": report.bytes_without_tests,
            "withoutSources": report.bytes_without_sources,
        },
        "site": dataclasses.asdict(measure_sizes(site)),
        "page": dataclasses.asdict(page),
        "benchFib": _bench_fib(),
        "forward": {
            f"{host} {backend}": _forward(host, backend)
            for host, backend in (("node", "reference"), ("node", "wasm"), ("chromium", "wasm"), ("chromium", "webgl"))
        },
    }


def _bench_fib() -> dict[str, float]:
    """Milliseconds of `30 benchFib`, best of five, in Node; upstream's too where SQUEAKJS_HOME names its folder."""
    source = "((1 to: 5) collect: [ :each | [ 30 benchFib ] timeToRun ]) min"
    start = {"kind": "start", "mode": "eval", "sources": [{"name": "bench", "text": source}], "load": []}
    run = MachineRun(image=project.IMAGE, start=start, timeout=120)
    times = {"ours": float(capture_in_node(run))}
    home = os.environ.get("SQUEAKJS_HOME")
    if home:
        printed = capture_on_upstream(run, Path(home)).splitlines()
        times["upstream SqueakJS"] = float(next(line for line in printed if line.isdigit()))
    return times


def _forward(host: str, backend: str) -> dict[str, float]:
    """Median milliseconds of a bare pass of the demo model, by number of tokens."""
    source = _FORWARD_SOURCE % (smalltalk_string(DEMO_NAME), " ".join(map(str, LENGTHS)), 10)
    run = MachineRun(
        image=project.IMAGE,
        start={
            "kind": "start",
            "mode": "eval",
            "sources": [{"name": "bench", "text": f"Json write: ({source})"}],
            "load": [],
            "raw": True,
        },
        bundles={DEMO_NAME: project.BUILD / "demo-bundle"},
        backend=backend,
        timeout=300,
    )
    rows = json.loads(capture_in_node(run) if host == "node" else capture_in_chromium(run))
    return {str(row["length"]): row["median"] for row in rows}


def _table(results: dict[str, Any]) -> str:
    image, site, page = results["image"], results["site"], results["page"]
    lines = [
        f"image                      {image['bytes']:>10,} bytes",
        f"  without tests            {image['withoutTests']:>10,}",
        f"  without sources          {image['withoutSources']:>10,}",
        f"  of the site, compressed  {site['image_compressed']:>10,}",
        f"JavaScript                 {site['scripts']:>10,} bytes, {site['scripts_compressed']:,} compressed",
        f"kernels.wasm               {site['kernels']:>10,} bytes",
        f"first picture              {page['first_picture']:>10,.0f} ms",
        f"first expression           {page['first_expression']:>10,.0f} ms",
        f"first live lens            {page['first_live_lens']:>10,.0f} ms",
        "",
        *(f"30 benchFib, {name:<22}  {time:>8,.0f} ms" for name, time in results["benchFib"].items()),
        "",
        "forward pass of the demo model, ms, by tokens  " + "  ".join(f"{length:>7}" for length in LENGTHS),
    ]
    for name, times in results["forward"].items():
        lines.append(f"  {name:<45}" + "  ".join(f"{times[str(length)]:>7.2f}" for length in LENGTHS))
    return "\n".join(lines)
