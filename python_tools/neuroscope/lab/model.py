"""What the lab asks of an engine: a model whose every hook point can be read and changed while it runs.

PyTorch and MLX each have one class for it; everything else of the lab is written once, against this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import LabError
from neuroscope.lab.interventions import Intervention

Floats = NDArray[np.float32]
# Called with a hook's name and value while the pass waits; a result takes the value's place.
OnHook = Callable[[str, Floats], Floats | None]


@dataclass(frozen=True)
class Watch:
    """What a pass captures and changes on its way. Interventions come first, then `on_hook`, then the capture."""

    captures: Sequence[str] = ()
    interventions: Sequence[Intervention] = ()
    awaited: Sequence[str] = ()
    on_hook: OnHook | None = None


@dataclass
class Step:
    """What a pass made."""

    logits: Floats  # B T V, or B 1 V where only the last were asked for
    past: Any  # the engine's cache of keys and values, behind this pass's positions
    activations: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """A model as its clients see it."""

    id: str
    engine: str
    architecture: str
    layers: int
    heads: int
    width: int
    vocabulary: int
    positions: int
    parameters: int
    dtype: str
    device: str
    weights: str  # a digest of the weights' files: part of an experiment's identity
    hooks: tuple[str, ...] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "model",
            "created": 0,
            "owned_by": "neuroscope",
            "engine": self.engine,
            "architecture": self.architecture,
            "layers": self.layers,
            "heads": self.heads,
            "width": self.width,
            "vocabulary": self.vocabulary,
            "positions": self.positions,
            "parameters": self.parameters,
            "dtype": self.dtype,
            "device": self.device,
            "weights": self.weights,
        }


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that the lab uses."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: str | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def apply_chat_template(self, messages: Any, **options: Any) -> Any: ...


class LabModel(Protocol):
    """A loaded model. One pass at a time: whoever calls holds the model's turn."""

    description: Description
    tokenizer: Tokenizer | None

    def forward(
        self, tokens: Sequence[Sequence[int]], watch: Watch, *, past: Any = None, last_only: bool = False
    ) -> Step:
        """Runs equally long rows of tokens, behind `past` where it is given.

        Raises: LabError for an intervention that does not fit.
        """
        ...

    def lens(self, residual: Floats) -> Floats:
        """What the final norm and the unembedding make of a residual stream. Shapes: … D ► … V"""
        ...

    def expected_bytes(self, name: str, batch: int, positions: int, cached: int) -> int:
        """Bytes of a hook's float32 value, for the forecast; found by the shapes of a probing pass."""
        ...

    def axes(self) -> Mapping[str, Sequence[str | int]]:
        """What each hook's axes count: B, T, S (keys), B*T, or the model's own extent."""
        ...


def check_tokens(tokens: Sequence[Sequence[int]], offset: int, vocabulary: int, positions: int) -> None:
    """Raises: LabError for rows that no pass could run behind `offset` positions."""
    lengths = {len(row) for row in tokens}
    if len(lengths) != 1 or 0 in lengths:
        raise LabError(
            f"The rows have {', '.join(str(len(row)) for row in tokens) or 'no'} tokens; a pass takes rows of one "
            "length, from 1 on. Send rows of different lengths one by one.",
            code="ragged_rows",
            parameter="tokens",
        )
    wrong = next((id for row in tokens for id in row if not 0 <= id < vocabulary), None)
    if wrong is not None:
        raise LabError(
            f"Token {wrong} is outside the vocabulary, which has 0 to {vocabulary - 1}.",
            code="unknown_token",
            parameter="tokens",
        )
    total = offset + lengths.pop()
    if total > positions:
        raise LabError(
            f"The pass would reach position {total - 1}, and the model's positions are 0 to {positions - 1}; send "
            "fewer tokens.",
            code="context_length_exceeded",
            parameter="tokens",
        )


def basis(description: Description, *, bos: bool) -> Mapping[str, Any]:
    """What a result rests on."""
    return {
        "model": description.id,
        "weights": "raw",
        "digest": description.weights,
        "bos": bos,
        "dtype": description.dtype,
        "backend": f"{description.engine} on {description.device}",
    }
