"""A server that does not answer who the client is, is given up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.connection import ClientConnection
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_3, PROCESS_0_5
from pie_proto.errors import ConnectionLost, RequestTimeout, error_for
from pie_proto.events import NEED_DATA
from pie_proto.limits import Limits
from pie_proto.states import ConnectionState
from tests.proto.pair import CHALLENGE, OPEN, b64, wire
from tests.proto.websocket_wire import answer_101, frame

EVERY = (INSTANCE, PROCESS_0_3, PROCESS_0_5)
LIMITS = Limits(authentication_timeout=4.0, keepalive_interval=None)


def connected(dialect: Dialect | Sequence[Dialect] = EVERY) -> ClientConnection:
    client = ClientConnection("h", now=0.0, dialect=dialect, limits=LIMITS)
    client.receive_data(answer_101(client.data_to_send(now=0.0)), 0.0)
    assert client.next_event() == e.Connected()
    assert client.next_deadline() is None
    return client


def tell(client: ClientConnection, payload: bytes, now: float) -> None:
    client.receive_data(frame(0x82, payload, masked=False), now)


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        (EVERY, " to any identification of this client: is it a Pie server?"),
        (INSTANCE, ": is it a server 0.2, as dialect= says?"),
        (PROCESS_0_3, ": is it a server 0.3 to 0.4, as dialect= says?"),
    ],
    ids=["any", "0.2", "0.3"],
)
@pytest.mark.parametrize("command", [c.Identify("ada"), c.AuthenticateWithToken("secret")])
def test_a_server_that_says_nothing_to_who_one_is_is_given_up(
    dialect: Dialect | Sequence[Dialect], words: str, command: c.Command
) -> None:
    client = connected(dialect)
    request_id = client.send(command, 1.0)
    assert client.data_to_send(now=1.0)
    # Whatever else it says is no answer.
    tell(client, wire("news"), 3.0)
    assert client.next_event() == e.UnknownMessage("news")
    assert client.next_deadline() == 5.0
    client.handle_timeout(4.9)
    assert client.next_event() is NEED_DATA
    client.handle_timeout(5.0)
    late = client.next_event()
    assert isinstance(late, e.TimedOut)
    assert (late.request_id, late.command) == (request_id, command)
    error = error_for(late)
    assert isinstance(error, RequestTimeout)
    assert str(error).endswith(f": the server at h did not answer within 4 s{words}")
    assert "secret" not in str(error)
    # The connection is of no more use: a late answer could be to anything.
    assert client.state is ConnectionState.CLOSING
    assert client.data_to_send(now=5.0)[0] == 0x88
    with pytest.raises(ConnectionLost):
        client.send(c.Identify("ada"), 5.0)


def test_a_signature_that_nothing_answers_is_given_up() -> None:
    client = connected()
    request_id = client.send(c.Identify("ada"), 0.0)
    tell(client, wire("response", corr_id=request_id, successful=True, result=b64(CHALLENGE)), 3.0)
    assert isinstance(client.next_event(), e.ChallengeReceived)
    # Who signs may take as long as it takes.
    assert client.next_deadline() is None
    client.handle_timeout(1000.0)
    assert client.next_event() is NEED_DATA
    client.send(c.AnswerChallenge(b"signed"), 1000.0)
    assert client.data_to_send(now=1000.0)
    assert client.next_deadline() == 1004.0
    client.handle_timeout(1004.0)
    late = client.next_event()
    assert isinstance(late, e.TimedOut)
    assert str(error_for(late)) == (
        "answering the server's challenge: the server at h did not answer within 4 s"
    )


@pytest.mark.parametrize("ok", [True, False])
def test_whoever_answers_in_time_is_not_given_up(*, ok: bool) -> None:
    client = connected()
    request_id = client.send(c.Identify("ada"), 0.0)
    tell(client, wire("response", corr_id=request_id, successful=ok, result=OPEN), 3.9)
    assert isinstance(client.next_event(), e.Authenticated if ok else e.Failed)
    assert client.next_deadline() is None
    client.handle_timeout(1000.0)
    assert client.next_event() is NEED_DATA
    assert client.state is ConnectionState.OPEN


def test_a_second_identification_is_bounded_as_well() -> None:
    client = connected()
    request_id = client.send(c.Identify("ada"), 0.0)
    tell(client, wire("response", corr_id=request_id, successful=True, result=OPEN), 0.0)
    assert isinstance(client.next_event(), e.Authenticated)
    client.send(c.Identify("ada"), 1.0)
    assert client.next_deadline() == 5.0


@pytest.mark.parametrize("how", ["cancelled", "closed", "lost"])
def test_behind_the_end_nobody_is_waited_for(how: str) -> None:
    client = connected()
    request_id = client.send(c.Identify("ada"), 0.0)
    assert request_id is not None
    match how:
        case "cancelled":
            client.cancel(request_id, 1.0)
        case "closed":
            client.close(now=1.0)
        case _:
            client.receive_eof(1.0)
            assert isinstance(client.next_event(), e.ConnectionClosed)
    client.handle_timeout(4.0)
    if how != "lost":
        assert client.next_event() is NEED_DATA
