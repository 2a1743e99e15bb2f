"""Requests, answers and instances: what a client may ask, and what it is told."""

from __future__ import annotations

import msgpack
import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from pie_proto.events import Authentication
from pie_proto.limits import Limits
from pie_proto.session import ClientSession
from pie_proto.states import AuthenticationState, ConnectionState, InstanceState
from tests.proto.pair import (
    CHALLENGE,
    CHUNK,
    OPEN,
    A,
    B,
    Pair,
    Talk,
    authenticated,
    b64,
    blob,
    connected,
    content,
    only,
    program,
)

COMMANDS: list[c.Command] = [
    c.Ping(),
    c.Query("model_status", ""),
    c.ProgramExists("0" * 64),
    program(b"wasm"),
    blob(A, b"blob"),
    c.LaunchInstance(hash="0" * 64),
    c.LaunchFromRegistry(name="echo"),
    c.AttachInstance(A),
    c.ListInstances(),
    c.SendMessage(A, "hello"),
    c.TerminateInstance(A),
    c.AnswerChallenge(b"signature"),
]


def violation_of(talk: Talk) -> str:
    """The session has just ended because the server broke the protocol; how it did."""
    closed = talk.events()[-1]
    assert isinstance(closed, e.ConnectionClosed)
    assert closed.violation is not None
    with pytest.raises(RemoteProtocolError):
        talk.session.next_event()
    return closed.violation


# ---------------------------------------------------------------------------------- authentication


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_before_authentication_every_command_is_refused_and_nothing_is_sent(
    command: c.Command,
) -> None:
    talk = Talk(authenticated=False)
    with pytest.raises(LocalProtocolError, match="unauthenticated"):
        talk.session.send(command, 0.0)
    assert talk.sent() == []
    assert talk.session.statistics().requests_sent == 0
    # Nor while the answer is awaited, or after a no.
    request_id = talk.ask(c.Identify("ada"))
    assert len(talk.sent()) == 1
    with pytest.raises(LocalProtocolError, match="identifying"):
        talk.session.send(command, 0.0)
    talk.respond(request_id, "no such user", ok=False)
    talk.events()
    with pytest.raises(LocalProtocolError, match="refused"):
        talk.session.send(command, 0.0)
    assert talk.sent() == []


def test_an_open_server_authenticates_a_name_at_once() -> None:
    talk = Talk(authenticated=False)
    request_id = talk.ask(c.Identify("ada"))
    assert talk.sent() == [{"type": "identification", "username": "ada", "corr_id": request_id}]
    talk.respond(request_id, OPEN)
    assert talk.events() == [e.Authenticated(request_id, Authentication.ASSERTED)]
    assert talk.session.authentication_state is AuthenticationState.AUTHENTICATED


@pytest.mark.parametrize("form", ["response", "challenge"])
def test_a_challenge_is_told_and_its_answer_proves_the_user(form: str) -> None:
    talk = Talk(authenticated=False)
    first = talk.ask(c.Identify("ada"))
    if form == "response":
        talk.respond(first, b64(CHALLENGE))
    else:
        talk.tell("challenge", corr_id=first, challenge=b64(CHALLENGE))
    assert talk.events() == [e.ChallengeReceived(first, CHALLENGE)]
    assert talk.session.authentication_state is AuthenticationState.CHALLENGED
    with pytest.raises(LocalProtocolError, match="challenged"):
        talk.session.send(c.Ping(), 0.0)
    talk.sent()
    second = talk.ask(c.AnswerChallenge(b"\xff\x00sig"))
    assert talk.sent() == [
        {"type": "signature", "signature": b64(b"\xff\x00sig"), "corr_id": second}
    ]
    talk.respond(second, "Authenticated")
    assert talk.events() == [e.Authenticated(second, Authentication.PROVED)]


def test_a_token_authenticates() -> None:
    talk = Talk(authenticated=False)
    request_id = talk.ask(c.AuthenticateWithToken("secret"))
    assert only(talk.sent())["token"] == "secret"
    talk.respond(request_id, "Authenticated")
    assert talk.events() == [e.Authenticated(request_id, Authentication.TOKEN)]


FIRST_AND_AGAIN = [
    (c.Identify("ada"), c.Identify("ada"), None),
    (c.Identify("ada"), c.Identify("bob"), "as 'ada'"),
    (c.Identify("ada"), c.AuthenticateWithToken("t"), "as 'ada'"),
    (c.AuthenticateWithToken("t"), c.AuthenticateWithToken("other"), None),
    (c.AuthenticateWithToken("t"), c.Identify("ada"), "with a token"),
]


@pytest.mark.parametrize(("first", "again", "whom"), FIRST_AND_AGAIN)
def test_a_connection_has_one_user(first: c.Command, again: c.Command, whom: str | None) -> None:
    talk = Talk(authenticated=False)
    talk.respond(talk.ask(first), OPEN if isinstance(first, c.Identify) else "Authenticated")
    assert isinstance(only(talk.events()), e.Authenticated)
    request_id = talk.ask(again)
    talk.respond(request_id, "Already authenticated")
    outcome = only(talk.events())
    if whom is None:
        assert outcome == e.Authenticated(request_id, Authentication.ALREADY)
    else:
        assert isinstance(outcome, e.Failed)
        assert outcome.command == again
        assert outcome.reason.startswith(f"Already authenticated ({whom}: ")
    assert talk.session.authentication_state is AuthenticationState.AUTHENTICATED


def test_authenticating_twice_changes_nothing() -> None:
    talk = Talk()
    command = c.Identify("bob")
    request_id = talk.ask(command)
    talk.respond(request_id, "not now", ok=False)
    assert talk.events() == [e.Failed(request_id, command, "not now")]
    assert talk.session.authentication_state is AuthenticationState.AUTHENTICATED
    talk.ask(c.Ping())


def test_a_challenge_after_authentication_breaks_the_protocol() -> None:
    talk = Talk()
    talk.respond(talk.ask(c.Identify("bob")), b64(CHALLENGE))
    assert "ChallengeReceived while authenticated" in violation_of(talk)


def test_a_rejection_is_told_before_the_end_that_follows_it() -> None:
    pair = connected()
    request_id = pair.ask(c.Identify("mallory"))
    pair.asked()
    pair.server.answer(e.Failed(request_id, c.Identify("mallory"), "User not found"))
    told = pair.told()
    assert told[0] == e.Failed(request_id, c.Identify("mallory"), "User not found")
    assert isinstance(told[1], e.ConnectionClosed)
    assert told[1].by is e.Closer.REMOTE


# --------------------------------------------------------------------------- requests and answers


def test_pipelined_requests_may_be_answered_in_any_order() -> None:
    talk = Talk()
    ids = [talk.ask(c.Query("subject", str(n))) for n in range(5)]
    assert [message["corr_id"] for message in talk.sent()] == ids
    for request_id in (ids[3], ids[0], ids[4], ids[2], ids[1]):
        talk.respond(request_id, f"answer {request_id}")
    assert talk.events() == [
        e.QueryAnswered(n, f"answer {n}") for n in (ids[3], ids[0], ids[4], ids[2], ids[1])
    ]
    assert talk.session.statistics().requests_pending == 0


def test_every_kind_of_request_is_settled_by_its_outcome() -> None:
    pair = authenticated()
    data = content(CHUNK + 1)
    info = e.InstanceInfo(id=A, arguments=("x",), status="Attached")
    upload = program(data)
    assert pair.request(c.Ping(), e.Pong) == e.Pong(2)
    assert pair.request(c.Query("s", "r"), e.QueryAnswered, "t") == e.QueryAnswered(3, "t")
    assert pair.request(c.ProgramExists("h"), e.ProgramExistsAnswered, True).exists  # type: ignore[union-attr]
    assert not pair.request(c.ProgramExists("h"), e.ProgramExistsAnswered, False).exists  # type: ignore[union-attr]
    assert pair.request(upload, e.ProgramUploaded, upload.hash) == e.ProgramUploaded(6, upload.hash)
    assert pair.request(c.LaunchInstance(hash="h", arguments=("a", "")), e.Launched, A, False) == (
        e.Launched(7, A, False)
    )
    assert pair.request(blob(A, data), e.BlobUploaded) == e.BlobUploaded(8)
    launch = c.LaunchFromRegistry(name="n", detached=True)
    assert pair.request(launch, e.Launched, B, True) == e.Launched(9, B, True)
    assert pair.request(c.AttachInstance(B), e.Attached, B) == e.Attached(10, B)
    listed = pair.request(c.ListInstances(), e.InstancesListed, (info,))
    assert listed == e.InstancesListed(11, (info,))
    assert pair.request(c.TerminateInstance(B), e.Terminated) == e.Terminated(12)
    pair.client.send(c.SendMessage(A, "hello"), 0.0)
    assert pair.asked() == [e.Request(None, c.SendMessage(A, "hello"))]


def test_a_no_of_the_servers_is_told_with_its_command_and_words() -> None:
    pair = authenticated()
    for n, command in enumerate(COMMANDS[:-1], 2):
        if isinstance(command, c.SendMessage | c.UploadBlob | c.TerminateInstance):
            continue
        request_id = pair.ask(command)
        pair.asked()
        pair.server.answer(e.Failed(request_id, command, f"no {n}"))
        assert pair.told() == [e.Failed(request_id, command, f"no {n}")]


def test_request_ids_count_up_from_one() -> None:
    talk = Talk(authenticated=False)
    assert talk.ask(c.Identify("ada")) == 1
    talk.respond(1, OPEN)
    talk.events()
    assert [talk.ask(c.Ping()) for _ in range(3)] == [2, 3, 4]


def test_a_late_answer_is_counted_and_nothing_else() -> None:
    talk = Talk()
    request_id = talk.ask(c.Ping())
    talk.session.cancel(request_id, 0.0)
    talk.respond(request_id, "Pong")
    talk.respond(request_id, "Pong")
    assert talk.events() == []
    assert talk.session.statistics().late_answers == 2
    talk.respond(talk.ask(c.Ping()), "Pong")
    assert len(talk.events()) == 1


@pytest.mark.parametrize("request_id", [0, 3, 0xFFFF_FFFF, 1 << 60])
def test_an_answer_to_a_request_never_made_ends_the_connection(request_id: int) -> None:
    talk = Talk()
    talk.ask(c.Ping())
    talk.respond(request_id, "Pong")
    assert "never made" in violation_of(talk)


def test_an_answer_of_another_kind_ends_the_connection() -> None:
    talk = Talk()
    talk.respond(talk.ask(c.LaunchFromRegistry(name="echo")), A)
    assert "LaunchFromRegistry" in violation_of(talk)


def test_an_unknown_message_is_an_event() -> None:
    talk = Talk()
    talk.tell("mcp_request", corr_id=77, anything=[1, {"a": None}])
    talk.session.receive_message("a text message", 0.0)
    assert [event.name for event in talk.events() if isinstance(event, e.UnknownMessage)] == [
        "mcp_request",
        "a text message of 14 characters",
    ]
    assert talk.session.statistics().unknown_messages == 2


def test_a_notice_is_an_event() -> None:
    talk = Talk()
    talk.tell("server_event", message="going down at five")
    assert talk.events() == [e.ServerNotice("going down at five")]


def test_a_broken_message_is_told_after_everything_before_it() -> None:
    talk = Talk()
    talk.launch()
    request_id = talk.ask(c.Ping())
    talk.stdout(A, "one")
    talk.respond(request_id, "Pong")
    talk.session.receive_message(b"\xc1", 0.0)
    talk.stdout(A, "never seen")
    assert talk.session.next_event() == e.InstanceReadable(A)
    talk.stdout(A, "never seen")
    assert talk.session.next_event() == e.Pong(request_id)
    closed = talk.session.next_event()
    assert isinstance(closed, e.ConnectionClosed)
    assert closed.violation is not None
    assert closed.code == 1007
    assert talk.session.read_instance(A) == e.InstanceEvent(A, e.Event.Stdout, "one")
    with pytest.raises(RemoteProtocolError):
        talk.session.read_instance(A)


def test_after_the_end_every_call_raises_an_error_of_its_own() -> None:
    talk = Talk()
    talk.launch()
    talk.stdout(A, "text")
    talk.events()
    talk.session.receive_end(e.ConnectionClosed(by=e.Closer.REMOTE, code=1001, reason="bye"), 0.0)
    talk.session.receive_end(e.ConnectionClosed(by=e.Closer.LOCAL, reason="second story"), 0.0)
    talk.events()
    # What was received before can still be read.
    assert talk.session.read_instance_many(A, 10) == [e.InstanceEvent(A, e.Event.Stdout, "text")]
    raised = []
    for call in (
        talk.session.next_event,
        talk.session.next_event,
        lambda: talk.session.send(c.Ping(), 0.0),
        lambda: talk.session.send("not even a command", 0.0),  # type: ignore[arg-type]
        lambda: talk.session.read_instance(A),
        lambda: talk.session.read_instance_many(A, 1),
    ):
        with pytest.raises(ConnectionLost, match="1001, bye") as caught:
            call()
        raised.append(caught.value)
    assert len(set(map(id, raised))) == len(raised)
    # Tidying up is no mistake.
    talk.session.cancel(1, 0.0)
    talk.session.discard(A)
    talk.session.provide_chunk(1, b"")
    talk.session.abandon(e.Launched(1, A, False), 0.0)
    talk.session.close(0.0)
    assert talk.session.chunks_wanted() == ()
    assert talk.session.next_deadline() is None


def test_what_is_no_command_is_refused() -> None:
    class Subclass(c.Ping):
        pass

    session = Talk().session
    for thing in (None, "ping", c.Ping, e.Pong(1), Subclass()):
        with pytest.raises(LocalProtocolError, match="not a command"):
            session.send(thing, 0.0)  # type: ignore[arg-type]


def test_a_command_whose_fields_cannot_be_sent_changes_nothing() -> None:
    talk = Talk()
    before = talk.session.statistics()
    for command in (
        c.AttachInstance(b"bytes"),  # type: ignore[arg-type]
        c.AttachInstance("\ud800"),
        c.AttachInstance(""),
        c.Query("x" * (16 << 20), ""),
        c.UploadProgram(size=1 << 70, hash="0" * 64),
    ):
        with pytest.raises(LocalProtocolError):
            talk.session.send(command, 0.0)
    assert talk.session.statistics() == before
    assert talk.sent() == []
    assert talk.session.instance_state("\ud800") is InstanceState.UNATTACHED


def test_request_ids_are_used_up_at_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk()
    talk.session._requests.next_id = 0xFFFF_FFFF
    assert talk.ask(c.Ping()) == 0xFFFF_FFFF
    with pytest.raises(LocalProtocolError, match="used up"):
        talk.session.send(c.Ping(), 0.0)


# -------------------------------------------------------------------------------------- instances


def test_a_message_goes_only_to_an_attached_instance() -> None:
    talk = Talk()
    with pytest.raises(LocalProtocolError, match="unattached"):
        talk.session.send(c.SendMessage(A, "x"), 0.0)
    talk.launch()
    assert talk.session.send(c.SendMessage(A, "x"), 0.0) is None
    assert talk.sent() == [{"type": "signal_instance", "instance_id": A, "message": "x"}]
    talk.happen(A, 1, "done")
    talk.events()
    # Its user cannot know of an end that is unread: a message is dropped, a blob is not.
    assert talk.session.send(c.SendMessage(A, "x"), 0.0) is None
    with pytest.raises(LocalProtocolError, match="it has ended"):
        talk.session.send(blob(A, b"x"), 0.0)
    assert talk.sent() == []
    assert talk.read(A) == [("Completed", "done")]
    with pytest.raises(LocalProtocolError, match="has ended"):
        talk.session.send(c.SendMessage(A, "x"), 0.0)


def test_a_detached_instance_is_not_ours() -> None:
    talk = Talk()
    request_id = talk.ask(c.LaunchInstance(hash="0" * 64, detached=True))
    talk.result("launch", request_id, A)
    assert talk.events() == [e.Launched(request_id, A, True)]
    assert talk.session.instance_state(A) is InstanceState.UNATTACHED
    with pytest.raises(LocalProtocolError, match="launched detached"):
        talk.session.send(c.SendMessage(A, "x"), 0.0)


def test_an_instance_is_read_to_its_end_and_then_forgotten() -> None:
    talk = Talk()
    talk.launch()
    talk.stdout(A, "out")
    talk.tell("streaming_output", instance_id=A, output={"Stderr": "err"})
    for code in (0, 1):
        talk.happen(A, code, f"code {code}")
    talk.stdout(A, "nothing follows the end")
    talk.happen(A, 2, "nor does a second end")
    assert talk.events() == [e.InstanceReadable(A)]
    assert talk.session.instance_state(A) is InstanceState.ENDED
    assert talk.read(A) == [
        ("Stdout", "out"),
        ("Stderr", "err"),
        ("Message", "code 0"),
        ("Completed", "code 1"),
    ]
    assert talk.session.instance_state(A) is InstanceState.UNATTACHED
    assert talk.session.read_instance(A) is None
    assert talk.session.statistics().dropped_events == 2


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "Completed"), (2, "Aborted"), (3, "Exception"), (4, "ServerError"), (5, "OutOfResources")],
)
def test_an_instance_ends_in_five_ways(code: int, name: str) -> None:
    talk = Talk()
    talk.launch()
    talk.happen(A, code, "text")
    assert talk.events() == [e.InstanceReadable(A)]
    assert talk.read(A) == [(name, "text")]
    assert e.Event[name].is_terminal


def test_an_instance_is_readable_only_when_its_mailbox_was_empty() -> None:
    talk = Talk()
    talk.launch()
    talk.stdout(A, "1")
    talk.stdout(A, "2")
    assert talk.events() == [e.InstanceReadable(A)]
    talk.session.read_instance(A)
    talk.stdout(A, "3")
    assert talk.events() == []
    assert talk.read(A) == [("Stdout", "2"), ("Stdout", "3")]
    talk.stdout(A, "4")
    assert talk.events() == [e.InstanceReadable(A)]


def test_many_events_are_read_at_once() -> None:
    talk = Talk()
    talk.launch()
    for n in range(5):
        talk.stdout(A, str(n))
    talk.events()
    assert [event.data for event in talk.session.read_instance_many(A, 3)] == ["0", "1", "2"]
    assert [event.data for event in talk.session.read_instance_many(A, 3)] == ["3", "4"]
    assert talk.session.read_instance_many(A, 3) == []
    assert talk.session.read_instance_many(B, 3) == []


def test_events_that_come_before_the_launch_answer_are_held_for_it() -> None:
    talk = Talk()
    request_id = talk.ask(c.LaunchFromRegistry(name="echo"))
    talk.stdout(A, "early")
    talk.stdout(B, "nobody's")
    talk.happen(A, 1, "already over")
    assert talk.events() == []
    talk.result("launch", request_id, A)
    assert talk.events() == [e.Launched(request_id, A, False), e.InstanceReadable(A)]
    assert talk.read(A) == [("Stdout", "early"), ("Completed", "already over")]
    assert talk.session.statistics().dropped_events == 1
    # With no launch unanswered, nothing is held.
    talk.stdout(B, "nobody's")
    assert talk.events() == []
    assert talk.session.statistics().dropped_events == 2


def test_events_of_an_instance_being_attached_are_held_for_it() -> None:
    talk = Talk()
    request_id = talk.ask(c.AttachInstance(A))
    assert talk.session.instance_state(A) is InstanceState.ATTACHING
    with pytest.raises(LocalProtocolError, match="attaching"):
        talk.session.send(c.AttachInstance(A), 0.0)
    talk.stdout(A, "buffered")
    talk.result("attach", request_id, "Instance attached")
    assert talk.events() == [e.Attached(request_id, A), e.InstanceReadable(A)]
    assert talk.session.instance_state(A) is InstanceState.ATTACHED


def test_a_refused_attach_leaves_the_instance_alone() -> None:
    talk = Talk()
    for form in ("attach", "response"):
        request_id = talk.ask(c.AttachInstance(A))
        talk.stdout(A, "not for us")
        if form == "attach":
            talk.result("attach", request_id, "Instance not found", ok=False)
        else:
            talk.respond(request_id, "Instance not found", ok=False)
        failed = e.Failed(request_id, c.AttachInstance(A), "Instance not found")
        assert talk.events() == [failed]
        assert talk.session.instance_state(A) is InstanceState.UNATTACHED
    assert talk.session.statistics().dropped_events == 2


def test_an_instance_launched_twice_breaks_the_protocol() -> None:
    talk = Talk()
    talk.launch()
    talk.result("launch", talk.ask(c.LaunchFromRegistry(name="echo")), A)
    assert "which it had already" in violation_of(talk)


def test_a_launch_answered_with_an_empty_id_breaks_the_protocol() -> None:
    talk = Talk()
    talk.result("launch", talk.ask(c.LaunchFromRegistry(name="echo")), "")
    assert "has 0 characters" in violation_of(talk)


def test_terminating_drops_the_output_and_keeps_the_end() -> None:
    talk = Talk()
    talk.launch()
    talk.stdout(A, "unread")
    talk.events()
    request_id = talk.ask(c.TerminateInstance(A))
    assert talk.session.instance_state(A) is InstanceState.TERMINATING
    assert talk.read(A) == []
    talk.stdout(A, "still coming")
    talk.blob_chunk(A, b"x", 0, 1, b"x")
    talk.respond(request_id, "Instance terminated")
    talk.happen(A, 2, "Signal termination")
    assert talk.events() == [e.Terminated(request_id), e.InstanceReadable(A)]
    assert talk.read(A) == [("Aborted", "Signal termination")]
    assert talk.session.statistics().dropped_events == 3


def test_terminating_what_has_ended_drops_its_unread_output_and_keeps_the_end() -> None:
    talk = Talk()
    talk.launch()
    talk.stdout(A, "unread")
    talk.happen(A, 1, "result")
    talk.events()
    talk.ask(c.TerminateInstance(A))
    assert talk.session.instance_state(A) is InstanceState.TERMINATED
    assert talk.session.statistics().unread_bytes == 128 + len("result")
    assert talk.read(A) == [("Completed", "result")]
    assert talk.session.statistics().unread_bytes == 0


def test_discarding_drops_what_is_unread_and_what_comes() -> None:
    talk = Talk()
    talk.launch()
    talk.stdout(A, "unread")
    talk.events()
    talk.session.discard(A)
    talk.session.discard(A)
    talk.session.discard(B)
    assert talk.session.instance_state(A) is InstanceState.DISCARDED
    talk.stdout(A, "to come")
    talk.blob_chunk(A, b"x", 0, 1, b"x")
    assert talk.events() == []
    assert talk.read(A) == []
    assert talk.session.instance_state(A) is InstanceState.DISCARDED
    talk.happen(A, 1, "the end")
    assert talk.events() == []
    assert talk.session.instance_state(A) is InstanceState.UNATTACHED
    assert talk.session.statistics().dropped_events == 3


def test_discarding_what_has_ended_forgets_it() -> None:
    talk = Talk()
    talk.launch()
    talk.happen(A, 1, "result")
    talk.events()
    talk.session.discard(A)
    assert talk.read(A) == []
    assert talk.session.instance_state(A) is InstanceState.UNATTACHED


def test_a_terminated_instance_can_be_discarded() -> None:
    talk = Talk()
    talk.launch()
    talk.ask(c.TerminateInstance(A))
    talk.ask(c.TerminateInstance(A))
    talk.session.discard(A)
    talk.ask(c.TerminateInstance(A))
    assert talk.session.instance_state(A) is InstanceState.DISCARDED


# ------------------------------------------------------------------------------------------ blobs


def test_a_blob_is_put_together_from_its_chunks() -> None:
    talk = Talk()
    talk.launch()
    first, second = content(700), content(500, 1000)
    talk.blob_chunk(A, first, 0, 2, first[:400])
    talk.blob_chunk(A, second, 0, 1, second)
    assert talk.events() == [e.InstanceReadable(A)]
    talk.blob_chunk(A, first, 1, 2, first[400:])
    assert talk.events() == []
    assert talk.read(A) == [("Blob", second), ("Blob", first)]


@pytest.mark.parametrize(
    ("chunks", "problem"),
    [
        ([(1, 2, b"x")], "the first chunk is not number 0"),
        ([(0, 0, b"")], "out of order"),
        ([(0, 2, b"x"), (0, 2, b"x")], "out of order"),
        ([(0, 3, b"x"), (2, 3, b"x")], "out of order"),
        ([(0, 2, b"x"), (1, 3, b"x")], "number of chunks changed"),
        ([(0, 1, b"other")], "hash"),
    ],
)
def test_a_blob_that_does_not_fit_together_breaks_the_protocol(
    chunks: list[tuple[int, int, bytes]], problem: str
) -> None:
    talk = Talk()
    talk.launch()
    for chunk in chunks:
        talk.blob_chunk(A, b"xx", *chunk)
    assert problem in violation_of(talk)


def test_the_end_of_an_instance_lets_go_of_its_unfinished_blobs() -> None:
    talk = Talk(Limits(assembling_bytes=10_000))
    for instance_id in (A, B):
        talk.launch(instance_id)
        talk.blob_chunk(instance_id, b"xx", 0, 2, bytes(7000))
        talk.happen(instance_id, 1)
        talk.blob_chunk(instance_id, b"xx", 1, 2, bytes(7000))
        assert talk.events() == [e.InstanceReadable(instance_id)]


# --------------------------------------------------------------------------------- the connection


def test_before_the_connection_is_open_nothing_can_be_sent() -> None:
    pair = Pair()
    assert pair.client.state is ConnectionState.CONNECTING
    with pytest.raises(LocalProtocolError, match="not open yet"):
        pair.client.send(c.Identify("ada"), 0.0)
    assert pair.told() == [e.Connected()]
    assert pair.client.state is ConnectionState.OPEN


def test_the_connection_shows_what_its_session_knows() -> None:
    pair = authenticated()
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    client = pair.client
    assert client.authentication_state is AuthenticationState.AUTHENTICATED
    assert client.instance_state(A) is InstanceState.ATTACHED
    assert not client.reading_paused
    assert not client.writing_paused
    assert client.statistics().requests_sent == 2
    assert not client.has_data_to_send
    client.send(c.Ping(), 0.0)
    assert client.has_data_to_send
    client.abandon(e.Launched(2, A, False), 0.0)
    assert client.instance_state(A) is InstanceState.DISCARDED
    asked = [event.command for event in pair.asked() if isinstance(event, e.Request)]
    assert asked == [c.Ping(), c.TerminateInstance(A)]


def test_a_violation_of_the_session_closes_the_connection_with_its_code() -> None:
    pair = authenticated()
    request_id = pair.ask(c.Ping())
    pair.asked()
    pair.server._link.websocket.send_message(msgpack.packb(["not", "a", "map"]))
    closed = only(pair.told())
    assert isinstance(closed, e.ConnectionClosed)
    assert closed.code == 1007
    assert pair.client.state is ConnectionState.CLOSED
    server_side = only(pair.asked())
    assert isinstance(server_side, e.ConnectionClosed)
    assert (server_side.by, server_side.code) == (e.Closer.REMOTE, 1007)
    with pytest.raises(RemoteProtocolError, match="not a map"):
        pair.client.send(c.Ping(), 0.0)
    pair.client.cancel(request_id, 0.0)


def test_the_same_input_makes_the_same_output() -> None:
    """Deterministic: recorded and replayed, a session says and tells the same."""

    def run() -> list[object]:
        session = ClientSession(limits=Limits(unread_bytes=1000, unread_low_bytes=500))
        seen: list[object] = []
        script = Talk(authenticated=False)
        script.session = session
        script.ask(c.Identify("ada"))
        script.respond(1, OPEN)
        seen += [script.sent(), script.events()]
        ids = [
            script.ask(command)
            for command in (program(content(3 * CHUNK)), c.Ping(), c.LaunchFromRegistry(name="x"))
        ]
        seen += [script.next_sent(), script.next_sent(), script.next_sent()]
        script.session.cancel(ids[0], 1.0)
        script.result("launch", ids[2], A)
        for n in range(20):
            script.stdout(A, "x" * n)
        seen += [script.sent(), script.events(), script.session.next_deadline()]
        script.session.handle_timeout(100.0)
        seen += [script.events(), script.read(A), script.session.statistics()]
        return seen

    assert run() == run()
