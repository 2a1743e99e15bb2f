"""The server's side: who is heard, what may be said, and how uploads are refused."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from pie_proto.events import (
    NEED_DATA,
    Authentication,
    Closer,
    ConnectionClosed,
    Event,
    InstanceEvent,
)
from pie_proto.limits import DEFAULT_LIMITS, Limits
from pie_proto.link import TransportAction
from pie_proto.server import Refusal, ServerConnection, ServerSession
from pie_proto.states import ConnectionState, ServerAuthenticationState
from tests.proto.pair import (
    CHALLENGE,
    CHUNK,
    OPEN,
    A,
    B,
    Message,
    Pair,
    authenticated,
    b64,
    connected,
    content,
    only,
    program,
    wire,
)


def unpack(*parts: c.Buffer) -> Message:
    message: Message = msgpack.unpackb(b"".join(parts))
    return message


class Served:
    """A `ServerSession`, and its client by hand."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, authenticated: bool = True) -> None:
        self.session = ServerSession(limits=limits)
        if authenticated:
            self.tell("identification", corr_id=1, username="ada")
            assert self.asked() == [e.Request(1, c.Identify("ada"))]
            self.session.answer(e.Authenticated(1, Authentication.ASSERTED))
            assert only(self.said())["result"] == OPEN

    def tell(self, kind: str, /, **fields: Any) -> None:
        self.session.receive_message(wire(kind, **fields))

    def chunk(self, index: int, total: int, data: bytes, /, **fields: Any) -> None:
        """One chunk of a program, unless there is an instance it is for."""
        if "instance_id" in fields:
            kind, name = "upload_blob", "blob_hash"
        else:
            kind, name = "upload_program", "program_hash"
        defaults = {"corr_id": 7, name: fields.pop("hash", "0" * 64)}
        self.tell(
            kind,
            **{
                **defaults,
                **fields,
                "chunk_index": index,
                "total_chunks": total,
                "chunk_data": data,
            },
        )

    def asked(self) -> list[e.ServerEvent]:
        asked: list[e.ServerEvent] = []
        while (event := self.session.next_event()) is not NEED_DATA:
            asked.append(event)
            if isinstance(event, ConnectionClosed):
                break
        return asked

    def said(self) -> list[Message]:
        said = []
        while (parts := self.session.message_to_send()) is not None:
            said.append(json.loads(parts) if isinstance(parts, str) else unpack(*parts))
        return said

    def launch(self, instance_id: str = A) -> None:
        self.tell("launch_instance", corr_id=5, program_hash="h", arguments=[], detached=False)
        only(self.asked())
        self.session.answer(e.Launched(5, instance_id, False))
        self.said()

    def refused(self) -> str:
        """The words of the one refusal that was said."""
        assert self.asked() == []
        answer = only(self.said())
        assert (answer["type"], answer["successful"]) == ("response", False)
        assert answer["corr_id"] == 7
        return str(answer["result"])


# ---------------------------------------------------------------------------------- authentication

OUT_OF_PLACE = [
    ("ping", {"corr_id": 1}),
    ("signature", {"corr_id": 1, "signature": "AAAA"}),
    ("signal_instance", {"instance_id": A, "message": "x"}),
    (
        "upload_program",
        {"corr_id": 1, "program_hash": "h", "chunk_index": 0, "total_chunks": 1, "chunk_data": b""},
    ),
]


@pytest.mark.parametrize(("kind", "fields"), OUT_OF_PLACE)
def test_a_first_message_that_does_not_identify_ends_the_session_with_no_answer(
    kind: str, fields: dict[str, Any]
) -> None:
    served = Served(authenticated=False)
    served.tell(kind, **fields)
    served.tell("identification", corr_id=2, username="ada")
    assert served.asked() == []
    assert served.session.finished
    assert served.said() == []
    served.tell("identification", corr_id=3, username="ada")
    assert served.asked() == []


UNREADABLE = [b"\xc1", wire("nonsense"), wire("auth_identify", corr_id=2, username="a"), "text"]


@pytest.mark.parametrize("payload", UNREADABLE)
def test_what_cannot_be_read_is_dropped_however_far_authentication_is(
    payload: bytes | str,
) -> None:
    """A client that does not know what family a server is of says the first words of both."""
    served = Served(authenticated=False)
    served.session.receive_message(payload)
    served.tell("identification", corr_id=1, username="ada")
    unread, request = served.asked()
    assert isinstance(unread, e.UnknownMessage)
    assert request == e.Request(1, c.Identify("ada"))
    served.session.answer(e.ChallengeReceived(1, CHALLENGE))
    served.said()
    served.session.receive_message(payload)
    assert isinstance(only(served.asked()), e.UnknownMessage)
    assert not served.session.finished
    assert served.said() == []


def test_a_first_message_out_of_place_ends_the_connection() -> None:
    pair = connected()
    pair.client._link.websocket.send_message(wire("ping", corr_id=1))
    assert pair.asked() == [ConnectionClosed(by=Closer.LOCAL, code=1000)]
    assert pair.told() == [ConnectionClosed(by=Closer.REMOTE, code=1000)]


@pytest.mark.parametrize(("kind", "fields"), [OUT_OF_PLACE[0], OUT_OF_PLACE[2]])
def test_anything_but_a_signature_after_a_challenge_ends_the_session(
    kind: str, fields: dict[str, Any]
) -> None:
    served = Served(authenticated=False)
    served.tell("identification", corr_id=1, username="ada")
    served.asked()
    served.session.answer(e.ChallengeReceived(1, CHALLENGE))
    assert only(served.said())["result"] == b64(CHALLENGE)
    served.tell(kind, **fields)
    assert served.asked() == []
    assert served.session.finished


def test_nothing_is_heard_while_a_verdict_is_owed() -> None:
    served = Served(authenticated=False)
    served.tell("identification", corr_id=1, username="ada")
    served.tell("ping", corr_id=2)
    assert served.asked() == [e.Request(1, c.Identify("ada"))]
    assert served.asked() == []
    served.session.answer(e.Authenticated(1, Authentication.ASSERTED))
    assert served.asked() == [e.Request(2, c.Ping())]


def test_after_a_refusal_nothing_is_heard() -> None:
    served = Served(authenticated=False)
    served.tell("internal_authenticate", corr_id=1, token="wrong")
    assert served.asked() == [e.Request(1, c.AuthenticateWithToken("wrong"))]
    served.session.answer(e.Failed(1, c.AuthenticateWithToken("wrong"), "Invalid token"))
    assert served.session.authentication_state is ServerAuthenticationState.REFUSED
    served.tell("identification", corr_id=2, username="ada")
    assert served.asked() == []
    assert only(served.said())["result"] == "Invalid token"


def test_a_client_that_goes_while_a_verdict_is_owed_is_told() -> None:
    pair = connected()
    pair.ask(c.Identify("ada"))
    assert pair.asked() == [e.Request(1, c.Identify("ada"))]
    pair.client._link.websocket.send_message(wire("ping", corr_id=2))
    pair.client.close(now=0.0)
    assert pair.asked() == [ConnectionClosed(by=Closer.REMOTE, code=1000)]
    with pytest.raises(ConnectionLost):
        pair.server.answer(e.Authenticated(1, Authentication.ASSERTED))
    with pytest.raises(ConnectionLost):
        pair.server.next_event()


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (Authentication.ASSERTED, OPEN),
        (Authentication.PROVED, "Authenticated"),
        (Authentication.TOKEN, "Authenticated"),
        (Authentication.ALREADY, "Already authenticated"),
    ],
)
def test_acceptance_is_worded_by_its_method(method: Authentication, text: str) -> None:
    served = Served()
    served.tell("identification", corr_id=9, username="ada")
    served.tell("signature", corr_id=10, signature="not base64!")
    assert served.asked() == [
        e.Request(9, c.Identify("ada")),
        e.Request(10, c.AnswerChallenge(b"")),
    ]
    served.session.answer(e.Authenticated(9, method))
    assert only(served.said()) == {
        "type": "response",
        "corr_id": 9,
        "successful": True,
        "result": text,
    }


# ----------------------------------------------------------------------------- requests and answers


def test_a_request_is_answered_once() -> None:
    served = Served()
    served.tell("ping", corr_id=4)
    assert served.asked() == [e.Request(4, c.Ping())]
    served.session.answer(e.Pong(4))
    for request_id in (4, 99):
        with pytest.raises(LocalProtocolError, match=f"request {request_id} is not pending"):
            served.session.answer(e.Pong(request_id))
    assert len(served.said()) == 1


def test_a_refusal_is_worded_by_the_family() -> None:
    pair = authenticated()
    command = c.AttachInstance(A)
    request_id = pair.ask(command)
    pair.asked()
    with pytest.raises(LocalProtocolError, match="AttachInstance is not refused because"):
        pair.server.refuse(request_id, Refusal.MANIFEST)
    pair.server.refuse(request_id, Refusal.TAKEN)
    assert pair.told() == [e.Failed(request_id, command, "Instance already attached")]
    with pytest.raises(LocalProtocolError, match="not pending"):
        pair.server.refuse(request_id, Refusal.TAKEN)


def test_where_the_family_has_no_words_a_refusal_is_silence() -> None:
    served = Served()
    served.tell("query", corr_id=4, subject="weather", record="Bern")
    served.asked()
    served.session.refuse(4, Refusal.SUBJECT, "weather")
    assert served.said() == []
    with pytest.raises(LocalProtocolError, match="not pending"):
        served.session.answer(e.QueryAnswered(4, "rain"))


def test_a_request_may_be_left_without_an_answer() -> None:
    pair = authenticated()
    request_id = pair.ask(c.Query("unknown", ""))
    pair.asked()
    pair.server.forget(request_id)
    pair.server.forget(99)
    with pytest.raises(LocalProtocolError, match="not pending"):
        pair.server.answer(e.QueryAnswered(request_id, "x"))


def test_a_second_request_of_the_same_id_at_a_time_is_not_heard() -> None:
    served = Served()
    served.tell("ping", corr_id=4)
    served.tell("list_instances", corr_id=4)
    first, second = served.asked()
    assert first == e.Request(4, c.Ping())
    assert isinstance(second, e.UnknownMessage)
    served.session.answer(e.Pong(4))
    served.tell("list_instances", corr_id=4)
    assert served.asked() == [e.Request(4, c.ListInstances())]


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (c.Ping(), e.QueryAnswered(4, "x")),
        (c.Query("s", "r"), e.Pong(4)),
        (c.ListInstances(), e.Pong(4)),
        (c.Ping(), e.InstancesListed(4, ())),
        (c.Ping(), e.Authenticated(4, Authentication.PROVED)),
        (c.LaunchInstance(hash="h"), e.Launched(4, A, True)),
        (c.LaunchFromRegistry(name="n", detached=True), e.Launched(4, A, False)),
        (c.AttachInstance(A), e.Attached(4, B)),
        (c.Query("s", "r"), e.QueryAnswered(4, "\ud800")),
        (c.Query("s", "r"), e.Failed(4, c.Query("s", "r"), "\ud800")),
        (c.Query("s", "r"), e.QueryAnswered(4, object())),  # type: ignore[arg-type]
    ],
)
def test_an_outcome_that_does_not_fit_is_refused_and_nothing_is_said(
    command: c.Command, outcome: e.Outcome
) -> None:
    pair = authenticated()
    for request_id in (2, 3, 4):
        assert pair.ask(command if request_id == 4 else c.Ping()) == request_id
    pair.asked()
    with pytest.raises(LocalProtocolError):
        pair.server.answer(outcome)
    assert not pair.server.owns(A)
    assert pair.told() == []
    pair.server.answer(e.Failed(4, command, "no"))
    assert pair.told() == [e.Failed(4, command, "no")]


def test_a_time_out_is_said_as_a_failure() -> None:
    pair = authenticated()
    request_id = pair.ask(c.ListInstances())
    pair.asked()
    pair.server.answer(e.TimedOut(request_id, c.ListInstances(), "too slow"))
    assert pair.told() == [e.Failed(request_id, c.ListInstances(), "too slow")]


def test_what_a_client_says_that_means_nothing_is_told_and_not_answered() -> None:
    served = Served()
    for payload in (b"\xc1", wire("ping"), wire("nonsense"), wire("ping", corr_id=1 << 32)):
        served.session.receive_message(payload)
        assert isinstance(only(served.asked()), e.UnknownMessage)
    assert served.said() == []


def test_a_message_to_an_instance_of_somebody_else_is_dropped() -> None:
    served = Served()
    served.launch(A)
    for instance_id in (A, B):
        served.tell("signal_instance", instance_id=instance_id, message="x")
    assert served.asked() == [e.Request(None, c.SendMessage(A, "x"))]


# --------------------------------------------------------------------------------------- instances


def test_an_instance_belongs_to_the_connection_from_its_launch_to_its_end() -> None:
    served = Served()
    assert not served.session.owns(A)
    with pytest.raises(LocalProtocolError, match="not attached here"):
        served.session.emit(InstanceEvent(A, Event.Stdout, "x"))
    served.launch(A)
    assert served.session.owns(A)
    served.session.emit(InstanceEvent(A, Event.Stdout, "x"))
    served.session.emit(InstanceEvent(A, Event.Completed, "done"))
    assert not served.session.owns(A)
    with pytest.raises(LocalProtocolError, match="not attached here"):
        served.session.emit(InstanceEvent(A, Event.Stdout, "x"))
    assert [message["type"] for message in served.said()] == ["streaming_output", "instance_event"]


def test_a_detached_launch_is_nobodys_until_it_is_attached() -> None:
    served = Served()
    served.tell(
        "launch_instance_from_registry", corr_id=2, inferlet="n", arguments=[], detached=True
    )
    served.asked()
    served.session.answer(e.Launched(2, A, True))
    assert not served.session.owns(A)
    served.tell("attach_instance", corr_id=3, instance_id=A)
    served.asked()
    served.session.answer(e.Attached(3, A))
    assert served.session.owns(A)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (Event.Stdout, b"bytes"),
        (Event.Completed, b""),
        (Event.Blob, "text"),
        (Event.Message, None),
        (Event.Stderr, "\ud800"),
    ],
)
def test_an_event_whose_data_cannot_be_sent_is_refused(event: Event, data: Any) -> None:
    served = Served()
    served.launch(A)
    with pytest.raises(LocalProtocolError):
        served.session.emit(InstanceEvent(A, event, data))
    assert served.said() == []
    assert served.session.owns(A)


def test_an_empty_blob_is_nothing_on_the_wire() -> None:
    served = Served()
    served.launch(A)
    served.session.emit(InstanceEvent(A, Event.Blob, b""))
    assert served.said() == []


def test_a_notice_is_for_the_whole_connection() -> None:
    served = Served()
    served.session.notify("going down")
    assert served.said() == [{"type": "server_event", "message": "going down"}]


def test_what_is_unsent_counts_until_it_is_handed_out() -> None:
    pair = Pair(server_limits=Limits(unsent_bytes=1000))
    pair.shuttle()
    pair.ask(c.Identify("ada"))
    pair.asked()
    pair.server.answer(e.Authenticated(1, Authentication.ASSERTED))
    pair.shuttle()
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    assert not pair.server.writing_paused
    pair.server.emit(InstanceEvent(A, Event.Stdout, "x" * 1000))
    assert pair.server.writing_paused
    assert pair.server.unsent_bytes > 1000
    pair.shuttle()
    assert pair.server.unsent_bytes == 0
    assert not pair.server.writing_paused


# ----------------------------------------------------------------------------------------- uploads


def test_an_upload_comes_whole() -> None:
    served = Served()
    data = content(CHUNK + 5)
    served.chunk(0, 2, data[:CHUNK], hash=c.hash_of(data))
    assert served.asked() == []
    served.chunk(1, 2, data[CHUNK:], hash=c.hash_of(data))
    request = only(served.asked())
    assert isinstance(request, e.Request)
    assert isinstance(request.command, c.UploadProgram)
    assert request.command == program(data)
    assert request.command.data == data
    served.session.answer(e.ProgramUploaded(7, c.hash_of(data)))
    assert only(served.said())["result"] == c.hash_of(data)


def test_an_empty_upload_is_one_empty_chunk() -> None:
    served = Served()
    served.chunk(0, 1, b"", hash=c.hash_of(b""))
    assert served.asked() == [e.Request(7, program(b""))]


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([(1, 2, b"x")], "First chunk index must be 0"),
        ([(0, 2, b"x"), (0, 2, b"x")], "Out-of-order chunk: expected 1, got 0"),
        ([(0, 3, b"x"), (2, 3, b"x")], "Out-of-order chunk: expected 1, got 2"),
        ([(0, 2, b"x"), (1, 3, b"x")], "Chunk count mismatch: expected 2, got 3"),
        ([(0, 1, bytes(CHUNK + 1))], f"Chunk size {CHUNK + 1} exceeds limit {CHUNK}"),
        ([(0, 1, b"x")], f"Hash mismatch: expected {'0' * 64}, got {c.hash_of(b'x')}"),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"instance_id": A}])
def test_a_chunk_that_does_not_fit_is_refused_in_the_servers_words_and_drops_the_upload(
    chunks: list[tuple[int, int, bytes]], words: str, fields: dict[str, str]
) -> None:
    served = Served()
    served.launch(A)
    for chunk in chunks:
        assert served.asked() == []
        served.chunk(*chunk, **fields)
    assert served.refused() == words
    # Each chunk that was still under way is refused too; then a new upload may begin.
    served.chunk(1, 2, b"x", **fields)
    assert served.refused() == "First chunk index must be 0"
    served.chunk(0, 1, b"x", hash=c.hash_of(b"x"), **fields)
    assert len(served.asked()) == 1


def test_an_upload_over_the_bound_is_refused() -> None:
    served = Served(Limits(upload_bytes=1000))
    served.chunk(0, 2, bytes(600))
    served.chunk(1, 2, bytes(600))
    assert served.refused() == "Upload size 1200 exceeds limit 1000"


def test_all_uploads_being_put_together_are_bounded() -> None:
    served = Served(Limits(assembling_bytes=10_000))
    served.launch(A)
    served.chunk(0, 2, bytes(3000), instance_id=A, hash="1" * 100)
    served.chunk(0, 2, bytes(2000), instance_id=A, hash="2")
    assert served.asked() == []
    served.chunk(1, 2, bytes(2000), instance_id=A, hash="2")
    assert served.refused() == "Upload size 11197 exceeds limit 10000"
    # What was refused no longer counts, nor do uploads that never began.
    served.chunk(0, 2, bytes(2000), instance_id=A, hash="3")
    assert served.asked() == []
    assert served.said() == []


def test_programs_share_one_slot() -> None:
    served = Served()
    served.chunk(0, 2, b"x", hash="1" * 64)
    served.chunk(0, 2, b"y", hash="2" * 64)
    assert served.refused().startswith("Out-of-order chunk")


def test_different_blobs_may_interleave() -> None:
    served = Served()
    served.launch(A)
    one, two = b"one", b"two"
    for n in range(3):
        served.chunk(n, 3, one[n : n + 1], hash=c.hash_of(one), instance_id=A, corr_id=8)
        served.chunk(n, 3, two[n : n + 1], hash=c.hash_of(two), instance_id=A, corr_id=9)
    asked = [event.command for event in served.asked() if isinstance(event, e.Request)]
    assert [command.data for command in asked if isinstance(command, c.UploadBlob)] == [one, two]


def test_a_blob_for_somebody_elses_instance_is_refused_and_its_slot_is_kept() -> None:
    served = Served()
    served.launch(A)
    served.launch(B)
    served.chunk(0, 2, b"x", instance_id=A)
    assert served.asked() == []
    served.session.emit(InstanceEvent(A, Event.Aborted, ""))
    served.said()
    served.chunk(1, 2, b"y", instance_id=A)
    assert served.refused() == f"Instance not owned by client: {A}"
    served.chunk(0, 1, b"x", instance_id=B)
    assert served.refused() == "Chunk count mismatch: expected 2, got 1"
    served.chunk(0, 1, b"x", instance_id="no uuid")
    assert served.refused() == "Invalid instance_id: no uuid"


# ---------------------------------------------------------------------------------- the connection


def test_a_client_is_accepted_or_rejected_once() -> None:
    server = ServerConnection(now=0.0)
    for call in (server.accept, lambda: server.reject(404, "")):
        with pytest.raises(LocalProtocolError):
            call()
    pair = connected()
    for call in (pair.server.accept, lambda: pair.server.reject(404, "")):
        with pytest.raises(LocalProtocolError, match="the connection is open"):
            call()


def test_before_it_is_open_and_while_it_closes_nothing_can_be_said() -> None:
    for server in (ServerConnection(now=0.0), connected().server):
        if server.state is ConnectionState.OPEN:
            server.close(now=0.0)
        calls = (
            lambda server=server: server.answer(e.Pong(1)),
            lambda server=server: server.emit(InstanceEvent(A, Event.Stdout, "")),
            lambda server=server: server.notify(""),
        )
        for call in calls:
            with pytest.raises(LocalProtocolError):
                call()


def test_a_refused_client_is_told_and_then_closed() -> None:
    pair = connected()
    request_id = pair.ask(c.Identify("mallory"))
    pair.asked()
    pair.server.answer(e.Failed(request_id, c.Identify("mallory"), "who?"))
    assert pair.server.authentication_state is ServerAuthenticationState.REFUSED
    assert pair.server.state is ConnectionState.CLOSING
    assert pair.server.next_deadline() == 5.0
    told = pair.told()
    assert told == [
        e.Failed(request_id, c.Identify("mallory"), "who?"),
        ConnectionClosed(by=Closer.REMOTE, code=1000),
    ]
    pair.shuttle()
    assert pair.server.transport_action() is TransportAction.CLOSE


def test_a_server_can_send_notices_and_blobs_over_a_connection() -> None:
    pair = authenticated()
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    data = content(2 * CHUNK + 3)
    pair.server.emit(InstanceEvent(A, Event.Blob, data))
    pair.server.notify("a notice")
    assert pair.told() == [e.InstanceReadable(A), e.ServerNotice("a notice")]
    assert pair.read(A) == [("Blob", data)]
    assert pair.server.owns(A)


def test_a_client_that_breaks_the_protocol_is_told_its_code() -> None:
    pair = authenticated()
    pair.server.receive_data(b"\x82\x01x", 0.0)
    closed = only(pair.asked())
    assert isinstance(closed, ConnectionClosed)
    assert closed.violation is not None
    told = only(pair.told())
    assert isinstance(told, ConnectionClosed)
    assert told.code == 1002
    with pytest.raises(RemoteProtocolError):
        pair.server.next_event()


def test_a_line_that_ends_is_told_with_what_the_transport_said() -> None:
    pair = authenticated()
    pair.server.receive_eof(0.0, "connection reset")
    assert pair.server.next_event() == ConnectionClosed(
        by=Closer.TRANSPORT, reason="connection reset"
    )


def test_the_second_story_of_an_end_is_not_told() -> None:
    served = Served()
    served.session.receive_end(ConnectionClosed(by=Closer.REMOTE, code=1001))
    served.session.receive_end(ConnectionClosed(by=Closer.LOCAL))
    assert served.asked() == [ConnectionClosed(by=Closer.REMOTE, code=1001)]


def test_after_the_end_every_call_that_says_something_raises_what_it_means() -> None:
    served = Served()
    served.launch(A)
    pair = authenticated()
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    served.session.receive_end(ConnectionClosed(by=Closer.REMOTE, code=1001))
    pair.client.close(1001, now=0.0)
    assert served.asked()
    assert pair.asked()
    for server in (served.session, pair.server):
        calls = (
            lambda server=server: server.answer(e.Pong(1)),
            lambda server=server: server.emit(InstanceEvent(A, Event.Stdout, "")),
            lambda server=server: server.notify(""),
            server.next_event,
        )
        for call in calls:
            with pytest.raises(ConnectionLost, match="1001"):
                call()
    for way in (pair.server.accept, lambda: pair.server.reject(404, "")):
        with pytest.raises(ConnectionLost, match="1001"):
            way()


def test_a_server_is_asked_for_a_hash_as_it_was_sent() -> None:
    # Real servers know hashes in lower case alone: what another client sends is another name.
    served = Served()
    served.tell("query", corr_id=2, subject="program_exists", record="AB" * 32)
    served.tell("launch_instance", corr_id=3, program_hash="AB" * 32, arguments=[], detached=False)
    assert [request.command.hash for request in served.asked()] == ["AB" * 32] * 2  # type: ignore[union-attr]
