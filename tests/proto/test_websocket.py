"""What a WebSocket receives: against wsproto, against itself, and against raw bytes."""

from __future__ import annotations

import itertools

import pytest
import wsproto
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import events as ws

from pie_proto.errors import RemoteProtocolError
from pie_proto.limits import Limits
from pie_proto.websocket import (
    BinaryMessage,
    HandshakeRequested,
    PongReceived,
    Role,
    TextMessage,
    WebSocket,
)
from tests.proto.websocket_wire import (
    SIZES,
    SMALL,
    answer_101,
    asking_client,
    drain,
    feed,
    frame,
    opened,
    pair,
    payload_of,
    request_head,
    sent,
)


@pytest.fixture(params=Role, ids=lambda role: role.value)
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)


@pytest.mark.parametrize("size", SIZES)
def test_messages_of_any_size_pass_both_ways(size: int) -> None:
    for sender, receiver in (pair(), pair()[::-1]):
        data = payload_of(size)
        sender.send_message(data[:10], memoryview(data)[10:11], b"", bytearray(data[11:]))
        sender.send_message(b"next")
        assert feed(receiver, sent(sender)) == [BinaryMessage(data), BinaryMessage(b"next")]


@pytest.mark.parametrize("size", SIZES)
def test_messages_of_any_size_pass_to_and_from_wsproto(role: Role, size: int) -> None:
    kinds = wsproto.ConnectionType
    peer = wsproto.connection.Connection(kinds.SERVER if role is Role.CLIENT else kinds.CLIENT)
    ours = opened(role, Limits())
    data = payload_of(size)
    ours.send_message(data)
    peer.receive_data(sent(ours))
    assert b"".join(bytes(e.data) for e in peer.events() if isinstance(e, ws.BytesMessage)) == data
    assert feed(ours, peer.send(ws.BytesMessage(data))) == [BinaryMessage(data)]
    text = "é" * size
    assert feed(ours, peer.send(ws.TextMessage(text))) == [TextMessage(text)]
    halves = [ws.BytesMessage(data, message_finished=last) for last in (False, True)]
    assert feed(ours, b"".join(map(peer.send, halves))) == [BinaryMessage(2 * data)]
    texts = [ws.TextMessage("z", message_finished=last) for last in (False, True)]
    assert feed(ours, b"".join(map(peer.send, texts))) == [TextMessage("zz")]


@pytest.mark.parametrize("first", [0x82, 0x81])
@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_header_may_arrive_byte_by_byte(role: Role, first: int, size: int) -> None:
    data = frame(first, bytes(size), masked=role is Role.SERVER)
    ours = opened(role, Limits())
    header = len(data) - size
    for at in range(header - (size == 0)):
        assert feed(ours, data[at : at + 1]) == []
    expected = TextMessage("\0" * size) if first == 0x81 else BinaryMessage(bytes(size))
    assert feed(ours, data[header - (size == 0) :]) == [expected]
    assert ours.buffered_bytes == 0


def test_control_frames_between_fragments_are_heard_at_once(role: Role) -> None:
    ours, masked = opened(role), role is Role.SERVER
    assert feed(ours, frame(0x01, b"\xc3", masked=masked)) == []
    assert feed(ours, frame(0x8A, b"late", masked=masked)) == [PongReceived(b"late")]
    assert feed(ours, frame(0x89, b"there?", masked=masked)) == []
    assert ours.has_data_to_send
    rest = frame(0x00, masked=masked) + frame(0x80, b"\xa9", masked=masked)
    assert feed(ours, rest) == [TextMessage("é")]
    assert feed(ours, frame(0x82, b"short again", masked=masked)) == [BinaryMessage(b"short again")]


def test_a_message_of_just_the_limit_is_taken_and_one_more_byte_is_not(role: Role) -> None:
    masked = role is Role.SERVER
    whole = frame(0x82, bytes(1000), masked=masked)
    parts = frame(0x02, bytes(600), masked=masked) + frame(0x80, bytes(400), masked=masked)
    assert feed(opened(role), whole + parts + whole) == 3 * [BinaryMessage(bytes(1000))]
    for too_big in (
        frame(0x82, bytes(1001), masked=masked)[:8],
        frame(0x81, bytes(1001), masked=masked)[:8],
        frame(0x02, bytes(600), masked=masked) + frame(0x80, bytes(401), masked=masked)[:8],
        frame(0x82, masked=masked, length=b"\x7f\x7f" + 7 * b"\xff"),
    ):
        ours = opened(role)
        ours.receive_data(too_big)
        with pytest.raises(RemoteProtocolError, match="at most 1000") as caught:
            ours.next_event()
        assert caught.value.close_code == 1009


VIOLATIONS = {
    "reserved bit": (0xC2, b"x", None, 1002),
    "reserved bits of a control frame": (0xB9, b"x", None, 1002),
    "unknown opcode": (0x83, b"x", None, 1002),
    "unknown control opcode": (0x8B, b"x", None, 1002),
    "fragmented ping": (0x09, b"x", None, 1002),
    "long ping": (0x89, bytes(126), None, 1002),
    "length of 2 bytes for 1": (0x82, bytes(125), b"\x7e\x00\x7d", 1002),
    "length of 8 bytes for 2": (0x82, bytes(126), b"\x7f" + (126).to_bytes(8, "big"), 1002),
    "length with the top bit": (0x82, b"", b"\x7f\x80" + bytes(7), 1002),
    "continuation of nothing": (0x80, b"x", None, 1002),
    "invalid UTF-8": (0x81, b"\xff", None, 1007),
    "UTF-8 cut short": (0x81, b"\xc3", None, 1007),
    "close of 1 byte": (0x88, b"\x03", None, 1002),
    "close code 1005": (0x88, b"\x03\xed", None, 1002),
    "close code 999": (0x88, b"\x03\xe7", None, 1002),
    "close code 5000": (0x88, b"\x13\x88", None, 1002),
    "close reason not UTF-8": (0x88, b"\x03\xe8\xff", None, 1007),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_comes_after_what_was_before_it_and_ends_all(role: Role, name: str) -> None:
    first, payload, length, code = VIOLATIONS[name]
    masked = role is Role.SERVER
    ours = opened(role)
    ours.receive_data(frame(0x82, b"good", masked=masked))
    ours.receive_data(frame(first, payload, masked=masked, length=length))
    assert ours.next_event() == BinaryMessage(b"good")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match=ours._role.peer) as caught:
            ours.next_event()
        assert caught.value.close_code == code
        ours.receive_data(frame(0x82, b"too late", masked=masked))
    assert ours.buffered_bytes == 0
    ours.send_close(code, "you broke the protocol")
    assert sent(ours)[0] == 0x88


def test_a_new_message_within_a_fragmented_one_is_a_violation(role: Role) -> None:
    masked = role is Role.SERVER
    ours = opened(role)
    ours.receive_data(frame(0x02, b"x", masked=masked) + frame(0x82, b"y", masked=masked))
    with pytest.raises(RemoteProtocolError, match="CONTINUATION"):
        ours.next_event()


def test_the_wrong_masking_is_a_violation(role: Role) -> None:
    ours = opened(role)
    ours.receive_data(frame(0x82, b"x", masked=role is Role.CLIENT)[:2])
    with pytest.raises(RemoteProtocolError, match=r"masked a frame|did not mask"):
        ours.next_event()


# -------------------------------------------------------------------------------- however it is cut


def outcome(role: Role, frames: bytes, cuts: list[int]) -> list[object]:
    """All that is reported when the handshake and ``frames`` arrive in pieces of those sizes."""
    if role is Role.CLIENT:
        websocket, asked = asking_client()
        data = b"HTTP/1.1 103 Hints\r\n\r\n" + answer_101(asked) + frames
    else:
        websocket = WebSocket(role, limits=SMALL)
        data = request_head() + frames
    seen: list[object] = []
    sizes = itertools.cycle(cuts)
    while data:
        size = next(sizes)
        websocket.receive_data(data[:size])
        data = data[size:]
        try:
            for event in iter(websocket.next_event, None):
                seen.append(event)
                if isinstance(event, HandshakeRequested):
                    websocket.accept()
        except RemoteProtocolError as error:
            return [*seen, str(error), error.close_code]
    websocket.receive_eof()
    assert websocket.next_event() is None
    assert websocket.eof_received
    return seen


PAYLOADS = st.binary(max_size=130) | st.sampled_from(["é".encode(), bytes(900), b"\x03\xe8bye"])
FIRST_BYTES = st.sampled_from([0x82, 0x82, 0x02, 0x00, 0x80, 0x81, 0x01, 0x89, 0x8A, 0x88, 0xC2])


@given(
    role=st.sampled_from(Role),
    frames=st.lists(st.tuples(FIRST_BYTES, PAYLOADS), max_size=8),
    missing=st.integers(0, 4),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8) | st.just([1]),
)
@settings(max_examples=150, deadline=None)
def test_events_do_not_depend_on_how_bytes_are_cut(
    role: Role, frames: list[tuple[int, bytes]], missing: int, cuts: list[int]
) -> None:
    masked = role is Role.SERVER
    data = b"".join(frame(first, payload, masked=masked) for first, payload in frames)
    data = data[: max(0, len(data) - missing)]
    assert outcome(role, data, cuts) == outcome(role, data, [1 << 20])


def test_many_tiny_frames_in_one_buffer_are_cut_one_by_one(role: Role) -> None:
    ours = opened(role)
    ours.receive_data(20_000 * frame(0x82, b"tiny", masked=role is Role.SERVER))
    before = ours.buffered_bytes
    assert ours.next_event() == BinaryMessage(b"tiny")
    assert ours.buffered_bytes == before - before // 20_000
    assert len(drain(ours)) == 19_999
