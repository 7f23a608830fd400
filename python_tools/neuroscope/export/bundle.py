"""export_bundle: a checkpoint folder becomes a bundle folder, which is whole or not there.

A bundle is still a Hugging Face folder: the same names, the same layouts, so that AutoModelForCausalLM and
TransformerLens open it too. Beside that it has model.onnx over the same weight files, reference.safetensors, and
bundle.json.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from neuroscope.errors import BundleError, CheckpointError
from neuroscope.export import manifest
from neuroscope.export.checkpoint import OTHER_FILES, TOKENIZER_FILES, Checkpoint, open_checkpoint
from neuroscope.export.graph import build_graph
from neuroscope.export.reference import add_reference
from neuroscope.export.tensor_file import Array, TensorPlace, write_tensor_file

DTYPES: dict[str, type[np.generic]] = {"float32": np.float32, "float16": np.float16}
SHARD_BYTES = 2 * 2**30  # the largest file that every browser and ONNX Runtime map without trouble


@dataclass(frozen=True)
class Bundle:
    """What `export_bundle` made."""

    folder: Path
    id: str
    architecture: str
    dtype: str
    bytes: int
    parameters: int
    reference: str  # where the reference activations come from, or why there are none


def export_bundle(
    checkpoint: Path, output: Path, *, id: str | None = None, dtype: str = "float32", shard_bytes: int = SHARD_BYTES
) -> Bundle:
    """Writes the bundle of `checkpoint` to the folder `output`, taking the place of a bundle that is there.

    Raises: CheckpointError when the checkpoint can't be exported, BundleError when `output` is something else than a
    bundle. Nothing of a failed export is left.
    """
    if dtype not in DTYPES:
        raise BundleError(f"A bundle can't hold weights as {dtype!r}; the types are {', '.join(DTYPES)}.")
    source = open_checkpoint(checkpoint)
    if output.exists() and not (output.is_dir() and ((output / manifest.NAME).is_file() or not any(output.iterdir()))):
        raise BundleError(f"{output} is there already and is no bundle; name a new folder, or remove it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    name = id or checkpoint.resolve().name
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        places = _write_weights(source, folder, DTYPES[dtype], shard_bytes)
        _write_config(source, folder, dtype)
        for file in (*TOKENIZER_FILES, *OTHER_FILES):
            if (checkpoint / file).is_file():
                shutil.copyfile(checkpoint / file, folder / file)
        onnx.save(build_graph(source.architecture, places), folder / "model.onnx")
        reference = add_reference(source, folder)
        described = manifest.write_manifest(
            folder,
            id=name,
            source=checkpoint.resolve().name,
            revision=None,
            dtype=dtype,
            license=source.license(),
            architecture=source.architecture.name,
        )
        _put_in_place(folder, output)
    return Bundle(
        folder=output,
        id=name,
        architecture=source.architecture.name,
        dtype=dtype,
        bytes=sum(file["bytes"] for file in described["files"]),
        parameters=sum(int(np.prod(place.shape)) for _, place in places.values()),
        reference=reference,
    )


def write_rounded(checkpoint: Path, folder: Path, dtype: str) -> Path:
    """Writes the checkpoint's configuration and weights as `dtype` into `folder`, and answers it: a bundle's weights
    without the rest of the bundle."""
    source = open_checkpoint(checkpoint)
    _write_weights(source, folder, DTYPES[dtype], SHARD_BYTES)
    _write_config(source, folder, dtype)
    return folder


def _put_in_place(folder: Path, output: Path) -> None:
    if output.exists():
        old = folder.with_name("old")
        output.rename(old)  # goes with the temporary folder
    folder.rename(output)


def _write_config(source: Checkpoint, folder: Path, dtype: str) -> None:
    config: dict[str, Any] = {key: value for key, value in source.config.items() if key != "torch_dtype"}
    config["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _write_weights(
    source: Checkpoint, folder: Path, dtype: type[np.generic], shard_bytes: int
) -> dict[str, tuple[str, TensorPlace]]:
    """Writes the weight files; answers each tensor's file name and place."""
    item = np.dtype(dtype)
    shards: list[list[str]] = [[]]
    filled = 0
    for name in source.sources:
        size = int(np.prod(source.shape(name))) * item.itemsize
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size

    places: dict[str, tuple[str, TensorPlace]] = {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        written = write_tensor_file(
            folder / file,
            [(name, item, source.shape(name)) for name in names],
            lambda name: _converted(source, name, dtype),
            {"format": "pt"},  # transformers reads no file without it
        )
        places |= {place.name: (file, place) for place in written}
    if len(shards) > 1:
        total = sum(place.bytes for _, place in places.values())
        index = {"metadata": {"total_size": total}, "weight_map": {name: file for name, (file, _) in places.items()}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return places


def _converted(source: Checkpoint, name: str, dtype: type[np.generic]) -> Array:
    numbers: Sequence[Any] | Array = source.floats(name)
    if not np.isfinite(numbers).all():
        raise CheckpointError(
            f"Tensor {name} of {source.folder} holds a number that is not finite; the checkpoint is damaged."
        )
    if dtype is np.float16:
        largest = float(np.abs(numbers).max(initial=0.0))
        with np.errstate(over="ignore"):
            rounded = np.asarray(numbers).astype(np.float16)
        if not np.isfinite(rounded).all():
            raise CheckpointError(
                f"Tensor {name} of {source.folder} holds {largest:g}, and float16 ends at "
                f"{np.finfo(np.float16).max:g}; export the checkpoint as float32."
            )
        return rounded
    return np.asarray(numbers)
