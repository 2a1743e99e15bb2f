"""The frame layer: WebSocket (RFC 6455) for either role; bytes in, messages out, and the reverse.

`pie_proto.handshake` opens it, `pie_proto.frame_reader` cuts what is received, and
`pie_proto.frame_writer` makes what is sent. This module joins them into the one class that the
layers above use.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.frame_reader import (
    BinaryMessage,
    CloseReceived,
    FrameEvent,
    FrameReader,
    PongReceived,
    TextMessage,
)
from pie_proto.frame_writer import FrameWriter
from pie_proto.handshake import (
    Handshake,
    HandshakeAccepted,
    HandshakeEvent,
    HandshakeRejected,
    HandshakeRequested,
    Role,
    refusal,
)
from pie_proto.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "BinaryMessage",
    "CloseReceived",
    "HandshakeAccepted",
    "HandshakeRejected",
    "HandshakeRequested",
    "PongReceived",
    "Role",
    "TextMessage",
    "WebSocket",
    "WebSocketEvent",
]

WebSocketEvent: TypeAlias = HandshakeEvent | FrameEvent


class _Reading(enum.Enum):
    """What the received bytes are."""

    HANDSHAKE = "the opening handshake"
    FRAMES = "frames"
    NOTHING = "nothing any more: dropped"


class WebSocket:
    """One WebSocket connection, byte by byte, without I/O.

    - feed: `receive_data` and `receive_eof` only take note;
    - drain: `next_event` until it returns ``None``, and `data_to_send` until it is empty, after
      every feed and every call that sends;
    - a client begins with `open`, a server answers with `accept` or `reject`.

    Pings are answered here. A Close is not: that is for the layer above, as is the end of the
    transport (`eof_received`).

    ``limits.message_bytes`` bounds a received message: a frame that announces more is refused at
    its header. ``entropy`` makes the mask keys, 4 bytes for each frame of a client. A rejection of
    the handshake is reported once its body has come, or at once for the ``status_suffices``.
    """

    def __init__(
        self,
        role: Role,
        *,
        limits: Limits = DEFAULT_LIMITS,
        entropy: Callable[[int], bytes] = os.urandom,
        status_suffices: Collection[int] = (),
    ) -> None:
        self._role = role
        self._received = bytearray()
        self._reading = _Reading.HANDSHAKE
        self._opened = False
        self._eof = False
        self._violation: tuple[str, int] | None = None
        self._handshake = Handshake(
            role, self._received, limits=limits, status_suffices=status_suffices
        )
        self._writer = FrameWriter(entropy if role is Role.CLIENT else None)
        self._reader = FrameReader(
            role,
            self._received,
            wsproto=self._handshake.wsproto,
            message_bytes=limits.message_bytes,
            on_ping=self._writer.queue_pong,
        )

    # ------------------------------------------------------------------------------ the handshake

    def open(self, host: str, target: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Queue a client's opening request; ``host`` is the Host header, with a port if any.

        Raises `LocalProtocolError` in the server role, the second time, and for what cannot stand
        in an HTTP request.
        """
        self._writer.queue_handshake(self._handshake.request(host, target, headers))

    def accept(self) -> None:
        """Accept the client's request, without extension or subprotocol; frames follow.

        Raises `LocalProtocolError` unless a `HandshakeRequested` is unanswered.
        """
        self._writer.queue_handshake(self._handshake.acceptance())
        self._opened = True
        self._reading = _Reading.FRAMES

    def reject(self, status: int, body: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer the client's request with HTTP ``status`` and a text ``body``; nothing follows.

        Raises `LocalProtocolError` unless a `HandshakeRequested` is unanswered, and for what cannot
        stand in an HTTP answer.
        """
        self._writer.queue_handshake(self._handshake.rejection(status, body, headers))
        self._read_no_more()

    # ------------------------------------------------------------------------------------- feeding

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the transport; they are copied, and looked at by `next_event`."""
        if self._reading is not _Reading.NOTHING and not self._reader.closed:
            self._received += data

    def receive_eof(self) -> None:
        """Take note that the transport has ended. What was received before is still to be read.

        A rejection whose body is still arriving is then reported as far as it came.
        """
        self._eof = True

    def end_body(self) -> None:
        """Wait no longer for the body of a rejection: `next_event` reports it as far as it came."""
        self._handshake.end_body()

    # ------------------------------------------------------------------------------------ draining

    def next_event(self) -> WebSocketEvent | None:
        """Cut the next event from what was received; ``None``: feed more.

        Raises `RemoteProtocolError` where the peer broke the protocol, and then again at every
        call; ``close_code`` is what to tell it. During the handshake, a server has an HTTP answer
        to send then.
        """
        try:
            if self._reading is _Reading.FRAMES:
                return self._reader.next_event()
            if self._reading is _Reading.HANDSHAKE:
                return self._read_handshake()
        except RemoteProtocolError as violation:
            self._violation = (str(violation), violation.close_code)
            self._read_no_more()
            raise
        if self._violation is not None:
            message, close_code = self._violation
            raise RemoteProtocolError(message, close_code=close_code)
        return None

    def _read_no_more(self) -> None:
        self._reading = _Reading.NOTHING
        self._received.clear()

    def _read_handshake(self) -> HandshakeEvent | None:
        try:
            event = self._handshake.next_event(eof=self._eof)
        except RemoteProtocolError as violation:
            if self._role is Role.SERVER:
                self._writer.queue_handshake(refusal(violation))
            raise
        if isinstance(event, HandshakeAccepted):
            self._opened = True
            self._reading = _Reading.FRAMES
        elif isinstance(event, HandshakeRejected):
            self._read_no_more()
        return event

    # ------------------------------------------------------------------------------------- sending

    def send_message(self, *parts: bytes | bytearray | memoryview) -> None:
        """Queue one binary message, one frame, whose payload is ``parts`` one after the other.

        Nothing is copied here: a ``bytearray`` or a ``memoryview`` is held, and must stay as it is,
        until its last byte was handed out or `release` was called.

        Raises `LocalProtocolError` before the handshake is done, after `send_close`, and for what
        is no contiguous buffer.
        """
        self._need_open()
        self._writer.queue_message(parts)

    def send_text(self, text: str) -> None:
        """Queue one text message, one frame.

        Raises `LocalProtocolError` as `send_message` does, and for what is no valid Unicode.
        """
        self._need_open()
        self._writer.queue_text(text)

    def send_ping(self, payload: bytes = b"") -> None:
        """Queue a ping, ahead of the messages that wait; ``payload`` is at most 125 bytes.

        Raises `LocalProtocolError` before the handshake is done, after `send_close`, and for a
        longer payload.
        """
        self._need_open()
        self._writer.queue_ping(payload)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Queue a Close frame, behind the messages that wait; the second time, do nothing.

        Of ``reason`` the first 123 bytes of UTF-8 are sent, cut between characters.

        Raises `LocalProtocolError` before the handshake is done, and for a code that RFC 6455 lets
        nobody send.
        """
        if not self._writer.closing:
            self._need_open()
            self._writer.queue_close(code, reason)

    def data_to_send(self, max_bytes: int) -> bytes:
        """Make the next bytes for the transport, at most ``max_bytes``; ``b""``: there are none.

        Small frames are joined; a large one is masked as it is pulled. A frame begun is finished
        before another; between frames pings and the pong pass messages, which Close does not.
        """
        return self._writer.data_to_send(max_bytes)

    def release(self) -> None:
        """Copy what is still unsent of the buffers given to `send_message`, and let go of them."""
        self._writer.release()

    def _need_open(self) -> None:
        if not self._opened:
            raise LocalProtocolError("the WebSocket is not open: its handshake is not done")
        if self._writer.closing:
            raise LocalProtocolError("the WebSocket is closing: nothing may follow a Close")

    # ------------------------------------------------------------------------------------- looking

    @property
    def opened(self) -> bool:
        """Whether the handshake was done; it stays so to the end."""
        return self._opened

    @property
    def awaits_body(self) -> bool:
        """Whether the handshake was rejected, and the rest of the body may still come."""
        return self._reading is _Reading.HANDSHAKE and self._handshake.awaits_body

    @property
    def eof_received(self) -> bool:
        """Whether `receive_eof` was called."""
        return self._eof

    @property
    def buffered_bytes(self) -> int:
        """How many bytes were received and not yet looked at."""
        return len(self._received)

    @property
    def unsent_bytes(self) -> int:
        """How many bytes `data_to_send` has yet to hand out, headers included."""
        return self._writer.unsent_bytes

    @property
    def has_data_to_send(self) -> bool:
        """Whether `data_to_send` would hand out anything."""
        return self._writer.unsent_bytes > 0

    @property
    def frame_begun(self) -> bool:
        """Whether a frame, or the handshake, was handed out in part."""
        return self._writer.frame_begun
