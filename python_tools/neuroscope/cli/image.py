"""`neuroscope image build | run | test`: text to image, any image in Node, the image's own tests in Node."""

from __future__ import annotations

import argparse
from pathlib import Path

from neuroscope import project
from neuroscope.cli.machine import MachineRun, run_in_chromium, run_in_node
from neuroscope.image.build import build_image


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("image", help="build the image from text, run it, test it")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    build = actions.add_parser("build", help="compile smalltalk/ into an image")
    build.add_argument("-o", "--output", type=Path, default=project.IMAGE, metavar="FILE")
    build.add_argument("--without-sources", action="store_true", help="leave the methods' source text out")
    build.add_argument("--without-tests", action="store_true", help="leave the *-Tests packages out")
    build.set_defaults(run=_build)

    run = actions.add_parser("run", help="run a compatible image, headless, in Node")
    run.add_argument("image", type=Path, metavar="IMAGE")
    run.add_argument("--timeout", type=float, default=None, metavar="SECONDS")
    run.set_defaults(run=_run)

    test = actions.add_parser("test", help="run the image's SUnit tests")
    test.add_argument("--image", type=Path, default=project.IMAGE, metavar="FILE")
    test.add_argument("--in", dest="host", choices=("node", "chromium"), default="node")
    test.add_argument("--only", action="append", default=[], metavar="CLASS", help="only these test classes")
    test.add_argument("--fail-primitives", default="", metavar="LIST", help="numbers and Module.names, by commas")
    test.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    test.set_defaults(run=_test)


def _build(options: argparse.Namespace) -> int:
    report = build_image(
        project.SMALLTALK,
        options.output,
        with_sources=not options.without_sources,
        with_tests=not options.without_tests,
    )
    print(f"{options.output}: {report}")
    return 0


def _run(options: argparse.Namespace) -> int:
    return run_in_node(MachineRun(image=options.image, start={"kind": "start", "mode": "run"}, timeout=options.timeout))


def _test(options: argparse.Namespace) -> int:
    failing = tuple(int(name) if name.isdigit() else name for name in options.fail_primitives.split(",") if name)
    run = MachineRun(
        image=options.image,
        start={"kind": "start", "mode": "test", "classes": options.only},
        timeout=options.timeout,
        fail_primitives=failing,
    )
    return run_in_chromium(run) if options.host == "chromium" else run_in_node(run)
