"""safetensors files, tensor by tensor: eight bytes of length, a JSON header, the numbers one after another.

Read through a memory map, so that a tensor costs memory only while it is used; and read here instead of by the
safetensors package because NumPy has no bfloat16, and because the ONNX graph needs to know where each tensor lies.
Source: the format's description in the safetensors package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import CheckpointError

Array = NDArray[np.generic]
Floats = NDArray[np.float32]

ALIGNMENT = 64  # of the first tensor, so that every reader may map the file
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
        if place.bytes == 0:
            return np.zeros(place.shape, _STORED[place.dtype])
        return np.memmap(self.path, _STORED[place.dtype], "r", place.offset, place.shape)

    def floats(self, name: str) -> Floats:
        """The numbers as float32; exact for float16 and bfloat16."""
        stored = self.stored(name)
        if self.places[name].dtype == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(stored).astype(np.float32)


def write_tensor_file(
    path: Path,
    tensors: Iterable[tuple[str, np.dtype[np.generic], tuple[int, ...]]],
    read: Callable[[str], Array],
    metadata: Mapping[str, str],
) -> list[TensorPlace]:
    """Writes `tensors` (name, type, shape) one after another, without holes; answers where they lie.

    Each is fetched by `read` when its turn comes. The same tensors give the same bytes.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    ends = 0
    order = list(tensors)
    for name, dtype, shape in order:
        begin = ends
        ends += int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, ends]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    places = []
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, dtype, shape in order:
            numbers = np.ascontiguousarray(read(name), dtype.newbyteorder("<"))
            offset = file.tell()
            file.write(numbers.tobytes())
            places.append(TensorPlace(name, _NAMES[dtype], shape, offset, numbers.nbytes))
    return places
