"""Reader, writer and clock of one connection: the only place that waits on the network.

All knowledge is the core's. The reader feeds it, the writer sends what it gives, the clock tells it
when a deadline has passed; its `Dispatcher` says who is to be woken. Callers never touch the
stream.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.abc import TaskStatus

from pie_anyio.home import QUIET_TURNS, Home
from pie_anyio.threads import in_thread
from pie_files import SourceChanged
from pie_files.sources import Content
from pie_proto import ClientConnection, ConnectionState, TransportAction
from pie_proto import events as e
from pie_proto.commands import Buffer, Command, TerminateInstance
from pie_proto.dispatch import Dispatcher, Exchange
from pie_proto.limits import DEFAULT_LIMITS, DEFAULT_TIMEOUT, DefaultTimeout, Limits, Timeout
from pie_proto.requests import check_timeout

__all__ = ["Driver", "ParkingLot", "Progress"]

Read = Callable[[int, int], Awaitable[Buffer]]
Progress = Callable[[int, int], None]
"""Told how far an upload has come: bytes sent, size in bytes."""

_Outcome = TypeVar("_Outcome", bound=e.Outcome)

_RECEIVE_BYTES = 262_144
"""asyncio's own buffer size: smaller reads are re-split by copying."""

_LAST_READ_SECONDS = 1.0
"""How long to read on after writing has failed: the peer is gone, what it sent is here already."""

_ARRIVED_BYTES = 64 * 1024 * 1024
"""More than can have arrived and not been read: no system has larger receive buffers by default."""

_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

_log = logging.getLogger("pie_anyio")


class ParkingLot:
    """Where tasks wait until they are woken.

    Nothing else runs between looking at the core and parking, so whoever waits looks first and
    looks again when it is woken: no wake-up is lost, and one too many does no harm.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def wake(self) -> None:
        """Let all who wait here look again."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait until the next `wake`."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class Driver:
    """Carries one `ClientConnection` over one byte stream."""

    def __init__(
        self,
        stream: anyio.abc.ByteStream,
        connection: ClientConnection,
        on_notice: Callable[[str], None] | None = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> None:
        self.connection = connection
        self.home = Home()
        self.dispatcher = Dispatcher(connection, ParkingLot, tell=self._tell, changed=self._changed)
        self.finished = anyio.Event()
        """Set when the tasks are over and the stream is closed."""
        self._on_notice = on_notice
        self._limits = limits
        self._timeout = timeout
        self._interrupt: KeyboardInterrupt | SystemExit | None = None
        self._stream = stream
        self._scope = anyio.CancelScope()
        self._reading = anyio.CancelScope()
        self._alarm = anyio.CancelScope()
        self._write_failed = False
        self._read_until: float | None = None
        self._received_bytes = 0

    # ------------------------------------------------------------------------------ the three tasks

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Carry the connection until its end.

        Raises nothing but cancellation, and an interrupt that struck in one of its tasks.
        """
        try:
            task_status.started()
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    for task in (self._read, self._write, self._watch_clock):
                        tasks.start_soon(self._guard, task)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)
            try:
                self.dispatcher.finish(anyio.current_time())
            finally:
                self.finished.set()
        if self._interrupt is not None:
            raise self._interrupt

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception as exc:  # noqa: BLE001 - see below
            # A fault of ours: nobody's task group may be torn down by it, and nobody may hang.
            _log.exception("the connection ended by a fault of the client")
            self.dispatcher.note_cause(exc)
            self._scope.cancel()
        except (KeyboardInterrupt, SystemExit) as exc:
            # Raised again behind the task group, which would wrap it.
            self._interrupt = exc
            self._scope.cancel()

    async def _read(self) -> None:
        with self._reading:
            await self._receive_until_end()
        if self._reading.cancelled_caught:
            self.dispatcher.receive_eof(anyio.current_time())

    async def _receive_until_end(self) -> None:
        connection, dispatcher = self.connection, self.dispatcher
        while connection.state is not ConnectionState.CLOSED:
            while not (connection.wants_data or self._write_failed):
                await dispatcher.to_read.wait()
            try:
                data = await self._stream.receive(_RECEIVE_BYTES)
            except anyio.EndOfStream:
                data = b""
            except _BROKEN as exc:
                dispatcher.note_cause(exc)
                data = b""
            if not data:
                dispatcher.receive_eof(anyio.current_time())
                return
            self._received_bytes += len(data)
            connection.receive_data(data, anyio.current_time())
            dispatcher.pump()

    async def _write(self) -> None:
        connection, dispatcher = self.connection, self.dispatcher
        while True:
            data = connection.data_to_send(now=anyio.current_time())
            if data:
                try:
                    await self._stream.send(data)
                except _BROKEN as exc:
                    self._fail_writing(exc)
                    return
                dispatcher.written()
            elif connection.transport_action() is not TransportAction.KEEP:
                self._scope.cancel()
                return
            else:
                dispatcher.ask_for_chunks()
                await dispatcher.to_write.wait()

    async def _watch_clock(self) -> None:
        while True:
            with anyio.CancelScope() as self._alarm:
                self._arm()
                await anyio.sleep_forever()
            await self._read_what_has_arrived()
            now = anyio.current_time()
            self.connection.handle_timeout(now)
            if self._read_until is not None and self._read_until <= now:
                self._reading.cancel()
            self.dispatcher.pump()

    async def _read_what_has_arrived(self) -> None:
        # If the whole program stood still, a deadline may have passed although the answer is here.
        quiet, most = 0, self._received_bytes + _ARRIVED_BYTES
        while quiet < QUIET_TURNS and self._received_bytes < most:
            before = self._received_bytes
            await anyio.lowlevel.checkpoint()
            quiet = quiet + 1 if self._received_bytes == before else 0

    def _arm(self) -> None:
        # Later deadlines are not worth a change: the clock looks again when it rings.
        for deadline in (self.connection.next_deadline(), self._read_until):
            if deadline is not None and deadline < self._alarm.deadline:
                self._alarm.deadline = deadline

    def _fail_writing(self, exc: BaseException) -> None:
        # What the server sent before it went is still to be read; the end of that is the end.
        self.dispatcher.note_cause(exc)
        self._write_failed = True
        self._read_until = anyio.current_time() + _LAST_READ_SECONDS
        self.dispatcher.to_read.wake()
        self._changed()

    def _changed(self) -> None:
        # The writer ends the tasks when all is sent; without it, or at once, it is done here.
        match self.connection.transport_action():
            case TransportAction.ABORT:
                self._scope.cancel()
            case TransportAction.CLOSE if self._write_failed:
                self._scope.cancel()
            case _:
                pass
        self._arm()

    def _tell(self, event: e.ServerNotice | e.UnknownMessage) -> None:
        if isinstance(event, e.UnknownMessage):
            _log.info("a message that this client does not know: %s", event.name)
            return
        _log.warning("the server says: %s", event.text)
        if self._on_notice is not None:
            try:
                self._on_notice(event.text)
            except Exception:  # noqa: BLE001 - there is nobody to tell, and nothing to end for it
                _log.exception("the callback for a notice of the server's failed")

    # ----------------------------------------------------------------------------- what callers use

    async def wait_open(self) -> None:
        """Wait until the WebSocket is open; raises how the connection ended before."""
        while not self.dispatcher.is_open and self.dispatcher.closed is None:
            await self.dispatcher.opened.wait()
        if self.dispatcher.closed is not None:
            raise self.dispatcher.end_error()

    async def room(self, command: Command, timeout: Timeout = DEFAULT_TIMEOUT) -> Timeout:
        """Wait until commands are taken again, or the connection is over. Cancel-safe.

        Raises `RequestTimeout` if that takes longer than ``timeout``; what is left of it otherwise.
        """
        timeout = self._timeout if isinstance(timeout, DefaultTimeout) else timeout
        if self.dispatcher.has_room:
            return timeout
        timeout = check_timeout(timeout)
        seconds = self._limits.request_timeout if isinstance(timeout, DefaultTimeout) else timeout
        started = anyio.current_time()
        with anyio.move_on_after(seconds):
            while not self.dispatcher.has_room:
                await self.dispatcher.room.wait()
        if seconds is not None and not self.dispatcher.has_room:
            raise self.dispatcher.no_room(command, seconds)
        if timeout is None or isinstance(timeout, DefaultTimeout):
            return timeout
        return max(timeout - (anyio.current_time() - started), 0.001)

    def submit(self, command: Command) -> None:
        """Give a command that nothing answers to the core; raises what it raises."""
        self.dispatcher.submit(command, anyio.current_time())

    async def expect(
        self, command: Command, kind: type[_Outcome], timeout: Timeout = DEFAULT_TIMEOUT
    ) -> _Outcome:
        """As `request`, for a command that only one kind of outcome can settle."""
        outcome = await self.request(command, timeout=timeout)
        if not isinstance(outcome, kind):
            raise AssertionError(f"{type(command).__name__} was settled by {outcome!r}")
        return outcome

    async def upload(
        self, content: Content, progress: Progress | None, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> None:
        """As `request`, for an upload; raises `UploadFailed` if its file turns out changed."""

        async def read(offset: int, length: int) -> Buffer:
            return await in_thread(partial(content.read, offset, length))

        try:
            await self.request(content.command, read=read, progress=progress, timeout=timeout)
        except SourceChanged as exc:
            raise content.changed(exc) from exc

    async def request(
        self,
        command: Command,
        *,
        read: Read | None = None,
        progress: Progress | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> e.Outcome:
        """Send a command and wait for what settles it.

        ``read(offset, length)`` gives the pieces of an upload, ``progress(sent, size)`` is told how
        far it has come. ``timeout`` as in `ClientConnection.send`; by default that of the client.
        Raises what the outcome means if it is no success, and whatever ``read`` or ``progress``
        raise. Cancelled, or after such an exception, the command is cancelled too; cancelled
        before, it is not sent, but for a terminate.
        """
        # A terminate makes room, so it does not wait for room.
        if not isinstance(command, TerminateInstance):
            await anyio.lowlevel.checkpoint_if_cancelled()
            timeout = await self.room(command, timeout)
        elif isinstance(timeout, DefaultTimeout):
            timeout = self._timeout
        dispatcher = self.dispatcher
        exchange = dispatcher.begin(
            command, anyio.current_time(), watched=progress is not None, timeout=timeout
        )
        try:
            await self._settle(exchange, read, progress)
        except BaseException:
            dispatcher.end(exchange, anyio.current_time(), given_up=True)
            raise
        dispatcher.end(exchange, anyio.current_time(), given_up=False)
        return dispatcher.result(exchange)

    async def _settle(
        self, exchange: Exchange[ParkingLot], read: Read | None, progress: Progress | None
    ) -> None:
        dispatcher = self.dispatcher
        while True:
            if progress is not None and (sent := dispatcher.news(exchange)) is not None:
                progress(sent, exchange.size)
            elif exchange.outcome is not None:
                return
            elif read is not None and (wanted := exchange.wanted) is not None:
                dispatcher.provide(exchange, await read(wanted.offset, wanted.length))
            else:
                await exchange.woken.wait()

    def cancel(self) -> None:
        """End the tasks now."""
        self._scope.cancel()
