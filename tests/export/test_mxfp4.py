"""Blocks of MXFP4 are decoded as their format says."""

from __future__ import annotations

import numpy as np
import torch
from neuroscope.export.mxfp4 import Mxfp4Tensor, decode
from neuroscope.export.tensor_file import TensorFile
from safetensors.numpy import save_file
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
