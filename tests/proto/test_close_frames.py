"""Which close codes exist, for both roles and both directions, against raw bytes."""

from __future__ import annotations

import pytest

from pie_proto.close_frames import is_sendable_code
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.link import check_close
from pie_proto.websocket import BinaryMessage, CloseReceived, Role
from tests.proto.websocket_wire import feed, frame, opened, pair, sent

# As IANA's registry of WebSocket close codes has them.
VALID = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
ALL_CODES = range(65536)


@pytest.fixture(params=Role, ids=lambda role: role.value)
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)


def test_the_valid_codes_are_the_registered_ones() -> None:
    assert {code for code in ALL_CODES if is_sendable_code(code)} == VALID
    assert not is_sendable_code("1000")


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999])
@pytest.mark.parametrize("reason", ["", "the server behind this gateway is down", 123 * "x", "\0é"])
def test_a_registered_code_is_received_with_its_reason_after_what_was_before_it(
    role: Role, code: int, reason: str
) -> None:
    masked = role is Role.SERVER
    payload = code.to_bytes(2, "big") + reason.encode()[:123]
    data = frame(0x82, b"before", masked=masked) + frame(0x88, payload, masked=masked)
    events = [BinaryMessage(b"before"), CloseReceived(code, reason)]
    assert feed(opened(role), data) == events
    one_by_one = opened(role)
    assert [e for at in range(len(data)) for e in feed(one_by_one, data[at : at + 1])] == events


def test_a_close_may_come_between_the_fragments_of_a_message(role: Role) -> None:
    masked = role is Role.SERVER
    data = frame(0x02, b"begun", masked=masked) + frame(0x88, b"\x03\xf6", masked=masked)
    assert feed(opened(role), data) == [CloseReceived(1014, "")]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2999, 5000, 65535])
def test_a_code_that_may_not_be_sent_is_a_violation_and_named(role: Role, code: int) -> None:
    ours = opened(role)
    ours.receive_data(frame(0x88, code.to_bytes(2, "big"), masked=role is Role.SERVER))
    with pytest.raises(RemoteProtocolError, match=f"{ours._role.peer}.* code {code}") as caught:
        ours.next_event()
    assert caught.value.close_code == 1002


@pytest.mark.parametrize(
    ("first", "payload", "length"),
    [
        (0x88, bytes(126), None),
        (0x88, b"\x03\xe8", b"\x7e\x00\x02"),
        (0x08, b"\x03\xe8", None),
        (0xC8, b"\x03\xe8", None),
    ],
    ids=["too long", "length of 2 bytes", "fragmented", "reserved bit"],
)
def test_a_malformed_close_frame_is_a_violation(
    role: Role, first: int, payload: bytes, length: bytes | None
) -> None:
    ours = opened(role)
    ours.receive_data(frame(first, payload, masked=role is Role.SERVER, length=length))
    with pytest.raises(RemoteProtocolError) as caught:
        ours.next_event()
    assert caught.value.close_code == 1002


def test_what_is_sent_is_what_may_be_sent(role: Role) -> None:
    """A code passes every check on its way out, or none of them."""
    for code in {*range(990, 1020), *range(2995, 3005), *range(4995, 5005)}:
        ours, theirs = pair() if role is Role.CLIENT else pair()[::-1]
        if code in VALID:
            check_close(code, "")
            ours.send_close(code)
            assert feed(theirs, sent(ours)) == [CloseReceived(code, "")]
        else:
            for send in (ours.send_close, lambda code: check_close(code, "")):
                with pytest.raises(LocalProtocolError, match="close code"):
                    send(code)
            assert sent(ours) == b""
