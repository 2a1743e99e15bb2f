"""A command from its sending to its outcome, in the task of whoever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import trio

from pie_proto import error_for
from pie_proto import events as e
from pie_proto.commands import Command, TerminateInstance, UploadCommand
from pie_proto.errors import UploadFailed
from pie_trio_adapter.driver import Driver, Waiter
from pie_trio_adapter.sources import Content, SourceChanged

__all__ = ["Progress", "expect", "request", "upload"]

Progress: TypeAlias = Callable[[int, int], None]
"""Told how far an upload has come: bytes sent, size in bytes."""

_Read: TypeAlias = Callable[[int, int], Awaitable[bytes]]

_Outcome = TypeVar("_Outcome", bound=e.Outcome)


async def request(
    driver: Driver,
    command: Command,
    *,
    read: _Read | None = None,
    progress: Progress | None = None,
) -> e.Outcome:
    """Send a command and wait for what settles it.

    ``read(offset, length)`` gives the pieces of an upload, ``progress(sent, size)`` is told how far
    it has come. Raises what the outcome means if it is no success, and whatever ``read`` or
    ``progress`` raise. Cancelled, or after such an exception, the command is cancelled too;
    cancelled before, it is not sent, but for a terminate.
    """
    # What makes room is not to wait for room.
    if not isinstance(command, TerminateInstance):
        await trio.lowlevel.checkpoint_if_cancelled()
        await driver.room()
    request_id = driver.submit(command)
    if request_id is None:
        raise AssertionError(f"{type(command).__name__} is not answered")
    waiter = driver.waiters[request_id] = Waiter()
    if progress is not None:
        driver.watching.add(waiter)
    size = command.size if isinstance(command, UploadCommand) else 0
    try:
        outcome = await _settled(driver, request_id, waiter, size, read, progress)
    except BaseException:
        _undo(driver, request_id, waiter)
        raise
    finally:
        del driver.waiters[request_id]
        driver.watching.discard(waiter)
    match outcome:
        case e.ConnectionClosed():
            raise driver.end_error()
        case e.Failed() | e.TimedOut():
            raise error_for(outcome)
        case _:
            return outcome


async def expect(driver: Driver, command: Command, kind: type[_Outcome]) -> _Outcome:
    """As `request`, for a command that only one kind of outcome can settle."""
    outcome = await request(driver, command)
    if not isinstance(outcome, kind):
        raise AssertionError(f"{type(command).__name__} was settled by {outcome!r}")
    return outcome


async def upload(
    driver: Driver, command: UploadCommand, content: Content, progress: Progress | None
) -> None:
    """As `request`, for an upload; raises `UploadFailed` if its file turns out changed."""
    read = content.source.read if content.source is not None else None
    try:
        await request(driver, command, read=read, progress=progress)
    except SourceChanged as exc:
        raise UploadFailed(f"upload given up: {exc}", command=command, reason=str(exc)) from exc


async def _settled(
    driver: Driver,
    request_id: int,
    waiter: Waiter,
    size: int,
    read: _Read | None,
    progress: Progress | None,
) -> e.Outcome | e.ConnectionClosed:
    told = -1
    while waiter.outcome is None:
        sent = driver.connection.upload_progress(request_id)
        if waiter.wanted is not None and read is not None:
            piece = await read(waiter.wanted.offset, waiter.wanted.length)
            waiter.wanted = None
            if driver.closed is None:
                driver.connection.provide_chunk(request_id, piece)
                driver.touched()
        elif progress is not None and sent is not None and sent != told:
            told = sent
            progress(sent, size)
        else:
            await waiter.woken.park()
    uploaded = isinstance(waiter.outcome, e.ProgramUploaded | e.BlobUploaded)
    if progress is not None and uploaded and told != size:
        progress(size, size)
    return waiter.outcome


def _undo(driver: Driver, request_id: int, waiter: Waiter) -> None:
    """Nobody waits for the outcome any more: tell the core, wherever the request stands."""
    now = trio.current_time()
    if waiter.outcome is None:
        driver.connection.cancel(request_id, now)
    elif not isinstance(waiter.outcome, e.ConnectionClosed):
        driver.connection.abandon(waiter.outcome, now)
    driver.touched()
