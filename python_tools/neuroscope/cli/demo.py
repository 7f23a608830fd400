"""`neuroscope demo`: builds image, demo bundle and site, serves the site on this machine and prints its URL."""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

from neuroscope import project
from neuroscope.cli.site import make_site
from neuroscope.export.bundle import export_bundle
from neuroscope.site.server import serve

DEMO_NAME = "neuroscope-demo"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("demo", help="build everything, serve it, print the URL")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    site = make_demo_site()
    try:
        with serve({"/": site}, port=options.port) as url:
            print(f"built in {time.monotonic() - started:.0f} s; open {url}/  (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
    except OSError as error:
        print(f"Port {options.port} cannot be had: {error.strerror}; name another one with --port, 0 for a free one.")
        return 1
    return 0


def make_demo_bundle() -> Path:
    """build/demo-bundle, made anew from the demo model."""
    output = project.BUILD / "demo-bundle"
    export_bundle(project.DEMO_MODEL, output, id=DEMO_NAME, dtype="float16")
    return output


def make_demo_site() -> Path:
    """build/site, with the demo bundle."""
    site = project.BUILD / "site"
    make_site(site, {DEMO_NAME: make_demo_bundle()})
    return site
