"""A server's side of one connection, byte by byte: a session on a WebSocket."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal, assert_never

from pie_proto import events as e
from pie_proto.commands import Buffer
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.errors import LocalProtocolError, error_for
from pie_proto.limits import DEFAULT_LIMITS, Limits
from pie_proto.link import Link, TransportAction, check_close
from pie_proto.messages import Refusal
from pie_proto.server.session import Outgoing, ServerSession
from pie_proto.states import ConnectionState, ServerAuthenticationState
from pie_proto.websocket import (
    BinaryMessage,
    HandshakeAccepted,
    HandshakeRequested,
    Role,
    TextMessage,
)

__all__ = ["ServerConnection"]


class ServerConnection:
    """One client on a byte stream, as a Pie server has it. It does no I/O.

    The first event is `HandshakeReceived`: `accept` or `reject` it. Then come `Request` events, to
    be answered with `answer` or `refuse`; instances speak through `emit`. ``now`` is any clock that
    does not go back, in seconds. Not thread-safe: one thread at a time.
    """

    def __init__(
        self,
        *,
        now: float,
        dialect: Dialect = INSTANCE,
        limits: Limits = DEFAULT_LIMITS,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._limits = limits
        self._session = ServerSession(dialect=dialect, limits=limits)
        self._link = Link(
            Role.SERVER,
            limits=limits,
            now=now,
            answers_close=dialect.capabilities.answers_close,
            entropy=entropy,
        )
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

    # ---------------------------------------------------------------------------------------- drain

    def next_event(self) -> e.ServerEvent | Literal[e.NeedData.NEED_DATA]:
        """What the client asks next, or `NEED_DATA`.

        While a verdict on the client is owed, nothing more is decoded: call this again after such
        an answer. The last event is `ConnectionClosed`; after it, this raises what that means.
        """
        while True:
            event = self._session.next_event()
            if event is not e.NEED_DATA:
                return event
            if self._session.finished and self.state is ConnectionState.OPEN:
                self.close(now=self._now)
            received = self._link.next_event()
            match received:
                case None:
                    return e.NEED_DATA
                case BinaryMessage(data) | TextMessage(data):
                    self._session.receive_message(data)
                case HandshakeRequested():
                    return e.HandshakeReceived(received.target, received.headers)
                case e.ConnectionClosed():
                    self._session.receive_end(received)
                case HandshakeAccepted():
                    raise AssertionError("a server's handshake is not accepted by its client")
                case _:
                    assert_never(received)

    def data_to_send(self, max_bytes: int | None = None, *, now: float) -> bytes:
        """Bytes for the transport, at most ``max_bytes`` (by default ``limits.write_bytes``)."""
        self._now = now
        room = self._limits.write_bytes if max_bytes is None else max_bytes
        return self._link.data_to_send(room, now, self._pull)

    def _pull(self) -> Outgoing | None:
        return self._session.message_to_send()

    # ------------------------------------------------------------------------------------------ say

    def accept(self) -> None:
        """Open the WebSocket that the client asked for."""
        self._check(ConnectionState.CONNECTING)
        self._link.websocket.accept()
        self._link.opened()

    def reject(self, status: int, body: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer the handshake with an HTTP error; the connection is over when that is sent."""
        self._check(ConnectionState.CONNECTING)
        self._link.websocket.reject(status, body, headers)
        self._link.close(1000, "", self._now)

    def answer(self, outcome: e.Outcome) -> None:
        """Answer a request with what settles it; see `ServerSession.answer`.

        Like all that says something, it raises after the end what the end means.
        """
        self._check(ConnectionState.OPEN)
        self._session.answer(outcome)
        if self._session.finished:
            self.close(now=self._now)

    def refuse(self, request_id: int, why: Refusal, detail: str = "") -> None:
        """Answer a request with no, in the family's words; see `ServerSession.refuse`."""
        self._check(ConnectionState.OPEN)
        self._session.refuse(request_id, why, detail)

    def forget(self, request_id: int) -> None:
        """Leave a request without an answer; see `ServerSession.forget`."""
        self._session.forget(request_id)

    def emit(self, event: e.InstanceEvent) -> None:
        """Send what an instance says; see `ServerSession.emit`."""
        self._check(ConnectionState.OPEN)
        self._session.emit(event)

    def notify(self, text: str) -> None:
        """Send a notice for the whole connection."""
        self._check(ConnectionState.OPEN)
        self._session.notify(text)

    def close(self, code: int = 1000, reason: str = "", *, now: float) -> None:
        """End the conversation once what was said before is sent. Idempotent."""
        check_close(code, reason)
        self._now = now
        while self.state is ConnectionState.OPEN and (message := self._pull()) is not None:
            self._link.send(message)
        self._link.close(code, reason, now)

    # ----------------------------------------------------------------------------------------- time

    def next_deadline(self) -> float | None:
        """When `handle_timeout` must be called, if nothing happens before."""
        return self._link.next_deadline(reading_paused=False)

    def handle_timeout(self, now: float) -> None:
        """Do what is due by now; harmless when nothing is. Then call `next_event`."""
        self._now = now
        self._link.handle_timeout(now, reading_paused=False)

    # ----------------------------------------------------------------------------------------- look

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands."""
        return self._link.state

    @property
    def authentication_state(self) -> ServerAuthenticationState:
        """How far the server has come in finding out who its client is."""
        return self._session.authentication_state

    @property
    def unsent_bytes(self) -> int:
        """What is accepted and not yet handed to the transport."""
        return self._session.unsent_bytes + self._link.websocket.unsent_bytes

    @property
    def writing_paused(self) -> bool:
        """Whether too much is unsent: let the instances wait."""
        return self._session.writing_paused

    def owns(self, instance_id: str) -> bool:
        """Whether the instance is attached to this connection."""
        return self._session.owns(instance_id)

    def transport_action(self) -> TransportAction:
        """What is to be done with the transport."""
        return self._link.transport_action()

    def _check(self, state: ConnectionState) -> None:
        if self._link.end is not None:
            raise error_for(self._link.end)
        if self.state is not state:
            raise LocalProtocolError(f"the connection is {self.state.value}")
