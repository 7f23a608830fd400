"""Each WebGL kernel beside the reference, on odd shapes, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from neuroscope.project import ROOT
from neuroscope.site.scripts import bundle_script
from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundled = tmp_path_factory.mktemp("webgl") / "kernels.js"
    return bundle_script(ROOT / "tests/engine/webgl_kernels.ts", bundled, minify=False, format="iife")


@pytest.fixture(scope="module")
def shaders(browser: Browser, script: Path) -> Iterator[Page]:
    page = browser.new_page()
    page.add_script_tag(path=script)
    yield page
    page.close()


LIMITS: list[dict[str, int]] = [
    {},
    {"drawBuffers": 4},
    {"textureBytes": 1024},
    {"textureSide": 16, "textureBytes": 4096},
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_every_kernel_gives_what_the_reference_gives(shaders: Page, limits: dict[str, int]) -> None:
    found: dict[str, Any] = shaders.evaluate("(limits) => compareKernels(limits, 1e-5)", limits)
    assert found["compared"] > 400
    assert found["far"] == []


def test_fused_norms_and_all_tilings_give_the_same_bits(shaders: Page) -> None:
    found: dict[str, bool] = shaders.evaluate("sameBits()")
    assert len(found) == 8
    assert [name for name, same in found.items() if not same] == []


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("int8", [False, True])
def test_a_weight_is_uploaded_piece_by_piece(shaders: Page, transposed: bool, int8: bool) -> None:
    found = shaders.evaluate("([t, i]) => uploadsOf(300, 9000, t, i)", [transposed, int8])
    assert found["matrix"] == (300 * 9000 + 9000 * 4 + 864 if int8 else 300 * 9000 * 4)
    assert found["total"] == found["matrix"]
    assert found["largest"] < 0.03 * found["matrix"]


def test_what_is_released_is_no_longer_counted_and_fused_kernels_take_few_draws(shaders: Page) -> None:
    assert shaders.evaluate("balance()") == {"bytes": 0, "normDraws": 2, "attentionDraws": 4}


DEFECTS = {
  "GELU far out": ("clamp(x, -15.0, 15.0)", "(x + 0.0 / (15.0 - min(abs(x), 15.0)))"),
  "product of 1 row": ("return sum00", "return 1.01 * sum00"),
  "product of 9 rows": ("result10 = sum10;", "result10 = sum00;"),
  "int8 product of 9 rows": ("<< 24", "<< 23"),
  "layer norm": ("+ epsilon", ""),
  "rotation": ("x[lane] * c - partner * s", "x[lane] * c + partner * s"),
  "attention pattern": ("offset + query - window + 1", "offset + query - window"),
  "attention beside padding": ("p.w != 0.0 && key + 3 <= last", "key <= last"),
}  # fmt: skip


@pytest.mark.parametrize("kernel", DEFECTS)
def test_a_driver_with_a_defect_is_refused(shaders: Page, kernel: str) -> None:
    right, wrong = DEFECTS[kernel]
    reason = shaders.evaluate("(given) => refusalWhere(...given)", [right, wrong])
    assert reason is not None and reason.startswith(kernel), reason


def test_tilings_are_timed_once_and_recalled(shaders: Page) -> None:
    assert shaders.evaluate("refusalWhere('', '')") is None
    found = shaders.evaluate("startTimes()")
    assert 1 in found["rows"] and len(found["rows"]) > 2
    assert found["remembered"]
    assert found["recalled"] < found["tune"] / 4
