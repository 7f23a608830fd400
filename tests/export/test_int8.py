"""int8 bundles: codes, scales and layouts as the format says, a quarter of the bytes, and two errors told apart."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_checkpoint as make_family
from neuroscope.errors import CheckpointError
from neuroscope.export.bundle import export_bundle
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.oracles import TorchOracle
from neuroscope.export.reference import NAME as REFERENCE
from neuroscope.export.reference import read_reference
from neuroscope.export.rounding import rounding_report
from neuroscope.export.tensor_file import PlainTensor, row_ranges
from neuroscope.export.verify import TOLERANCE, verify_bundle
from safetensors.numpy import load_file

# Tensor ► the axis of the checkpoint's tensor that has its outputs, and whether the bundle has the other order.
LAYOUTS = {
    "gpt2": {"transformer.h.0.attn.c_attn.weight": (1, False), "transformer.wte.weight": (0, False)},
    "llama": {
        "model.layers.1.mlp.down_proj.weight": (0, True),
        "model.embed_tokens.weight": (0, False),
        "lm_head.weight": (0, True),
    },
    "gpt_oss": {
        "model.layers.0.mlp.experts.gate_up_proj": (2, False),
        "model.layers.0.mlp.router.weight": (0, True),
    },
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Checkpoint and int8 bundle."""
    made = {}
    for name in LAYOUTS:
        folder = tmp_path_factory.mktemp(name)
        checkpoint = make_family(folder / "checkpoint", name).folder
        made[name] = checkpoint, export_bundle(checkpoint, folder / "bundle", dtype="int8").folder
    return made


@pytest.mark.parametrize("name", LAYOUTS)
def test_codes_are_rounded_quotients_and_scales_the_largest_over_127(families, name):
    checkpoint, bundle = families[name]
    before, after = load_file(checkpoint / "model.safetensors"), load_file(bundle / "model.safetensors")
    for tensor, (axis, is_turned) in LAYOUTS[name].items():
        weights = before[tensor]
        inputs = tuple(each for each in range(weights.ndim) if each != axis and not (weights.ndim == 3 and each == 0))
        scales = np.abs(weights).max(axis=inputs, keepdims=True) / np.float32(127)
        codes = np.rint(weights / scales).astype(np.int8)
        np.testing.assert_array_equal(after[tensor], codes.T if is_turned else codes)
        np.testing.assert_array_equal(after[f"{tensor}.scale"], scales.reshape(after[f"{tensor}.scale"].shape))
        assert np.abs(codes).max() == 127 and after[tensor].dtype == np.int8


@pytest.mark.parametrize("name", LAYOUTS)
def test_vectors_and_position_tables_stay_as_they_are(families, name):
    checkpoint, bundle = families[name]
    before, after = load_file(checkpoint / "model.safetensors"), load_file(bundle / "model.safetensors")
    for tensor, numbers in before.items():
        is_matrix = f"{tensor}.scale" in after
        assert is_matrix == (numbers.ndim > 1 and not tensor.endswith(("wpe.weight", "_bias")))
        if not is_matrix:
            np.testing.assert_array_equal(after[tensor], numbers)


@pytest.mark.parametrize("name", LAYOUTS)
def test_codes_are_read_back_in_the_checkpoints_own_layout_and_in_any_piece(families, name):
    checkpoint, bundle = families[name]
    original, coded = open_checkpoint(checkpoint), open_checkpoint(bundle)
    for tensor in LAYOUTS[name]:
        exact, rounded = original.tensors[tensor], coded.tensors[tensor]
        assert not isinstance(rounded, PlainTensor) and exact.shape == rounded.shape
        rows = int(np.prod(exact.shape[:-1]))
        whole = rounded.rows(0, rows)
        assert 0 < np.abs(whole - exact.rows(0, rows)).max() < 0.01
        for start, stop in [(0, 1), (rows // 3, rows // 2 + 1), (rows - 1, rows)]:
            np.testing.assert_array_equal(rounded.rows(start, stop, slice(2, 9)), whole[start:stop, 2:9])
    assert [name for name in coded.rules] == [name for name in original.rules]


def test_column_of_zeros_keeps_its_zeros(make_checkpoint, tmp_path):
    def clear(weights):
        weights["transformer.h.0.mlp.c_fc.weight"][:, 3] = 0

    bundle = export_bundle(make_checkpoint(edit=clear), tmp_path / "bundle", dtype="int8").folder
    stored = load_file(bundle / "model.safetensors")
    assert stored["transformer.h.0.mlp.c_fc.weight.scale"][3] == 1
    assert not stored["transformer.h.0.mlp.c_fc.weight"][:, 3].any()


def test_pieces_of_a_tensor_cover_its_rows():
    for shape in [(7,), (3, 5), (4000, 700), (2, 3000, 900), (1, 2**21)]:
        ranges = list(row_ranges(shape))
        assert ranges[0][0] == 0 and ranges[-1][1] == int(np.prod(shape[:-1]))
        assert all(one[1] == other[0] for one, other in pairwise(ranges))


def test_bundle_has_at_most_27_percent_of_the_bytes(make_checkpoint, tmp_path):
    """Of a shape where vectors and positions don't dominate, as they do in models of a few thousand weights."""
    checkpoint = make_checkpoint(n_embd=192, n_head=4, n_inner=768, vocab_size=1500, n_positions=32)
    sizes = {}
    for dtype in ("float32", "int8"):
        folder = export_bundle(checkpoint, tmp_path / dtype, dtype=dtype, with_reference=False).folder
        sizes[dtype] = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert sizes["int8"] <= 0.27 * sizes["float32"]


def test_engines_error_and_roundings_error_are_told_apart(families):
    checkpoint, bundle = families["llama"]
    report = verify_bundle(bundle, against=checkpoint)
    assert report.first_off is None and report.largest.difference <= TOLERANCE * 10
    assert report.rounding is not None
    moved = {hook.hook: hook for hook in report.rounding.hooks}
    assert moved["blocks.1.hook_resid_post"].difference > 100 * TOLERANCE > 0
    assert 0.001 < moved["blocks.1.hook_resid_post"].relative < 0.1
    assert 0.8 <= report.rounding.agreement <= 1 and 0 < report.rounding.divergence < 0.1
    (run,) = json.loads((bundle / "parity.json").read_text())["runs"]
    assert run["firstOff"] is None and run["rounding"]["top1Agreement"] == report.rounding.agreement
    assert {"hook", "difference", "relative"} == run["rounding"]["hooks"][0].keys()


def test_reference_of_an_int8_bundle_is_that_of_the_rounded_weights(families):
    """So a reader without the checkpoint, or without PyTorch, sees the engine's error alone."""
    _, bundle = families["llama"]
    assert read_reference(bundle / REFERENCE).made_with.startswith("torch ")
    report = verify_bundle(bundle)
    assert report.first_off is None and report.rounding is None


def test_float32_bundle_has_no_rounding(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    bundle = export_bundle(checkpoint, tmp_path / "bundle").folder
    assert verify_bundle(bundle, against=checkpoint).rounding is None


def test_rounding_is_measured_as_divergence_and_agreement():
    exact = np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]], np.float32))
    other = np.log(np.array([[[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]]], np.float32))
    report = rounding_report([{"unembed.hook_out": other}], [{"unembed.hook_out": exact}])
    assert report.agreement == 0.5 and report.positions == 2
    assert report.divergence == pytest.approx((0.5 * np.log(2) - 0.25 * np.log(2)) / 2, rel=1e-5)


def test_codes_are_not_taken_for_weights(families):
    with pytest.raises(CheckpointError, match="as int8 codes, which transformers would take for the weights"):
        TorchOracle(families["gpt2"][1])
