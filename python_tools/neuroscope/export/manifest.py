"""bundle.json: the list of a bundle's files, cut into chunks that are fetched, checked and kept one by one."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]

from neuroscope.errors import BundleError
from neuroscope.project import ROOT

NAME = "bundle.json"
FORMAT = 1
CHUNK_BYTES = 16 * 2**20
PARITY = "parity.json"  # written by `verify` after the bundle is whole, and no part of it


@cache
def _schema() -> Any:
    return json.loads((ROOT / "js_bridge" / "schemas" / "bundle.schema.json").read_text())


def describe_file(folder: Path, name: str) -> dict[str, Any]:
    """The entry of one file: bytes, SHA-256, and its chunks."""
    whole, chunks, offset = hashlib.sha256(), [], 0
    with (folder / name).open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            whole.update(piece)
            chunks.append({"offset": offset, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()})
            offset += len(piece)
    return {"name": name, "bytes": offset, "sha256": whole.hexdigest(), "chunks": chunks}


def write_manifest(folder: Path, **fields: Any) -> dict[str, Any]:
    """Writes bundle.json for every file of `folder`, with the given `fields` beside the list."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in (NAME, PARITY))
    manifest = {"format": FORMAT, **fields, "files": [describe_file(folder, name) for name in names]}
    jsonschema.validate(manifest, _schema())
    (folder / NAME).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """bundle.json of the bundle in `folder`.

    Raises: BundleError when it is missing, or not what the schema says.
    """
    path = folder / NAME
    if not path.is_file():
        raise BundleError(f"{folder} is no bundle: it has no {NAME}; `neuroscope export` makes one from a checkpoint.")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        jsonschema.validate(manifest, _schema())
    except ValueError as error:
        raise BundleError(f"{path} is damaged: it is not JSON ({error}).") from error
    except jsonschema.ValidationError as error:
        raise BundleError(f"{path} is damaged: {error.json_path} {error.message}; export the bundle again.") from error
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Holds every file against its entry.

    Raises: BundleError for the first file that is missing or differs, with the chunk where it does.
    """
    for expected in manifest["files"]:
        name = expected["name"]
        if not (folder / name).is_file():
            raise BundleError(f"{folder} lacks {name}, which {NAME} lists; export the bundle again.")
        found = describe_file(folder, name)
        if found["bytes"] != expected["bytes"]:
            raise BundleError(
                f"{folder / name} has {found['bytes']} bytes, and {NAME} lists {expected['bytes']}; "
                "export the bundle again."
            )
        for mine, listed in zip(found["chunks"], expected["chunks"], strict=False):
            if mine != listed:
                raise BundleError(
                    f"{folder / name} differs from {NAME} in the chunk at byte {listed['offset']}; "
                    "export the bundle again."
                )
        if found != expected:
            raise BundleError(f"{NAME} contradicts itself about {name}; export the bundle again.")
