"""HTTP heads cut from what a peer sent, and responses read as far as they come, on `h11`.

A response that rejects a request explains itself in its body, and a body may have no end: it is cut
short, kept open for ever, or framed wrongly. Its status must not be lost with it.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import h11

from pie_proto.errors import RemoteProtocolError

__all__ = ["HeadReader", "Headers", "HttpResponse", "shown"]

Headers: TypeAlias = tuple[tuple[str, str], ...]

# All HTTP heads of one handshake together. Servers commonly accept 8 to 16 KiB for one.
_HEAD_BYTES: Final = 64 * 1024

# The least raw bytes of a body that are read. h11 holds no more of a line either.
_RAW_BODY_BYTES: Final = 16 * 1024

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")  # where h11 ends a head
_INFORMATIONAL: Final = re.compile(rb"HTTP/1\.[0-9] 1(?!01)[0-9]{2}(?![0-9])")
_BODY_FRAMING: Final = re.compile(
    rb"(?im)^(?:content-length|transfer-encoding)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*"
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # but tab and line ends


class HeadReader:
    """Cuts HTTP heads from the front of ``received``, of which informational ones are dropped.

    ``begins`` is how a head begins; ``otherwise`` is the text of the `RemoteProtocolError` for
    anything else.
    """

    def __init__(self, received: bytearray, *, peer: str, begins: bytes, otherwise: str) -> None:
        self._received = received
        self._peer = peer
        self._begins = begins
        self._otherwise = otherwise
        self._searched = 0
        self._room = _HEAD_BYTES

    def next_head(self) -> bytes | None:
        """Cut the next head; ``None``: more bytes are needed. Raises `RemoteProtocolError`."""
        received = self._received
        while True:
            if not received.startswith(self._begins[: len(received)]):
                raise RemoteProtocolError(self._otherwise)
            end = _BLANK_LINE.search(received, self._searched, self._room)
            if end is None:
                if len(received) >= self._room:
                    raise RemoteProtocolError(
                        f"the {self._peer}'s HTTP headers have no end: they are over "
                        f"{_HEAD_BYTES} bytes"
                    )
                self._searched = max(0, len(received) - 2)
                return None
            head = bytes(received[: end.end()])
            del received[: len(head)]
            self._room -= len(head)
            self._searched = 0
            if not _INFORMATIONAL.match(head):
                return head


class HttpResponse:
    """One HTTP response: its status, its headers, and its body as far as it comes.

    ``head`` is the whole head, ``method`` that of the request. Of the body the first ``body_bytes``
    are kept. Raises `RemoteProtocolError` for a head that is not HTTP. If only what it says about
    the length of its body is wrong, the body goes on to the end of the transport.
    """

    def __init__(self, head: bytes, *, peer: str, method: str, body_bytes: int) -> None:
        self._bound = body_bytes
        self._body = bytearray()
        self._raw_room = max(_RAW_BODY_BYTES, 2 * body_bytes)
        self._http, response = _read_head(head, method, peer)
        self.status: int = response.status_code
        self.headers: Headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in response.headers
        )
        places = (value for name, value in response.headers if name == b"location")
        location = next(places, None)
        self.location = None if location is None else shown(location[:body_bytes])
        """Where the response points to, if it does: at most ``body_bytes`` of it."""
        self.complete = False
        """Whether no more of the body is to be read."""
        self.receive_data(b"")

    @property
    def body(self) -> str:
        """What has come of the body, without control characters."""
        return shown(self._body[: self._bound])

    def receive_data(self, data: bytes) -> None:
        """Read on. Never raises: what came before a fault still explains the response."""
        piece = data[: self._raw_room]
        self._raw_room -= len(piece)
        try:
            if piece:  # h11 would take an empty one for the end
                self._http.receive_data(piece)
            while not self.complete:
                event = self._http.next_event()
                if isinstance(event, h11.Data):
                    self._body += event.data
                elif event is h11.NEED_DATA:
                    break
                else:
                    self.complete = True
        except Exception:  # noqa: BLE001 - whatever h11 raises, the status is known
            self.complete = True
        self.complete |= len(self._body) >= self._bound or not self._raw_room

    def receive_eof(self) -> None:
        """Note that no more of the body comes, or is waited for."""
        self.complete = True


def shown(data: bytes | bytearray) -> str:
    """Text that a stranger wrote, fit to be shown to people: it commands no terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", data.decode("utf-8", "replace"))


def _read_head(head: bytes, method: str, peer: str) -> tuple[h11.Connection, h11.Response]:
    fault: Exception | None = None
    for candidate in (head, _BODY_FRAMING.sub(b"", head)):
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        http.send(h11.Request(method=method, target="/", headers=[("Host", "")]))
        http.send(h11.EndOfMessage())
        try:
            http.receive_data(candidate)
            event = http.next_event()
        except Exception as error:  # noqa: BLE001 - raised below, if the other one fails, too
            fault = fault or error
        else:
            if isinstance(event, h11.Response):
                return http, event
    # h11 may quote the peer at any length.
    text = str(fault or "no response")[:200]
    raise RemoteProtocolError(f"the {peer} broke the protocol: {text}") from fault
