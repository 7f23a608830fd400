"""reference.safetensors: what PyTorch computed for a few prompts, small enough to travel with the bundle.

For each prompt its token ids, and for each hook point the norm of its finite numbers and up to 1,024 of its numbers,
at places that a seed chose. So a machine without PyTorch, or a browser, can tell whether it computes the same.

    prompts/P/tokens            int64    T
    prompts/P/HOOK/norm         float32  1
    prompts/P/HOOK/samples      float32  number of samples
    places/N                    int64    which of N numbers are sampled, flat, ascending; the same for every hook of N
    metadata: weights (digest of the weights, see checkpoint.py), made_with, seed
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from neuroscope.export.architecture import Architecture
from neuroscope.export.checkpoint import Checkpoint, open_checkpoint, weights_digest
from neuroscope.export.oracles import Activations, TorchOracle, best_oracle, has_torch
from neuroscope.export.tensor_file import Array, Floats, TensorFile, whole_tensor, write_tensor_file
from neuroscope.export.weight_files import write_widened

NAME = "reference.safetensors"
SAMPLES = 1024
SEED = 20
TEXT = "When Mary and John went to the store, John gave a drink to"
RANDOM_LENGTH = 40


@dataclass(frozen=True)
class HookReference:
    """What is known of one hook point's value."""

    norm: float
    places: NDArray[np.int64]
    samples: Floats


@dataclass(frozen=True)
class PromptReference:
    tokens: list[int]
    hooks: Mapping[str, HookReference]


@dataclass(frozen=True)
class Reference:
    """A read reference file."""

    made_with: str
    weights: str
    prompts: list[PromptReference]


def places_of(elements: int) -> NDArray[np.int64]:
    """Which of `elements` numbers are sampled: all when they are few, otherwise as the seed chooses."""
    if elements <= SAMPLES:
        return np.arange(elements)
    return np.sort(np.random.default_rng((SEED, elements)).choice(elements, SAMPLES, replace=False))


def finite_norm(numbers: Floats) -> float:
    """The Euclidean norm of the finite numbers, summed in float64."""
    finite = numbers[np.isfinite(numbers)].astype(np.float64)
    return float(np.sqrt((finite * finite).sum()))


def reference_prompts(folder: Path, architecture: Architecture) -> list[list[int]]:
    """Token ids: a sentence with the start token before it, where there is a tokenizer, and seeded random ids."""
    positions, vocabulary = architecture.dimensions["P"], architecture.dimensions["V"]
    prompts: list[list[int]] = []
    if (folder / "tokenizer.json").is_file():
        ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
        start = architecture.config.get("bos_token_id")
        ids = ([start] if isinstance(start, int) and start < vocabulary else []) + ids
        if max(ids, default=vocabulary) < vocabulary:
            prompts.append(ids[:positions])
    random_ids = np.random.default_rng(SEED).integers(0, vocabulary, min(RANDOM_LENGTH, positions))
    return [*prompts, [int(token) for token in random_ids]]


def write_reference(path: Path, prompts: list[tuple[list[int], Activations]], *, made_with: str, weights: str) -> None:
    """Writes the reference file of `prompts`: token ids with the activations they gave."""
    tensors: dict[str, Array] = {}
    for index, (tokens, activations) in enumerate(prompts):
        tensors[f"prompts/{index}/tokens"] = np.array(tokens, np.int64)
        for hook, value in activations.items():
            places = places_of(value.size)
            tensors[f"places/{value.size}"] = places
            tensors[f"prompts/{index}/{hook}/norm"] = np.array([finite_norm(value)], np.float32)
            tensors[f"prompts/{index}/{hook}/samples"] = value.reshape(-1)[places].astype(np.float32)
    metadata = {"made_with": made_with, "weights": weights, "seed": str(SEED), "elements": json.dumps(_sizes(prompts))}
    write_tensor_file(path, [whole_tensor(name, tensors[name]) for name in sorted(tensors)], metadata)


def _sizes(prompts: list[tuple[list[int], Activations]]) -> list[dict[str, int]]:
    return [{hook: value.size for hook, value in activations.items()} for _, activations in prompts]


def read_reference(path: Path) -> Reference:
    """The reference file at `path`.

    Raises: CheckpointError when it is damaged.
    """
    file = TensorFile(path)
    prompts = []
    for index, sizes in enumerate(json.loads(file.metadata.get("elements", "[]"))):
        start = f"prompts/{index}"
        hooks = {
            hook: HookReference(
                norm=float(file.floats(f"{start}/{hook}/norm")[0]),
                places=np.array(file.stored(f"places/{size}"), np.int64),
                samples=file.floats(f"{start}/{hook}/samples"),
            )
            for hook, size in sizes.items()
        }
        prompts.append(PromptReference([int(token) for token in file.stored(f"{start}/tokens")], hooks))
    return Reference(file.metadata.get("made_with", ""), file.metadata.get("weights", ""), prompts)


def add_reference(source: Checkpoint, folder: Path, dtype: str) -> str:
    """Puts the reference of the bundle in `folder` there, and says in words where it comes from, or why there is none.

    One that lies beside the checkpoint is taken when it was made with these very weights; otherwise PyTorch makes one.
    """
    exported = open_checkpoint(folder)  # with the weights as they are rounded in the bundle
    own = source.folder / NAME
    known = own.is_file() and read_reference(own).weights == weights_digest(exported)
    if known:
        shutil.copyfile(own, folder / NAME)
        return f"the checkpoint's own reference, made with {read_reference(own).made_with}"
    if not has_torch():
        if own.is_file():
            return "none: the checkpoint's own reference belongs to other weights, and PyTorch is not installed"
        return "none: PyTorch is not installed, and the checkpoint has no reference of its own"
    needed = 4 * sum(math.prod(rule.shape) for rule in exported.rules.values())
    if needed > (free := _free_memory()):
        return (
            f"none: PyTorch would hold the weights as float32, {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of "
            "memory are free"
        )
    if dtype != "int8":
        return f"made with {write_reference_of(folder, folder)}"
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        return f"made with {write_reference_of(folder, write_widened(folder, Path(temporary)))}"


def _free_memory() -> float:
    """Bytes; no limit where the system doesn't tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return math.inf


def write_checkpoint_reference(folder: Path) -> str:
    """Writes reference.safetensors into a checkpoint's own folder; answers what made it.

    A bundle of the same weights then takes it over, also on a machine without PyTorch.
    """
    return write_reference_of(folder, folder)


def write_reference_of(folder: Path, weights: Path) -> str:
    """The same into `folder`, of the float checkpoint `weights`, whose numbers are those of the folder's own."""
    checkpoint = open_checkpoint(folder)
    from importlib.metadata import version

    # gpt2's modules can be hooked at every point, so its reference needs no TransformerLens
    oracle = TorchOracle(weights) if checkpoint.architecture.name == "gpt2" else best_oracle(weights)
    prompts = reference_prompts(folder, checkpoint.architecture)
    found = [(tokens, oracle.activations([tokens])) for tokens in prompts]
    made_with = f"torch {version('torch').split('+')[0]}, {oracle.name}"
    if oracle.completed:
        points = sorted({re.sub(r"^blocks\.\d+\.", "", name) for name in oracle.completed})
        made_with += f", transformers {version('transformers')} for {', '.join(points)}"
    write_reference(folder / NAME, found, made_with=made_with, weights=weights_digest(checkpoint))
    return made_with
