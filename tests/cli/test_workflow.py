"""The public workflow's build steps, run twice: the same text gives the same bytes."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuroscope import project


def build_steps() -> list[list[str]]:
    """The arguments of the workflow's own neuroscope commands."""
    workflow = (project.ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"run: \.venv/bin/neuroscope (.+)", workflow)]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_build_steps_give_the_same_bytes_twice(neuroscope: Callable[..., Any], tmp_path: Path) -> None:
    steps = build_steps()
    assert [step[0] for step in steps] == ["image", "export", "site"]
    builds = []
    for number in (1, 2):
        folder = tmp_path / f"build{number}"
        for step in steps:
            arguments = [argument.replace("build/", f"{folder}/") for argument in step]
            arguments = [str(project.DEMO_MODEL) if argument == "demo_model" else argument for argument in arguments]
            finished = neuroscope(*arguments)
            assert finished.returncode == 0, finished.stderr
        builds.append(digests(folder))
    assert builds[0] == builds[1]
    assert "site/index.html" in builds[0]
