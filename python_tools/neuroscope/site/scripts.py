"""Builds the scripts that the browser runs: bundles TypeScript with esbuild, anew each time, in under a second."""

from __future__ import annotations

import subprocess
from pathlib import Path

from neuroscope import project
from neuroscope.errors import MissingProgramError, NeuroScopeError
from neuroscope.kernels import copy_kernels


def bundle_script(source: Path, output: Path, *, minify: bool = True, format: str = "esm") -> Path:
    """One self-contained JavaScript file from a TypeScript entry point."""
    arguments = [str(source), "--bundle", f"--format={format}", "--target=es2022", f"--outfile={output}"]
    if format == "cjs":
        arguments.append("--platform=node")
    if minify:
        arguments.append("--minify")
    _run("esbuild", *arguments, "--log-level=warning")
    return output


def build_harness(folder: Path) -> None:
    """The bare page in which the command line runs an image in Chromium, into a folder of one run's own."""
    bundle_script(project.ROOT / "hosts" / "browser.ts", folder / "harness.js")
    bundle_script(project.ROOT / "js_bridge" / "engine" / "worker.ts", folder / "engine.js")
    copy_kernels(folder)
    (folder / "harness.html").write_text(
        '<!doctype html><meta charset="utf-8"><title>NeuroScope harness</title>'
        '<link rel="icon" href="data:,"><script type="module" src="harness.js"></script>\n',
        encoding="utf-8",
    )


def _run(program: str, *arguments: str) -> None:
    path = project.ROOT / "node_modules" / ".bin" / program
    if not path.exists():
        raise MissingProgramError(f"{program} is missing at {path}; run `make setup`, which installs it.")
    finished = subprocess.run([str(path), *arguments], cwd=project.ROOT, check=False, capture_output=True, text=True)
    if finished.returncode != 0:
        raise NeuroScopeError(f"{program} failed: {finished.stderr.strip() or finished.stdout.strip()}")
