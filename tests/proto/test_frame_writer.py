"""What a WebSocket sends: order, bounds, masks, and the buffers it was given."""

from __future__ import annotations

import itertools

import pytest

from pie_proto.errors import LocalProtocolError
from pie_proto.websocket import (
    BinaryMessage,
    CloseReceived,
    PongReceived,
    Role,
    TextMessage,
    WebSocket,
)
from tests.proto.websocket_wire import (
    answer_101,
    feed,
    frame,
    opened,
    pair,
    payload_of,
    sent,
)


@pytest.fixture(params=Role, ids=lambda role: role.value)
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)


@pytest.mark.parametrize("max_bytes", [1, 7, 4096, 100_000])
def test_no_more_is_handed_out_than_asked_for(max_bytes: int) -> None:
    for sender, receiver in (pair(), pair()[::-1]):
        messages = [b"", b"small", payload_of(5000), payload_of(70_000 if max_bytes > 7 else 9)]
        for message in messages:
            sender.send_message(message[:3], message[3:])
        sender.send_close(1001, "done")
        announced = sender.unsent_bytes
        pieces = list(iter(lambda s=sender: s.data_to_send(max_bytes), b""))  # type: ignore[misc]
        assert max(map(len, pieces)) <= max_bytes
        assert sum(map(len, pieces)) == announced
        assert not sender.has_data_to_send
        events = feed(receiver, b"".join(pieces))
        assert events == [*map(BinaryMessage, messages), CloseReceived(1001, "done")]


def test_asking_for_nothing_gives_nothing() -> None:
    client, _ = pair()
    client.send_message(b"x")
    assert client.data_to_send(0) == b""
    assert client.has_data_to_send


def test_text_goes_in_order_with_what_is_binary() -> None:
    for sender, receiver in (pair(), pair()[::-1]):
        texts = ["", "grüße", "x" * 70_000]
        for text in texts:
            sender.send_text(text)
            sender.send_message(b"between")
        announced = sender.unsent_bytes
        with pytest.raises(LocalProtocolError, match="a text message is UTF-8"):
            sender.send_text("\ud800")
        assert sender.unsent_bytes == announced
        sender.release()
        frames = sent(sender)
        assert len(frames) == announced
        assert feed(receiver, frames) == [
            event for text in texts for event in (TextMessage(text), BinaryMessage(b"between"))
        ]


def test_small_frames_are_joined() -> None:
    _, server = pair()
    for _ in range(3):
        server.send_message(b"ab")
    assert server.data_to_send(1000) == 3 * b"\x82\x02ab"


def test_a_frame_begun_is_finished_then_pings_and_pong_pass_messages_and_close_does_not() -> None:
    client, server = pair()
    client.send_message(b"first" * 2000)
    client.send_message(b"second")
    data = client.data_to_send(100)
    begun = client.frame_begun
    assert begun
    client.send_close()
    feed(client, frame(0x89, b"old", masked=False) + frame(0x89, b"new", masked=False))
    data += sent(client)
    begun = client.frame_begun
    assert not begun
    events = feed(server, data)
    assert events[0] == BinaryMessage(b"first" * 2000)
    assert events[1:] == [PongReceived(b"new"), BinaryMessage(b"second"), CloseReceived(1000, "")]


def test_pings_are_answered_until_our_close_has_left() -> None:
    client, server = pair()
    client.send_close()
    server.send_ping(b"in time")
    feed(client, sent(server))
    assert feed(server, sent(client)) == [PongReceived(b"in time"), CloseReceived(1000, "")]
    assert feed(client, frame(0x89, b"too late", masked=False)) == []
    assert sent(client) == b""


def test_every_frame_of_a_client_has_a_fresh_mask_key() -> None:
    keys = (bytes([n, n + 1, n + 2, n + 3]) for n in itertools.count(16))
    client = WebSocket(Role.CLIENT, entropy=lambda size: next(keys)[:size])
    client.open("x", "/")
    feed(client, answer_101(sent(client)))
    for _ in range(2):
        client.send_message(bytes(4))
    client.send_message(bytes(70_000))
    data = sent(client)
    assert data[2:10] == 2 * bytes([16, 17, 18, 19])
    assert data[12:20] == 2 * bytes([17, 18, 19, 20])
    assert data[34:] == 17_500 * bytes([18, 19, 20, 21])


def test_released_buffers_are_free_and_what_was_in_them_is_still_sent() -> None:
    for sender, receiver in (pair(), pair()[::-1]):
        begun, waiting = bytearray(payload_of(9000)), bytearray(b"waiting")
        sender.send_message(b"head", begun)
        sender.send_message(memoryview(waiting)[1:])
        data = sender.data_to_send(1001)
        with pytest.raises(BufferError):
            begun.append(0)
        sender.release()
        begun[:] = b""
        waiting.append(0)
        sender.release()
        data += sent(sender)
        assert feed(receiver, data) == [
            BinaryMessage(b"head" + payload_of(9000)),
            BinaryMessage(b"aiting"),
        ]


def test_a_buffer_is_free_once_its_last_byte_was_handed_out() -> None:
    client, _ = pair()
    buffer = bytearray(6000)
    client.send_message(buffer)
    sent(client)
    buffer.append(0)


def test_views_of_any_format_are_sent_as_bytes() -> None:
    client, server = pair()
    client.send_message(memoryview(b"abcdefgh").cast("I"), memoryview(b"").cast("I"))
    assert feed(server, sent(client)) == [BinaryMessage(b"abcdefgh")]


@pytest.mark.parametrize("part", ["text", 7, memoryview(b"abcdef")[::2]])
def test_what_is_no_contiguous_buffer_is_refused(part: bytes) -> None:
    client, _ = pair()
    with pytest.raises(LocalProtocolError, match="contiguous"):
        client.send_message(b"good", part)
    assert not client.has_data_to_send


def test_nothing_is_sent_before_the_handshake_is_done(role: Role) -> None:
    websocket = WebSocket(role)
    for send in (websocket.send_message, websocket.send_ping, websocket.send_close):
        with pytest.raises(LocalProtocolError, match="not open"):
            send()


def test_nothing_is_sent_after_close_and_a_second_close_is_nothing(role: Role) -> None:
    ours = opened(role)
    ours.send_close(4000, "first")
    ours.send_close(1000, "second")
    for send in (ours.send_message, ours.send_ping):
        with pytest.raises(LocalProtocolError, match="closing"):
            send()
    assert len(sent(ours)) == 2 + 2 + 5 + (4 if role is Role.CLIENT else 0)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 5000, 70_000])
def test_close_codes_that_nobody_may_send_are_refused(code: int) -> None:
    client, _ = pair()
    with pytest.raises(LocalProtocolError, match="close code"):
        client.send_close(code)
    client.send_close()


@pytest.mark.parametrize(
    ("reason", "arrives"),
    [(100 * "é", 61 * "é"), (200 * "a", 123 * "a"), ("\ud800", "?")],
)
def test_long_close_reasons_are_cut_between_characters(reason: str, arrives: str) -> None:
    client, server = pair()
    client.send_close(1000, reason)
    assert feed(server, sent(client)) == [CloseReceived(1000, arrives)]


def test_after_a_close_nothing_more_is_heard(role: Role) -> None:
    ours, masked = opened(role), role is Role.SERVER
    data = frame(0x88, masked=masked) + frame(0x82, b"late", masked=masked)
    assert feed(ours, data) == [CloseReceived(None, "")]
    assert feed(ours, frame(0xFF, b"", masked=masked)) == []
    assert ours.buffered_bytes == 0


def test_pings_reach_the_other_side_and_come_back(role: Role) -> None:
    ours, theirs = pair() if role is Role.CLIENT else pair()[::-1]
    ours.send_ping(b"x" * 125)
    assert feed(theirs, sent(ours)) == []
    assert feed(ours, sent(theirs)) == [PongReceived(b"x" * 125)]
    with pytest.raises(LocalProtocolError, match="125"):
        ours.send_ping(bytes(126))
