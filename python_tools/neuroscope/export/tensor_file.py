"""safetensors files, tensor by tensor: eight bytes of length, a JSON header, the numbers one after another.

Read through a memory map and written in pieces, so that a checkpoint larger than the memory can be converted; and
read here instead of by the safetensors package because NumPy has no bfloat16, and because the ONNX graph needs to
know where each tensor lies.
Source: the format's description in the safetensors package.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import CheckpointError

Array = NDArray[np.generic]
Floats = NDArray[np.float32]

ALIGNMENT = 64  # of the first tensor, so that every reader may map the file
PIECE = 2**20  # numbers that are in memory at a time
_STORED: dict[str, type[np.generic]] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_NAMES: dict[np.dtype[Any], str] = {np.dtype(kind): name for name, kind in _STORED.items() if name != "BF16"}


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies in its file. Units: bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


class TensorFile:
    """An open safetensors file."""

    def __init__(self, path: Path) -> None:
        """Reads the header.

        Raises: CheckpointError when the file is shorter than its header says, or its header can't be read.
        """
        self.path = path
        self.size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if self.size < 8 or length > self.size - 8:
                raise CheckpointError(f"{path} is damaged: it has {self.size} bytes, fewer than its header announces.")
            try:
                header = json.loads(file.read(length))
                self.metadata: dict[str, str] = header.pop("__metadata__", {})
                self.places = {name: self._place(name, entry, 8 + length) for name, entry in header.items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(f"{path} is damaged: its header is no safetensors header ({error}).") from error

    def _place(self, name: str, entry: Mapping[str, Any], start: int) -> TensorPlace:
        begin, end = (int(offset) for offset in entry["data_offsets"])
        shape = tuple(int(extent) for extent in entry["shape"])
        dtype = str(entry["dtype"])
        if dtype not in _STORED:
            raise CheckpointError(
                f"Tensor {name} of {self.path} is stored as {dtype}; the types that can be read are "
                f"{', '.join(sorted(_STORED))}."
            )
        expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(_STORED[dtype]).itemsize
        if end - begin != expected or start + end > self.size:
            raise CheckpointError(
                f"{self.path} is damaged: tensor {name} should have {expected} bytes, and bytes {begin} to {end} of "
                f"the {self.size - start} that are there are given to it; fetch the file again."
            )
        return TensorPlace(name, dtype, shape, start + begin, expected)

    def stored(self, name: str) -> Array:
        """The numbers as they are stored, mapped; bfloat16 as its 16 bits."""
        place = self.places[name]
        kind = _STORED[place.dtype]
        if place.bytes == 0:
            return np.zeros(place.shape, kind)
        count = place.bytes // np.dtype(kind).itemsize
        return np.frombuffer(self._map, kind, count, place.offset).reshape(place.shape)

    def floats(self, name: str) -> Floats:
        """All the numbers as float32; exact for float16 and bfloat16."""
        return self.widened(name, self.stored(name))

    def widened(self, name: str, stored: Array) -> Floats:
        """Some of the numbers of `name`, as they are stored, as float32."""
        if self.places[name].dtype == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32)

    def rows(self, name: str, start: int, stop: int, columns: slice = slice(None)) -> Floats:
        """Some rows of `name` as float32, see `rows_of`. Shapes: rows, columns"""
        return self.widened(name, self.stored(name).reshape(rows_of(self.places[name].shape))[start:stop, columns])

    def forget(self) -> None:
        """Gives back the memory of the pages that were read; they are read again when they are needed again."""
        if "_map" in self.__dict__ and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    @cached_property
    def _map(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass(frozen=True)
class PlainTensor:
    """A tensor of a file, as it is named there, read row by row."""

    name: str
    file: TensorFile

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.places[self.name].shape

    def rows(self, start: int, stop: int, columns: slice = slice(None)) -> Floats:
        return self.file.rows(self.name, start, stop, columns)

    def forget(self) -> None:
        self.file.forget()


def rows_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """A tensor's extents as rows and columns: the columns are its last axis, a vector is one row."""
    return math.prod(shape[:-1]), math.prod(shape[-1:])


def row_ranges(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Ranges of rows that cover a tensor in pieces of about PIECE numbers."""
    rows, columns = rows_of(shape)
    step = max(1, PIECE // max(1, columns))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor on its way into a file: its numbers come in pieces, one after another, when its turn comes."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[Array]]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def whole_tensor(name: str, numbers: Array) -> TensorToWrite:
    """A tensor whose numbers are at hand."""
    return TensorToWrite(name, numbers.dtype, numbers.shape, lambda: [numbers])


def write_tensor_file(path: Path, tensors: Iterable[TensorToWrite], metadata: Mapping[str, str]) -> list[TensorPlace]:
    """Writes `tensors` one after another, without holes; answers where they lie.

    The same tensors give the same bytes.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    ends = 0
    order = list(tensors)
    for tensor in order:
        begin = ends
        ends += tensor.bytes
        header[tensor.name] = {
            "dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, ends],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    places = []
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in order:
            offset = file.tell()
            for piece in tensor.pieces():
                file.write(np.ascontiguousarray(piece, tensor.dtype.newbyteorder("<")).data)
            written = file.tell() - offset
            assert written == tensor.bytes, (tensor.name, tensor.shape, written)
            places.append(TensorPlace(tensor.name, _NAMES[tensor.dtype], tensor.shape, offset, written))
    return places
