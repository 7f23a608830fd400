"""The models of a lab: loaded when they are first asked for, each with its turn, so that one pass at a time runs on it.

Requests wait for their turn in the order in which they came; beyond the limit of waiting ones a request is refused.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from neuroscope.errors import LabError
from neuroscope.lab.model import LabModel
from neuroscope.lab.settings import ModelSource, Settings

Loader = Callable[[ModelSource], LabModel]


def load_model(source: ModelSource) -> LabModel:
    """By the source's engine. Raises: LabError, MissingProgramError."""
    if source.engine == "mlx":
        from neuroscope.lab.mlx_model import MlxModel

        return MlxModel(source)
    from neuroscope.lab.torch_model import TorchModel

    return TorchModel(source)


class Turns:
    """A queue for one model: first come, first served."""

    def __init__(self, waiting_allowed: int) -> None:
        self._allowed = waiting_allowed
        self._condition = threading.Condition()
        self._waiting: deque[object] = deque()
        self._is_taken = False

    @contextmanager
    def turn(self, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Waits for the turn. Raises: LabError 429 when too many wait already, or when the client has gone."""
        ticket = object()
        with self._condition:
            if len(self._waiting) >= self._allowed:
                raise LabError(
                    f"{len(self._waiting)} requests wait for this model already, and {self._allowed} may; ask again.",
                    status=429,
                    code="rate_limit_exceeded",
                    retry_after=1 + len(self._waiting) // 4,
                )
            self._waiting.append(ticket)
            try:
                while self._is_taken or self._waiting[0] is not ticket:
                    self._condition.wait(0.2)
                    if is_cancelled():
                        raise LabError("The client went away while it waited.", status=499, code="client_closed")
                self._is_taken = True
            finally:
                self._waiting.remove(ticket)
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._is_taken = False
                self._condition.notify_all()


class Registry:
    """What is allowed, what is loaded."""

    def __init__(self, settings: Settings, loader: Loader = load_model) -> None:
        self.settings = settings
        self._loader = loader
        self._models: dict[str, LabModel] = {}
        self._turns: dict[str, Turns] = {}
        self._loading = threading.Lock()
        self._last: str | None = None

    def loaded(self) -> list[LabModel]:
        return list(self._models.values())

    def load(self, name: str) -> LabModel:
        """The model, loaded if it is not yet. Raises: LabError."""
        source = self.settings.source(name)
        with self._loading:
            if source.id not in self._models:
                model = self._loader(source)
                # may probe the model's shapes, which has to happen while nothing else runs on it
                model.expected_bytes("hook_embed", 1, 1, 0)
                self._turns[source.id] = Turns(self.settings.limits.waiting_requests)
                self._models[source.id] = model
            self._last = source.id
        return self._models[source.id]

    def model(self, name: str | None) -> LabModel:
        """The named model; without a name the one loaded last, or the only one there could be."""
        if name:
            return self.load(name)
        if self._last is not None:
            return self._models[self._last]
        if len(self.settings.models) == 1:
            return self.load(next(iter(self.settings.models)))
        raise LabError(
            f"No model is loaded; POST /v1/models/load with one of {', '.join(self.settings.models) or 'none'}.",
            status=409,
            code="no_model",
            parameter="model",
        )

    def turns(self, model: LabModel) -> Turns:
        return self._turns[model.description.id]
