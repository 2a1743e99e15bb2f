"""The sending half of a WebSocket: frames are queued in order, and made as they are pulled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from pie_proto.close_frames import close_payload, is_sendable_code
from pie_proto.errors import LocalProtocolError
from pie_proto.masking import mask

__all__ = ["FrameWriter"]

# First bytes of frames: FIN and the opcode.
_TEXT = 0x81
_BINARY = 0x82
_CLOSE = 0x88
_PING = 0x89
_PONG = 0x8A

_MASK_BIT = 0x80
_CONTROL_PAYLOAD = 125  # RFC 6455, section 5.5

# Frames up to this are built in one piece; the payload of larger ones is masked as it is pulled.
_WHOLE_FRAME = 4096

# The most that is masked at once. Allocations above 128 KiB are what the C library makes slow.
_PIECE = 64 * 1024


class FrameWriter:
    """Frames that wait to be sent, of a client (``entropy`` makes the mask keys) or a server.

    A frame begun is finished before another. Between frames the handshake, pings and the pong come
    first, then messages, then Close.
    """

    def __init__(self, entropy: Callable[[int], bytes] | None) -> None:
        self._entropy = entropy
        self._mask_bit = 0 if entropy is None else _MASK_BIT
        self._key_size = 0 if entropy is None else 4

        # In the order in which they are sent.
        self._rest = b""  # of what was begun
        self._parts: deque[bytes | memoryview] = deque()  # payload of a large frame begun
        self._part_offset = 0
        self._key = b""  # its mask key, turned to where the payload stands
        self._urgent: deque[bytes] = deque()  # the handshake, then pings
        self._pong = b""
        self._messages: deque[tuple[int, int, list[bytes | memoryview]]] = deque()
        self._close = b""

        self.closing = False
        """Whether a Close is queued or sent: no message or ping may follow."""
        self.unsent_bytes = 0
        """How many bytes are still to be handed out, headers included."""

    @property
    def frame_begun(self) -> bool:
        """Whether a frame, or the handshake, was handed out in part."""
        return bool(self._rest or self._parts)

    def queue_handshake(self, data: bytes) -> None:
        """Queue a part of the HTTP handshake."""
        self._urgent.append(data)
        self.unsent_bytes += len(data)

    def queue_message(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Queue one binary message, one frame; ``parts`` are held, not copied."""
        held: list[bytes | memoryview] = []
        length = 0
        for part in parts:
            view = part if type(part) is bytes else _byte_view(part)
            if view:
                held.append(view)
                length += len(view)
        self._queue(_BINARY, length, held)

    def queue_text(self, text: str) -> None:
        """Queue one text message, one frame. Raises `LocalProtocolError` for no valid Unicode."""
        try:
            payload = text.encode()
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"a text message is UTF-8: {error}") from error
        self._queue(_TEXT, len(payload), [payload])

    def _queue(self, first: int, length: int, held: list[bytes | memoryview]) -> None:
        self._messages.append((first, length, held))
        extended = 0 if length < 126 else 2 if length < 1 << 16 else 8
        self.unsent_bytes += 2 + extended + self._key_size + length

    def queue_ping(self, payload: bytes) -> None:
        """Queue a ping, ahead of messages."""
        if len(payload) > _CONTROL_PAYLOAD:
            raise LocalProtocolError(f"a ping carries at most 125 bytes, not {len(payload)}")
        frame = self._frame(_PING, payload)
        self._urgent.append(frame)
        self.unsent_bytes += len(frame)

    def queue_pong(self, payload: bytes) -> None:
        """Queue a pong in place of one that was not sent yet (RFC 6455, section 5.5.3)."""
        if self.closing and not self._close:
            return  # our Close is out, and the last
        self.unsent_bytes -= len(self._pong)
        self._pong = self._frame(_PONG, payload)
        self.unsent_bytes += len(self._pong)

    def queue_close(self, code: int, reason: str) -> None:
        """Queue a Close, after everything else."""
        if not is_sendable_code(code):
            raise LocalProtocolError(f"{code} is no close code that can be sent")
        self._close = self._frame(_CLOSE, close_payload(code, reason))
        self.unsent_bytes += len(self._close)
        self.closing = True

    def data_to_send(self, max_bytes: int) -> bytes:
        """Make the next bytes, at most ``max_bytes``; ``b""``: there are none."""
        pieces: list[bytes] = []
        room = max_bytes
        while room > 0:
            if self._parts and not self._rest:
                piece = self._next_piece(room)
            else:
                begun = self._rest or self._next_in_line()
                if not begun:
                    break
                piece, self._rest = begun[:room], begun[room:]
            pieces.append(piece)
            room -= len(piece)
        data = b"".join(pieces)
        self.unsent_bytes -= len(data)
        return data

    def release(self) -> None:
        """Copy what is still unsent of the callers' buffers, and let go of them."""
        if self._part_offset:
            self._parts[0] = bytes(memoryview(self._parts[0])[self._part_offset :])
            self._part_offset = 0
        self._parts = deque(map(bytes, self._parts))
        self._messages = deque(
            (first, size, [bytes(part) for part in held]) for first, size, held in self._messages
        )

    def _next_in_line(self) -> bytes:
        """Begin what is next: the whole of it, or the header of a large frame."""
        if self._urgent:
            return self._urgent.popleft()
        if self._pong:
            frame, self._pong = self._pong, b""
            return frame
        if self._messages:
            first, length, parts = self._messages.popleft()
            if length <= _WHOLE_FRAME:
                return self._frame(first, parts[0] if len(parts) == 1 else b"".join(parts))
            self._parts.extend(parts)
            self._key = self._new_key()
            return self._header(first, length) + self._key
        frame, self._close = self._close, b""
        return frame

    def _next_piece(self, room: int) -> bytes:
        begin = self._part_offset
        end = begin + min(room, _PIECE)
        part = self._parts[0]
        piece = memoryview(part)[begin:end]
        if end < len(part):
            self._part_offset = end
        else:
            self._parts.popleft()
            self._part_offset = 0
        key = self._key
        if not key:
            return bytes(piece)
        turn = len(piece) % 4
        self._key = key[turn:] + key[:turn]
        return mask(piece, key)

    def _frame(self, first: int, payload: bytes | memoryview) -> bytes:
        header = self._header(first, len(payload))
        key = self._new_key()
        return header + key + mask(payload, key) if key else header + payload

    def _new_key(self) -> bytes:
        return b"" if self._entropy is None else self._entropy(4)

    def _header(self, first: int, length: int) -> bytes:
        if length < 126:
            return bytes((first, self._mask_bit | length))
        if length < 1 << 16:
            return bytes((first, self._mask_bit | 126)) + length.to_bytes(2, "big")
        return bytes((first, self._mask_bit | 127)) + length.to_bytes(8, "big")


def _byte_view(part: bytes | bytearray | memoryview) -> memoryview:
    try:
        view = memoryview(part)
        return view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError as error:
        raise LocalProtocolError(f"a message is made of contiguous buffers: {error}") from error
