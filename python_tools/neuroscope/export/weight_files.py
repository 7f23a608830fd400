"""A checkpoint's weights on their way into a bundle's safetensors files, rounded to the bundle's type, in pieces.

Nothing is held whole: a tensor is read, checked, rounded and written a few megabytes at a time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuroscope.errors import CheckpointError
from neuroscope.export.architecture import TensorRule
from neuroscope.export.checkpoint import Checkpoint, open_checkpoint
from neuroscope.export.int8 import Rows, is_matrix, quantised
from neuroscope.export.processing import RAW, Processing, processed
from neuroscope.export.tensor_file import Array, Floats, TensorPlace, TensorToWrite, row_ranges, write_tensor_file

DTYPES = ("float32", "float16", "int8")
SHARD_BYTES = 2 * 2**30  # the largest file that every browser and ONNX Runtime map without trouble

Places = dict[str, tuple[str, TensorPlace]]  # a tensor's file and its place there


def write_checkpoint(weights: Checkpoint, folder: Path, dtype: str, shard_bytes: int = SHARD_BYTES) -> Places:
    """Writes configuration and weights into `folder`; answers where each tensor lies.

    Raises: CheckpointError that names the tensor that holds a number which is not finite, or is beyond float16.
    """
    places = _write_weights(weights, folder, dtype, shard_bytes)
    config: dict[str, Any] = {
        key: value for key, value in weights.config.items() if key not in ("torch_dtype", "quantization_config")
    }
    config["dtype"] = "float32" if dtype == "int8" else dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return places


def write_rounded(checkpoint: Path, folder: Path, dtype: str, processing: Processing = RAW) -> Path:
    """Writes the weights that a bundle of `dtype` has into `folder`, as a float checkpoint, and answers it.

    int8 is widened to float32, exactly, since transformers reads no codes. So what is computed with the folder has the
    rounding's error and not the engine's.
    """
    weights = processed(open_checkpoint(checkpoint), processing)
    if dtype != "int8":
        write_checkpoint(weights, folder, dtype)
        return folder
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        write_checkpoint(weights, Path(temporary), "int8")
        return write_widened(Path(temporary), folder)


def write_widened(coded: Path, folder: Path) -> Path:
    """Writes the weights of an int8 bundle as float32 into `folder`, and answers it."""
    write_checkpoint(open_checkpoint(coded), folder, "float32")
    return folder


def _write_weights(weights: Checkpoint, folder: Path, dtype: str, shard_bytes: int) -> Places:
    shards: list[list[TensorToWrite]] = [[]]
    filled = 0
    for name, rule in weights.rules.items():
        together = _as_dtype(name, rule, weights.tensors[name], dtype, weights.folder)
        size = sum(tensor.bytes for tensor in together)
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1] += together
        filled += size

    places: Places = {}
    for number, order in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        written = write_tensor_file(folder / file, order, {"format": "pt"})  # transformers reads no file without it
        places |= {place.name: (file, place) for place in written}
    if len(shards) > 1:
        total = sum(place.bytes for _, place in places.values())
        index = {"metadata": {"total_size": total}, "weight_map": {name: file for name, (file, _) in places.items()}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return places


def _as_dtype(name: str, rule: TensorRule, tensor: Rows, dtype: str, source: Path) -> list[TensorToWrite]:
    def check(numbers: Floats) -> None:
        if not np.isfinite(numbers).all():
            raise CheckpointError(
                f"Tensor {name} of {source} holds a number that is not finite; the checkpoint is damaged."
            )

    def halved(numbers: Floats) -> Array:
        with np.errstate(over="ignore"):
            rounded = numbers.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise CheckpointError(
                f"Tensor {name} of {source} holds {float(np.abs(numbers).max()):g}, and float16 ends at "
                f"{np.finfo(np.float16).max:g}; export the checkpoint as float32."
            )
        return rounded

    def pieces(rounded: Callable[[Floats], Array] | None) -> Iterator[Array]:
        for start, stop in row_ranges(tensor.shape):
            numbers = tensor.rows(start, stop)
            check(numbers)
            yield rounded(numbers) if rounded else numbers
            tensor.forget()

    if dtype == "int8" and is_matrix(rule):
        return quantised(name, rule, tensor, check)
    if dtype == "float16":
        return [TensorToWrite(name, np.dtype(np.float16), tensor.shape, lambda: pieces(halved))]
    return [TensorToWrite(name, np.dtype(np.float32), tensor.shape, lambda: pieces(None))]
