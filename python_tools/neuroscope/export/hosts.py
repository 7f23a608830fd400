"""Activations from a bundle itself: from its ONNX graph, or from the engine in Node or in Chromium.

A host is asked for a row of tokens and answers every hook point that is on, in float32.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from neuroscope.errors import BundleError, MissingProgramError
from neuroscope.export.architecture import Architecture
from neuroscope.export.engine_host import open_chromium_host, open_node_host
from neuroscope.export.oracles import Activations

HOSTS = ("onnx", "node", "chromium")


class Host(Protocol):
    """A place where the bundle's model runs."""

    backend: str

    def activations(self, tokens: list[int]) -> Activations: ...


class OnnxHost:
    """ONNX Runtime on the processor, over model.onnx."""

    def __init__(self, bundle: Path, architecture: Architecture) -> None:
        if not importlib.util.find_spec("onnxruntime"):
            raise MissingProgramError(
                "ONNX Runtime is not installed, and `verify --in onnx` runs the graph with it; install it with "
                "`pip install onnxruntime`, or verify in node."
            )
        import onnxruntime  # type: ignore[import-untyped]

        self.backend = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BundleError(f"{bundle / 'model.onnx'} can't be opened by ONNX Runtime: {error}") from error
        self.hooks = [point.name for point in architecture.hook_points() if point.on]

    def activations(self, tokens: list[int]) -> Activations:
        values = self.session.run(self.hooks, {"input_ids": np.array([tokens], np.int64)})
        return dict(zip(self.hooks, values, strict=True))


@contextmanager
def open_host(kind: str, bundle: Path, architecture: Architecture, backend: str | None) -> Iterator[Host]:
    """The host named `kind`, over the bundle; closed at the end of the block.

    Raises: MissingProgramError when this machine lacks what it needs.
    """
    if kind == "onnx":
        yield OnnxHost(bundle, architecture)
    elif kind == "node":
        with open_node_host(bundle, architecture, backend or "wasm") as host:
            yield host
    elif kind == "chromium":
        with open_chromium_host(bundle, architecture, backend or "wasm") as host:
            yield host
    else:
        raise BundleError(f"A bundle can't be verified in {kind!r}; the hosts are {', '.join(HOSTS)}.")
