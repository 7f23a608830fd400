"""Model work beside the event loop: in a thread, stopped when its client goes away.

Starlette tells of a client that went away only to who asks; a model in the middle of a generation can't ask, so the
loop asks for it and sets a flag that the work looks at between tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from fastapi import Request

from neuroscope.errors import LabError

_LOOK_EVERY = 0.1  # seconds
IsCancelled = Callable[[], bool]
T = TypeVar("T")


async def run(request: Request, work: Callable[[IsCancelled], T]) -> T:
    """The result of `work`, which is given what tells whether to stop."""
    cancelled = threading.Event()
    done = _in_thread(lambda: work(cancelled.is_set))
    try:
        return await _unless_gone(request, done, cancelled)
    finally:
        cancelled.set()


async def stream(request: Request, work: Callable[[IsCancelled], Iterator[T]]) -> AsyncIterator[T]:
    """The items of `work` as they come; closing this stops it.

    The first is waited for here: what is refused before it is refused with a status. Raises: LabError, and whatever
    else comes before the first item.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[T | None] = asyncio.Queue()
    cancelled = threading.Event()

    def produce() -> None:
        try:
            for item in work(cancelled.is_set):
                loop.call_soon_threadsafe(items.put_nowait, item)
        finally:
            loop.call_soon_threadsafe(items.put_nowait, None)

    produced = _in_thread(produce)

    async def following() -> AsyncIterator[T]:
        try:
            item = first
            while item is not None:
                yield item
                item = await items.get()
            await produced  # raises what the work raised
        finally:
            cancelled.set()

    try:
        first = await _unless_gone(request, asyncio.ensure_future(items.get()), cancelled)
        if first is None:
            await produced
            raise LabError("The client went away.", status=499, code="client_closed")
    except BaseException:
        cancelled.set()
        raise
    return following()


async def _unless_gone(request: Request, awaited: asyncio.Future[T], cancelled: threading.Event) -> T:
    """Its result; `cancelled` is set as soon as the client is gone, and the work then ends by itself."""
    while not awaited.done():
        await asyncio.wait({awaited}, timeout=_LOOK_EVERY)
        if not cancelled.is_set() and await request.is_disconnected():
            cancelled.set()
    return awaited.result()


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """In a thread of its own. A pool's threads would all be waiting for their turn at a model while the pass whose end
    they wait for needs one; how many wait is limited where they wait."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
            future.exception()  # whoever waited may have gone, and then nobody looks
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error it is a T

    def act() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # it is raised again where the result is taken
            error = raised
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=act, name="lab work", daemon=True).start()
    return future
