"""Tensors in blocks of MXFP4, as gpt_oss's experts are published: 32 numbers of four bits that share one power of two.

A number is E2M1: a sign, two bits of exponent, one of mantissa; two to a byte, the lower half first. A block's scale is
E8M0: a byte e for 2^(e - 127), 255 for not-a-number. The checkpoint has them as `NAME_blocks` [experts, outputs,
blocks, 16] and `NAME_scales` [experts, outputs, blocks], along the inputs; the tensor is [experts, inputs, outputs].
Source: OCP Microscaling Formats (MX) Specification 1.0, sections 5.3.3 and 5.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.export.tensor_file import Floats, TensorFile

Bytes = NDArray[np.uint8]

BLOCK = 32  # numbers
BLOCKS, SCALES = "_blocks", "_scales"
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
_BIAS = 127
_NOT_A_NUMBER = 255


def decode(blocks: Bytes, scales: Bytes) -> Floats:
    """The numbers of some blocks, exactly. Shapes: [… blocks 16], [… blocks] ► [… blocks·32]"""
    halves = np.stack([blocks & 0x0F, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], BLOCK)  # … blocks 32
    powers = scales.astype(np.int32)
    with np.errstate(over="ignore"):  # infinity, which is refused with the tensor's name
        numbers = np.ldexp(_E2M1[halves], (powers - _BIAS)[..., None])
    numbers[powers == _NOT_A_NUMBER] = np.nan
    return np.asarray(numbers.reshape(*blocks.shape[:-2], -1), np.float32)


@dataclass(frozen=True)
class Mxfp4Tensor:
    """One such tensor of a checkpoint, read row by row."""

    name: str
    blocks: TensorFile
    scales: TensorFile

    @property
    def shape(self) -> tuple[int, ...]:
        *lead, outputs, count, _ = self.blocks.places[self.name + BLOCKS].shape
        return (*lead, count * BLOCK, outputs)

    def rows(self, start: int, stop: int, columns: slice = slice(None)) -> Floats:
        """Rows of the inputs, the experts one after another. Shapes: rows, outputs"""
        inputs, outputs = self.shape[-2:]
        blocks = _bytes(self.blocks, self.name + BLOCKS).reshape(-1, outputs, inputs // BLOCK, BLOCK // 2)
        scales = _bytes(self.scales, self.name + SCALES).reshape(-1, outputs, inputs // BLOCK)
        parts = []
        while start < stop:
            expert, first = divmod(start, inputs)
            last = min(inputs, first + stop - start)
            near = slice(first // BLOCK, -(-last // BLOCK))
            numbers = decode(blocks[expert, columns, near], scales[expert, columns, near])  # outputs, inputs
            offset = near.start * BLOCK
            parts.append(numbers[:, first - offset : last - offset].T)
            start += last - first
        return np.concatenate(parts)

    def forget(self) -> None:
        self.blocks.forget()
        self.scales.forget()


def _bytes(file: TensorFile, name: str) -> Bytes:
    return file.stored(name).view(np.uint8)
