"""Calls that block, in daemon threads: an event loop waits for one, or abandons it.

Not the threads of an event loop's library. Those of anyio on asyncio are not daemon threads, so one
that hangs keeps the process from exiting. On trio, an abandoned thread occupies a place among the
40 that all of the program shares, name resolution included.
"""

from __future__ import annotations

import enum
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

__all__ = ["Call", "Closing", "Threads", "start"]

T = TypeVar("T")

_AT_ONCE: Final = 40
"""How many calls that are waited for run at a time; as many as anyio and trio run. More wait."""

_THREADS: Final = 400
"""How many threads there are at most, with those of abandoned calls. Past that, calls wait."""

_IDLE_SECONDS: Final = 10.0
"""How long a thread waits for its next call: starting one takes longer than reading a piece."""


class _State(enum.Enum):
    WAITING = enum.auto()
    RUNNING = enum.auto()
    DONE = enum.auto()
    ABANDONED = enum.auto()


class Call(Generic[T]):
    """One call in a thread, made by `start`. The one who waits for it gets `result`."""

    __slots__ = ("_error", "_result", "on_done", "state", "threads", "work")

    def __init__(
        self, threads: Threads, work: Callable[[], T], on_done: Callable[[], object]
    ) -> None:
        self.threads = threads
        self.work = work
        self.on_done = on_done
        self.state = _State.WAITING
        self._result: T
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do the work, in this thread, and keep what comes of it."""
        try:
            self._result = self.work()
        except BaseException as exc:  # noqa: BLE001 - it is raised where the caller waits
            self._error = exc

    def result(self) -> T:
        """What the call returned, once it is done; raises what it raised."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._result

    def abandon(self) -> None:
        """Wait for it no longer: ``on_done`` is not called any more, unless that has begun.

        A call that has not begun never does. One that has keeps its thread until it is done, and
        its place goes to another call. Idempotent; has no effect on a call that is done.
        """
        self.threads.abandon(self)


class Threads:
    """Some daemon threads, started as calls come, that end when they are idle."""

    def __init__(self, *, at_once: int = _AT_ONCE, most: int = _THREADS) -> None:
        self._at_once = at_once
        self._most = most
        self.forget()

    def forget(self) -> None:
        """Begin anew. For the child of a fork, which has none of its parent's threads."""
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[Call[Any]] = deque()
        self._threads = 0
        self._running = 0
        self._abandoned = 0

    def start(self, work: Callable[[], T], on_done: Callable[[], object]) -> Call[T]:
        """Call ``work`` in a thread, then ``on_done`` in the same thread; neither waits nor blocks.

        ``work`` runs in an empty context: it may have an event loop of its own. ``on_done`` may
        raise `RuntimeError` if the event loop that it is to wake has ended.
        """
        call = Call(self, work, on_done)
        with self._changed:
            self._waiting.append(call)
            try:
                self._hand_out()
            except BaseException:  # the system has no thread left
                self._waiting.remove(call)
                raise
        return call

    def abandon(self, call: Call[Any]) -> None:
        """See `Call.abandon`."""
        with self._changed:
            if call.state is _State.WAITING:
                self._waiting.remove(call)
                call.state = _State.ABANDONED
            elif call.state is _State.RUNNING:
                call.state = _State.ABANDONED
                self._running -= 1
                self._abandoned += 1
                with suppress(RuntimeError):  # no thread left; one that is done takes the next call
                    self._hand_out()

    def _hand_out(self) -> None:
        ready = min(len(self._waiting), self._at_once - self._running)
        if ready > self._threads - self._running - self._abandoned and self._threads < self._most:
            threading.Thread(target=self._serve, name="call that blocks", daemon=True).start()
            self._threads += 1
        self._changed.notify(ready)

    def _serve(self) -> None:
        while (call := self._next()) is not None:
            call.run()
            self._done(call)
            del call  # while this thread is idle, nothing that the call had is kept

    def _next(self) -> Call[Any] | None:
        with self._changed:
            if not self._changed.wait_for(self._may_run, _IDLE_SECONDS):
                self._threads -= 1
                return None
            call = self._waiting.popleft()
            call.state = _State.RUNNING
            self._running += 1
            return call

    def _may_run(self) -> bool:
        return bool(self._waiting) and self._running < self._at_once

    def _done(self, call: Call[Any]) -> None:
        with self._changed:
            if call.state is _State.ABANDONED:
                self._abandoned -= 1
                return
            call.state = _State.DONE
            self._running -= 1
        with suppress(RuntimeError):
            call.on_done()


class Closing:
    """Something that one thread at a time uses, and any thread closes without waiting for that one.

    ``with closing:`` is the time of use; look at ``closed`` within. `close` calls ``release`` at
    once. If it is in use, the thread that uses it calls ``release`` when it is done.
    """

    __slots__ = ("_lock", "_release", "closed")

    def __init__(self, release: Callable[[], None]) -> None:
        self.closed = False
        """Whether it is closed, or will be when its present use ends."""
        self._release = release
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self.closed:
            self._close()

    def close(self, patience: float = 0.0) -> None:
        """Close it, waiting for its present use to end no longer than ``patience``, in seconds.

        Idempotent. ``release`` may be called more than once, and never during a use.
        """
        self.closed = True
        self._close(patience)

    def _close(self, patience: float = 0.0) -> None:
        # A thread that holds the lock looks at `closed` after it has given the lock back.
        if self._lock.acquire(timeout=patience):
            try:
                self._release()
            finally:
                self._lock.release()


_threads = Threads()

start = _threads.start

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.forget)
