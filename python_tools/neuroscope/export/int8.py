"""Matrices as int8: one code a weight, and one float32 factor for each output, beside it as `NAME.scale`.

A code is round(w / scale) with scale = max |w| / 127 over the weights of the output (1 where they are all 0), so that
no code is cut off and the error of a weight is at most half of a scale. A matrix lies as [inputs, outputs] whatever the
checkpoint's own layout, an embedding as [tokens, width] with a factor for each token; vectors stay float32.
Only weights are rounded, never activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from neuroscope.export.architecture import TensorRule
from neuroscope.export.tensor_file import Array, Floats, TensorFile, TensorToWrite, row_ranges, rows_of

SCALE = ".scale"
LARGEST = 127
_BLOCK = 2**24  # codes that are turned over at a time


class Rows(Protocol):
    """A tensor's numbers as float32, in the checkpoint's own layout, by rows of its last axis."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, start: int, stop: int, columns: slice = ...) -> Floats: ...

    def forget(self) -> None: ...


def is_matrix(rule: TensorRule) -> bool:
    """Whether the tensor is stored as int8 in an int8 bundle."""
    return rule.use in ("matrix", "table")


def is_turned(rule: TensorRule) -> bool:
    """Whether the checkpoint has [outputs, inputs], and the bundle [inputs, outputs]."""
    return rule.use == "matrix" and rule.transpose


def scales_are_of_rows(rule: TensorRule) -> bool:
    """Whether the checkpoint's rows are the outputs (or the tokens)."""
    return rule.use == "table" or rule.transpose


def stored_shape(rule: TensorRule) -> tuple[int, ...]:
    """Of the codes."""
    return (*rule.shape[:-2], rule.shape[-1], rule.shape[-2]) if is_turned(rule) else rule.shape


def quantised(name: str, rule: TensorRule, tensor: Rows, check: Callable[[Floats], None]) -> list[TensorToWrite]:
    """The codes of a matrix and their scales, ready to be written. `check` sees every number once."""
    scales = _scales(rule, tensor, check)
    return [
        TensorToWrite(name, np.dtype(np.int8), stored_shape(rule), lambda: _codes(rule, tensor, scales)),
        TensorToWrite(name + SCALE, np.dtype(np.float32), scales.shape, lambda: [scales]),
    ]


def _scales(rule: TensorRule, tensor: Rows, check: Callable[[Floats], None]) -> Floats:
    """Shapes: the tensor's leading axes, then the outputs."""
    *lead, rows, columns = tensor.shape
    of_rows = scales_are_of_rows(rule)
    largest = np.zeros((*lead, rows if of_rows else columns), np.float32)
    flat = largest.reshape(-1) if of_rows else largest.reshape(-1, columns)
    for start, stop in row_ranges(tensor.shape):
        numbers = tensor.rows(start, stop)
        check(numbers)
        magnitudes = np.abs(numbers, out=numbers)
        if of_rows:
            flat[start:stop] = magnitudes.max(axis=1)
        else:
            for matrix in range(start // rows, -(-stop // rows)):
                part = magnitudes[max(0, matrix * rows - start) : (matrix + 1) * rows - start]
                np.maximum(flat[matrix], part.max(axis=0), out=flat[matrix])
        tensor.forget()
    scales = largest / np.float32(LARGEST)
    scales[scales == 0] = 1
    return scales


def _codes(rule: TensorRule, tensor: Rows, scales: Floats) -> Iterator[Array]:
    rows, columns = tensor.shape[-2:]
    if not scales_are_of_rows(rule):
        by_matrix = scales.reshape(-1, columns)
        for start, stop in row_ranges(tensor.shape):
            matrices = np.arange(start, stop) // rows
            yield _rounded(tensor.rows(start, stop), by_matrix[matrices] if scales.ndim > 1 else by_matrix)
            tensor.forget()
        return
    of_rows = scales.reshape(-1, 1)
    if not is_turned(rule):
        for start, stop in row_ranges(tensor.shape):
            yield _rounded(tensor.rows(start, stop), of_rows[start:stop])
            tensor.forget()
        return
    width = max(1, min(columns, _BLOCK // rows))
    for first in range(0, rows_of(tensor.shape)[0], rows):
        for column in range(0, columns, width):
            some = slice(column, min(columns, column + width))
            codes = np.empty((rows, some.stop - some.start), np.int8)
            for start, stop in row_ranges((rows, some.stop - some.start)):
                numbers = tensor.rows(first + start, first + stop, some)
                codes[start:stop] = _rounded(numbers, of_rows[first + start : first + stop])
                tensor.forget()
            yield codes.T


def _rounded(numbers: Floats, scales: Floats) -> Array:
    return np.asarray(np.rint(numbers / scales).astype(np.int8))


@dataclass(frozen=True)
class Int8Tensor:
    """A matrix of an int8 bundle as the float32 numbers that its codes stand for, in the checkpoint's own layout."""

    name: str
    rule: TensorRule
    codes: TensorFile
    scales: TensorFile

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rule.shape

    def rows(self, start: int, stop: int, columns: slice = slice(None)) -> Floats:
        rows = self.shape[-2]
        codes = self.codes.stored(self.name)
        codes = codes.reshape(-1, *codes.shape[-2:])
        scales = self.scales.stored(self.name + SCALE).astype(np.float32)
        scales = scales.reshape(len(codes), -1)
        parts = []
        while start < stop:
            matrix, first = divmod(start, rows)
            last = min(rows, first + stop - start)
            near = slice(first, last)
            some = codes[matrix, columns, near].T if is_turned(self.rule) else codes[matrix, near, columns]
            of_rows = scales_are_of_rows(self.rule)
            factors = scales[matrix, near, None] if of_rows else scales[matrix, None, columns]
            parts.append(some.astype(np.float32) * factors)
            start += last - first
        return np.concatenate(parts)

    def forget(self) -> None:
        self.codes.forget()
        self.scales.forget()
