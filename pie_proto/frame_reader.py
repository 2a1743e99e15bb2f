"""The receiving half of a WebSocket: one message at a time is cut from what was received.

A complete, unfragmented binary frame takes a short path. A Close frame is read here too, since
`wsproto` does not know every code that is registered today. `wsproto` reads every other frame:
ping, pong, fragmented, text, malformed. For that, every frame *header* is parsed here, so that the
bounds of frames are always known, and `wsproto` gets exactly the bytes of the frames that are its
own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, cast

from wsproto import WSConnection
from wsproto import events as ws

from pie_proto.close_frames import read_close_payload
from pie_proto.errors import RemoteProtocolError
from pie_proto.handshake import Role, parse
from pie_proto.masking import mask

__all__ = [
    "BinaryMessage",
    "CloseReceived",
    "FrameEvent",
    "FrameReader",
    "PongReceived",
    "TextMessage",
]

# First bytes of frames: FIN, and the opcode. One bit of the opcode tells control frames.
_BINARY = 0x82
_CLOSE = 0x88
_CONTROL_BIT = 0x08

_CONTROL_PAYLOAD = 125  # RFC 6455, section 5.5

# Before the payload length, in the second byte.
_MASK_BIT = 0x80

# Makes a NamedTuple in half the time of a call of its class.
_new_tuple = tuple.__new__

# From this on, one copy through a view is cheaper than two.
_VIEW_FROM = 4096


class BinaryMessage(NamedTuple):
    """One binary message, put together if it came in fragments."""

    data: bytes


class TextMessage(NamedTuple):
    """One text message, put together if it came in fragments."""

    data: str


class CloseReceived(NamedTuple):
    """The peer sent a Close frame; nothing follows. Answer it with `WebSocket.send_close`.

    ``code`` is ``None`` where the frame had none.
    """

    code: int | None
    reason: str


class PongReceived(NamedTuple):
    """The peer answered a ping, or sent a pong unasked."""

    payload: bytes


FrameEvent: TypeAlias = BinaryMessage | TextMessage | CloseReceived | PongReceived


class FrameReader:
    """Cuts frames from the front of ``received``; ``on_ping`` gets the payload of each ping.

    After a `RemoteProtocolError` it is not to be asked again.
    """

    def __init__(
        self,
        role: Role,
        received: bytearray,
        *,
        wsproto: WSConnection,
        message_bytes: int,
        on_ping: Callable[[bytes], None],
    ) -> None:
        is_client = role is Role.CLIENT
        self._peer = role.peer
        self._received = received
        self._wsproto = wsproto
        self._message_bytes = message_bytes
        self._on_ping = on_ping
        self.closed = False
        """Whether a Close was received: nothing that follows is to be appended."""
        # Only clients mask their frames.
        self._mask_bit = 0 if is_client else _MASK_BIT
        self._key_size = 0 if is_client else 4
        self._payload_due = 0  # of a frame whose header wsproto has
        self._fragmented = False  # a message is incomplete, and wsproto's to its end
        self._message = bytearray()  # what there is of it
        self._message_size = 0  # what its frames announced so far

    def next_event(self) -> FrameEvent | None:
        """Cut the next event; ``None``: more bytes are needed."""
        received = self._received
        while True:
            available = len(received)
            if self._payload_due:
                if available < self._payload_due:
                    return None
                event = self._take_frame(self._payload_due)
                if event is not None:
                    return event
                continue

            # The header.
            if available < 2:
                return None
            length = received[1] ^ self._mask_bit
            minimal = True
            if length < 126:
                start = 2
            elif length == 126:
                if available < 4:
                    return None
                start = 4
                length = received[2] << 8 | received[3]
                minimal = length >= 126
            elif length == 127:
                if available < 10:
                    return None
                start = 10
                length = int.from_bytes(received[2:10], "big")
                minimal = 1 << 16 <= length < 1 << 63
            else:
                raise RemoteProtocolError(
                    f"the {self._peer} {'did not mask' if self._key_size else 'masked'} a frame"
                )
            start += self._key_size

            # The short path.
            if received[0] == _BINARY and minimal and not self._fragmented:
                if length > self._message_bytes:
                    raise self._too_big(length)
                end = start + length
                if available < end:
                    return None
                if self._key_size:
                    data = mask(received[start:end], bytes(received[start - 4 : start]))
                elif length < _VIEW_FROM:
                    data = bytes(received[start:end])
                else:
                    with memoryview(received) as view:
                        data = bytes(view[start:end])
                del received[:end]
                return _new_tuple(BinaryMessage, (data,))

            if received[0] == _CLOSE and length <= _CONTROL_PAYLOAD and minimal:
                return self._take_close(start, start + length)

            # Any other frame: wsproto judges its header first, then gets its payload in one piece.
            if available < start:
                return None
            is_control = received[0] & _CONTROL_BIT
            event = self._take_frame(start)
            if event is not None:
                return event
            if not is_control:
                self._message_size += length
                if self._message_size > self._message_bytes:
                    raise self._too_big(self._message_size)
            self._payload_due = length

    def _too_big(self, size: int) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"the {self._peer} announced a message of {size} bytes or more; at most "
            f"{self._message_bytes} are taken",
            close_code=1009,
        )

    def _take_frame(self, size: int) -> FrameEvent | None:
        piece = bytes(self._received[:size])
        del self._received[:size]
        self._payload_due = 0
        for event in parse(self._wsproto, piece, self._peer):  # one at most
            match event:
                case ws.BytesMessage() | ws.TextMessage():
                    return self._take_fragment(event)
                case ws.Ping():
                    self._on_ping(bytes(event.payload))
                case ws.Pong():
                    return PongReceived(bytes(event.payload))
                case _:
                    # wsproto reports a violation as if the peer had sent a Close.
                    violation = cast("ws.CloseConnection", event)
                    raise RemoteProtocolError(
                        f"the {self._peer} broke the protocol: {violation.reason}",
                        close_code=int(violation.code),
                    )
        return None

    def _take_fragment(
        self, event: ws.BytesMessage | ws.TextMessage
    ) -> BinaryMessage | TextMessage | None:
        # Text goes back into UTF-8 until it is whole: many tiny strings take many times their size.
        data = event.data
        self._message += data.encode() if isinstance(data, str) else data
        self._fragmented = not event.message_finished
        if self._fragmented:
            return None
        whole = bytes(self._message)
        self._message.clear()
        self._message_size = 0
        return TextMessage(whole.decode()) if isinstance(data, str) else BinaryMessage(whole)

    def _take_close(self, start: int, end: int) -> CloseReceived | None:
        if len(self._received) < end:
            return None
        payload = bytes(self._received[start:end])
        if self._key_size:
            payload = mask(payload, bytes(self._received[start - 4 : start]))
        code, reason = read_close_payload(payload, self._peer)
        self.closed = True
        self._received.clear()
        return CloseReceived(code, reason)
