"""Reader, writer and clock of one connection: the only place that waits on the network.

All knowledge is the core's. The reader feeds it and hands on what it tells, the writer sends what
it gives, the clock tells it when a deadline has passed. Callers never touch the stream.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeVar

import anyio
import anyio.abc

from pie_anyio.sources import Content, SourceChanged
from pie_anyio.transport import describe
from pie_proto import NEED_DATA, ClientConnection, ConnectionState, TransportAction, error_for
from pie_proto import events as e
from pie_proto.commands import Command, TerminateInstance, UploadCommand
from pie_proto.errors import ConnectFailed, ConnectionLost, PieError, UploadFailed
from pie_proto.transfers import ChunkWanted

__all__ = ["Driver", "Progress"]

Read = Callable[[int, int], Awaitable[bytes]]
Progress = Callable[[int, int], None]
"""Told how far an upload has come: bytes sent, size in bytes."""

_Outcome = TypeVar("_Outcome", bound=e.Outcome)

_RECEIVE_BYTES = 262_144
"""asyncio's own buffer size: smaller reads are re-split by copying."""

_LAST_READ_SECONDS = 1.0
"""How long to read on after writing has failed: the peer is gone, what it sent is here already."""

_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

_log = logging.getLogger("pie_anyio")


class _Waiter:
    """One request that a task waits for."""

    __slots__ = ("outcome", "size", "wanted", "woken")

    def __init__(self, size: int) -> None:
        self.size = size
        self.outcome: e.Outcome | e.ConnectionClosed | None = None
        self.wanted: ChunkWanted | None = None
        self.woken = anyio.Event()

    async def wait(self) -> None:
        await self.woken.wait()
        self.woken = anyio.Event()


class Driver:
    """Carries one `ClientConnection` over one byte stream."""

    def __init__(
        self,
        stream: anyio.abc.ByteStream,
        connection: ClientConnection,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        self.connection = connection
        self._on_notice = on_notice
        self.cause: BaseException | None = None
        """What the transport, or a fault of our own, raised when the connection ended."""
        self.closed: e.ConnectionClosed | None = None
        """How the connection ended, once it has."""
        self.opened = anyio.Event()
        """Set when the WebSocket is open, and at the end."""
        self.finished = anyio.Event()
        """Set when the tasks are over and the stream is closed."""
        self._interrupt: KeyboardInterrupt | SystemExit | None = None
        self._stream = stream
        self._scope = anyio.CancelScope()
        self._reading = anyio.CancelScope()
        self._progressing: set[_Waiter] = set()
        self._write_failed = False
        self._paused = False
        self._to_write = anyio.Event()
        self._resume = anyio.Event()
        self._deadline_changed = anyio.Event()
        self._armed = inf
        self._room = anyio.Event()
        self._waiters: dict[int, _Waiter] = {}
        self._readers: dict[str, anyio.Event] = {}

    # ------------------------------------------------------------------------------ the three tasks

    async def run(self) -> None:
        """Carry the connection until its end.

        Raises nothing but cancellation, and an interrupt that struck in one of its tasks.
        """
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    for task in (self._read, self._write, self._watch_clock):
                        tasks.start_soon(self._guard, task)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)
            try:
                self._tell_end()
            finally:
                self._end()
                self.finished.set()
        if self._interrupt is not None:
            raise self._interrupt

    def _tell_end(self) -> None:
        """Tell the core that the stream is closed, whoever ended the tasks."""
        if self.closed is None:
            now = anyio.current_time()
            if self.cause is None:
                self.connection.close(now=now)
            self.connection.receive_eof(now, self._reason())
            self._pump()

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception as exc:  # noqa: BLE001 - see below
            # A fault of ours: nobody's task group may be torn down by it, and nobody may hang.
            _log.exception("the connection ended by a fault of the client")
            self._note_cause(exc)
            self._scope.cancel()
        except (KeyboardInterrupt, SystemExit) as exc:
            # Raised again behind the task group, which would wrap it.
            self._interrupt = exc
            self._scope.cancel()

    async def _read(self) -> None:
        with self._reading:
            await self._receive_until_end()
        if self._reading.cancelled_caught:
            self.connection.receive_eof(anyio.current_time(), self._reason())
            self._pump()

    async def _receive_until_end(self) -> None:
        connection, stream = self.connection, self._stream
        while connection.state is not ConnectionState.CLOSED:
            while connection.reading_paused and not self._write_failed:
                self._resume = anyio.Event()
                await self._resume.wait()
            try:
                data = await stream.receive(_RECEIVE_BYTES)
            except anyio.EndOfStream:
                connection.receive_eof(anyio.current_time(), self._reason())
                self._pump()
                return
            except _BROKEN as exc:
                self._note_cause(exc)
                connection.receive_eof(anyio.current_time(), describe(exc))
                self._pump()
                return
            connection.receive_data(data, anyio.current_time())
            self._pump()

    async def _write(self) -> None:
        connection, stream = self.connection, self._stream
        while True:
            self._to_write = anyio.Event()
            data = connection.data_to_send(now=anyio.current_time())
            if data:
                try:
                    await stream.send(data)
                except _BROKEN as exc:
                    self._fail_writing(exc)
                    return
                self._written()
            elif connection.transport_action() is not TransportAction.KEEP:
                self._scope.cancel()
                return
            else:
                for wanted in connection.chunks_wanted():
                    self._waiters[wanted.request_id].wanted = wanted
                    self._waiters[wanted.request_id].woken.set()
                await self._to_write.wait()

    async def _watch_clock(self) -> None:
        while True:
            self._deadline_changed = anyio.Event()
            deadline = self.connection.next_deadline()
            self._armed = inf if deadline is None else deadline
            with anyio.CancelScope(deadline=self._armed):
                await self._deadline_changed.wait()
            now = anyio.current_time()
            if now >= self._armed:
                self.connection.handle_timeout(now)
                self._pump()

    def _written(self) -> None:
        for waiter in self._progressing:
            waiter.woken.set()
        if not self.connection.writing_paused:
            self._room.set()
            self._room = anyio.Event()
        self._arm()

    def _fail_writing(self, exc: BaseException) -> None:
        # What the server sent before it went is still to be read; the end of that is the end.
        self._note_cause(exc)
        self._write_failed = True
        self._resume.set()
        self._end_tasks_if_over()
        self._reading.deadline = anyio.current_time() + _LAST_READ_SECONDS

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
                    waiter = self._waiters.get(event.request_id)
                    if waiter is not None:
                        waiter.outcome = event
                        waiter.woken.set()
        self._paused = connection.reading_paused
        self._end_tasks_if_over()
        self._to_write.set()
        self._arm()

    def _notice(self, text: str) -> None:
        _log.warning("the server says: %s", text)
        if self._on_notice is not None:
            try:
                self._on_notice(text)
            except Exception:  # noqa: BLE001 - there is nobody to tell, and nothing to end for it
                _log.exception("the callback for a notice of the server's failed")

    def _arm(self) -> None:
        deadline = self.connection.next_deadline()
        if deadline is not None and deadline < self._armed:
            self._deadline_changed.set()

    def _end(self, closed: e.ConnectionClosed | None = None) -> None:
        """Wake everyone who waits, with one story."""
        if self.closed is None:
            self.closed = closed or e.ConnectionClosed(
                by=e.Closer.LOCAL if self.cause is None else e.Closer.TRANSPORT,
                reason=self._reason(),
                opened=self.opened.is_set(),
            )
        self.opened.set()
        self._room.set()
        for waiter in self._waiters.values():
            waiter.outcome = waiter.outcome or self.closed
            waiter.woken.set()
        for reader in self._readers.values():
            reader.set()
        self._readers.clear()

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
            self._resume.set()
            self._pump()
        else:
            self._to_write.set()
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
            await self._room.wait()

    async def readable(self, instance_id: str) -> None:
        """Wait until an instance has unread events, or the connection is over. Cancel-safe."""
        reader = self._readers.get(instance_id)
        if reader is None:
            reader = self._readers[instance_id] = anyio.Event()
        await reader.wait()

    def wake(self, instance_id: str) -> None:
        """Let whoever waits for an instance's events look again."""
        if (reader := self._readers.pop(instance_id, None)) is not None:
            reader.set()

    def submit(self, command: Command) -> int | None:
        """Give a command to the core; raises what it raises."""
        if self.closed is not None:
            raise self.end_error()
        request_id = self.connection.send(command, anyio.current_time())
        self.touched()
        return request_id

    async def expect(self, command: Command, kind: type[_Outcome]) -> _Outcome:
        """As `request`, for a command that only one kind of outcome can settle."""
        outcome = await self.request(command)
        if not isinstance(outcome, kind):
            raise AssertionError(f"{type(command).__name__} was settled by {outcome!r}")
        return outcome

    async def upload(
        self, command: UploadCommand, content: Content, progress: Progress | None
    ) -> None:
        """As `request`, for an upload; raises `UploadFailed` if its file turns out changed."""
        read = content.source.read if content.source is not None else None
        try:
            await self.request(command, read=read, progress=progress)
        except SourceChanged as exc:
            raise UploadFailed(f"upload given up: {exc}", command=command, reason=str(exc)) from exc

    async def request(
        self,
        command: Command,
        *,
        read: Read | None = None,
        progress: Progress | None = None,
    ) -> e.Outcome:
        """Send a command and wait for what settles it.

        ``read(offset, length)`` gives the pieces of an upload, ``progress(sent, size)`` is told how
        far it has come. Raises what the outcome means if it is no success, and whatever ``read`` or
        ``progress`` raise. Cancelled, or after such an exception, the command is cancelled too.
        """
        # What makes room is not to wait for room.
        if not isinstance(command, TerminateInstance):
            await self.room()
        request_id = self.submit(command)
        if request_id is None:
            raise AssertionError(f"{type(command).__name__} is not answered")
        size = command.size if isinstance(command, UploadCommand) else 0
        waiter = self._waiters[request_id] = _Waiter(size)
        if progress is not None:
            self._progressing.add(waiter)
        try:
            outcome = await self._settled(request_id, waiter, read, progress)
        except BaseException:
            self._undo(request_id, waiter)
            raise
        finally:
            del self._waiters[request_id]
            self._progressing.discard(waiter)
        match outcome:
            case e.ConnectionClosed():
                raise self.end_error()
            case e.Failed() | e.TimedOut():
                raise error_for(outcome)
            case _:
                return outcome

    async def _settled(
        self,
        request_id: int,
        waiter: _Waiter,
        read: Read | None,
        progress: Progress | None,
    ) -> e.Outcome | e.ConnectionClosed:
        told = -1
        while waiter.outcome is None:
            if waiter.wanted is not None and read is not None:
                piece = await read(waiter.wanted.offset, waiter.wanted.length)
                waiter.wanted = None
                if self.closed is None:
                    self.connection.provide_chunk(request_id, piece)
                    self.touched()
            sent = self.connection.upload_progress(request_id)
            if progress is not None and sent is not None and sent != told:
                told = sent
                progress(sent, waiter.size)
            if waiter.outcome is None:
                await waiter.wait()
        uploaded = isinstance(waiter.outcome, e.ProgramUploaded | e.BlobUploaded)
        if progress is not None and uploaded and told != waiter.size:
            progress(waiter.size, waiter.size)
        return waiter.outcome

    def _undo(self, request_id: int, waiter: _Waiter) -> None:
        """Nobody waits for the outcome any more: tell the core, wherever the request stands."""
        now = anyio.current_time()
        if waiter.outcome is None:
            self.connection.cancel(request_id, now)
        elif not isinstance(waiter.outcome, e.ConnectionClosed):
            self.connection.abandon(waiter.outcome, now)
        self.touched()

    def close(self) -> None:
        """Ask for the end; `finished` is set when it has come, at the latest after its deadline."""
        if self.closed is None:
            self.connection.close(now=anyio.current_time())
            self._resume.set()
            self._pump()

    def cancel(self) -> None:
        """End the tasks now."""
        self._scope.cancel()
