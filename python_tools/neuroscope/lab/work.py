"""Model work beside the event loop: in a thread, stopped when its client goes away.

Starlette tells of a client that went away only to who asks; a model in the middle of a generation can't ask, so the
loop asks for it and sets a flag that the work looks at between tokens.
"""

from __future__ import annotations

import asyncio
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
    task = asyncio.create_task(asyncio.to_thread(work, cancelled.is_set))
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_EVERY)
            if not cancelled.is_set() and await request.is_disconnected():
                cancelled.set()
    finally:
        cancelled.set()
    return task.result()


async def stream(work: Callable[[IsCancelled], Iterator[T]]) -> AsyncIterator[T]:
    """The items of `work` as they come; closing this stops it. The first item is waited for by `primed`."""
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
    cancelled = threading.Event()

    def put(kind: str, value: object) -> None:
        loop.call_soon_threadsafe(items.put_nowait, (kind, value))

    def produce() -> None:
        try:
            for item in work(cancelled.is_set):
                put("item", item)
        except BaseException as error:  # it is raised again where the items are taken
            put("error", error)
        else:
            put("end", None)

    task = asyncio.create_task(asyncio.to_thread(produce))
    try:
        while True:
            kind, value = await items.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]  # put by `produce`
    finally:
        cancelled.set()
        await asyncio.shield(task)


async def primed(items: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same items, the first of them computed already: what is refused before it is refused with a status.

    Raises: LabError, and whatever else the first item raises.
    """
    try:
        first = await anext(items)
    except StopAsyncIteration:
        raise LabError("The client went away.", status=499, code="client_closed") from None

    async def all_items() -> AsyncIterator[T]:
        yield first
        async for item in items:
            yield item

    return all_items()
