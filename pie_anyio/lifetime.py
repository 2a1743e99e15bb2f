"""Where a client's or a server's tasks live: on asyncio in their own task, on trio in the block.

On asyncio a client may be connected in one task and closed in another, as web frameworks and test
fixtures do; a task group could not be left from another task than entered it, so one task holds it
from beginning to end. On trio the block is the scope, and no task outlives it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus

__all__ = ["Background", "Life", "on_asyncio", "uninterrupted"]

_F = TypeVar("_F", bound=Callable[..., object])

_uninterrupted: list[Callable[..., object]] = []


def on_asyncio() -> bool:
    """Whether the caller runs in an asyncio task (trio may run as a guest of an asyncio loop)."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def uninterrupted(function: _F) -> _F:
    """Have no `KeyboardInterrupt` strike between two lines of ``function``, or of what it calls.

    On trio it then strikes where ``function`` waits. Between two lines it would leave a task group
    entered, and trio's stack of cancel scopes corrupted. On asyncio that is so anyway: there
    Control-C cancels the main task.
    """
    _uninterrupted.append(function)
    return function


def _protect() -> None:
    # By way of `sys.modules`, since nobody who uses asyncio is to have trio imported.
    trio: Any = sys.modules["trio"]
    while _uninterrupted:
        trio.lowlevel.enable_ki_protection(_uninterrupted.pop())


class Life(Protocol):
    """Lives, from the call on; says when it has begun."""

    def __call__(self, *, task_status: TaskStatus[None]) -> Coroutine[object, object, None]:
        """Live, and call ``task_status.started()`` once."""
        ...


class Background(TaskStatus[None]):
    """Runs one coroutine beside the user's code, without either seeing the other's exceptions.

    The user sees no exception group, and the coroutine no cancellation from around the user's
    block: what the block does under a shield of its own, to clean up, can still be done. It is to
    be told by other means that it shall end.
    """

    def __init__(self) -> None:
        if not on_asyncio():
            _protect()
        # Not before the event loop runs: on trio, both belong to it.
        self._scope = anyio.CancelScope(shield=True)
        self._begun = anyio.Event()
        self._over = anyio.Event()
        self._raised: BaseException | None = None
        self._group: TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None

    @uninterrupted
    async def start(self, life: Life, name: str) -> None:
        """Run ``life`` until it says that it has begun; raises what it raised before that.

        When this is cancelled, ``life`` is, and is waited for.
        """
        if on_asyncio():
            self._task = asyncio.create_task(self._live(life), name=name)
        else:
            self._group = anyio.create_task_group()
            await self._group.__aenter__()
            self._group.start_soon(self._live, life, name=name)
        try:
            await self._begun.wait()
        except BaseException:
            self._scope.cancel()
            await self.join()
            await self._leave_group()
            if isinstance(self._raised, KeyboardInterrupt | SystemExit):
                # It struck in the task, and is why this was cancelled.
                await self.leave()
            raise
        if self._over.is_set():
            await self.leave()

    def started(self, value: None = None) -> None:
        """What ``life`` calls when it has begun."""
        self._begun.set()

    async def _live(self, life: Life) -> None:
        try:
            with self._scope:
                await life(task_status=self)
        except Exception as exc:  # noqa: BLE001 - raised again where the user is
            self._raised = exc
        except (KeyboardInterrupt, SystemExit) as exc:
            if self._group is None:
                raise
            # It struck here, but is meant for the program: the block ends, and it leaves as itself.
            self._raised = exc
            self._group.cancel_scope.cancel()
        finally:
            self._over.set()
            self._begun.set()

    @uninterrupted
    async def join(self) -> None:
        """Wait until it has ended, even if this is cancelled: then that is raised afterwards.

        An interrupt is, too.
        """
        if self._task is not None:
            await _wait_out(self._task)
            return
        interrupt: KeyboardInterrupt | None = None
        with anyio.CancelScope(shield=True):
            while not self._over.is_set():
                try:
                    await self._over.wait()
                except KeyboardInterrupt as exc:
                    interrupt = exc
        if interrupt is not None:
            raise interrupt

    @uninterrupted
    async def leave(self) -> None:
        """Let go, when it has ended, from where it was started; raises what it raised."""
        await self._leave_group()
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised

    @uninterrupted
    async def _leave_group(self) -> None:
        if self._group is None:
            return
        # No task is left to wait for. A cancellation from outside is not to strike here, where it
        # would hide what is raised; it strikes at the next checkpoint. Nor can a shield of ours be
        # put around this, since the group was entered before it: so the group is its own. It is
        # not shown what the block raised, so that this arrives as itself.
        group, self._group = self._group, None
        group.cancel_scope.shield = True
        await group.__aexit__(None, None, None)


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
