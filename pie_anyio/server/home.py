"""Where the tasks of a server live, between its `__aenter__` and its `__aexit__`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import current_token

__all__ = ["Home", "Life"]


class Life(Protocol):
    """Lives, from the call on; says when it has begun."""

    def __call__(self, *, task_status: TaskStatus[None]) -> Coroutine[object, object, None]:
        """Live, and call ``task_status.started()`` once."""
        ...


class Home:
    """Runs one coroutine beside the user's, without either seeing the other's exceptions.

    On trio it is a nursery of the user's task. On asyncio it is a task of its own, so that what
    was entered in one task may be left in another. Either way the user sees no exception group,
    and the coroutine is to be told by other means that it shall end.
    """

    def __init__(self) -> None:
        self._group: TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, life: Life) -> None:
        """Run ``life`` until it says that it has begun; raises what it raised before that.

        When this is cancelled, ``life`` is, and is waited for.
        """
        if isinstance(current_token().native_token, asyncio.AbstractEventLoop):
            await self._start_task(life)
            return
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        try:
            await self._group.start(life)
        except BaseException:
            await self._group.__aexit__(None, None, None)
            raise

    async def wait(self) -> None:
        """Wait until it has ended, even if this is cancelled: then that is raised afterwards."""
        if self._group is not None:
            await self._group.__aexit__(None, None, None)
        elif self._task is not None:
            await _wait_out(self._task)
            self._task.result()

    async def _start_task(self, life: Life) -> None:
        begun = _Begun()
        scope = anyio.CancelScope()

        async def live() -> None:
            with scope:
                await life(task_status=begun)

        task = self._task = asyncio.create_task(live())
        try:
            await asyncio.wait({task, begun.future}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            scope.cancel()
            await _wait_out(task)
            raise
        if not begun.future.done():
            task.result()


class _Begun(TaskStatus[None]):
    def __init__(self) -> None:
        self.future = asyncio.get_running_loop().create_future()

    def started(self, value: None = None) -> None:
        self.future.set_result(value)


async def _wait_out(task: asyncio.Task[None]) -> None:
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
