"""Which event loop a client belongs to, and deadlines that are judged after what has arrived."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.lowlevel

from pie_anyio.lifetime import on_asyncio
from pie_proto.errors import elsewhere

__all__ = ["QUIET_TURNS", "DeadlinePassed", "Home", "run_until"]

_T = TypeVar("_T")

QUIET_TURNS = 10
"""How many turns of the event loop pass until what has arrived has been read: through the system's
poll, the stream, TLS and perhaps a tunnel to the reader, some two turns for each."""


class Home:
    """The thread and event loop in which this was made."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._current: Callable[[], object]
        if on_asyncio():
            self._current = asyncio.get_running_loop
        else:
            import trio  # noqa: PLC0415 - on asyncio it may not be installed

            self._current = trio.lowlevel.current_trio_token
        self._loop = self._current()

    def check(self, what: str) -> None:
        """Raise `LocalProtocolError` in another thread or event loop; ``what`` is used there.

        In the same thread while no event loop runs, nothing else can use it, so that is right.
        """
        try:
            is_here = self._current() is self._loop
        except RuntimeError:
            is_here = threading.get_ident() == self._thread
        if not is_here:
            raise elsewhere(what)


class DeadlinePassed(Exception):
    """The work was not done in time."""


async def run_until(deadline: float, work: Callable[[], Awaitable[_T]]) -> _T:
    """Run ``work``, which is cancelled if it is not done by ``deadline``.

    Raises `DeadlinePassed` then. If the whole program stood still past the deadline, what has
    arrived meanwhile is still read. What ``work`` raises arrives as itself.
    """
    results: list[_T] = []
    raised: BaseException | None = None

    async def watch() -> None:
        await anyio.sleep_until(deadline)
        for _ in range(QUIET_TURNS):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(watch)
            try:
                results.append(await work())
            except (Exception, KeyboardInterrupt, SystemExit) as exc:  # noqa: BLE001 - raised below
                raised = exc
        # A cancellation from outside must not strike here, where a result would be lost: a
        # connection would stay open. It strikes at the caller's next checkpoint.
        tasks.cancel_scope.shield = True
        tasks.cancel_scope.cancel()
    if raised is not None:
        try:
            raise raised
        finally:
            del raised
    if not results:
        raise DeadlinePassed
    return results[0]
