"""Reader, writer and clock of one connection: the only place that waits on the stream.

All knowledge is the core's. The reader feeds it and hands on what it tells, the writer sends what
it gives, the clock tells it when a deadline has passed. Callers never touch the stream.

Nothing else runs between looking at the core and parking, so whoever parks looks first and looks
again when it is woken: no wake-up is lost, and one too many does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from math import inf

import trio
from trio.lowlevel import ParkingLot

from pie_proto import NEED_DATA, ClientConnection, ConnectionState, TransportAction, error_for
from pie_proto import events as e
from pie_proto.commands import Command
from pie_proto.errors import ConnectFailed, ConnectionLost, PieError
from pie_proto.transfers import ChunkWanted
from pie_trio_adapter.transport import describe

__all__ = ["Driver", "Waiter"]

_LAST_READ_SECONDS = 1.0
"""How long to read on after writing has failed: the peer is gone, what it sent is here already."""

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)

_log = logging.getLogger("pie_trio_adapter")


class Waiter:
    """One request that a task waits for."""

    __slots__ = ("outcome", "wanted", "woken")

    def __init__(self) -> None:
        self.outcome: e.Outcome | e.ConnectionClosed | None = None
        self.wanted: ChunkWanted | None = None
        self.woken = ParkingLot()


class Driver:
    """Carries one `ClientConnection` over one `trio.abc.Stream`."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        connection: ClientConnection,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        self.connection = connection
        self.cause: BaseException | None = None
        """What the stream, or a fault of our own, raised when the connection ended."""
        self.closed: e.ConnectionClosed | None = None
        """How the connection ended, once it has."""
        self.interrupt: KeyboardInterrupt | SystemExit | None = None
        """What struck in one of the tasks and is meant for the program."""
        self.waiters: dict[int, Waiter] = {}
        """Who waits, by the id of the request."""
        self.watching: set[Waiter] = set()
        """Those who want to know how far their uploads have come."""
        self.opened = trio.Event()
        """Set when the WebSocket is open, and at the end."""
        self.finished = trio.Event()
        """Set when the tasks are over and the stream is closed."""
        self._stream = stream
        self._on_notice = on_notice
        # The block around the client ends the tasks, and no cancellation of what is around that:
        # what the body does under a shield of its own, to clean up, can still be done.
        self._scope = trio.CancelScope(shield=True)
        self._reading = trio.CancelScope()
        self._alarm = trio.CancelScope()
        self._write_failed = False
        self._paused = False
        self._to_write = ParkingLot()
        self._resume = ParkingLot()
        self._room = ParkingLot()
        self._readers: dict[str, ParkingLot] = {}

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
                self._tell_end()
            finally:
                self._end()
                self.finished.set()
        if self.interrupt is not None:
            body.cancel()

    async def _close_stream(self) -> None:
        await trio.aclose_forcefully(self._stream)

    def _tell_end(self) -> None:
        """Tell the core that the stream is closed, whoever ended the tasks."""
        if self.closed is None:
            now = trio.current_time()
            if self.cause is None:
                self.connection.close(now=now)
            self.connection.receive_eof(now, self._reason())
            self._pump()

    # An interrupt is the main task's: trio gives it there when it strikes in what is protected.
    @trio.lowlevel.enable_ki_protection
    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception as exc:  # noqa: BLE001 - see below
            # A fault of ours: nobody's nursery may be torn down by it, and nobody may hang.
            _log.exception("the connection ended by a fault of the client")
            self._note_cause(exc)
            self._scope.cancel()
        except (KeyboardInterrupt, SystemExit) as exc:
            self.interrupt = exc
            self._scope.cancel()

    async def _read(self) -> None:
        with self._reading:
            await self._receive_until_end()
        if self._reading.cancelled_caught:
            self.connection.receive_eof(trio.current_time(), self._reason())
            self._pump()

    async def _receive_until_end(self) -> None:
        connection, stream = self.connection, self._stream
        while connection.state is not ConnectionState.CLOSED:
            while connection.reading_paused and not self._write_failed:
                await self._resume.park()
            try:
                data = await stream.receive_some()
            except _BROKEN as exc:
                self._note_cause(exc)
                data = b""
            if data:
                connection.receive_data(data, trio.current_time())
                self._pump()
            else:
                connection.receive_eof(trio.current_time(), self._reason())
                self._pump()
                return

    async def _write(self) -> None:
        connection, stream = self.connection, self._stream
        while True:
            data = connection.data_to_send(now=trio.current_time())
            if data:
                try:
                    await stream.send_all(data)
                except _BROKEN as exc:
                    self._fail_writing(exc)
                    return
                self._written()
            elif connection.transport_action() is not TransportAction.KEEP:
                self._scope.cancel()
                return
            else:
                for wanted in connection.chunks_wanted():
                    self.waiters[wanted.request_id].wanted = wanted
                    self.waiters[wanted.request_id].woken.unpark_all()
                await self._to_write.park()

    async def _watch_clock(self) -> None:
        while True:
            with trio.CancelScope() as self._alarm:
                self._arm()
                await trio.sleep(inf)
            self.connection.handle_timeout(trio.current_time())
            self._pump()

    def _arm(self) -> None:
        # Later deadlines are not worth a change: the clock looks again when it rings.
        deadline = self.connection.next_deadline()
        if deadline is not None and deadline < self._alarm.deadline:
            self._alarm.deadline = deadline

    def _written(self) -> None:
        for waiter in self.watching:
            waiter.woken.unpark_all()
        if not self.connection.writing_paused:
            self._room.unpark_all()
        self._arm()

    def _fail_writing(self, exc: BaseException) -> None:
        # What the server sent before it went is still to be read; the end of that is the end.
        self._note_cause(exc)
        self._write_failed = True
        self._resume.unpark_all()
        self._end_tasks_if_over()
        self._reading.deadline = trio.current_time() + _LAST_READ_SECONDS

    def _reason(self) -> str:
        return "" if self.cause is None else describe(self.cause)

    def _end_tasks_if_over(self) -> None:
        """The writer ends the tasks when all is sent; without it, or at once, it is done here."""
        match self.connection.transport_action():
            case TransportAction.ABORT:
                self._scope.cancel()
            case TransportAction.CLOSE if self._write_failed:
                self._scope.cancel()
            case _:
                pass

    def _note_cause(self, exc: BaseException) -> None:
        if self.cause is None:
            self.cause = exc

    # --------------------------------------------------------------------- handing on what is told

    def _pump(self) -> None:
        """Hand on all that the core has to tell, and see to what follows from it."""
        connection = self.connection
        while self.closed is None and (event := connection.next_event()) is not NEED_DATA:
            match event:
                case e.InstanceReadable(instance_id):
                    self.wake(instance_id)
                case e.Connected():
                    self.opened.set()
                case e.ConnectionClosed():
                    self._end(event)
                case e.ServerNotice(text):
                    self._notice(text)
                case e.UnknownMessage(name):
                    _log.info("a message that this client does not know: %s", name)
                case _:
                    waiter = self.waiters.get(event.request_id)
                    if waiter is not None:
                        waiter.outcome = event
                        waiter.woken.unpark_all()
        self._paused = connection.reading_paused
        self._end_tasks_if_over()
        self._to_write.unpark_all()
        self._arm()

    def _notice(self, text: str) -> None:
        _log.warning("the server says: %s", text)
        if self._on_notice is not None:
            try:
                self._on_notice(text)
            except Exception:  # noqa: BLE001 - there is nobody to tell, and nothing to end for it
                _log.exception("the callback for a notice of the server's failed")

    def _end(self, closed: e.ConnectionClosed | None = None) -> None:
        """Wake everyone who waits, with one story."""
        if self.closed is None:
            self.closed = closed or e.ConnectionClosed(
                by=e.Closer.LOCAL if self.cause is None else e.Closer.TRANSPORT,
                reason=self._reason(),
                opened=self.opened.is_set(),
            )
        self.opened.set()
        self._room.unpark_all()
        for waiter in self.waiters.values():
            waiter.outcome = waiter.outcome or self.closed
            waiter.woken.unpark_all()
        for instance_id in tuple(self._readers):
            self.wake(instance_id)

    # ----------------------------------------------------------------------------- what callers use

    def end_error(self) -> PieError | ConnectFailed | ConnectionLost:
        """A new exception that tells how the connection ended."""
        assert self.closed is not None  # noqa: S101 - callers look first
        error = error_for(self.closed)
        error.__cause__ = self.cause
        return error

    def touched(self) -> None:
        """The core was asked for something: let reader, writer and clock look again."""
        if self._paused and not self.connection.reading_paused:
            self._resume.unpark_all()
            self._pump()
        else:
            self._to_write.unpark_all()
            self._arm()

    def read_instance(self, instance_id: str) -> e.InstanceEvent | None:
        """Take one unread event; raises how the connection ended behind the last one."""
        try:
            event = self.connection.read_instance(instance_id)
        except (PieError, ConnectFailed, ConnectionLost):
            raise self.end_error() from self.cause
        if self._paused and not self.connection.reading_paused:
            self.touched()
        return event

    async def room(self) -> None:
        """Wait until commands are taken again, or the connection is over. Cancel-safe."""
        while self.closed is None and self.connection.writing_paused:
            await self._room.park()

    async def readable(self, instance_id: str) -> None:
        """Wait until an instance has unread events, or the connection is over. Cancel-safe."""
        await self._readers.setdefault(instance_id, ParkingLot()).park()

    def wake(self, instance_id: str) -> None:
        """Let whoever waits for an instance's events look again."""
        if (reader := self._readers.pop(instance_id, None)) is not None:
            reader.unpark_all()

    def submit(self, command: Command) -> int | None:
        """Give a command to the core; raises what it raises."""
        if self.closed is not None:
            raise self.end_error()
        request_id = self.connection.send(command, trio.current_time())
        self.touched()
        return request_id

    def close(self) -> None:
        """Ask for the end; `finished` is set when it has come, at the latest after its deadline."""
        if self.closed is None:
            self.connection.close(now=trio.current_time())
            self._resume.unpark_all()
            self._pump()

    def cancel(self) -> None:
        """End the tasks now."""
        self._scope.cancel()
