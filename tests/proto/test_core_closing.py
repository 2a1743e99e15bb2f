"""Opening, keepalive and the end: who closed, when, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.connection import ClientConnection
from pie_proto.errors import (
    ConnectFailed,
    ConnectionLost,
    LocalProtocolError,
    RemoteProtocolError,
    error_for,
)
from pie_proto.events import NEED_DATA, Closer, ConnectionClosed
from pie_proto.limits import Limits
from pie_proto.link import TransportAction
from pie_proto.server import ServerConnection
from pie_proto.states import ConnectionState
from tests.proto.pair import CHUNK, A, Pair, authenticated, connected, content, only, program
from tests.proto.websocket_wire import frame

# For tests that look at the deadlines of keepalive alone.
PATIENT = Limits(request_timeout=None, launch_timeout=None)


def ended(connection: ClientConnection | ServerConnection) -> ConnectionClosed:
    """How it ended: the only thing that is left to tell."""
    event = connection.next_event()
    assert isinstance(event, ConnectionClosed)
    assert connection.state is ConnectionState.CLOSED
    return event


# ---------------------------------------------------------------------------------------- opening


def test_the_handshake_is_ready_from_the_start() -> None:
    client = ClientConnection("pie.example:8080", "/v1/ws", now=0.0, headers=[("x-pie-id", "a/b")])
    request = client.data_to_send(now=0.0)
    assert request.startswith(b"GET /v1/ws HTTP/1.1\r\n")
    assert b"pie.example:8080" in request
    assert b"x-pie-id: a/b" in request.lower()
    server = ServerConnection(now=0.0)
    server.receive_data(request, 0.0)
    received = server.next_event()
    assert isinstance(received, e.HandshakeReceived)
    assert received.target == "/v1/ws"
    assert dict(received.headers)["x-pie-id"] == "a/b"
    assert server.next_event() is NEED_DATA


def test_headers_that_cannot_be_sent_are_refused() -> None:
    with pytest.raises(LocalProtocolError):
        ClientConnection("pie.example", now=0.0, headers=[("name\r\n", "value")])


@pytest.mark.parametrize("how", ["whole", "cut short"])
def test_an_http_answer_instead_of_a_websocket_is_told_with_status_and_body(how: str) -> None:
    pair = Pair()
    pair.server.receive_data(pair.client.data_to_send(now=0.0), 0.0)
    assert isinstance(pair.server.next_event(), e.HandshakeReceived)
    pair.server.reject(401, "who are you?", [("x-why", "no name")])
    answer = pair.server.data_to_send(now=0.0)
    assert pair.server.transport_action() is TransportAction.CLOSE
    assert ended(pair.server).opened is False
    pair.client.receive_data(answer if how == "whole" else answer[:-1], 0.0)
    if how != "whole":
        assert pair.client.next_event() is NEED_DATA
        pair.client.receive_eof(0.0)
    closed = ended(pair.client)
    assert (closed.by, closed.opened, closed.status) == (Closer.REMOTE, False, 401)
    assert closed.body == "who are you?"[: 12 if how == "whole" else 11]
    error = error_for(closed)
    assert isinstance(error, ConnectFailed)
    assert error.status == 401
    assert error.body == closed.body
    with pytest.raises(ConnectFailed, match="401"):
        pair.client.send(c.Ping(), 0.0)
    with pytest.raises(ConnectFailed, match="401"):
        pair.client.next_event()


def test_a_server_that_ends_before_the_handshake_is_a_failed_connect() -> None:
    for reason, told in (("", "without a word"), ("reset by peer", "reset by peer")):
        client = ClientConnection("h", now=0.0)
        client.receive_eof(0.0, reason)
        closed = ended(client)
        assert closed.opened is False
        assert closed.by is (Closer.TRANSPORT if reason else Closer.REMOTE)
        assert told in str(error_for(closed))
        assert isinstance(error_for(closed), ConnectFailed)


def test_a_handshake_that_is_not_answered_times_out() -> None:
    client = ClientConnection("h", now=100.0)
    assert client.next_deadline() == 130.0
    client.handle_timeout(129.9)
    assert client.state is ConnectionState.CONNECTING
    client.handle_timeout(130.0)
    assert client.transport_action() is TransportAction.ABORT
    closed = ended(client)
    assert closed.opened is False
    with pytest.raises(ConnectFailed, match="not answered for 30 s"):
        client.next_event()


REJECTION = b"HTTP/1.1 429 No\r\nContent-Length: 2000\r\n\r\n"


def test_the_body_of_a_rejection_is_waited_for_but_not_for_long() -> None:
    client = ClientConnection("h", now=100.0)
    client.data_to_send(now=100.0)
    client.data_to_send(now=100.0)
    client.receive_data(REJECTION, 110.0)
    assert client.next_event() is NEED_DATA
    assert client.next_deadline() == 112.0
    for now, piece in ((110.5, b"no"), (111.0, b" "), (111.9, b"room")):
        client.receive_data(piece, now)
        assert client.next_event() is NEED_DATA
        # What trickles in does not prolong it.
        assert client.next_deadline() == 112.0
        client.handle_timeout(now)
    client.handle_timeout(112.0)
    closed = ended(client)
    assert (closed.by, closed.opened) == (Closer.REMOTE, False)
    assert (closed.status, closed.body) == (429, "no room")
    assert client.next_deadline() is None
    assert client.transport_action() is TransportAction.CLOSE


def test_the_end_of_the_handshake_is_the_end_of_the_wait_for_a_body() -> None:
    client = ClientConnection("h", now=100.0)
    client.receive_data(REJECTION + b"no room", 129.0)
    assert client.next_event() is NEED_DATA
    assert client.next_deadline() == 130.0
    client.handle_timeout(130.0)
    closed = ended(client)
    assert (closed.status, closed.body) == (429, "no room")


@pytest.mark.parametrize("reason", ["", "reset by peer"])
@pytest.mark.parametrize("body", [b"", b"no room"])
def test_a_rejection_outlives_the_transport_that_it_came_over(reason: str, body: bytes) -> None:
    client = ClientConnection("h", now=0.0)
    client.receive_data(REJECTION + body, 0.0)
    assert client.next_event() is NEED_DATA
    client.receive_eof(1.0, reason)
    closed = ended(client)
    assert (closed.by, closed.status, closed.body) == (Closer.REMOTE, 429, body.decode())


def test_a_status_that_suffices_ends_the_connection_at_once() -> None:
    client = ClientConnection("h", now=0.0, status_suffices=(429,))
    client.receive_data(REJECTION, 0.0)
    assert ended(client).status == 429


def test_closing_while_a_body_is_awaited_is_the_end_at_once() -> None:
    client = ClientConnection("h", now=0.0)
    client.receive_data(REJECTION, 0.0)
    assert client.next_event() is NEED_DATA
    client.close(now=0.5)
    assert ended(client).by is Closer.LOCAL
    client.handle_timeout(2.0)
    assert client.transport_action() is TransportAction.CLOSE


def test_closing_before_the_handshake_is_done_is_the_end_at_once() -> None:
    client = ClientConnection("h", now=0.0)
    client.close(now=0.0)
    client.close(now=0.0)
    assert client.transport_action() is TransportAction.CLOSE
    closed = ended(client)
    assert (closed.by, closed.opened) == (Closer.LOCAL, False)
    with pytest.raises(ConnectFailed, match="closed by the caller"):
        client.send(c.Ping(), 0.0)


def test_a_peer_that_speaks_no_http_is_a_failed_connect() -> None:
    client = ClientConnection("h", now=0.0)
    client.receive_data(b"SSH-2.0-OpenSSH_9.6\r\n", 0.0)
    closed = ended(client)
    assert closed.opened is False
    assert closed.violation is not None
    assert client.transport_action() is TransportAction.CLOSE
    with pytest.raises(ConnectFailed, match="over HTTP"):
        client.next_event()


# ---------------------------------------------------------------------------------------- closing


def test_what_was_accepted_before_is_sent_before_close_and_uploads_are_dropped() -> None:
    pair = authenticated()
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    data = content(3 * CHUNK)
    pair.ask(program(data))
    pair.ask(c.LaunchInstance(hash=c.hash_of(data)))  # dropped with its program
    ping = pair.ask(c.Ping())
    words = c.SendMessage(A, "last words")
    pair.client.send(words, 0.0)
    pair.client.close(4001, "had enough", now=0.0)
    assert pair.client.state is ConnectionState.CLOSING
    assert pair.asked() == [
        e.Request(ping, c.Ping()),
        e.Request(None, words),
        ConnectionClosed(by=Closer.REMOTE, code=4001, reason="had enough"),
    ]
    assert pair.told() == [ConnectionClosed(by=Closer.LOCAL, code=4001)]
    assert pair.client.transport_action() is TransportAction.CLOSE
    assert pair.server.transport_action() is TransportAction.CLOSE


def test_a_frame_begun_is_finished_before_close() -> None:
    pair = authenticated()
    pair.ask(program(content(3 * CHUNK)))
    begun = pair.client.data_to_send(1000, now=0.0)
    pair.client.close(now=0.0)
    pair.server.receive_data(begun, 0.0)
    closed = only(pair.asked())
    assert isinstance(closed, ConnectionClosed)
    assert (closed.by, closed.code, closed.violation) == (Closer.REMOTE, 1000, None)


def test_while_closing_answers_are_told_and_events_are_dropped() -> None:
    pair = authenticated()
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    ping = pair.ask(c.Ping())
    upload = pair.ask(program(content(3 * CHUNK)))
    pair.server.receive_data(pair.client.data_to_send(now=0.0), 0.0)
    pair.drain_server()
    pair.client.close(now=0.0)
    pair.server.emit(e.InstanceEvent(A, e.Event.Stdout, "unheard"))
    pair.server.answer(e.Pong(ping))
    refused = e.Failed(upload, program(content(3 * CHUNK)), "no")
    pair.server._session._put(
        (pair.server._session._dialect.encode_outcome(refused.command, refused),)
    )
    told = pair.told()
    assert told[:2] == [e.Pong(ping), refused]
    assert isinstance(told[2], ConnectionClosed)
    with pytest.raises(ConnectionLost):
        pair.client.read_instance(A)


def test_while_closing_commands_are_refused_as_after_the_end() -> None:
    pair = authenticated()
    pair.client.close(now=0.0)
    pair.client.close(now=0.0)
    with pytest.raises(ConnectionLost, match="closed by the caller"):
        pair.client.send(c.Ping(), 0.0)


def test_a_server_that_drops_the_line_after_our_close_ends_it_cleanly() -> None:
    pair = authenticated()
    pair.client.close(now=0.0)
    pair.client.data_to_send(now=0.0)
    pair.client.receive_eof(0.0, "connection reset")
    assert ended(pair.client) == ConnectionClosed(by=Closer.LOCAL, code=1000)


def test_a_peers_close_is_answered_and_told() -> None:
    pair = authenticated()
    pair.server.close(1001, "going away", now=0.0)
    assert pair.told() == [ConnectionClosed(by=Closer.REMOTE, code=1001, reason="going away")]
    assert pair.asked() == [ConnectionClosed(by=Closer.LOCAL, code=1001)]
    with pytest.raises(ConnectionLost, match=r"the other side \(code 1001, going away\)") as caught:
        pair.client.send(c.Ping(), 0.0)
    assert (caught.value.by, caught.value.code) == (Closer.REMOTE, 1001)
    assert caught.value.reason == "going away"


def test_a_close_without_a_code_is_answered() -> None:
    pair = authenticated()
    pair.client.receive_data(frame(0x88, masked=False), 0.0)
    assert pair.told() == [ConnectionClosed(by=Closer.REMOTE)]
    assert only(pair.asked()) == ConnectionClosed(by=Closer.REMOTE, code=1000)


@pytest.mark.parametrize("code", [1003, 1011, 1012, 1013, 1014, 3000, 4999])
def test_every_code_that_a_peer_may_send_is_reported_and_answered_with_the_same(code: int) -> None:
    pair = authenticated()
    payload = code.to_bytes(2, "big") + b"why"
    expected = ConnectionClosed(by=Closer.REMOTE, code=code, reason="why")
    pair.client.receive_data(frame(0x88, payload, masked=False), 0.0)
    assert pair.told() == [expected]
    assert pair.asked() == [ConnectionClosed(by=Closer.REMOTE, code=code)]
    error = error_for(expected)
    assert isinstance(error, ConnectionLost)
    assert (error.code, error.reason) == (code, "why")


@pytest.mark.parametrize("code", [1003, 1014, 3000, 4999])
def test_a_server_is_told_the_code_that_a_client_closes_with(code: int) -> None:
    pair = authenticated()
    payload = code.to_bytes(2, "big") + b"why"
    pair.server.receive_data(frame(0x88, payload, masked=True), 0.0)
    assert ended(pair.server) == ConnectionClosed(by=Closer.REMOTE, code=code, reason="why")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_codes_that_no_peer_may_send_break_the_protocol(code: int) -> None:
    pair = authenticated()
    pair.client.receive_data(frame(0x88, code.to_bytes(2, "big"), masked=False), 0.0)
    closed = ended(pair.client)
    assert closed.violation is not None
    assert pair.client.data_to_send(now=0.0)


@pytest.mark.parametrize(
    ("code", "reason"), [(1006, ""), (999, ""), (5000, ""), ("1000", ""), (1000, b"")]
)
def test_what_a_close_frame_cannot_say_is_refused_and_nothing_is_closed(
    code: int, reason: str
) -> None:
    pair = authenticated()
    for connection in (pair.client, pair.server):
        with pytest.raises(LocalProtocolError, match="close"):
            connection.close(code, reason, now=0.0)
        assert connection.state is ConnectionState.OPEN
    assert pair.request(c.Ping(), e.Pong) == e.Pong(2)


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_deaf_peer_is_given_up_after_the_close_timeout(role: str) -> None:
    pair = authenticated()
    connection = pair.client if role == "client" else pair.server
    connection.close(3000, now=7.0)
    assert connection.next_deadline() == 12.0
    connection.close(now=9.0)
    assert connection.next_deadline() == 12.0
    connection.handle_timeout(11.0)
    assert connection.transport_action() is TransportAction.KEEP
    connection.handle_timeout(12.0)
    assert connection.transport_action() is TransportAction.ABORT
    closed = ended(connection)
    assert (closed.by, closed.code, closed.violation) == (Closer.LOCAL, 3000, None)
    assert "5 s" in closed.reason


def test_both_sides_may_close_at_once() -> None:
    pair = authenticated()
    pair.client.close(4000, "mine", now=0.0)
    pair.server.close(4001, "yours", now=0.0)
    assert pair.told() == [ConnectionClosed(by=Closer.LOCAL, code=4001, reason="yours")]
    assert pair.asked() == [ConnectionClosed(by=Closer.LOCAL, code=4000, reason="mine")]


def test_the_end_of_the_line_is_told_with_what_the_transport_said() -> None:
    for reason, by in (("broken pipe", Closer.TRANSPORT), ("", Closer.REMOTE)):
        pair = authenticated()
        pair.client.receive_eof(0.0, reason)
        pair.client.receive_eof(0.0, "a second story")
        closed = ended(pair.client)
        assert closed.by is by
        assert reason in closed.reason
        assert closed.opened


def test_bytes_after_the_end_are_dropped() -> None:
    pair = authenticated()
    pair.client.receive_eof(0.0)
    ended(pair.client)
    pair.client.receive_data(b"\xff" * 100, 0.0)
    pair.client.receive_eof(0.0)
    pair.client.handle_timeout(1000.0)
    pair.client.close(now=1000.0)
    assert pair.client.transport_action() is TransportAction.CLOSE
    with pytest.raises(ConnectionLost):
        pair.client.next_event()


def test_what_was_received_before_a_violation_is_told_first() -> None:
    pair = authenticated()
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    pair.server.emit(e.InstanceEvent(A, e.Event.Stdout, "said"))
    data = pair.server.data_to_send(now=0.0)
    pair.client.receive_data(data + b"\xff\xff" + data, 0.0)
    assert pair.client.next_event() == e.InstanceReadable(A)
    assert ended(pair.client).violation is not None
    pair.client_over = True
    assert pair.client.read_instance(A) == e.InstanceEvent(A, e.Event.Stdout, "said")
    with pytest.raises(RemoteProtocolError):
        pair.client.read_instance(A)
    closed = pair.asked()[-1]
    assert isinstance(closed, ConnectionClosed)
    assert closed.code == 1002


def test_a_violation_while_closing_is_told() -> None:
    pair = authenticated()
    pair.client.close(now=0.0)
    pair.client.receive_data(b"\xff\xff", 0.0)
    assert ended(pair.client).violation is not None


# -------------------------------------------------------------------------------------- keepalive


def quiet(pair: Pair, now: float) -> bytes:
    """Time passes; what the client sends then."""
    pair.now = now
    pair.client.handle_timeout(now)
    return pair.client.data_to_send(now=now)


def test_after_silence_a_ping_is_sent_and_answered() -> None:
    pair = authenticated()
    assert pair.client.next_deadline() == 20.0
    assert quiet(pair, 19.9) == b""
    ping = quiet(pair, 20.0)
    assert ping[0] == 0x89
    assert pair.client.next_deadline() == 40.0
    pair.server.receive_data(ping, 20.0)
    pair.now = 21.0
    assert pair.told() == []
    assert pair.client.next_deadline() == 41.0


def test_any_byte_counts_as_life() -> None:
    pair = authenticated()
    quiet(pair, 20.0)
    pair.client.receive_data(b"\x82", 30.0)
    assert pair.client.next_deadline() == 50.0


def test_silence_after_the_ping_ends_the_connection() -> None:
    pair = authenticated()
    quiet(pair, 20.0)
    pair.client.handle_timeout(39.9)
    assert pair.client.state is ConnectionState.OPEN
    pair.client.handle_timeout(40.0)
    assert pair.client.transport_action() is TransportAction.ABORT
    closed = ended(pair.client)
    assert closed.by is Closer.TRANSPORT
    assert "20 s after a keepalive ping" in closed.reason


def test_the_clock_starts_when_the_ping_has_left() -> None:
    pair = authenticated(limits=PATIENT)
    pair.ask(program(content(CHUNK)))
    pair.client.data_to_send(1000, now=0.0)
    pair.client.handle_timeout(20.0)
    # The line is slow: the frame begun goes first, and as long as it does the peer is alive.
    now = 20.0
    while pair.client.has_data_to_send:
        assert pair.client.next_deadline() == now + 20.0
        now += 19.0
        pair.client.handle_timeout(now)
        pair.client.data_to_send(64 * 1024, now=now)
    assert pair.client.state is ConnectionState.OPEN
    assert now > 60.0
    assert pair.client.next_deadline() == now + 20.0


def test_a_line_that_takes_nothing_and_brings_nothing_ends_the_connection() -> None:
    pair = authenticated()
    pair.ask(program(content(CHUNK)))
    pair.client.data_to_send(1000, now=0.0)
    pair.client.handle_timeout(20.0)
    assert pair.client.next_deadline() == 40.0
    pair.client.receive_data(b"\x82", 30.0)
    pair.client.handle_timeout(49.0)
    assert pair.client.state is ConnectionState.OPEN
    pair.client.handle_timeout(50.0)
    assert pair.client.transport_action() is TransportAction.ABORT
    assert "none could be sent, for 20 s" in ended(pair.client).reason


def test_keepalive_is_suspended_while_reading_is_paused() -> None:
    pair = authenticated(limits=Limits(unread_bytes=1000, unread_low_bytes=100))
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    pair.server.emit(e.InstanceEvent(A, e.Event.Stdout, "x" * 1000))
    pair.told()
    assert pair.client.next_deadline() is None
    assert quiet(pair, 1000.0) == b""
    pair.client.read_instance(A)
    assert pair.client.next_deadline() == 1020.0


@pytest.mark.parametrize("way", ["read", "read many", "discard", "terminate", "cancel", "abandon"])
def test_after_a_pause_silence_is_counted_from_its_end(way: str) -> None:
    small = replace(PATIENT, unread_bytes=1000, unread_low_bytes=100, authentication_timeout=9e9)
    pair = authenticated(limits=small)
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    pair.server.emit(e.InstanceEvent(A, e.Event.Stdout, "x" * 1000))
    data = pair.server.data_to_send(now=0.0)
    auth = pair.ask(c.Identify("again"))
    pair.client.data_to_send(now=0.0)
    pair.client.handle_timeout(20.0)  # a ping is queued
    pair.client.receive_data(data, 21.0)
    pair.drain_client()
    pair.client.data_to_send(now=21.0)  # and leaves while reading is paused
    assert pair.client.reading_paused
    pair.client.data_to_send(now=500.0)
    match way:
        case "read":
            pair.client.read_instance(A)
        case "read many":
            pair.client.read_instance_many(A, 5)
        case "discard":
            pair.client.discard(A)
        case "terminate":
            pair.client.send(c.TerminateInstance(A), 500.0)
        case "cancel":
            pair.client.cancel(auth, 500.0)
        case _:
            pair.client.abandon(e.Launched(2, A, False), 500.0)
    assert not pair.client.reading_paused
    assert pair.client.next_deadline() == (505.0 if way == "cancel" else 520.0)


def test_keepalive_can_be_turned_off() -> None:
    pair = authenticated(limits=Limits(keepalive_interval=None))
    assert pair.client.next_deadline() is None
    assert quiet(pair, 1e9) == b""
    assert pair.client.state is ConnectionState.OPEN


def test_a_server_keeps_alive_too() -> None:
    pair = authenticated()
    pair.server.handle_timeout(20.0)
    assert pair.server.data_to_send(now=20.0)[0] == 0x89
    pair.server.handle_timeout(40.0)
    assert ended(pair.server).by is Closer.TRANSPORT


def test_a_clock_that_goes_back_does_no_harm() -> None:
    pair = connected()
    pair.client.receive_data(b"", 50.0)
    pair.client.receive_data(b"", 10.0)
    assert pair.client.next_deadline() == 70.0


@pytest.mark.parametrize("room", [0, 1, 7])
def test_no_more_bytes_are_made_than_asked_for(room: int) -> None:
    pair = authenticated()
    pair.ask(c.Ping())
    pair.ask(program(content(CHUNK)))
    for connection in (pair.client, pair.server):
        assert len(connection.data_to_send(room, now=0.0)) <= room
    sent = len(pair.client.data_to_send(now=0.0))
    assert sent <= Limits().write_bytes


def test_a_message_over_the_bound_is_refused_with_its_code() -> None:
    pair = authenticated(limits=Limits(message_bytes=300))
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    pair.server.emit(e.InstanceEvent(A, e.Event.Stdout, "x" * 300))
    closed = only(pair.told())
    assert isinstance(closed, ConnectionClosed)
    assert closed.code == 1009
    assert closed.violation is not None


def test_of_an_http_answer_only_the_start_is_kept() -> None:
    pair = Pair(limits=Limits(handshake_body_bytes=10))
    pair.server.receive_data(pair.client.data_to_send(now=0.0), 0.0)
    pair.server.next_event()
    pair.server.reject(503, "x" * 100)
    pair.client.receive_data(pair.server.data_to_send(now=0.0), 0.0)
    assert ended(pair.client).body == "x" * 10


def test_where_an_http_answer_points_to_is_told_with_the_end() -> None:
    pair = Pair()
    pair.server.receive_data(pair.client.data_to_send(now=0.0), 0.0)
    pair.server.next_event()
    pair.server.reject(307, "moved", [("location", "/v1/ws")])
    pair.client.receive_data(pair.server.data_to_send(now=0.0), 0.0)
    closed = ended(pair.client)
    assert (closed.status, closed.location) == (307, "/v1/ws")


@pytest.mark.parametrize("role", ["client", "server"])
def test_after_the_end_what_is_still_to_be_sent_has_a_deadline(role: str) -> None:
    # A server may not mask a frame, and a client must.
    broken = b"\xff\xff" if role == "client" else b"\x82\x01x"
    pair = authenticated()
    connection = pair.client if role == "client" else pair.server
    connection.receive_data(broken, 3.0)
    ended(connection)
    assert connection.next_deadline() == 8.0
    connection.handle_timeout(7.0)
    assert connection.transport_action() is TransportAction.CLOSE
    connection.handle_timeout(8.0)
    assert connection.transport_action() is TransportAction.ABORT
    assert connection.next_deadline() is None
    pair = authenticated()
    connection = pair.client if role == "client" else pair.server
    connection.receive_data(broken, 3.0)
    ended(connection)
    assert connection.data_to_send(now=4.0)
    assert connection.next_deadline() == 8.0, "the transport may be stuck in what it was handed"
    assert connection.data_to_send(now=4.0) == b""
    assert connection.next_deadline() is None


def test_a_transport_that_is_stuck_while_the_peer_ends_is_given_up() -> None:
    pair = authenticated()
    pair.client.send(c.Ping(), 1.0)
    assert pair.client.data_to_send(now=1.0)
    pair.client.receive_eof(3.0)
    ended(pair.client)
    assert pair.client.transport_action() is TransportAction.CLOSE
    assert pair.client.next_deadline() == 8.0
    pair.client.handle_timeout(8.0)
    assert pair.client.transport_action() is TransportAction.ABORT


def test_pings_of_the_peers_are_answered_and_pongs_unasked_for_are_ignored() -> None:
    pair = authenticated()
    pair.client.receive_data(frame(0x8A, b"unasked", masked=False), 0.0)
    pair.client.receive_data(frame(0x89, b"hello", masked=False), 0.0)
    assert pair.client.next_event() is NEED_DATA
    assert pair.client.has_data_to_send
    pong = pair.client.data_to_send(now=0.0)
    assert (pong[0], len(pong)) == (0x8A, 2 + 4 + 5)


def test_the_guards_against_our_own_faults_hold() -> None:
    """None of this can come about through the API: a fault in the layers below would show here."""
    client, server = ClientConnection("h", now=0.0), ServerConnection(now=0.0)
    request = client.data_to_send(now=0.0)
    server.receive_data(request, 0.0)
    server.next_event()
    server.accept()
    client._link, server._link = server._link, client._link
    with pytest.raises(AssertionError):
        client._link.opened()
    server._link.receive_data(client._link.data_to_send(1 << 20, 0.0, lambda: None), 0.0)
    with pytest.raises(AssertionError):
        server.next_event()
    client._link = ServerConnection(now=0.0)._link
    client._link.receive_data(request, 0.0)
    with pytest.raises(AssertionError):
        client.next_event()
    assert repr(NEED_DATA) == "NEED_DATA"
