"""Who holds a client's task: on asyncio a task of its own, elsewhere the ``async with`` block.

On asyncio a client may be connected in one task and closed in another, as web frameworks and test
fixtures do; a task group could not be left from another task than entered it, so one task holds it
from beginning to end. On trio the block is the scope, and no task outlives it. Its task group is
not shown what the body raised, so that this arrives as itself and not in an exception group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
import anyio.abc

__all__ = ["Holder", "hold", "on_asyncio"]


def on_asyncio() -> bool:
    """Whether the caller runs in an asyncio task (trio may run as a guest of an asyncio loop)."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


class Holder(Protocol):
    """What holds the running task."""

    async def join(self) -> None:
        """Wait until the task is over, which was told to end. Shielded from cancellation."""

    async def leave(self) -> None:
        """Let go of what holds it, from where it was taken hold of, when the task is over."""


async def hold(run: Callable[[], Awaitable[None]], name: str) -> Holder:
    """Start ``run`` in the background; it must end soon once it is told to."""
    if on_asyncio():
        return _TaskHolder(run, name)
    holder = _ScopeHolder()
    await holder.start(run)
    return holder


async def _awaited(run: Callable[[], Awaitable[None]]) -> None:
    await run()


class _TaskHolder:
    def __init__(self, run: Callable[[], Awaitable[None]], name: str) -> None:
        self._task = asyncio.get_running_loop().create_task(_awaited(run), name=name)

    async def join(self) -> None:
        with anyio.CancelScope(shield=True):
            await asyncio.wait((self._task,))

    async def leave(self) -> None:
        """Nothing more is held."""


class _ScopeHolder:
    def __init__(self) -> None:
        self._tasks = anyio.create_task_group()
        self._over = anyio.Event()
        self._interrupt: KeyboardInterrupt | SystemExit | None = None

    async def start(self, run: Callable[[], Awaitable[None]]) -> None:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run, run)

    async def _run(self, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except (KeyboardInterrupt, SystemExit) as exc:
            # It struck here, but is meant for the program: the body ends, and it leaves as itself.
            self._interrupt = exc
            self._tasks.cancel_scope.cancel()
        finally:
            self._over.set()

    async def join(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._over.wait()

    async def leave(self) -> None:
        # No task is left to wait for. A cancellation from outside is not to strike here, where it
        # would hide an interrupt; it strikes at the next checkpoint. Nor can a shield of ours be
        # put around this, since the group was entered before it: so the group is its own.
        self._tasks.cancel_scope.shield = True
        await self._tasks.__aexit__(None, None, None)
        if self._interrupt is not None:
            raise self._interrupt
