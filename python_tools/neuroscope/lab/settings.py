"""What a lab may do, decided when it starts: its models, whom it answers, and how much one request may ask for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neuroscope.errors import LabError

ENGINES = ("torch", "mlx")
DTYPES = ("float32", "bfloat16", "float16")
# Longer than clients keep an idle connection (httpx 5 s, Node 4 s): none shall send a request into one being closed.
KEEP_ALIVE = 75  # seconds
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """Of one request; a refusal tells the number. Units: as named, bytes and seconds where not."""

    prompt_tokens: int = 4096
    new_tokens: int = 1024
    hooks: int = 512
    interventions: int = 512
    activation_bytes: int = 512 * 2**20
    json_activation_bytes: int = 64 * 2**20  # as JSON each of them is six or more on the wire, and more in memory
    request_bytes: int = 64 * 2**20
    seconds: float = 300.0
    waiting_requests: int = 64

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise LabError(
                    f"The limit of {name.replace('_', ' ')} is {value:g}, which would refuse every request; make it "
                    f"more than 0, or leave --max-{name.replace('_', '-')} out.",
                    code="bad_limit",
                    parameter=name,
                )

    def check(self, name: str, value: float, *, parameter: str | None = None) -> None:
        """Raises: LabError when `value` is beyond the limit called `name`."""
        allowed = getattr(self, name)
        if value > allowed:
            raise LabError(
                f"The request asks for {value:g} {name.replace('_', ' ')}, and this lab allows {allowed:g}; ask for "
                "less, or start the lab with a higher limit.",
                code="limit_exceeded",
                parameter=parameter or name,
            )


@dataclass(frozen=True)
class ModelSource:
    """A model that may be loaded: a local folder, or an id of the Hub where `folder` is None."""

    id: str
    folder: Path | None
    engine: str = "torch"
    dtype: str = "float32"
    devices: str | None = None  # device_map of transformers, e.g. "auto"; None: the processor

    def __post_init__(self) -> None:
        for name, value, allowed in (("engine", self.engine, ENGINES), ("dtype", self.dtype, DTYPES)):
            if value not in allowed:
                raise LabError(
                    f"The {name} of {self.id} is {value!r}; it is one of {', '.join(allowed)}.",
                    code=f"unknown_{name}",
                    parameter=name,
                )


@dataclass(frozen=True)
class Settings:
    """Everything that `neuroscope serve` was told."""

    models: Mapping[str, ModelSource]
    limits: Limits = field(default_factory=Limits)
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    origins: tuple[str, ...] = ()
    database: Path = Path("neuroscope-lab.sqlite")
    site: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise LabError(
                f"The port is {self.port}, and ports are 0 to 65535, of which 0 takes a free one; name another with "
                "--port.",
                code="bad_port",
            )
        if not self.is_loopback and not self.token:
            raise LabError(
                f"The lab would listen on {self.host}, where others can reach it, without a token; give it one with "
                "--token, or let it listen on 127.0.0.1.",
                code="token_needed",
            )

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK

    def source(self, name: str) -> ModelSource:
        """The allowed model called `name`: by its id, or by its folder's path.

        Raises: LabError for any other name; nothing is fetched that was not allowed at the start.
        """
        if name in self.models:
            return self.models[name]
        place = _place(name)
        for source in self.models.values():
            if source.folder is not None and place == source.folder.resolve():
                return source
        raise LabError(
            f"Model {name!r} was not allowed when the lab started; allowed are {', '.join(self.models) or 'none'}. "
            "Start the lab with --model naming its folder or id.",
            status=404,
            code="model_not_found",
            parameter="model",
        )


def _place(name: str) -> Path | None:
    """The folder that a client's text names, None for what can be no path."""
    try:
        return Path(name).expanduser().resolve()
    except (OSError, ValueError, RuntimeError):
        return None


@dataclass
class Spending:
    """What one request has used of what it may, over all of its choices and passes."""

    limits: Limits
    is_cancelled: Callable[[], bool] = lambda: False
    is_json: bool = False  # whether what it captures leaves as JSON
    _bytes: int = 0
    _began: float = field(default_factory=time.monotonic)

    def go_on(self) -> None:
        """To be called between passes. Raises: LabError when the time is up, or the client has gone."""
        if self.is_cancelled():
            raise LabError("The client went away.", status=499, code="client_closed")
        if self.seconds_left <= 0:
            raise LabError(
                f"The request took longer than the {self.limits.seconds:g} s that this lab allows; ask for less.",
                status=408,
                code="time_limit",
            )

    @property
    def seconds_left(self) -> float:
        return self.limits.seconds - (time.monotonic() - self._began)

    def add_bytes(self, count: int) -> None:
        """Raises: LabError when so many more bytes of activations are too many."""
        self._bytes += count
        self.check_bytes(self._bytes)

    def check_bytes(self, count: int) -> None:
        name = "json_activation_bytes" if self.is_json else "activation_bytes"
        self.limits.check(name, count, parameter="activation_hooks")
