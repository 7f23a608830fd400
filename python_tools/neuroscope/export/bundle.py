"""export_bundle: a checkpoint folder becomes a bundle folder, which is whole or not there.

A float bundle is still a Hugging Face folder: the same names, the same layouts, so that AutoModelForCausalLM and
TransformerLens open it too. One of int8 codes is not for them: they don't refuse it, and take the codes for weights.
Processed weights open there as well, without the biases that processing gave to layers which have none (see
processing.py). Beside that a bundle has model.onnx over the same weight files, reference.safetensors, and bundle.json.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from neuroscope.errors import BundleError
from neuroscope.export import manifest
from neuroscope.export.checkpoint import OTHER_FILES, TOKENIZER_FILES, open_checkpoint
from neuroscope.export.graph import build_graph
from neuroscope.export.processing import RAW, Processing, processed
from neuroscope.export.reference import add_reference
from neuroscope.export.weight_files import DTYPES, SHARD_BYTES, write_checkpoint


@dataclass(frozen=True)
class Bundle:
    """What `export_bundle` made."""

    folder: Path
    id: str
    architecture: str
    dtype: str
    weights: str  # raw, or what was done to them
    bytes: int
    parameters: int
    reference: str  # where the reference activations come from, or why there are none


def export_bundle(
    checkpoint: Path,
    output: Path,
    *,
    id: str | None = None,
    dtype: str = "float32",
    processing: Processing = RAW,
    with_reference: bool = True,
    shard_bytes: int = SHARD_BYTES,
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
    name = id or source.source.split("/")[-1]
    weights = processed(source, processing)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        places = write_checkpoint(weights, folder, dtype, shard_bytes)
        for file in (*TOKENIZER_FILES, *OTHER_FILES):
            if (checkpoint / file).is_file():
                shutil.copyfile(checkpoint / file, folder / file)
        onnx.save(build_graph(weights.architecture, weights.rules, places), folder / "model.onnx")
        reference = add_reference(source, folder, dtype) if with_reference else "none: it was not asked for"
        described = manifest.write_manifest(
            folder,
            id=name,
            source=source.source,
            revision=source.revision,
            dtype=dtype,
            license=source.license(),
            architecture=source.architecture.name,
            **({"processing": processing.as_json()} if processing != RAW else {}),
        )
        _put_in_place(folder, output)
    return Bundle(
        folder=output,
        id=name,
        architecture=source.architecture.name,
        dtype=dtype,
        weights=processing.describe(),
        bytes=sum(file["bytes"] for file in described["files"]),
        parameters=sum(math.prod(rule.shape) for rule in weights.rules.values()),
        reference=reference,
    )


def _put_in_place(folder: Path, output: Path) -> None:
    if output.exists():
        old = folder.with_name("old")
        output.rename(old)  # goes with the temporary folder
    folder.rename(output)
