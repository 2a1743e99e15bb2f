"""Reader, writer and clock of one connection: the only place that waits on the stream.

All knowledge is the core's. The reader feeds it, the writer sends what it gives, the clock tells it
when a deadline has passed; its `Dispatcher` says who is to be woken. Callers never touch the
stream.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from math import inf

import trio

from pie_proto import ClientConnection, ConnectionState, TransportAction
from pie_proto import events as e
from pie_proto.commands import Command
from pie_proto.dispatch import Dispatcher
from pie_proto.limits import DEFAULT_LIMITS, DEFAULT_TIMEOUT, DefaultTimeout, Limits, Timeout
from pie_proto.requests import check_timeout
from pie_trio_adapter.home import QUIET_TURNS, Home

__all__ = ["Driver", "ParkingLot"]

_LAST_READ_SECONDS = 1.0
"""How long to read on after writing has failed: the peer is gone, what it sent is here already."""

_ARRIVED_BYTES = 64 * 1024 * 1024
"""More than can have arrived and not been read: no system has larger receive buffers by default."""

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)

_log = logging.getLogger("pie_trio_adapter")


class ParkingLot:
    """Where tasks wait until they are woken: trio's own, in the core's words.

    Nothing else runs between looking at the core and parking, so whoever waits looks first and
    looks again when it is woken: no wake-up is lost, and one too many does no harm.
    """

    __slots__ = ("_lot",)

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        """Let all who wait here look again."""
        self._lot.unpark_all()

    async def wait(self) -> None:
        """Wait until the next `wake`."""
        await self._lot.park()


class Driver:
    """Carries one `ClientConnection` over one `trio.abc.Stream`."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        connection: ClientConnection,
        on_notice: Callable[[str], None] | None = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> None:
        self.connection = connection
        self.home = Home()
        self.timeout = timeout
        """That of requests which have none of their own."""
        self.dispatcher = Dispatcher(connection, ParkingLot, tell=self._tell, changed=self._changed)
        self.interrupt: KeyboardInterrupt | SystemExit | None = None
        """What struck in one of the tasks and is meant for the program."""
        self.finished = trio.Event()
        """Set when the tasks are over and the stream is closed."""
        self._stream = stream
        self._on_notice = on_notice
        self._limits = limits
        # The block around the client ends the tasks, and no cancellation of what is around that:
        # what the body does under a shield of its own, to clean up, can still be done.
        self._scope = trio.CancelScope(shield=True)
        self._reading = trio.CancelScope()
        self._alarm = trio.CancelScope()
        self._write_failed = False
        self._read_until: float | None = None
        self._received_bytes = 0

    # ------------------------------------------------------------------------------ the three tasks

    @trio.lowlevel.enable_ki_protection
    async def run(self, body: trio.CancelScope) -> None:
        """Carry the connection until its end.

        Raises nothing. An interrupt that struck in one of its tasks is kept, and cancels ``body``.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as tasks:
                    for task in (self._read, self._write, self._watch_clock):
                        tasks.start_soon(self._guard, task)
        finally:
            with trio.CancelScope(shield=True):
                await self._guard(self._close_stream)
            try:
                self.dispatcher.finish(trio.current_time())
            finally:
                self.finished.set()
        if self.interrupt is not None:
            body.cancel()

    async def _close_stream(self) -> None:
        await trio.aclose_forcefully(self._stream)

    # An interrupt is the main task's: trio gives it there when it strikes in what is protected.
    @trio.lowlevel.enable_ki_protection
    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception as exc:  # noqa: BLE001 - see below
            # A fault of ours: nobody's nursery may be torn down by it, and nobody may hang.
            _log.exception("the connection ended by a fault of the client")
            self.dispatcher.note_cause(exc)
            self._scope.cancel()
        except (KeyboardInterrupt, SystemExit) as exc:
            self.interrupt = exc
            self._scope.cancel()

    async def _read(self) -> None:
        with self._reading:
            await self._receive_until_end()
        if self._reading.cancelled_caught:
            self.dispatcher.receive_eof(trio.current_time())

    async def _receive_until_end(self) -> None:
        connection, dispatcher = self.connection, self.dispatcher
        while connection.state is not ConnectionState.CLOSED:
            while not (connection.wants_data or self._write_failed):
                await dispatcher.to_read.wait()
            try:
                data = await self._stream.receive_some()
            except _BROKEN as exc:
                dispatcher.note_cause(exc)
                data = b""
            if not data:
                dispatcher.receive_eof(trio.current_time())
                return
            self._received_bytes += len(data)
            connection.receive_data(data, trio.current_time())
            dispatcher.pump()

    async def _write(self) -> None:
        connection, dispatcher = self.connection, self.dispatcher
        while True:
            data = connection.data_to_send(now=trio.current_time())
            if data:
                try:
                    await self._stream.send_all(data)
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
            with trio.CancelScope() as self._alarm:
                self._arm()
                await trio.sleep(inf)
            await self._read_what_has_arrived()
            now = trio.current_time()
            self.connection.handle_timeout(now)
            if self._read_until is not None and self._read_until <= now:
                self._reading.cancel()
            self.dispatcher.pump()

    async def _read_what_has_arrived(self) -> None:
        # If the whole program stood still, a deadline may have passed although the answer is here.
        quiet, most = 0, self._received_bytes + _ARRIVED_BYTES
        while quiet < QUIET_TURNS and self._received_bytes < most:
            before = self._received_bytes
            await trio.lowlevel.checkpoint()
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
        self._read_until = trio.current_time() + _LAST_READ_SECONDS
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
        timeout = self.timeout if isinstance(timeout, DefaultTimeout) else timeout
        if self.dispatcher.has_room:
            return timeout
        timeout = check_timeout(timeout)
        seconds = self._limits.request_timeout if isinstance(timeout, DefaultTimeout) else timeout
        started = trio.current_time()
        with trio.move_on_after(inf if seconds is None else seconds):
            while not self.dispatcher.has_room:
                await self.dispatcher.room.wait()
        if seconds is not None and not self.dispatcher.has_room:
            raise self.dispatcher.no_room(command, seconds)
        if timeout is None or isinstance(timeout, DefaultTimeout):
            return timeout
        return max(timeout - (trio.current_time() - started), 0.001)

    def cancel(self) -> None:
        """End the tasks now."""
        self._scope.cancel()
