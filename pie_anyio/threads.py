"""Waiting for a call that blocks, in a thread that a cancellation leaves to itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled, current_token

from pie_files.threads import start

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """What ``work()`` returns or raises, called in a daemon thread.

    Cancelled, it ends at once. If the call has begun by then, it goes on in its thread, and what
    it returns is dropped: what it opened, it has to close.
    """
    await checkpoint_if_cancelled()
    done = anyio.Event()
    native = current_token().native_token
    soon: Callable[[Callable[[], object]], object] = (
        getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe  # type: ignore[attr-defined]  # trio, asyncio
    )
    call = start(work, lambda: soon(done.set))
    try:
        await done.wait()
    except BaseException:
        call.abandon()
        raise
    return call.result()
