"""The command line: what the README shows exists, and what a person gets wrong is told in one sentence."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from neuroscope import project
from neuroscope.cli.main import build_parser


def documented_commands() -> list[str]:
    readme = (project.ROOT / "README.md").read_text(encoding="utf-8")
    return sorted(set(re.findall(r"^neuroscope ([a-z-]+)", readme, re.MULTILINE)))


def test_every_documented_command_exists() -> None:
    commands = documented_commands()
    assert commands
    helped = build_parser().format_help()
    for command in commands:
        assert re.search(rf"^\s+{command}\b", helped, re.MULTILINE), command


def documented_lines() -> list[str]:
    """The README's command lines without what they do, and without those that go on or have tests of their own."""
    readme = (project.ROOT / "README.md").read_text(encoding="utf-8")
    lines = [re.split(r"  +", line)[0] for line in re.findall(r"^neuroscope .+", readme, re.MULTILINE)]
    return [line for line in lines if line.split()[1] not in ("demo", "bench", "train-demo", "serve", "sweep")]


def test_the_documented_commands_run(neuroscope: Callable[..., Any], image: Path, tmp_path: Path) -> None:
    places = {"CHECKPOINT": str(project.DEMO_MODEL), "BUNDLE": str(tmp_path / "bundle"), "SITE": str(tmp_path / "site")}
    lines = documented_lines()
    assert len(lines) >= 6
    for line in lines:
        arguments = [places.get(word, word) for word in shlex.split(re.sub(r"\[.*?\]", "", line))[1:]]
        finished = neuroscope(*arguments)
        assert finished.returncode == 0, f"{line}: {finished.stderr}{finished.stdout}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval"], ["Nothing to evaluate", "-e"]),
        (["eval", "missing.st"], ["missing.st", "cannot be read"]),
        (["eval", "--image", "missing.image", "-e", "1"], ["missing.image", "image build"]),
        (["eval", "--bundle", "missing", "-e", "1"], ["missing", "bundle.json", "neuroscope export"]),
        (["site", "-o", "nowhere", "--bundle", "missing"], ["missing", "bundle.json"]),
        (["export", "missing", "-o", "nowhere"], ["missing"]),
        (["verify", "missing"], ["missing"]),
        (["image", "test", "--only", "NoSuchTest"], ["NoSuchTest"]),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    neuroscope: Callable[..., Any], image: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    finished = neuroscope(*arguments)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    for word in words:
        assert word in finished.stderr
    assert not Path("nowhere").exists()


def test_a_syntax_error_tells_its_place(neuroscope: Callable[..., Any], image: Path) -> None:
    finished = neuroscope("eval", "-e", "3 + ")
    assert finished.returncode == 1
    assert "line 1, column 5" in finished.stderr


def test_an_unknown_bundle_is_refused_with_those_there_are(
    neuroscope: Callable[..., Any], image: Path, demo_bundle: Path
) -> None:
    finished = neuroscope("eval", "--bundle", demo_bundle, "-e", "TransformerModel fromHuggingFace: 'gpt5'")
    assert finished.returncode == 1
    assert "gpt5" in finished.stderr
    assert "neuroscope-demo" in finished.stderr


def test_webgl_is_refused_by_name_where_there_is_none(
    neuroscope: Callable[..., Any], image: Path, demo_bundle: Path
) -> None:
    finished = neuroscope(
        "eval",
        "--backend",
        "webgl",
        "--bundle",
        demo_bundle,
        "-e",
        "TransformerModel fromHuggingFace: 'neuroscope-demo'",
    )
    assert finished.returncode == 1
    assert "BackendUnavailable" in finished.stderr
    assert "webgl" in finished.stderr.lower()


def test_load_files_tonel_in_before_the_program_runs(
    neuroscope: Callable[..., Any], image: Path, tmp_path: Path
) -> None:
    (tmp_path / "Greeter.class.st").write_text(
        '"\nI greet.\n"\nClass { #name : #Greeter, #superclass : #Object, #category : #Tests }\n\n'
        "{ #category : #evaluating }\nGreeter >> greet [\n\t^ 'hello'\n]\n",
        encoding="utf-8",
    )
    finished = neuroscope("eval", "--load", tmp_path, "-e", "Greeter new greet")
    assert (finished.returncode, finished.stdout) == (0, "'hello'\n"), finished.stderr


def test_the_site_without_its_kernels_says_which_file_is_missing(
    neuroscope: Callable[..., Any], image: Path, demo_site: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    shutil.copytree(demo_site, site)
    finished = neuroscope(
        "eval",
        "--in",
        "chromium",
        "--site",
        site,
        "-e",
        "(TransformerModel fromHuggingFace: 'neuroscope-demo') backend",
    )
    assert finished.returncode == 0, finished.stderr
    for file in site.glob("kernels*.wasm"):
        file.unlink()
    finished = neuroscope(
        "eval",
        "--in",
        "chromium",
        "--site",
        site,
        "--backend",
        "wasm",
        "-e",
        "(TransformerModel fromHuggingFace: 'neuroscope-demo') backend",
    )
    assert finished.returncode == 1
    assert "kernels.wasm" in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [(["serve", "--model", "demo_model"], "uvicorn", "lab"), (["sweep", "any.json"], "sqlalchemy", "lab,ray")],
)
def test_a_library_that_is_not_installed_is_told_with_its_extra(
    arguments: list[str], module: str, extra: str, tmp_path: Path
) -> None:
    """In a process of its own: what was imported here already would be found."""
    program = f"import sys; sys.modules[{module!r}] = None; from neuroscope.cli.main import main; sys.exit(main())"
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert f"{module} is missing" in finished.stderr and f"neuroscope[{extra}]" in finished.stderr
