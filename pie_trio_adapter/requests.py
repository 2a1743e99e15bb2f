"""A command from its sending to its outcome, in the task of whoever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias, TypeVar

import trio

from pie_files import SourceChanged
from pie_files.sources import Content
from pie_proto import events as e
from pie_proto.commands import Buffer, Command, TerminateInstance
from pie_proto.dispatch import Dispatcher, Exchange
from pie_proto.limits import DEFAULT_TIMEOUT, DefaultTimeout, Timeout
from pie_trio_adapter.driver import Driver, ParkingLot
from pie_trio_adapter.threads import in_thread

__all__ = ["Progress", "expect", "request", "upload"]

Progress: TypeAlias = Callable[[int, int], None]
"""Told how far an upload has come: bytes sent, size in bytes."""

_Read: TypeAlias = Callable[[int, int], Awaitable[Buffer]]

_Outcome = TypeVar("_Outcome", bound=e.Outcome)


async def request(
    driver: Driver,
    command: Command,
    *,
    read: _Read | None = None,
    progress: Progress | None = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> e.Outcome:
    """Send a command and wait for what settles it.

    ``read(offset, length)`` gives the pieces of an upload, ``progress(sent, size)`` is told how far
    it has come. ``timeout`` as in `ClientConnection.send`; by default that of the client. Raises
    what the outcome means if it is no success, and whatever ``read`` or ``progress`` raise.
    Cancelled, or after such an exception, the command is cancelled too; cancelled before, it is not
    sent, but for a terminate. In another thread or trio run, it raises `LocalProtocolError`.
    """
    driver.home.check("this client")
    # A terminate makes room, so it does not wait for room.
    if not isinstance(command, TerminateInstance):
        await trio.lowlevel.checkpoint_if_cancelled()
        timeout = await driver.room(command, timeout)
    elif isinstance(timeout, DefaultTimeout):
        timeout = driver.timeout
    dispatcher = driver.dispatcher
    exchange = dispatcher.begin(
        command, trio.current_time(), watched=progress is not None, timeout=timeout
    )
    try:
        await _settle(dispatcher, exchange, read, progress)
    except BaseException:
        dispatcher.end(exchange, trio.current_time(), given_up=True)
        raise
    dispatcher.end(exchange, trio.current_time(), given_up=False)
    return dispatcher.result(exchange)


async def expect(
    driver: Driver, command: Command, kind: type[_Outcome], timeout: Timeout = DEFAULT_TIMEOUT
) -> _Outcome:
    """As `request`, for a command that only one kind of outcome can settle."""
    outcome = await request(driver, command, timeout=timeout)
    if not isinstance(outcome, kind):
        raise AssertionError(f"{type(command).__name__} was settled by {outcome!r}")
    return outcome


async def upload(
    driver: Driver,
    content: Content,
    progress: Progress | None,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """As `request`, for an upload; raises `UploadFailed` if its file turns out changed."""

    async def read(offset: int, length: int) -> Buffer:
        return await in_thread(partial(content.read, offset, length))

    try:
        await request(driver, content.command, read=read, progress=progress, timeout=timeout)
    except SourceChanged as exc:
        raise content.changed(exc) from exc


async def _settle(
    dispatcher: Dispatcher[ParkingLot],
    exchange: Exchange[ParkingLot],
    read: _Read | None,
    progress: Progress | None,
) -> None:
    while True:
        if progress is not None and (sent := dispatcher.news(exchange)) is not None:
            progress(sent, exchange.size)
        elif exchange.outcome is not None:
            return
        elif read is not None and (wanted := exchange.wanted) is not None:
            dispatcher.provide(exchange, await read(wanted.offset, wanted.length))
        else:
            await exchange.woken.wait()
