"""The opening handshake of a WebSocket, for either role, on `wsproto` and `h11`.

The head of the HTTP request or response is cut first and given to `wsproto` in one piece, so that
what comes after it is still there to be read as frames. A response that opens no WebSocket is not
given to it at all: `pie_proto.http_responses` reads that, as far as it comes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.utilities import RemoteProtocolError as HandshakeViolation

from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.http_responses import Headers, HeadReader, HttpResponse
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

_SWITCHING = re.compile(rb"HTTP/1\.[0-9] 101(?![0-9])")
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

    ``body`` is what came of the response's body, ``location`` where it points to, if it does: at
    most ``Limits.handshake_body_bytes`` of each, without control characters.
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

    Afterwards ``wsproto`` is the connection that reads frames. The body of a rejection is waited
    for, unless its status is in ``status_suffices``.
    """

    def __init__(
        self,
        role: Role,
        received: bytearray,
        *,
        limits: Limits,
        status_suffices: Collection[int] = (),
    ) -> None:
        is_client = role is Role.CLIENT
        self.wsproto = WSConnection(ConnectionType.CLIENT if is_client else ConnectionType.SERVER)
        self._role = role
        self._peer = role.peer
        self._received = received
        self._reading = _Reading.HEAD
        self._asked = False
        self._heads = HeadReader(
            received,
            peer=self._peer,
            begins=b"HTTP/1." if is_client else b"GET ",
            otherwise=(
                f"the {self._peer} does not open a WebSocket over HTTP/1 "
                "(does one side use TLS, wss://, and the other not?)"
            ),
        )
        self._rejection: HttpResponse | None = None
        self._body_bytes = limits.handshake_body_bytes
        self._status_suffices = status_suffices

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

    @property
    def awaits_body(self) -> bool:
        """Whether the handshake was rejected, and the rest of the body may still come."""
        return self._reading is _Reading.BODY

    def end_body(self) -> None:
        """Wait no longer for the body of a rejection: report it as far as it came."""
        if self._rejection is not None:
            self._rejection.receive_eof()

    def next_event(self, *, eof: bool) -> HandshakeEvent | None:
        """Read on; ``eof`` tells that nothing will follow what was received."""
        if self._reading is _Reading.HEAD:
            head = self._heads.next_head()
            if head is None:
                return None
            if self._role is Role.CLIENT and not _SWITCHING.match(head):
                self._reading = _Reading.BODY
                self._rejection = HttpResponse(
                    head, peer=self._peer, method="GET", body_bytes=self._body_bytes
                )
            else:
                return self._take_head(head)
        if self._reading is _Reading.BODY and self._rejection is not None:
            return self._read_body(self._rejection, eof=eof)
        return None

    def _take_head(self, head: bytes) -> HandshakeEvent:
        first, *_ = parse(self.wsproto, head, self._peer)
        if isinstance(first, ws.AcceptConnection):
            return HandshakeAccepted(_decoded(first.extra_headers))
        request = cast("ws.Request", first)
        _check_request(request.extra_headers)
        self._reading = _Reading.NOTHING_YET
        headers = (("host", request.host), *_decoded(request.extra_headers))
        return HandshakeRequested(request.target, headers)

    def _read_body(self, rejection: HttpResponse, *, eof: bool) -> HandshakeRejected | None:
        rejection.receive_data(bytes(self._received))
        self._received.clear()
        if not (rejection.complete or eof or rejection.status in self._status_suffices):
            return None
        return HandshakeRejected(
            status=rejection.status,
            headers=rejection.headers,
            body=rejection.body,
            location=rejection.location,
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


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers
    )
