"""The opening handshake, against wsproto as an independent peer and against raw bytes."""

from __future__ import annotations

import pytest
import wsproto
from wsproto import events as ws

from pie_proto.errors import (
    LocalProtocolError,
    RemoteProtocolError,
)
from pie_proto.websocket import (
    BinaryMessage,
    HandshakeAccepted,
    HandshakeRejected,
    HandshakeRequested,
    Role,
    WebSocket,
)
from tests.proto.websocket_wire import (
    answer_101,
    asking_client,
    drain,
    feed,
    frame,
    opened,
    request_head,
    sent,
)


@pytest.fixture(params=Role, ids=lambda role: role.value)
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)


def test_a_client_opens_to_a_wsproto_server() -> None:
    client = WebSocket(Role.CLIENT)
    client.open("pie.example:8080", "/v1/ws?x=1", [("x-pie-identity", "tenant/user")])
    assert not client.opened
    peer = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    peer.receive_data(sent(client))
    (asked,) = peer.events()
    assert isinstance(asked, ws.Request)
    assert (asked.host, asked.target) == ("pie.example:8080", "/v1/ws?x=1")
    assert (b"x-pie-identity", b"tenant/user") in asked.extra_headers
    answer = peer.send(ws.AcceptConnection(extra_headers=[(b"X-Server", b"one")]))
    assert feed(client, answer) == [HandshakeAccepted((("x-server", "one"),))]
    assert client.opened


def test_a_server_opens_to_a_wsproto_client_and_takes_no_offer() -> None:
    server = WebSocket(Role.SERVER)
    peer = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    asked = ws.Request(host="pie.example", target="/any", subprotocols=["pie"])
    (event,) = feed(server, peer.send(asked))
    assert isinstance(event, HandshakeRequested)
    assert event.target == "/any"
    assert event.headers[0] == ("host", "pie.example")
    assert "sec-websocket-protocol" not in dict(event.headers)
    server.accept()
    peer.receive_data(sent(server))
    (accepted,) = peer.events()
    assert isinstance(accepted, ws.AcceptConnection)
    assert (accepted.subprotocol, accepted.extensions) == (None, [])


def test_frames_in_the_segment_of_the_handshake_are_read_as_frames(role: Role) -> None:
    message = frame(0x82, b"early", masked=role is Role.SERVER)
    if role is Role.CLIENT:
        client, asked = asking_client()
        assert feed(client, answer_101(asked) + message)[1:] == [BinaryMessage(b"early")]
    else:
        server = WebSocket(role)
        (event,) = feed(server, request_head() + message)
        assert isinstance(event, HandshakeRequested)
        assert server.buffered_bytes == len(message)
        server.accept()
        assert drain(server) == [BinaryMessage(b"early")]


def test_informational_answers_before_the_101_are_skipped() -> None:
    client, asked = asking_client()
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    assert feed(client, hints + answer_101(asked)) == [HandshakeAccepted(())]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ("HTTP/1.1 401 No\r\nX-A: b\r\nContent-Length: 5\r\n\r\nwho\xff?", "who�?"),
        ("HTTP/1.1 401 No\r\nX-A: b\r\nContent-Length: 0\r\n\r\n", ""),
        (
            "HTTP/1.1 401 No\r\nX-A: b\r\nContent-Length: 9\r\n\r\n\x1b[2J\ta\r\nb",
            "\ufffd[2J\ta\r\nb",
        ),
        ("HTTP/1.1 401 No\r\nX-A: b\r\nContent-Length: 99\r\n\r\n" + 30 * "z", 20 * "z"),
        (
            "HTTP/1.1 401 No\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "hi",
        ),
        (
            "HTTP/1.1 401 No\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nbroken\r\n",
            "hi",
        ),
        ("HTTP/1.1 401 No\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n2;" + 20_000 * "x", ""),
    ],
    ids=["whole", "empty", "for terminals", "over the bound", "chunked", "broken", "no end"],
)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_an_http_answer_rejects_the_handshake(answer: str, body: str, step: int) -> None:
    client, _ = asking_client()
    data = answer.encode("latin-1")
    events = [e for at in range(0, len(data), step) for e in feed(client, data[at : at + step])]
    (event,) = events
    assert isinstance(event, HandshakeRejected)
    assert (event.status, event.body) == (401, body)
    assert ("x-a", "b") in event.headers
    assert not client.opened
    assert feed(client, b"more") == []
    assert client.buffered_bytes == 0


@pytest.mark.parametrize(
    ("lines", "location"),
    [
        (b"", None),
        (b"Location: /v1/ws\r\n", "/v1/ws"),
        (b"LOCATION: /one\r\nLocation: /two\r\n", "/one"),
        (b"Location:\r\n", ""),
        (b"Location: /caf\xc3\xa9\xff\r\n", "/café\ufffd"),
        (b"Location: /\x1b[2J\x9b\r\n", "/\ufffd[2J\ufffd"),
        (b"Location: /" + 10_000 * b"x" + b"\r\n", "/" + 19 * "x"),
    ],
    ids=["none", "one", "two", "empty", "no UTF-8", "for terminals", "over the bound"],
)
def test_where_an_http_answer_points_to_is_told(lines: bytes, location: str | None) -> None:
    client, _ = asking_client()
    answer = b"HTTP/1.1 302 Found\r\n" + lines + b"Content-Length: 0\r\n\r\n"
    (event,) = feed(client, answer)
    assert isinstance(event, HandshakeRejected)
    assert event.location == location


# How the head says where the body ends, and what then comes of it: "no room", and no end.
FRAMINGS = {
    "no length": (b"", b"no room"),
    "too long": (b"Content-Length: 2000\r\n", b"no room"),
    "chunked": (b"Transfer-Encoding: chunked\r\n", b"7\r\nno room\r\n"),
    "chunk begun": (b"Transfer-Encoding: chunked\r\n", b"ff\r\nno room"),
    "next chunk announced": (b"Transfer-Encoding: chunked\r\n", b"7\r\nno room\r\n7"),
    "trailers": (b"Transfer-Encoding: chunked\r\n", b"7\r\nno room\r\n0\r\nX: y\r\n"),
    "length of letters": (b"Content-Length: many\r\n", b"no room"),
    "length below 0": (b"Content-Length: -7\r\n", b"no room"),
    "two lengths": (b"Content-Length: 7\r\ncontent-length: 8\r\n", b"no room"),
    "folded length": (b"Content-Length: 7,\r\n 8\r\n", b"no room"),
    "unknown coding": (b"Transfer-Encoding: gzip\r\n", b"no room"),
    "two codings": (b"Transfer-Encoding: gzip, chunked\r\n", b"no room"),
}
# The same, but here a fault ends the body.
FAULTS = {
    "chunk size of letters": (b"Transfer-Encoding: chunked\r\n", b"7\r\nno room\r\nzz\r\n"),
    "chunk too long": (b"Transfer-Encoding: chunked\r\n", b"7\r\nno room!\r\n"),
    "chunk size too large": (
        b"Transfer-Encoding: chunked\r\n",
        b"7\r\nno room\r\n" + 64 * b"1" + b"\r\n",
    ),
}


def rejecting(framing: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 429 Rejected\r\nX-A: b\r\n" + framing + b"\r\n" + body


@pytest.mark.parametrize("name", FRAMINGS)
@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("end", ["eof", "the wait ends"])
def test_a_body_that_never_ends_is_reported_as_far_as_it_came(
    name: str, step: int, end: str
) -> None:
    client, _ = asking_client()
    data = rejecting(*FRAMINGS[name])
    assert [e for at in range(0, len(data), step) for e in feed(client, data[at : at + step])] == []
    assert client.awaits_body
    if end == "eof":
        client.receive_eof()
    else:
        client.end_body()
    (event,) = drain(client)
    assert isinstance(event, HandshakeRejected)
    assert (event.status, event.body) == (429, "no room")
    assert ("x-a", "b") in event.headers
    assert not client.awaits_body


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_a_fault_in_a_body_ends_it(name: str, step: int) -> None:
    client, _ = asking_client()
    data = rejecting(*FAULTS[name])
    events = [e for at in range(0, len(data), step) for e in feed(client, data[at : at + step])]
    (event,) = events
    assert isinstance(event, HandshakeRejected)
    assert (event.status, event.body) == (429, "no room")


@pytest.mark.parametrize("framing", [f for f, _ in FRAMINGS.values()])
def test_a_body_may_begin_and_end_later_or_never(framing: bytes) -> None:
    client, _ = asking_client()
    assert feed(client, rejecting(framing, b"")) == []
    assert client.awaits_body
    client.end_body()
    (event,) = drain(client)
    assert isinstance(event, HandshakeRejected)
    assert (event.status, event.body) == (429, "")


def test_a_status_that_suffices_is_reported_with_what_is_there() -> None:
    for status, waits in ((404, False), (429, True)):
        client = WebSocket(Role.CLIENT, status_suffices=(404,))
        client.open("x", "/")
        answer = b"HTTP/1.1 %d No\r\nContent-Length: 99\r\n\r\n" % status
        events = feed(client, answer + b"start")
        assert client.awaits_body is waits
        client.end_body()
        (event,) = [*events, *drain(client)]
        assert isinstance(event, HandshakeRejected)
        assert (event.status, event.body) == (status, "start")


def test_without_a_rejection_there_is_no_body_to_end() -> None:
    client, asked = asking_client()
    client.end_body()
    assert drain(client) == []
    assert not client.awaits_body
    assert feed(client, answer_101(asked)) == [HandshakeAccepted(())]
    assert not client.awaits_body


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50",
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: \xff\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 429 Rejected\r\nno header\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 099 Rejected\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nX: " + 65_600 * b"x",
        40 * (b"HTTP/1.1 103 Early Hints\r\nX: " + 2000 * b"x" + b"\r\n\r\n"),
    ],
)
def test_an_answer_that_is_no_handshake_is_a_violation(answer: bytes) -> None:
    client, _ = asking_client()
    client.receive_data(answer)
    with pytest.raises(RemoteProtocolError, match="server") as caught:
        client.next_event()
    assert caught.value.close_code == 1002
    assert not client.opened
    assert sent(client) == b""


@pytest.mark.parametrize(
    "extra",
    [
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Protocol: chat",
        "Sec-WebSocket-Accept: bm90IHRoaXMgb25l",
    ],
)
def test_a_101_that_nobody_asked_for_is_a_violation(extra: str) -> None:
    client, asked = asking_client()
    client.receive_data(answer_101(asked, extra))
    with pytest.raises(RemoteProtocolError, match="broke the protocol"):
        client.next_event()


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (request_head(method="HEAD"), 400),
        (request_head(without="Host"), 400),
        (request_head(without="Sec-WebSocket-Key"), 400),
        (request_head("Sec-WebSocket-Key: c2hvcnQ=", without="Sec-WebSocket-Key"), 400),
        (request_head("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
        (request_head("Sec-WebSocket-Version: 8", without="Sec-WebSocket-Version"), 426),
        (request_head("Content-Length: 5"), 400),
        (request_head("Transfer-Encoding: chunked"), 400),
        (request_head("X: \x00"), 400),
        (b"\x16\x03\x01\x02\x00", 400),
    ],
)
def test_a_request_that_is_no_handshake_is_answered_with_http(asked: bytes, status: int) -> None:
    server = WebSocket(Role.SERVER)
    server.receive_data(asked)
    with pytest.raises(RemoteProtocolError, match="client"):
        server.next_event()
    head, _, body = sent(server).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert b"content-length: %d" % len(body) in head.lower()
    assert body.startswith(b"the client")


def test_a_server_rejects_in_its_own_words() -> None:
    client, asked = asking_client()
    server = WebSocket(Role.SERVER)
    feed(server, asked)
    with pytest.raises(LocalProtocolError, match="HTTP 42"):
        server.reject(42, "no such status")
    server.reject(401, "who are you?", [("www-authenticate", "Pie")])
    (event,) = feed(client, sent(server))
    assert isinstance(event, HandshakeRejected)
    assert (event.status, event.body) == (401, "who are you?")
    assert ("www-authenticate", "Pie") in event.headers
    assert feed(server, b"ignored") == []
    with pytest.raises(LocalProtocolError, match="no opening request"):
        server.accept()


def test_a_request_is_answered_once() -> None:
    server = WebSocket(Role.SERVER)
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="no opening request"):
            server.accept()
        server = opened(Role.SERVER)


def test_opening_is_for_a_client_and_once() -> None:
    with pytest.raises(LocalProtocolError, match="client"):
        WebSocket(Role.SERVER).open("x", "/")
    client, _ = asking_client()
    with pytest.raises(LocalProtocolError, match="once"):
        client.open("x", "/")


@pytest.mark.parametrize(
    ("host", "target", "header"),
    [
        ("a..b", "/", ("x", "y")),
        ("x", "/a b", ("x", "y")),
        ("x", "/é", ("x", "y")),
        ("x", "/", ("x", "y\r\nz: injected")),
        ("x", "/", ("é", "y")),
    ],
)
def test_what_cannot_stand_in_a_request_is_refused_and_can_be_corrected(
    host: str, target: str, header: tuple[str, str]
) -> None:
    client = WebSocket(Role.CLIENT)
    with pytest.raises(LocalProtocolError, match="cannot ask"):
        client.open(host, target, [header])
    assert not client.has_data_to_send
    client.open("x", "/")
    assert client.has_data_to_send
