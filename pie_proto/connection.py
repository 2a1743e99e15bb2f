"""A client's connection, byte by byte: a session on a WebSocket, for those who have a byte stream.

Feed it, drain it, ask it::

    feed    receive_data  receive_eof
    drain   next_event  read_instance  data_to_send  chunks_wanted
    ask     send  cancel  discard  stream_blobs  close  provide_chunk
    time    next_deadline  handle_timeout
    look    state  reading_paused  wants_data  writing_paused  transport_action  …
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import Literal, assert_never

from pie_proto import events as e
from pie_proto.commands import Buffer, Command
from pie_proto.dialects import Capabilities, Dialect
from pie_proto.errors import LocalProtocolError
from pie_proto.lanes import Parts
from pie_proto.limits import DEFAULT_LIMITS, DEFAULT_TIMEOUT, Limits, Timeout
from pie_proto.link import Link, TransportAction, check_close
from pie_proto.session import ClientSession, Statistics
from pie_proto.states import AuthenticationState, ConnectionState, InstanceState
from pie_proto.transfers import ChunkWanted
from pie_proto.websocket import (
    BinaryMessage,
    HandshakeAccepted,
    HandshakeRequested,
    Role,
    TextMessage,
)

__all__ = ["ClientConnection"]


class ClientConnection:
    """A Pie client on a byte stream. It does no I/O: bytes in, events out; commands in, bytes out.

    ``host`` is what the ``Host`` header says, ``target`` the path of the WebSocket. ``dialect`` is
    that of the server's family, or several, as for `ClientSession`. ``now`` is any clock that does
    not go back, in seconds. Blobs come as a ``blob_type``. The opening handshake is ready in
    `data_to_send` from the start. A rejection of the handshake is reported once its body has come,
    at the latest after ``limits.handshake_body_timeout``; at once if its status is among the
    ``status_suffices``. Not thread-safe: one thread at a time.
    """

    def __init__(
        self,
        host: str,
        target: str = "/",
        *,
        now: float,
        headers: Sequence[tuple[str, str]] = (),
        dialect: Dialect | Sequence[Dialect] | None = None,
        limits: Limits | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        blob_type: type[e.Blob] = e.Blob,
        status_suffices: Collection[int] = (),
    ) -> None:
        self._limits = limits = DEFAULT_LIMITS if limits is None else limits
        self.peer = f"the server at {host}"
        """How errors name the server."""
        self._session = ClientSession(
            dialect=dialect, limits=limits, blob_type=blob_type, server=self.peer
        )
        self._link = Link(
            Role.CLIENT, limits=limits, now=now, entropy=entropy, status_suffices=status_suffices
        )
        self._link.websocket.open(host, target, headers)
        self._now = now

    # ----------------------------------------------------------------------------------------- feed

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes as they came from the transport. Only buffers; never raises."""
        self._now = now
        self._link.receive_data(data, now)

    def receive_eof(self, now: float, reason: str = "") -> None:
        """Note that no more bytes will come; ``reason`` is what the transport said, if it did."""
        self._now = now
        self._link.receive_eof(now, reason)
        self._session.input_complete()

    # ---------------------------------------------------------------------------------------- drain

    def next_event(self) -> e.ClientEvent | Literal[e.NeedData.NEED_DATA]:
        """What happened next, or `NEED_DATA`: nothing more can be told now.

        Decodes no more messages than make one event, and none while ``reading_paused``; the end of
        the connection is found all the same, if it has arrived. The last event is
        `ConnectionClosed`; after it, this raises what that event means (`ConnectionLost`,
        `ConnectFailed` or `RemoteProtocolError`).
        """
        while True:
            event = self._session.next_event()
            if event is not e.NEED_DATA:
                if isinstance(event, e.ConnectionClosed):
                    if event.violation is not None:
                        self._link.fail(event.violation, event.code or 1002)
                    self._link.websocket.release()
                return event
            # While reading is paused, messages are still cut from the bytes, but not decoded: a
            # Close frame after them must reach every pending request.
            received = self._link.next_event()
            match received:
                case None:
                    return e.NEED_DATA
                case BinaryMessage(data) | TextMessage(data):
                    self._session.receive_message(data, self._now)
                case HandshakeAccepted():
                    return e.Connected()
                case e.ConnectionClosed():
                    self._session.receive_end(received, self._now)
                case HandshakeRequested():
                    raise AssertionError("a client is asked for no handshake")
                case _:
                    assert_never(received)

    def read_instance(self, instance_id: str) -> e.InstanceEvent | None:
        """Take one unread event of an instance; ``None`` if there is none now.

        If ``reading_paused`` turns false by it, call `next_event` again. After the end, what was
        received is still given; then this raises what the end means.
        """
        paused = self._session.reading_paused
        event = self._session.read_instance(instance_id)
        self._note_resumed(paused=paused)
        return event

    def read_instance_many(self, instance_id: str, max_events: int) -> list[e.InstanceEvent]:
        """Take up to ``max_events`` unread events of an instance; as `read_instance`."""
        paused = self._session.reading_paused
        events = self._session.read_instance_many(instance_id, max_events)
        self._note_resumed(paused=paused)
        return events

    def data_to_send(self, max_bytes: int | None = None, *, now: float) -> bytes:
        """Bytes for the transport, at most ``max_bytes`` (by default ``limits.write_bytes``).

        ``b""`` if there is nothing to send now: an upload may still wait for `chunks_wanted`. What
        was handed out is never taken back, so it must be sent.
        """
        self._now = now
        room = self._limits.write_bytes if max_bytes is None else max_bytes
        websocket = self._link.websocket
        was_begun = websocket.frame_begun
        data = self._link.data_to_send(room, now, self._pull)
        if was_begun or websocket.frame_begun:
            self._session.note_progress(now)
        return data

    def _pull(self) -> Parts | None:
        return self._session.message_to_send(self._now)

    def chunks_wanted(self) -> tuple[ChunkWanted, ...]:
        """The pieces of uploads that are about to be sent and are the caller's to give."""
        return self._session.chunks_wanted()

    def provide_chunk(self, request_id: int, data: Buffer) -> None:
        """Give a piece of an upload that was wanted; see `ClientSession.provide_chunk`."""
        self._session.provide_chunk(request_id, data)

    # ------------------------------------------------------------------------------------------ ask

    def send(
        self, command: Command, now: float, *, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> int | None:
        """Accept a command; the id of its request, or ``None`` where nothing answers it.

        ``timeout`` as in `ClientSession.send`. Raises `LocalProtocolError` if this state does not
        allow the command (nothing was sent), and after the end what the end means. Nothing else.
        """
        self._now = now
        if self.state is ConnectionState.CONNECTING:
            raise LocalProtocolError("the connection is not open yet: wait for Connected")
        paused = self._session.reading_paused
        request_id = self._session.send(command, now, timeout=timeout)
        self._note_resumed(paused=paused)
        return request_id

    def cancel(self, request_id: int, now: float) -> None:
        """Wait for a request no longer; see `ClientSession.cancel`. Lets go of its content."""
        self._now = now
        paused = self._session.reading_paused
        self._session.cancel(request_id, now)
        self._let_go(now)
        self._note_resumed(paused=paused)

    def abandon(self, outcome: e.Outcome, now: float) -> None:
        """Undo an outcome that was told but reached nobody; see `ClientSession.abandon`."""
        self._now = now
        paused = self._session.reading_paused
        self._session.abandon(outcome, now)
        self._let_go(now)
        self._note_resumed(paused=paused)

    def discard(self, instance_id: str) -> None:
        """Drop what an instance said and nobody has read, and all that it will say."""
        paused = self._session.reading_paused
        self._session.discard(instance_id)
        self._note_resumed(paused=paused)

    def stream_blobs(self, instance_id: str) -> None:
        """Give an instance's blobs piece by piece; see `ClientSession.stream_blobs`."""
        self._session.stream_blobs(instance_id)

    def close(self, code: int = 1000, reason: str = "", *, now: float) -> None:
        """End the conversation. Small messages accepted before are sent; uploads are dropped.

        Reading resumes, and what instances still say is dropped. The end itself comes as
        `ConnectionClosed`, at the latest after ``limits.close_timeout``. Idempotent. Raises
        `LocalProtocolError` for a code that nobody may send.
        """
        check_close(code, reason)
        self._now = now
        paused = self._session.reading_paused
        self._session.close(now)
        websocket = self._link.websocket
        while self._link.state is ConnectionState.OPEN and (parts := self._pull()) is not None:
            websocket.send_message(*parts)
        self._link.close(code, reason, now)
        websocket.release()
        self._note_resumed(paused=paused)

    # ----------------------------------------------------------------------------------------- time

    def next_deadline(self) -> float | None:
        """When `handle_timeout` must be called, if nothing happens before."""
        deadlines = (
            self._link.next_deadline(reading_paused=self.reading_paused),
            self._session.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due by now; harmless when nothing is. Then call `next_event`.

        Call it after everything that has arrived was received: after a standstill, an answer that
        is in time may lie in the operating system's buffer.
        """
        self._now = now
        self._link.handle_timeout(now, reading_paused=self.reading_paused)
        self._session.handle_timeout(now)
        self._let_go(now)

    # ----------------------------------------------------------------------------------------- look

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands."""
        return self._link.state

    @property
    def authentication_state(self) -> AuthenticationState:
        """How far the client has come in proving who it is."""
        return self._session.authentication_state

    @property
    def authentication(self) -> e.Authentication | None:
        """How the server came to accept the user; ``None`` before it has."""
        return self._session.authentication

    @property
    def server(self) -> Capabilities | None:
        """What family of servers this is and what it can do; ``None`` before that is known."""
        return self._session.server

    def instance_state(self, instance_id: str) -> InstanceState:
        """What an instance is to this connection."""
        return self._session.instance_state(instance_id)

    @property
    def reading_paused(self) -> bool:
        """Whether too much is unread: no message is decoded until it is false."""
        return self._session.reading_paused

    @property
    def wants_data(self) -> bool:
        """Whether bytes are welcome: receive nothing more while it is false.

        While ``reading_paused``, up to ``limits.read_ahead_bytes`` are received and kept as they
        are, so that the end of the connection is noticed, and pings are answered.
        """
        if not self._session.reading_paused:
            return True
        kept = self._session.undecoded_bytes + self._link.websocket.buffered_bytes
        return kept < self._limits.read_ahead_bytes

    @property
    def writing_paused(self) -> bool:
        """Whether too much is unsent: `send` refuses all but what makes room."""
        return self._session.writing_paused

    @property
    def has_data_to_send(self) -> bool:
        """Whether `data_to_send` would give something."""
        return self._link.has_data_to_send or (
            self.state is ConnectionState.OPEN and self._session.has_message_to_send
        )

    def transport_action(self) -> TransportAction:
        """What is to be done with the transport."""
        return self._link.transport_action()

    def upload_progress(self, request_id: int) -> int | None:
        """How many bytes of an upload have been handed out; ``None`` once it is over."""
        return self._session.upload_progress(request_id)

    def statistics(self) -> Statistics:
        """The numbers of this connection, as of now."""
        return self._session.statistics()

    def _let_go(self, now: float) -> None:
        """Requests were given up: their content is the caller's again."""
        self._link.websocket.release()
        if self._session.closing:
            self.close(now=now)

    def _note_resumed(self, *, paused: bool) -> None:
        if paused and not self._session.reading_paused:
            self._link.resumed()
