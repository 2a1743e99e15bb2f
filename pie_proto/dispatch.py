"""Who waits for what a connection tells: a driver's book-keeping, without any waiting.

A driver moves bytes and parks tasks. What lies between is the same for all of them, and is here:
whose outcome an event is, who is woken by it, which piece of an upload is wanted from whom, and
what the end means to each who waited. Nothing here waits or reads a clock, so whoever drives it may
be a task, a thread or a test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from pie_proto import events as e
from pie_proto.commands import Buffer, Command, UploadCommand
from pie_proto.connection import ClientConnection
from pie_proto.errors import (
    ConnectFailed,
    ConnectionLost,
    PieError,
    describe_cause,
    error_for,
    tls_error_behind,
)
from pie_proto.limits import DEFAULT_TIMEOUT, Timeout
from pie_proto.states import ConnectionState
from pie_proto.transfers import ChunkWanted

__all__ = ["Dispatcher", "Exchange", "Wakeup"]


class Wakeup(Protocol):
    """What tasks wait at. A task looks first, waits, and looks again: waking too often is right."""

    def wake(self) -> None:
        """Let all who wait here look again; later comers wait for the next time."""


W = TypeVar("W", bound=Wakeup)


class Exchange(Generic[W]):
    """One command under way, and the task that waits for what settles it."""

    __slots__ = ("command", "outcome", "request_id", "told", "wanted", "woken")

    def __init__(self, command: Command, request_id: int, woken: W) -> None:
        self.command = command
        self.request_id = request_id
        self.woken = woken
        """Woken when there is an outcome, a piece wanted, or news of how far an upload has come."""
        self.outcome: e.Outcome | e.ConnectionClosed | None = None
        """What settled it, or how the connection ended before."""
        self.wanted: ChunkWanted | None = None
        """The piece of an upload that is to be read and given to `Dispatcher.provide`."""
        self.told = -1
        """How many bytes have been told as sent."""

    @property
    def size(self) -> int:
        """How many bytes are uploaded by it."""
        return self.command.size if isinstance(self.command, UploadCommand) else 0


class Dispatcher(Generic[W]):
    """Hands on what a `ClientConnection` tells to those who wait for it.

    ``wakeup`` makes a place to wait at. ``tell`` is called with what is meant for nobody who waits:
    notices and unknown messages. ``changed`` is called whenever deadlines, or what is to be done
    with the transport, may have changed. For one thread at a time, as the connection is.
    """

    def __init__(
        self,
        connection: ClientConnection,
        wakeup: Callable[[], W],
        *,
        tell: Callable[[e.ServerNotice | e.UnknownMessage], None],
        changed: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.closed: e.ConnectionClosed | None = None
        """How the connection ended, once it has."""
        self.cause: BaseException | None = None
        """What the transport, or a fault of the driver's, raised when the connection ended."""
        self.opened = wakeup()
        """Woken when the WebSocket is open, and at the end; see `is_open`."""
        self.room = wakeup()
        """Woken when commands are taken again, and at the end; see `has_room`."""
        self.to_read = wakeup()
        """Where the reader waits while the connection wants no data."""
        self.to_write = wakeup()
        """Where the writer waits while there is nothing to send."""
        self.is_open = connection.state is ConnectionState.OPEN
        """Whether the WebSocket has been open."""
        self._wakeup = wakeup
        self._tell = tell
        self._changed = changed
        self._exchanges: dict[int, Exchange[W]] = {}
        self._watched: set[Exchange[W]] = set()
        self._readers: dict[str, W] = {}
        self._paused = False

    # ------------------------------------------------------------------ what the driver's tasks use

    def pump(self) -> None:
        """Hand on all that the connection has to tell. Call it after feeding, and at a timeout."""
        connection = self.connection
        while self.closed is None and (event := connection.next_event()) is not e.NEED_DATA:
            match event:
                case e.InstanceReadable(instance_id):
                    self._wake_reader(instance_id)
                case e.Connected():
                    self.is_open = True
                    self.opened.wake()
                case e.ConnectionClosed():
                    self._end(event)
                case e.ServerNotice() | e.UnknownMessage():
                    self._tell(event)
                case _:
                    exchange = self._exchanges.get(event.request_id)
                    if exchange is not None:
                        exchange.outcome = event
                        exchange.woken.wake()
        self._paused = connection.reading_paused
        self.to_write.wake()
        self._changed()

    def ask_for_chunks(self) -> None:
        """Let those whose uploads wait for a piece of theirs give it."""
        for wanted in self.connection.chunks_wanted():
            exchange = self._exchanges[wanted.request_id]
            exchange.wanted = wanted
            exchange.woken.wake()

    def written(self) -> None:
        """Bytes have left: uploads have come further or are done, and there may be room again."""
        for exchange in self._watched:
            exchange.woken.wake()
        if not self.connection.writing_paused:
            self.room.wake()
        self.pump()

    def note_cause(self, exc: BaseException) -> None:
        """Keep the first thing that went wrong: it is why the connection ended.

        A failure of TLS comes before any other: its alert says why the peer closed the connection,
        and a write may have found out first that it is closed.
        """
        explains = tls_error_behind(exc) is not None
        if self.cause is None or (explains and tls_error_behind(self.cause) is None):
            self.cause = exc

    @property
    def reason(self) -> str:
        """What went wrong, in a few words; empty if nothing did."""
        return "" if self.cause is None else describe_cause(self.cause)

    def receive_eof(self, now: float) -> None:
        """The transport gives no more: tell the connection, with the reason."""
        self.connection.receive_eof(now, self.reason)
        self.pump()

    def finish(self, now: float) -> None:
        """The transport is closed, whoever closed it: everyone is woken, with one story."""
        if self.closed is not None:
            return
        try:
            if self.cause is None:
                self.connection.close(now=now)
            self.receive_eof(now)
        finally:
            # Whatever that raised is a fault of ours: nobody may hang because of it.
            if self.closed is None:
                by = e.Closer.LOCAL if self.cause is None else e.Closer.TRANSPORT
                self._end(e.ConnectionClosed(by=by, reason=self.reason, opened=self.is_open))

    def _end(self, closed: e.ConnectionClosed) -> None:
        self.closed = closed
        self.opened.wake()
        self.room.wake()
        for exchange in self._exchanges.values():
            exchange.outcome = exchange.outcome or closed
            exchange.woken.wake()
        for instance_id in tuple(self._readers):
            self._wake_reader(instance_id)

    # ----------------------------------------------------------------------- what every caller uses

    def touched(self) -> None:
        """The connection was asked for something: let reader, writer and clock look again."""
        if self._paused and not self.connection.reading_paused:
            self.to_read.wake()
            self.pump()
        else:
            self.to_write.wake()
            self._changed()

    def end_error(self) -> PieError | ConnectFailed | ConnectionLost:
        """A new exception that tells how the connection ended, when it has."""
        if self.closed is None:
            raise AssertionError("the connection has not ended")
        error = error_for(self.closed)
        error.__cause__ = self.cause
        return error

    def close(self, now: float) -> None:
        """Ask for the end, which comes at the latest after its deadline. Idempotent."""
        if self.closed is None:
            self.connection.close(now=now)
            self.to_read.wake()
            self.pump()

    # ----------------------------------------------------------------------------------- to command

    @property
    def has_room(self) -> bool:
        """Whether commands are taken, or refused for good: there is nothing to wait for."""
        return self.closed is not None or not self.connection.writing_paused

    def no_room(
        self, command: Command, seconds: float
    ) -> PieError | ConnectFailed | ConnectionLost:
        """The exception for a command that waited ``seconds`` and was not taken."""
        connection = self.connection
        reason = (
            f"{connection.peer} took nothing for {seconds:g} s, and "
            f"{connection.statistics().unsent_bytes} bytes wait to be sent before it"
        )
        return error_for(e.TimedOut(0, command, reason))

    def submit(
        self, command: Command, now: float, *, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> int | None:
        """Give a command to the connection; raises what it raises."""
        if self.closed is not None:
            raise self.end_error()
        request_id = self.connection.send(command, now, timeout=timeout)
        self.touched()
        return request_id

    def begin(
        self,
        command: Command,
        now: float,
        *,
        watched: bool = False,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Exchange[W]:
        """Give a command that is answered; ``watched`` if how far it has come is to be told.

        ``timeout`` as in `ClientConnection.send`. Whoever begins an exchange ends it with `end`;
        raises as `submit`.
        """
        request_id = self.submit(command, now, timeout=timeout)
        if request_id is None:
            raise AssertionError(f"{type(command).__name__} is not answered")
        exchange = self._exchanges[request_id] = Exchange(command, request_id, self._wakeup())
        if watched:
            self._watched.add(exchange)
        return exchange

    def provide(self, exchange: Exchange[W], piece: Buffer) -> None:
        """Give the piece that ``exchange.wanted`` names; ignored when all is over."""
        exchange.wanted = None
        if self.closed is None:
            self.connection.provide_chunk(exchange.request_id, piece)
            self.touched()

    def news(self, exchange: Exchange[W]) -> int | None:
        """How many bytes of an upload have been sent, if that is more than was told before."""
        if isinstance(exchange.outcome, e.ProgramUploaded | e.BlobUploaded):
            sent: int | None = exchange.size
        else:
            sent = self.connection.upload_progress(exchange.request_id)
        if sent is None or sent == exchange.told:
            return None
        exchange.told = sent
        return sent

    def end(self, exchange: Exchange[W], now: float, *, given_up: bool) -> None:
        """Nobody waits for it any more. Given up, the connection undoes it, wherever it stands."""
        del self._exchanges[exchange.request_id]
        self._watched.discard(exchange)
        if not given_up:
            return
        if exchange.outcome is None:
            self.connection.cancel(exchange.request_id, now)
        elif not isinstance(exchange.outcome, e.ConnectionClosed):
            self.connection.abandon(exchange.outcome, now)
        self.touched()

    def result(self, exchange: Exchange[W]) -> e.Outcome:
        """What settled it; raises what that means if it is no success."""
        match exchange.outcome:
            case None:
                raise AssertionError("the exchange is not over")
            case e.ConnectionClosed():
                raise self.end_error()
            case e.Failed() | e.TimedOut():
                raise error_for(exchange.outcome)
            case _:
                return exchange.outcome

    # -------------------------------------------------------------------------------------- to read

    def readable(self, instance_id: str) -> W:
        """Where to wait for an instance's events, or the end. Look first: it tells what is new."""
        reader = self._readers.get(instance_id)
        if reader is None:
            reader = self._readers[instance_id] = self._wakeup()
        return reader

    def read_instance(self, instance_id: str) -> e.InstanceEvent | None:
        """Take one unread event; raises how the connection ended behind the last one."""
        try:
            event = self.connection.read_instance(instance_id)
        except (PieError, ConnectFailed, ConnectionLost):
            raise self.end_error() from self.cause
        if self._paused and not self.connection.reading_paused:
            self.touched()
        return event

    def discard(self, instance_id: str) -> None:
        """Drop what an instance said and will say, and wake who waited for it."""
        self.connection.discard(instance_id)
        self._wake_reader(instance_id)
        self.touched()

    def _wake_reader(self, instance_id: str) -> None:
        if (reader := self._readers.pop(instance_id, None)) is not None:
            reader.wake()
