"""One connection's life on a byte stream: read, write, watch the clock, and end.

The only place of the server that waits on the network. What the client asks is done by `Requests`;
what its instances say is taken from them only as fast as the client reads.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import Final

import anyio
from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    aclose_forcefully,
    current_time,
)
from anyio.abc import ByteStream, TaskGroup
from anyio.lowlevel import checkpoint

from pie_anyio.server.instances import Instance
from pie_anyio.server.opening import named_user, turned_away
from pie_anyio.server.requests import Premises, Requests
from pie_proto import events as e
from pie_proto.commands import UploadProgram
from pie_proto.limits import Limits
from pie_proto.link import TransportAction
from pie_proto.server import ServerConnection
from pie_proto.states import ConnectionState, ServerAuthenticationState

__all__ = ["Connection"]

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 262_144

# Output is taken from instances while no more than this is unsent. What was taken is lost with the
# connection, and answers go behind it: so not much, but enough for the line to be busy.
_OUTPUT_AHEAD: Final = 128 * 1024

# What one instance may add before the next has its turn.
_TURN_BYTES: Final = 32 * 1024

# Requests that wait behind one that takes its time (a program is compiled): over one of these,
# nothing more is read from this client.
_WAITING_REQUESTS: Final = 64
_WAITING_BYTES: Final = 64 * 1024 * 1024

_VERDICT_OWED: Final = frozenset(
    {ServerAuthenticationState.DECIDING, ServerAuthenticationState.VERIFYING}
)


class _Signal:
    """Wakes the one task that waits for it, also when it comes before the waiting."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: anyio.Event | None = None

    def set(self) -> None:
        self._set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        if not self._set:
            self._event = anyio.Event()
            try:
                await self._event.wait()
            finally:
                self._event = None
        self._set = False


class Connection:
    """A client on a byte stream. `run` is its whole life; the other methods never wait."""

    def __init__(self, stream: ByteStream, premises: Premises, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._connection = ServerConnection(
            now=current_time(), dialect=premises.dialect, limits=limits
        )
        self._requests = Requests(premises, self._connection, self)
        self._premises = premises
        self._tasks: TaskGroup | None = None
        self._readable: dict[Instance, None] = {}
        self._waiting: deque[e.Request] = deque()
        self._waiting_bytes = 0
        self._working = False
        self._stalled = False
        self._watched = math.inf
        self._writable = _Signal()
        self._resumed = _Signal()
        self._deadline_changed = _Signal()
        self._over = anyio.Event()
        self._all_sent = anyio.Event()
        self._all_read = anyio.Event()

    async def run(self) -> None:
        """Serve the client until it or `close` ends the connection, and close the stream.

        Nothing that a client does is raised from here. When it is cancelled, the stream is closed
        at once. In any case the client's instances are detached.
        """
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._read)
                self._tasks.start_soon(self._write)
                self._tasks.start_soon(self._watch)
                await self._over.wait()
                self._requests.detach_all()
                if self._connection.transport_action() is not TransportAction.ABORT:
                    await self._part()
                # A compiler at work for this client is not to keep the socket open.
                await self._hang_up()
                self._tasks.cancel_scope.cancel()
        except Exception:  # noqa: BLE001 - one client's connection must not take the server along
            _log.exception("a fault of the server ended a connection")
        finally:
            self._requests.detach_all()
            await self._hang_up()

    def close(self, code: int, reason: str) -> None:
        """End the conversation, behind what was said before; `run` returns soon after."""
        self._take_output()
        self._connection.close(code, reason, now=current_time())
        self._proceed()

    def readable(self, instance: Instance) -> None:
        """An instance has something to say (the `Listener` of this client's instances)."""
        self._readable[instance] = None
        self._writable.set()

    # -------------------------------------------------------------------------------- the tasks

    async def _read(self) -> None:
        connection = self._connection
        while not self._all_read.is_set():
            try:
                data = await self._stream.receive(_READ_BYTES)
            except EndOfStream:
                connection.receive_eof(current_time())
                self._all_read.set()
            except (BrokenResourceError, ClosedResourceError, OSError) as error:
                connection.receive_eof(current_time(), _words(error))
                self._all_read.set()
            else:
                connection.receive_data(data, current_time())
            self._proceed()
            while self._stalled:
                await self._resumed.wait()

    async def _write(self) -> None:
        connection = self._connection
        try:
            while True:
                self._take_output()
                data = connection.data_to_send(now=current_time())
                if data:
                    await self._stream.send(data)
                    if self._stalled:
                        self._proceed()
                elif connection.transport_action() is TransportAction.KEEP:
                    await self._writable.wait()
                else:
                    break
                self._note_deadline()
        except (BrokenResourceError, ClosedResourceError, OSError) as error:
            connection.receive_eof(current_time(), _words(error))
            # Not by way of `_proceed`, which may be stalled by what can no longer be sent.
            self._over.set()
        self._all_sent.set()

    async def _watch(self) -> None:
        connection = self._connection
        while True:
            deadline = connection.next_deadline()
            self._watched = math.inf if deadline is None else deadline
            with anyio.CancelScope(deadline=self._watched):
                await self._deadline_changed.wait()
            connection.handle_timeout(current_time())
            if connection.transport_action() is TransportAction.ABORT:
                self._over.set()
            self._proceed()

    async def _work(self) -> None:
        """Do the requests that must wait for each other; there is one such task at a time."""
        while self._waiting:
            await self._requests.settle(self._waiting[0])
            self._waiting_bytes -= _upload_size(self._waiting.popleft())
            self._proceed()
            # Most need not wait for anything, and a thousand of them would hold up everybody.
            await checkpoint()
        self._working = False

    async def _part(self) -> None:
        """Send what is left and let the client hang up first.

        A socket that is closed with something unread resets the connection, and takes back what
        was sent last: the client would never see why it was turned away.
        """
        with anyio.move_on_after(self._limits.close_timeout):
            await self._all_sent.wait()
            try:
                await self._stream.send_eof()
            except (BrokenResourceError, ClosedResourceError, OSError):
                return
            await self._all_read.wait()

    async def _hang_up(self) -> None:
        with anyio.CancelScope(shield=True):
            await aclose_forcefully(self._stream)

    # ------------------------------------------------------------------------- between the tasks

    def _proceed(self) -> None:
        """Look at what was received, as far as that is possible now, and let the tasks go on."""
        connection = self._connection
        while not self._over.is_set() and not self._must_stall():
            event = connection.next_event()
            match event:
                case e.Request():
                    if not self._requests.at_once(event):
                        self._put_off(event)
                case e.HandshakeReceived():
                    self._open(event)
                case e.ConnectionClosed():
                    self._over.set()
                case e.UnknownMessage():
                    pass
                case _:
                    break
        stalled = not self._over.is_set() and self._must_stall()
        if self._stalled and not stalled:
            self._resumed.set()
        self._stalled = stalled
        self._writable.set()
        self._note_deadline()

    def _open(self, opening: e.HandshakeReceived) -> None:
        abilities = self._premises.dialect.capabilities
        if (refusal := turned_away(opening, self._premises.users, abilities)) is not None:
            self._connection.reject(*refusal)
            return
        if (user := named_user(opening, abilities)) is not None:
            self._requests.identified(user)
        self._connection.accept()

    def _must_stall(self) -> bool:
        """Whether the client has asked more than can be dealt with now, or a verdict is owed."""
        return (
            (self._connection.state is ConnectionState.OPEN and self._connection.writing_paused)
            or self._connection.authentication_state in _VERDICT_OWED
            or len(self._waiting) >= _WAITING_REQUESTS
            or self._waiting_bytes >= _WAITING_BYTES
        )

    def _put_off(self, request: e.Request) -> None:
        self._waiting.append(request)
        self._waiting_bytes += _upload_size(request)
        if not self._working and self._tasks is not None:
            self._working = True
            self._tasks.start_soon(self._work)

    def _take_output(self) -> None:
        """Take from the instances what can be sent soon, in turns."""
        connection, readable = self._connection, self._readable
        while (
            readable
            and connection.state is ConnectionState.OPEN
            and connection.unsent_bytes < _OUTPUT_AHEAD
        ):
            instance = next(iter(readable))
            del readable[instance]
            if instance.id not in self._requests.attached:
                continue
            for event, data in instance.output.take(_TURN_BYTES):
                connection.emit(e.InstanceEvent(instance.id, event, data))
                if event.is_terminal:
                    self._requests.told(instance)
            if instance.output.waiting:
                readable[instance] = None

    def _note_deadline(self) -> None:
        deadline = self._connection.next_deadline()
        if deadline is not None and deadline < self._watched:
            self._deadline_changed.set()


def _upload_size(request: e.Request) -> int:
    return request.command.size if isinstance(request.command, UploadProgram) else 0


def _words(error: Exception) -> str:
    """What the transport says is the matter; anyio has it as the cause."""
    return str(error.__cause__ or error) or type(error).__name__
