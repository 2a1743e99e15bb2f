"""The opening handshake of a WebSocket, for either role, on `wsproto` and `h11`.

The head of the HTTP request or answer is cut here and given to `wsproto` in one piece, so that what
comes behind it is still there to be read as frames, and informational answers are never seen by it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.utilities import RemoteProtocolError as HandshakeViolation

from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.limits import Limits

__all__ = [
    "Handshake",
    "HandshakeAccepted",
    "HandshakeEvent",
    "HandshakeRejected",
    "HandshakeRequested",
    "Role",
    "parse",
    "refusal",
]

Headers: TypeAlias = tuple[tuple[str, str], ...]

# All HTTP heads of one handshake together. Servers commonly take 8 to 16 KiB for one.
_HEAD_BYTES = 64 * 1024

# The least raw bytes of a rejection's body that are looked at; h11 holds no more of a line either.
_RAW_BODY_BYTES = 16 * 1024

_BLANK_LINE = re.compile(rb"\n\r?\n")  # where h11 ends a head
_INFORMATIONAL = re.compile(rb"HTTP/1\.[0-9] 1(?!01)[0-9]{2}(?![0-9])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # but tab and line ends
_HANDSHAKE_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes


class Role(enum.Enum):
    """Which side of a connection this is."""

    CLIENT = "client"
    SERVER = "server"

    # The standard hash of an enum is a Python call (0.2 µs); identity is as right and free.
    __hash__ = object.__hash__

    @property
    def peer(self) -> str:
        """What messages about the other side call it."""
        return "server" if self is Role.CLIENT else "client"


@dataclass(frozen=True, slots=True)
class HandshakeRequested:
    """A client asks for a WebSocket (server role): call ``accept()`` or ``reject()``.

    Header names are lower-case. Offers of extensions and subprotocols are left out: none is taken.
    """

    target: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class HandshakeAccepted:
    """The WebSocket is open (client role). ``headers`` are those not of the handshake itself."""

    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeRejected:
    """The server answered with HTTP instead (client role); nothing follows.

    ``body`` is the start of the answer's body, ``location`` that of where it points to, if it does:
    at most ``Limits.handshake_body_bytes`` of each, without control characters.
    """

    status: int
    headers: Headers
    body: str
    location: str | None = None


HandshakeEvent: TypeAlias = HandshakeRequested | HandshakeAccepted | HandshakeRejected


def parse(wsproto: WSConnection, data: bytes, peer: str) -> list[ws.Event]:
    """Have wsproto read received ``data``; whatever it or h11 raise is a `RemoteProtocolError`.

    ``data`` is never empty: h11 would take that for the end.
    """
    try:
        wsproto.receive_data(data)
        return list(wsproto.events())
    except Exception as error:
        # wsproto's "Bad HTTP message" hides what h11 said; which may quote the peer at any length.
        words = str(error.__context__ or error) or type(error).__name__
        raise RemoteProtocolError(f"the {peer} broke the protocol: {words[:200]}") from error


class _Reading(enum.Enum):
    """What the received bytes are."""

    HEAD = "the head of an HTTP request or answer"
    BODY = "the body of a rejection"
    NOTHING_YET = "of no interest before the request is accepted or rejected"
    NOTHING = "the handshake's no more"


class Handshake:
    """One opening handshake. It eats what is its own from the front of ``received``.

    Afterwards ``wsproto`` is the connection that reads frames.
    """

    def __init__(self, role: Role, received: bytearray, *, limits: Limits) -> None:
        is_client = role is Role.CLIENT
        self.wsproto = WSConnection(ConnectionType.CLIENT if is_client else ConnectionType.SERVER)
        self._role = role
        self._peer = role.peer
        self._received = received
        self._reading = _Reading.HEAD
        self._asked = False
        self._greeting = b"HTTP/1." if is_client else b"GET "
        self._searched = 0
        self._head_room = _HEAD_BYTES
        self._rejection = ws.RejectConnection()
        self._body = bytearray()
        self._body_bound = limits.handshake_body_bytes
        self._raw_body_room = max(_RAW_BODY_BYTES, 2 * limits.handshake_body_bytes)

    def request(self, host: str, target: str, headers: Sequence[tuple[str, str]]) -> bytes:
        """Make the client's request."""
        if self._role is not Role.CLIENT or self._asked:
            raise LocalProtocolError("open() is for a client, and once")
        try:
            request = ws.Request(host=host, target=target, extra_headers=_encoded(headers))
            data = self.wsproto.send(request)
        except Exception as error:
            raise LocalProtocolError(f"cannot ask {host!r} for {target!r}: {error}") from error
        self._asked = True
        return data

    def acceptance(self) -> bytes:
        """Make the server's answer that opens the WebSocket."""
        self._need_request()
        self._reading = _Reading.NOTHING
        return self.wsproto.send(ws.AcceptConnection())

    def rejection(self, status: int, body: str, headers: Sequence[tuple[str, str]]) -> bytes:
        """Make the server's answer that opens none."""
        self._need_request()
        try:
            answer = _http_answer(status, body, _encoded(headers))
        except Exception as error:
            raise LocalProtocolError(f"cannot answer with HTTP {status!r}: {error}") from error
        self._reading = _Reading.NOTHING
        return answer

    def _need_request(self) -> None:
        if self._reading is not _Reading.NOTHING_YET:
            raise LocalProtocolError("there is no opening request to accept or reject")

    def next_event(self, *, eof: bool) -> HandshakeEvent | None:
        """Read on; ``eof`` tells that nothing will follow what was received."""
        if self._reading is _Reading.HEAD:
            return self._read_head(eof=eof)
        if self._reading is _Reading.BODY:
            return self._read_body(eof=eof)
        return None

    def _read_head(self, *, eof: bool) -> HandshakeEvent | None:
        received = self._received
        while True:
            if not received.startswith(self._greeting[: len(received)]):
                raise RemoteProtocolError(
                    f"the {self._peer} does not open a WebSocket over HTTP/1 "
                    "(does one side use TLS, wss://, and the other not?)"
                )
            end = _BLANK_LINE.search(received, self._searched, self._head_room)
            if end is None:
                if len(received) >= self._head_room:
                    raise RemoteProtocolError(
                        f"the {self._peer}'s HTTP headers are over {_HEAD_BYTES} bytes"
                    )
                self._searched = max(0, len(received) - 2)
                return None
            head = bytes(received[: end.end()])
            del received[: len(head)]
            self._head_room -= len(head)
            self._searched = 0
            # wsproto would take 100 or 103 for a rejection.
            if not _INFORMATIONAL.match(head):
                return self._take_head(head, eof=eof)

    def _take_head(self, head: bytes, *, eof: bool) -> HandshakeEvent | None:
        first, *others = parse(self.wsproto, head, self._peer)
        if isinstance(first, ws.AcceptConnection):
            return HandshakeAccepted(_decoded(first.extra_headers))
        if isinstance(first, ws.Request):
            _check_request(first.extra_headers)
            self._reading = _Reading.NOTHING_YET
            headers = (("host", first.host), *_decoded(first.extra_headers))
            return HandshakeRequested(first.target, headers)
        self._rejection = cast("ws.RejectConnection", first)
        self._reading = _Reading.BODY
        return self._read_body(others, eof=eof)

    def _read_body(self, events: Iterable[ws.Event] = (), *, eof: bool) -> HandshakeRejected | None:
        complete = eof
        parsed = list(events)
        if self._received:
            piece = bytes(self._received[: self._raw_body_room])
            self._received.clear()
            self._raw_body_room -= len(piece)
            try:
                parsed += parse(self.wsproto, piece, self._peer)
            except RemoteProtocolError:  # what came before the fault still explains the rejection
                parsed += self.wsproto.events()
                complete = True
        for event in cast("list[ws.RejectData]", parsed):
            self._body += event.data
            complete |= event.body_finished
        bound = self._body_bound
        if not complete and len(self._body) < bound and self._raw_body_room:
            return None
        headers = self._rejection.headers
        places = (value for name, value in headers if name.lower() == b"location")
        location = next(places, None)
        return HandshakeRejected(
            status=self._rejection.status_code,
            headers=_decoded(headers),
            body=_shown(self._body[:bound]),
            location=None if location is None else _shown(location[:bound]),
        )


def refusal(violation: RemoteProtocolError) -> bytes:
    """Make the server's HTTP answer to a request that broke the protocol."""
    match violation.__cause__:
        case HandshakeViolation(event_hint=ws.RejectConnection() as hint):
            status = hint.status_code
        case _:
            status = 400
    headers = [(b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
    return _http_answer(status, f"{violation}\n", headers)


def _http_answer(status: int, body: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    # A connection of its own: that of the request may be beyond answering (HEAD, or an error).
    content = body.encode("utf-8", "replace")
    writer = WSConnection(ConnectionType.SERVER)
    fixed = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(content)),
        (b"connection", b"close"),
    ]
    answer = ws.RejectConnection(status_code=status, headers=[*fixed, *headers], has_body=True)
    return writer.send(answer) + writer.send(ws.RejectData(data=content))


def _check_request(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Check what wsproto does not."""
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    if len(keys) != 1 or not _HANDSHAKE_KEY.fullmatch(keys[0]):
        raise RemoteProtocolError(
            "the client's Sec-WebSocket-Key is not one of 16 bytes, in base64"
        )
    body = {b"content-length", b"transfer-encoding"}
    if any(name in body and value != b"0" for name, value in headers):
        raise RemoteProtocolError("the client's opening request has a body")


def _shown(data: bytes | bytearray) -> str:
    """What a stranger wrote, fit to be shown to people: it commands no terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", data.decode("utf-8", "replace"))


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers
    )
