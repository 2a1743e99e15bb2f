"""One WebSocket and its life: opening, keepalive, closing, and the one story of how it ended.

Both roles stand on it. It knows frames and time; it knows nothing of what the messages say.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Collection
from typing import assert_never

from pie_proto.close_frames import is_sendable_code
from pie_proto.commands import Buffer
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.events import Closer, ConnectionClosed
from pie_proto.limits import Limits
from pie_proto.states import CONNECTION, ConnectionInput, ConnectionState, next_state
from pie_proto.websocket import (
    BinaryMessage,
    CloseReceived,
    HandshakeAccepted,
    HandshakeRejected,
    HandshakeRequested,
    PongReceived,
    Role,
    TextMessage,
    WebSocket,
)

__all__ = ["Link", "LinkEvent", "TransportAction", "check_close"]

LinkEvent = BinaryMessage | TextMessage | HandshakeAccepted | HandshakeRequested | ConnectionClosed


class TransportAction(enum.Enum):
    """What is to be done with the transport."""

    KEEP = "keep"
    """Go on reading and writing."""
    CLOSE = "close"
    """Send what ``data_to_send`` still gives, then close it."""
    ABORT = "abort"
    """Close it now, whatever is unsent."""


def check_close(code: object, reason: object) -> None:
    """Raise `LocalProtocolError` for what a Close frame cannot say (RFC 6455, section 7.4)."""
    if not is_sendable_code(code):
        raise LocalProtocolError(f"{code!r} is no close code that can be sent")
    if not isinstance(reason, str):
        raise LocalProtocolError(f"a close reason must be str, not {type(reason).__name__}")


class Link:
    """A WebSocket from its opening to its end, with its deadlines.

    Without ``answers_close`` the peer's Close is answered with the end of the transport alone.
    """

    def __init__(
        self,
        role: Role,
        *,
        limits: Limits,
        now: float,
        answers_close: bool = True,
        entropy: Callable[[int], bytes] = os.urandom,
        status_suffices: Collection[int] = (),
    ) -> None:
        self.websocket = WebSocket(
            role, limits=limits, entropy=entropy, status_suffices=status_suffices
        )
        self.state = ConnectionState.CONNECTING
        self._limits = limits
        self._answers_close = answers_close
        self._now = now
        self._started = now
        self._last_received = now
        self._rejected_at: float | None = None
        # Bytes to hand out until a keepalive ping that is queued has surely left.
        self._ping_due: int | None = None
        self._last_taken = now
        self._in_transit = False
        self._pinged_at: float | None = None
        self._closing_since = now
        self._close_code = 1000
        self._transport_reason = ""
        self._end: ConnectionClosed | None = None
        self._aborted = False

    # ----------------------------------------------------------------------------------------- feed

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes as they came. Only buffers; never raises."""
        self._see(now)
        self._last_received = self._now
        self._pinged_at = None
        if self.state is not ConnectionState.CLOSED:
            self.websocket.receive_data(data)

    def receive_eof(self, now: float, reason: str = "") -> None:
        """Note that no more bytes will come, and what the transport said about it."""
        self._see(now)
        if not self.websocket.eof_received:
            self._transport_reason = reason
        self.websocket.receive_eof()

    # ---------------------------------------------------------------------------------------- drain

    def next_event(self) -> LinkEvent | None:
        """The next message, or how it ended; ``None`` for now. Never raises."""
        while self._end is None:
            try:
                event = self.websocket.next_event()
            except RemoteProtocolError as exc:
                self.fail(str(exc), exc.close_code)
                break
            match event:
                case None:
                    if not self.websocket.eof_received:
                        if self.websocket.awaits_body and self._rejected_at is None:
                            self._rejected_at = self._now
                        return None
                    self._eof()
                case HandshakeAccepted():
                    self._happened(ConnectionInput.OPENED)
                    return event
                case HandshakeRejected():
                    self._finish(
                        ConnectionInput.END,
                        ConnectionClosed(
                            by=Closer.REMOTE,
                            opened=False,
                            status=event.status,
                            body=event.body,
                            location=event.location,
                        ),
                    )
                case CloseReceived():
                    self._peer_closed(event)
                case PongReceived():
                    pass
                case HandshakeRequested() | BinaryMessage() | TextMessage():
                    return event
                case _:
                    assert_never(event)
        return self._end

    def _peer_closed(self, event: CloseReceived) -> None:
        ours = self.state is ConnectionState.CLOSING
        if not ours and self._answers_close:
            self.websocket.send_close(1000 if event.code is None else event.code)
        self._finish(
            ConnectionInput.PEER_CLOSE,
            ConnectionClosed(
                by=Closer.LOCAL if ours else Closer.REMOTE, code=event.code, reason=event.reason
            ),
        )

    def _eof(self) -> None:
        if self.state is ConnectionState.CLOSING:
            # Some servers drop TCP instead of answering Close: that is a clean end, too.
            closed = ConnectionClosed(by=Closer.LOCAL, code=self._close_code)
        elif self._transport_reason:
            closed = ConnectionClosed(
                by=Closer.TRANSPORT, reason=self._transport_reason, opened=self._is_open
            )
        else:
            closed = ConnectionClosed(
                by=Closer.REMOTE,
                reason="it closed the connection without a word",
                opened=self._is_open,
            )
        self._finish(ConnectionInput.END, closed)

    def fail(self, violation: str, close_code: int) -> None:
        """End the connection because the peer broke the protocol; it is told the code."""
        if self._end is None:
            opened = self._is_open
            if opened:
                self.websocket.send_close(close_code, violation)
            self._finish(
                ConnectionInput.VIOLATION,
                ConnectionClosed(
                    by=Closer.LOCAL, code=close_code, violation=violation, opened=opened
                ),
            )

    # ------------------------------------------------------------------------------------------ ask

    def opened(self) -> None:
        """The server role has accepted the handshake."""
        self._happened(ConnectionInput.OPENED)

    def close(self, code: int, reason: str, now: float) -> None:
        """Ask the peer to end, once what was accepted before is sent. Idempotent."""
        self._see(now)
        if self.state is ConnectionState.CONNECTING:
            self._finish(
                ConnectionInput.CLOSE,
                ConnectionClosed(by=Closer.LOCAL, reason="closed by the caller", opened=False),
            )
        elif self.state is ConnectionState.OPEN:
            self._closing_since = self._now
            self._happened(ConnectionInput.CLOSE)
            self._close_code = code
            self.websocket.send_close(code, reason)

    def send(self, message: tuple[Buffer, ...] | str) -> None:
        """Queue a message: the parts of a binary one, or the text of a text message."""
        if isinstance(message, str):
            self.websocket.send_text(message)
        else:
            self.websocket.send_message(*message)

    def data_to_send(
        self, max_bytes: int, now: float, source: Callable[[], tuple[Buffer, ...] | str | None]
    ) -> bytes:
        """Up to ``max_bytes`` for the transport; messages are pulled from ``source`` on demand."""
        self._see(now)
        websocket = self.websocket
        if self.state is ConnectionState.OPEN:
            while websocket.unsent_bytes < max_bytes and (message := source()) is not None:
                self.send(message)
        data = websocket.data_to_send(max_bytes)
        # Until more is asked for, the transport may still be about it, or stuck in it.
        self._in_transit = bool(data)
        if data:
            self._last_taken = self._now
        if self._ping_due is not None:
            self._ping_due -= len(data)
            if self._ping_due <= 0 or not websocket.has_data_to_send:
                self._ping_due = None
                self._pinged_at = self._now
        return data

    # ----------------------------------------------------------------------------------------- time

    def next_deadline(self, *, reading_paused: bool) -> float | None:
        """When `handle_timeout` must be called, if nothing happens before."""
        limits = self._limits
        match self.state:
            case ConnectionState.CONNECTING:
                deadline = self._started + limits.handshake_timeout
                if self._rejected_at is None:
                    return deadline
                return min(deadline, self._rejected_at + limits.handshake_body_timeout)
            case ConnectionState.CLOSING:
                return self._closing_since + limits.close_timeout
            case ConnectionState.OPEN:
                if limits.keepalive_interval is None or reading_paused:
                    return None
                if self._ping_due is not None:
                    # The ping waits behind a frame that is being sent: while the transport takes
                    # bytes, the peer is alive.
                    return max(self._last_taken, self._last_received) + limits.keepalive_timeout
                if self._pinged_at is not None:
                    return self._pinged_at + limits.keepalive_timeout
                return self._last_received + limits.keepalive_interval
            case ConnectionState.CLOSED:
                if self._aborted or not (self.has_data_to_send or self._in_transit):
                    return None
                return self._closing_since + limits.close_timeout
            case _:
                assert_never(self.state)

    def handle_timeout(self, now: float, *, reading_paused: bool) -> None:
        """Do what is due by now."""
        self._see(now)
        deadline = self.next_deadline(reading_paused=reading_paused)
        if deadline is None or self._now < deadline:
            return
        match self.state:
            case ConnectionState.CONNECTING if self.websocket.awaits_body:
                self.websocket.end_body()
                self.next_event()
            case ConnectionState.CONNECTING:
                seconds = f"{self._limits.handshake_timeout:g} s"
                self._give_up(f"the opening handshake was not answered for {seconds}", opened=False)
            case ConnectionState.CLOSING:
                self._aborted = True
                self._finish(
                    ConnectionInput.TIMEOUT,
                    ConnectionClosed(
                        by=Closer.LOCAL,
                        code=self._close_code,
                        reason=f"no end from the peer for {self._limits.close_timeout:g} s",
                    ),
                )
            case ConnectionState.CLOSED:
                self._aborted = True
            case ConnectionState.OPEN:
                seconds = f"{self._limits.keepalive_timeout:g} s"
                if self._ping_due is not None:
                    self._give_up(f"no byte came, and none could be sent, for {seconds}")
                elif self._pinged_at is not None:
                    self._give_up(f"no byte came for {seconds} after a keepalive ping")
                else:
                    self.websocket.send_ping()
                    self._ping_due = self.websocket.unsent_bytes
                    self._last_taken = self._now
            case _:
                assert_never(self.state)

    def _give_up(self, reason: str, *, opened: bool = True) -> None:
        self._aborted = True
        self._finish(
            ConnectionInput.TIMEOUT,
            ConnectionClosed(by=Closer.TRANSPORT, reason=reason, opened=opened),
        )

    def resumed(self) -> None:
        """Reading goes on after a pause: silence is counted from here."""
        self._last_received = self._now
        self._pinged_at = None

    # ----------------------------------------------------------------------------------------- look

    @property
    def end(self) -> ConnectionClosed | None:
        """How it ended, once it has."""
        return self._end

    @property
    def has_data_to_send(self) -> bool:
        """Whether bytes are waiting that need no further message."""
        return self.websocket.has_data_to_send

    def transport_action(self) -> TransportAction:
        """What is to be done with the transport now."""
        if self._aborted:
            return TransportAction.ABORT
        if self.state is ConnectionState.CLOSED:
            return TransportAction.CLOSE
        return TransportAction.KEEP

    @property
    def _is_open(self) -> bool:
        return self.state is not ConnectionState.CONNECTING

    def _finish(self, happened: ConnectionInput, closed: ConnectionClosed) -> None:
        if self.state is not ConnectionState.CLOSING:
            self._closing_since = self._now
        self._happened(happened)
        self._end = closed

    def _happened(self, what: ConnectionInput) -> None:
        state = next_state(CONNECTION, self.state, what)
        if state is None:
            raise AssertionError(f"{what} in {self.state}")
        self.state = state

    def _see(self, now: float) -> None:
        self._now = max(self._now, now)
