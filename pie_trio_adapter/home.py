"""Which trio run a client belongs to, and deadlines that are judged after what has arrived."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from pie_proto.errors import elsewhere

__all__ = ["QUIET_TURNS", "DeadlinePassed", "Home", "run_until"]

_T = TypeVar("_T")

QUIET_TURNS = 10
"""How many turns of the event loop pass until what has arrived has been read: through the system's
poll, the stream, TLS and perhaps a tunnel to the reader, some two turns for each."""


class Home:
    """The thread and trio run in which this was made."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._run = trio.lowlevel.current_trio_token()

    def check(self, what: str) -> None:
        """Raise `LocalProtocolError` in another thread or trio run; ``what`` is used there.

        In the same thread while trio does not run, nothing else can use it, so that is right.
        """
        try:
            is_here = trio.lowlevel.current_trio_token() is self._run
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
        await trio.sleep_until(deadline)
        for _ in range(QUIET_TURNS):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with trio.open_nursery() as tasks:
        with trio.CancelScope() as scope:
            tasks.start_soon(watch)
            try:
                results.append(await work())
            except (Exception, KeyboardInterrupt, SystemExit) as exc:  # noqa: BLE001 - raised below
                raised = exc
        tasks.cancel_scope.cancel()
    if raised is not None:
        try:
            raise raised
        finally:
            del raised
    if not results:
        raise DeadlinePassed
    return results[0]
