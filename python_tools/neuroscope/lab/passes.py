"""Passes whose hooks a client answers: the pass waits in its thread, the client asks for what comes next.

A client that does not answer in time loses its pass: the model's turn goes on to the next request.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroscope.errors import LabError
from neuroscope.lab.model import Floats, LabModel, Step, Watch
from neuroscope.lab.registry import Registry
from neuroscope.lab.settings import Spending

_LOOK_EVERY = 0.2  # seconds
PASTS_KEPT = 32  # keys and values between the passes of a generation


class PassEnded(Exception):
    """Unwinds a pass that nobody waits for any more."""


@dataclass(frozen=True)
class Event:
    """What a pass says next: a hook that wants an answer, the end, or what went wrong."""

    kind: str  # "hook", "done", "failed"
    name: str = ""
    value: Floats | None = None
    step: Step | None = None
    past: str | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Options:
    """How a pass is run."""

    seconds: float  # that a hook waits for its answer
    wants_logits: bool
    last_only: bool
    keeps_past: bool


@dataclass(frozen=True)
class Past:
    """Keys and values of `positions` positions, for one pass to go on with."""

    model: LabModel
    values: Any
    positions: int


@dataclass
class RunningPass:
    """One pass in its thread. `answer` takes the reply to the hook that it waits at."""

    id: str
    model: LabModel
    watch: Watch
    options: Options
    spending: Spending
    events: queue.Queue[Event] = field(default_factory=queue.Queue)
    is_ended: threading.Event = field(default_factory=threading.Event)
    _answers: queue.Queue[tuple[Event, Floats | None] | None] = field(default_factory=queue.Queue)
    _waiting_at: Event | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_hook(self, name: str, value: Floats) -> Floats | None:
        event = Event("hook", name, value)
        with self._lock:
            self._waiting_at = event
        self.events.put(event)
        deadline = time.monotonic() + min(self.options.seconds, self.spending.seconds_left)
        while not self.is_ended.is_set():
            try:
                answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._unanswered(name) from None
            if answer is not None and answer[0] is event:  # an answer to a hook before it came too late
                return answer[1]
        raise PassEnded

    def _unanswered(self, name: str) -> LabError:
        with self._lock:
            self._waiting_at = None
        return LabError(
            f"The hook {name} was not answered within {self.options.seconds:g} s, or its pass was longer than the "
            f"{self.spending.limits.seconds:g} s of this lab, so the pass was ended; answer faster, or ask for an "
            "intervention as data, which needs no answer.",
            status=408,
            code="hook_not_answered",
        )

    def answer(self, replacement: Floats | None) -> None:
        """Raises: LabError when the pass waits for nothing, or for a value of another shape."""
        with self._lock:
            waiting = self._waiting_at
            if waiting is None or waiting.value is None:
                raise LabError(f"Pass {self.id} waits at no hook.", status=409, code="pass_not_waiting")
            if replacement is not None and replacement.shape != waiting.value.shape:
                raise LabError(
                    f"Hook {waiting.name} was answered with a value of shape {list(replacement.shape)}; its value has "
                    f"{list(waiting.value.shape)}, and a replacement must have the same.",
                    code="shape_mismatch",
                )
            self._waiting_at = None
            self._answers.put((waiting, replacement))

    def end(self) -> None:
        self.is_ended.set()
        self._answers.put(None)


class Passes:
    """The passes that wait for their clients."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._running: dict[str, RunningPass] = {}
        self._pasts: dict[str, Past] = {}

    def start(
        self,
        model: LabModel,
        tokens: Sequence[Sequence[int]],
        watch: Watch,
        options: Options,
        past: Past | None = None,
    ) -> RunningPass:
        """Begins the pass; its first event is the first hook, or its end."""
        spending = Spending(self._registry.settings.limits)
        running = RunningPass(secrets.token_hex(12), model, watch, options, spending)
        watching = Watch(watch.captures, watch.interventions, watch.awaited, running.on_hook)
        self._running[running.id] = running

        def work() -> None:
            try:
                with self._registry.turns(model).turn(running.is_ended.is_set):
                    values = None if past is None else past.values
                    step = model.forward(tokens, watching, past=values, last_only=options.last_only)
                positions = len(tokens[0]) + (0 if past is None else past.positions)
                kept = self._keep(Past(model, step.past, positions)) if options.keeps_past else None
                event = Event("done", step=step, past=kept)
            except PassEnded:
                event = Event("failed", error=LabError("The pass was ended.", status=499, code="pass_ended"))
            except Exception as error:  # every one of them has to reach the client that waits
                event = Event("failed", error=error)
            self._running.pop(running.id, None)
            running.events.put(event)

        threading.Thread(target=work, name=f"pass {running.id}", daemon=True).start()
        return running

    def _keep(self, past: Past) -> str:
        """The oldest ones go first: a client that went away does not come back for its own."""
        while len(self._pasts) >= PASTS_KEPT:
            self._pasts.pop(next(iter(self._pasts)), None)
        id = secrets.token_hex(12)
        self._pasts[id] = past
        return id

    def take_past(self, model: LabModel, id: str) -> Past:
        """Hands it over: the pass that goes on with it writes behind it. Raises: LabError for one that is not there."""
        past = self._pasts.pop(id, None)
        if past is None or past.model is not model:
            raise LabError(
                f"Past {id} is not kept for {model.description.id}: each is for one pass, and only the newest "
                f"{PASTS_KEPT} stay; begin again with the whole text.",
                status=404,
                code="no_such_past",
                parameter="past",
            )
        return past

    def forget_past(self, id: str) -> None:
        self._pasts.pop(id, None)

    def at(self, id: str) -> RunningPass:
        """Raises: LabError for one that has ended, or never was."""
        running = self._running.get(id)
        if running is None:
            raise LabError(
                f"Pass {id} is not running; it never was, or it ended, as one does whose hook is not answered in time.",
                status=404,
                code="no_such_pass",
            )
        return running

    def next_event(self, running: RunningPass, is_cancelled: Callable[[], bool]) -> Event:
        """Waits for it; a client that goes away ends its pass. Raises: what the pass raised."""
        while True:
            try:
                event = running.events.get(timeout=_LOOK_EVERY)
                break
            except queue.Empty:
                if is_cancelled():
                    running.end()
        if event.kind == "failed":
            assert event.error is not None
            raise event.error
        return event


def check_tokens(model: LabModel, tokens: Sequence[Sequence[int]], limit: int) -> None:
    """Raises: LabError for rows that the model can't read."""
    description = model.description
    lengths = {len(row) for row in tokens}
    if len(lengths) != 1 or 0 in lengths:
        raise LabError(
            f"The rows have {sorted(lengths)} tokens; there must be at least one row, all of one length from 1 on.",
            code="ragged_batch",
            parameter="tokens",
        )
    total = int(np.prod([len(tokens), next(iter(lengths))]))
    if next(iter(lengths)) > description.positions or total > limit:
        raise LabError(
            f"{len(tokens)} rows of {next(iter(lengths))} tokens: {description.id} has {description.positions} "
            f"positions, and this lab takes {limit} tokens a request.",
            code="context_length_exceeded",
            parameter="tokens",
        )
    wrong = next((id for row in tokens for id in row if not 0 <= id < description.vocabulary), None)
    if wrong is not None:
        raise LabError(
            f"Token id {wrong} is outside the vocabulary of {description.id}, 0 to {description.vocabulary - 1}.",
            code="token_out_of_vocabulary",
            parameter="tokens",
        )
