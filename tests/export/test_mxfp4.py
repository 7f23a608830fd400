"""Blocks of MXFP4 are decoded as their format says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from checkpoints import make_checkpoint as make_family
from neuroscope.errors import CheckpointError
from neuroscope.export.bundle import export_bundle
from neuroscope.export.mxfp4 import Mxfp4Tensor, decode
from neuroscope.export.tensor_file import TensorFile
from neuroscope.export.verify import verify_bundle
from safetensors.numpy import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors


def test_the_sixteen_codes_are_the_numbers_of_the_specification():
    """Two to a byte, the lower half first."""
    codes = np.array([[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE] * 2], np.uint8)
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    expected = [*positive, *(-number for number in positive)]
    np.testing.assert_array_equal(decode(codes, np.array([127], np.uint8)), expected * 2)


def test_scales_are_powers_of_two_around_127_and_255_is_no_number():
    codes = np.full((5, 16), 0x22, np.uint8)  # all ones
    found = decode(codes, np.array([127, 130, 117, 0, 255], np.uint8)).reshape(5, 32)
    np.testing.assert_array_equal(found[:4, 0], [1, 8, 2**-10, 2.0**-127])
    assert np.isnan(found[4]).all()


def test_a_tensor_equals_what_transformers_makes_of_it_row_by_row(tmp_path):
    source = np.random.default_rng(3)
    experts, inputs, outputs = 3, 96, 10
    blocks = source.integers(0, 256, (experts, outputs, inputs // 32, 16), np.uint8)
    scales = source.integers(120, 134, (experts, outputs, inputs // 32), np.uint8)
    save_file({"x_blocks": blocks, "x_scales": scales}, tmp_path / "model.safetensors")
    file = TensorFile(tmp_path / "model.safetensors")
    tensor = Mxfp4Tensor("x", file, file)
    expected = convert_moe_packed_tensors(torch.tensor(blocks), torch.tensor(scales), dtype=torch.float32).numpy()
    assert tensor.shape == expected.shape == (experts, inputs, outputs)
    whole = expected.reshape(-1, outputs)
    for start, stop in [(0, 288), (0, 1), (33, 95), (90, 200), (287, 288)]:
        np.testing.assert_array_equal(tensor.rows(start, stop), whole[start:stop])
    np.testing.assert_array_equal(tensor.rows(70, 130, slice(3, 7)), whole[70:130, 3:7])


@pytest.fixture
def packed(tmp_path):
    """A checkpoint as gpt_oss is published: experts in blocks; and the tensors that the blocks stand for."""
    folder = make_family(tmp_path / "checkpoint", "gpt_oss").folder
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 32, "intermediate_size": 64, "quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config))
    source = np.random.default_rng(5)
    width, inner, experts = 32, 64, 5
    tensors, plain = {}, {}
    for name, old in load_file(folder / "model.safetensors").items():
        shape = tuple({24: width, 28: inner}.get(extent, extent) for extent in old.shape)
        if name.endswith("gate_up_proj_bias"):
            shape = (experts, 2 * inner)
        tensors[name] = source.normal(0, 0.2, shape).astype(np.float32)
    for layer in range(2):
        for name, outputs, inputs in (("gate_up_proj", 2 * inner, width), ("down_proj", width, inner)):
            at = f"model.layers.{layer}.mlp.experts.{name}"
            del tensors[at]
            blocks = source.integers(0, 256, (experts, outputs, inputs // 32, 16), np.uint8)
            scales = source.integers(121, 126, (experts, outputs, inputs // 32), np.uint8)
            tensors |= {f"{at}_blocks": blocks, f"{at}_scales": scales}
            plain[at] = convert_moe_packed_tensors(
                torch.tensor(blocks), torch.tensor(scales), dtype=torch.float32
            ).numpy()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, plain


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_packed_checkpoint_is_exported_as_what_it_stands_for(packed, tmp_path, dtype):
    folder, plain = packed
    bundle = export_bundle(folder, tmp_path / "bundle", dtype=dtype).folder
    stored = load_file(bundle / "model.safetensors")
    for name, numbers in plain.items():
        found = stored[name] if dtype == "float32" else stored[name] * stored[f"{name}.scale"][:, None]
        np.testing.assert_allclose(found, numbers, atol=0 if dtype == "float32" else 0.01)
    assert "quantization_config" not in json.loads((bundle / "config.json").read_text())
    assert verify_bundle(bundle).first_off is None


def test_scale_that_is_no_number_is_refused_with_the_tensors_name(packed, tmp_path):
    folder, _ = packed
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.experts.down_proj_scales"][0, 3, 1] = 255
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.experts\.down_proj of .* not finite"):
        export_bundle(folder, tmp_path / "bundle", with_reference=False)
