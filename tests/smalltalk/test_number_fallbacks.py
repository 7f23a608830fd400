"""Numbers must be right where the machine refuses its primitives: SUnit runs again with these forced to fail.

Primitives 40 to 50, the arithmetic of Floats itself, are what every machine has.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from neuroscope import project
from neuroscope.image.build import build_image

TESTS = (
    "CharacterTest",
    "FloatTest",
    "FractionTest",
    "IntegerTest",
    "NumberParserTest",
    "NumberTest",
    "WideDigitsTest",
)
LARGE_INTEGERS = [*map(str, range(20, 38)), "LargeIntegers"]
SMALL_INTEGERS = [*map(str, range(1, 19))]
FLOAT_FUNCTIONS = [*map(str, range(51, 60))]


@pytest.fixture(scope="module")
def number_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("numbers") / "numbers.image"
    names = " ".join(f"#{each}" for each in TESTS)
    build_image(
        project.SMALLTALK,
        image,
        packages=["Kernel", "Collections", "System", "Kernel-Tests"],
        entry=f"TestSuite runClassesAndQuit: #({names})",
        lenient=True,
    )
    return image


@pytest.mark.parametrize(
    "refused",
    [[], LARGE_INTEGERS, [*SMALL_INTEGERS, *LARGE_INTEGERS, *FLOAT_FUNCTIONS]],
    ids=["no primitive refused", "large integers refused", "all but float arithmetic refused"],
)
def test_numbers_are_right_with(number_tests: Path, refused: list[str]) -> None:
    runner = project.ROOT / "tests" / "squeakjs" / "run_image.ts"
    command = [project.node_program(), runner, number_tests, "--seconds", "200", "--fail", ",".join(refused)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    summary = re.search(r"(\d+) run, (\d+) passed", result.stdout)
    assert summary and summary[1] == summary[2] != "0", result.stdout + result.stderr
