"""The transition tables: every pair of state and input, in the tables and through the API."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto import states as s
from pie_proto.dialects.instance import INSTANCE
from pie_proto.errors import ConnectionLost, LocalProtocolError
from pie_proto.events import ConnectionClosed
from pie_proto.limits import DEFAULT_LIMITS
from pie_proto.mailbox import Mailboxes
from pie_proto.server.session import ServerSession
from pie_proto.transfers import Upload
from tests.proto.pair import (
    CHALLENGE,
    CHUNK,
    OPEN,
    A,
    Pair,
    Talk,
    authenticated,
    b64,
    connected,
    content,
    program,
)

Auth = s.AuthenticationState
AuthInput = s.AuthenticationInput
Serving = s.ServerAuthenticationState
ServingInput = s.ServerAuthenticationInput
Transfer = s.TransferState
TransferInput = s.TransferInput
Detached = s.DetachedLaunchState
DetachedInput = s.DetachedLaunchInput
Instance = s.InstanceState
InstanceInput = s.InstanceInput
Connection = s.ConnectionState

TABLES: list[tuple[dict[tuple[Any, Any], Any], type[enum.Enum], type[enum.Enum], enum.Enum]] = [
    (s.CONNECTION, s.ConnectionState, s.ConnectionInput, s.ConnectionState.CONNECTING),
    (s.AUTHENTICATION, Auth, AuthInput, Auth.UNAUTHENTICATED),
    (s.SERVER_AUTHENTICATION, Serving, ServingInput, Serving.AWAITING_IDENTITY),
    (s.TRANSFER, Transfer, TransferInput, Transfer.QUEUED),
    (s.DETACHED_LAUNCH, Detached, DetachedInput, Detached.WAITING),
    (s.INSTANCE, Instance, InstanceInput, Instance.UNATTACHED),
]
NAMES = [
    "connection",
    "authentication",
    "server authentication",
    "transfer",
    "detached launch",
    "instance",
]
each_table = pytest.mark.parametrize(
    ("table", "state_type", "input_type", "start"), TABLES, ids=NAMES
)


@each_table
def test_a_table_maps_its_own_states_and_inputs(
    table: dict[tuple[Any, Any], Any],
    state_type: type[enum.Enum],
    input_type: type[enum.Enum],
    start: enum.Enum,
) -> None:
    for (state, happened), following in table.items():
        assert type(state) is state_type
        assert type(happened) is input_type
        assert type(following) is state_type
    for state, happened in itertools.product(state_type, input_type):
        following = s.next_state(table, state, happened)
        assert following is table.get((state, happened))
    assert {happened for _, happened in table} == set(input_type)


@each_table
def test_every_state_can_be_reached_from_the_first(
    table: dict[tuple[Any, Any], Any],
    state_type: type[enum.Enum],
    input_type: type[enum.Enum],
    start: enum.Enum,
) -> None:
    reached = {start}
    while more := {to for (state, _), to in table.items() if state in reached} - reached:
        reached |= more
    assert reached == set(state_type)


@each_table
def test_states_and_inputs_are_hashed_by_identity_and_shown_by_name(
    table: dict[tuple[Any, Any], Any],
    state_type: type[enum.Enum],
    input_type: type[enum.Enum],
    start: enum.Enum,
) -> None:
    for member in itertools.chain(state_type, input_type, e.Event):
        assert type(member).__hash__ is object.__hash__
    assert repr(start) == start.name


# --------------------------------------------------------------------- authentication, through send


def at(state: Auth) -> Talk:
    talk = Talk(authenticated=state is Auth.AUTHENTICATED)
    session = talk.session
    if state is Auth.PROVING:
        talk.ask(c.AuthenticateWithToken("t"))
    elif state not in {Auth.UNAUTHENTICATED, Auth.AUTHENTICATED}:
        request_id = talk.ask(c.Identify("ada"))
        if state is Auth.CHALLENGED:
            talk.respond(request_id, b64(CHALLENGE))
        elif state is Auth.REFUSED:
            talk.respond(request_id, "no", ok=False)
        talk.events()
    assert session.authentication_state is state
    return talk


SENT: dict[AuthInput, c.Command] = {
    AuthInput.IDENTIFY: c.Identify("ada"),
    AuthInput.TOKEN: c.AuthenticateWithToken("t"),
    AuthInput.ANSWER: c.AnswerChallenge(b"s"),
    AuthInput.COMMAND: c.Ping(),
}


@pytest.mark.parametrize("state", list(Auth), ids=str)
@pytest.mark.parametrize("happened", list(SENT), ids=str)
def test_what_may_be_sent_in_each_state_of_authentication(state: Auth, happened: AuthInput) -> None:
    talk = at(state)
    following = s.AUTHENTICATION.get((state, happened))
    talk.sent()
    if following is None:
        with pytest.raises(LocalProtocolError, match=f"while {state.value}"):
            talk.session.send(SENT[happened], 0.0)
        assert talk.session.authentication_state is state
        assert talk.sent() == []
    else:
        talk.ask(SENT[happened])
        assert talk.session.authentication_state is following
        assert len(talk.sent()) == 1


ANSWERED = {
    AuthInput.CHALLENGED: (b64(CHALLENGE), True),
    AuthInput.ACCEPTED: (OPEN, True),
    AuthInput.REFUSED: ("no", False),
}


@pytest.mark.parametrize(
    "asked", [c.Identify("a"), c.AuthenticateWithToken("t"), c.AnswerChallenge(b"s")]
)
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("happened", list(ANSWERED), ids=str)
def test_what_may_be_answered_in_each_state_of_authentication(
    happened: AuthInput, again: bool, asked: c.Command
) -> None:
    if isinstance(asked, c.AnswerChallenge):
        talk = at(Auth.CHALLENGED)
    else:
        talk = at(Auth.AUTHENTICATED if again else Auth.UNAUTHENTICATED)
    request_id = talk.ask(asked)
    state = talk.session.authentication_state
    text, ok = ANSWERED[happened]
    if happened is AuthInput.CHALLENGED:
        talk.tell("challenge", corr_id=request_id, challenge=text)
    else:
        talk.respond(request_id, text, ok=ok)
    following = s.AUTHENTICATION.get((state, happened))
    told = talk.events()[-1]
    if following is None:
        assert isinstance(told, ConnectionClosed)
        assert told.violation is not None
    else:
        assert talk.session.authentication_state is following


# ------------------------------------------------------------------- the server's, through its API


def server_at(state: Serving) -> ServerSession:
    session = ServerSession()
    if state is not Serving.AWAITING_IDENTITY:
        session.receive_message(INSTANCE.encode(c.Identify("ada"), 1))
        session.next_event()
    if state is Serving.ACCEPTED:
        session.answer(e.Authenticated(1, e.Authentication.PROVED))
    if state is Serving.REFUSED:
        session.answer(e.Failed(1, c.Identify("ada"), "no"))
    if state in {Serving.CHALLENGING, Serving.VERIFYING}:
        session.answer(e.ChallengeReceived(1, CHALLENGE))
    if state is Serving.VERIFYING:
        session.receive_message(INSTANCE.encode(c.AnswerChallenge(b"s"), 2))
        session.next_event()
    assert session.authentication_state is state
    return session


RECEIVED: dict[ServingInput, c.Command] = {
    ServingInput.IDENTIFY: c.Identify("ada"),
    ServingInput.TOKEN: c.AuthenticateWithToken("t"),
    ServingInput.ANSWER: c.AnswerChallenge(b"s"),
    ServingInput.COMMAND: c.Ping(),
}


@pytest.mark.parametrize("state", list(Serving), ids=str)
@pytest.mark.parametrize("happened", list(RECEIVED), ids=str)
def test_what_a_server_hears_in_each_state(state: Serving, happened: ServingInput) -> None:
    session = server_at(state)
    session.receive_message(INSTANCE.encode(RECEIVED[happened], 9))
    event = session.next_event()
    following = s.SERVER_AUTHENTICATION.get((state, happened))
    if state in {Serving.DECIDING, Serving.VERIFYING}:
        # Nothing is heard before the verdict.
        assert event is e.NEED_DATA
        assert session.authentication_state is state
    elif following is None:
        assert event is e.NEED_DATA
        assert session.finished
    else:
        assert event == e.Request(9, RECEIVED[happened])
        assert session.authentication_state is following


SAID: dict[ServingInput, Callable[[int], e.Outcome]] = {
    ServingInput.CHALLENGE: lambda n: e.ChallengeReceived(n, CHALLENGE),
    ServingInput.ACCEPT: lambda n: e.Authenticated(n, e.Authentication.ASSERTED),
    ServingInput.REFUSE: lambda n: e.Failed(n, c.Identify("ada"), "no"),
}


@pytest.mark.parametrize("state", [Serving.DECIDING, Serving.VERIFYING, Serving.ACCEPTED], ids=str)
@pytest.mark.parametrize("happened", list(SAID), ids=str)
def test_what_a_server_may_say_in_each_state(state: Serving, happened: ServingInput) -> None:
    session = server_at(state)
    request_id = {Serving.DECIDING: 1, Serving.VERIFYING: 2, Serving.ACCEPTED: 9}[state]
    if state is Serving.ACCEPTED:
        session.receive_message(INSTANCE.encode(c.Identify("ada"), 9))
        session.next_event()
    while session.message_to_send() is not None:
        pass
    following = s.SERVER_AUTHENTICATION.get((state, happened))
    if following is None:
        with pytest.raises(LocalProtocolError):
            session.answer(SAID[happened](request_id))
        assert session.authentication_state is state
        assert session.message_to_send() is None
    else:
        session.answer(SAID[happened](request_id))
        assert session.authentication_state is following
        assert session.message_to_send() is not None
        assert session.finished is (following is Serving.REFUSED)


# ------------------------------------------------------------------------------------- connections


def connection_at(state: Connection) -> Pair:
    pair = Pair() if state is Connection.CONNECTING else connected()
    if state is Connection.CLOSING:
        pair.client.close(now=0.0)
    if state is Connection.CLOSED:
        pair.client.receive_eof(0.0)
        pair.drain_client()
    assert pair.client.state is state
    return pair


@pytest.mark.parametrize("state", list(Connection), ids=str)
@pytest.mark.parametrize("happened", list(s.ConnectionInput), ids=str)
def test_a_connection_follows_its_table(state: Connection, happened: s.ConnectionInput) -> None:
    pair = connection_at(state)
    client = pair.client
    match happened:
        case s.ConnectionInput.OPENED:
            if state is Connection.CONNECTING:
                pair.shuttle()
        case s.ConnectionInput.CLOSE:
            client.close(now=0.0)
        case s.ConnectionInput.PEER_CLOSE:
            client.receive_data(b"\x88\x02\x03\xe8", 0.0)
        case s.ConnectionInput.END:
            client.receive_eof(0.0)
        case s.ConnectionInput.VIOLATION:
            client.receive_data(b"\xff\xff\xff\xff", 0.0)
        case s.ConnectionInput.TIMEOUT:
            client.handle_timeout(100.0)
            client.data_to_send(now=100.0)
            client.handle_timeout(200.0)
    pair.drain_client()
    following = s.CONNECTION.get((state, happened), state)
    if (state, happened) == (Connection.CONNECTING, s.ConnectionInput.PEER_CLOSE):
        following = Connection.CLOSED  # there are no frames yet: it is no HTTP, and a violation
    assert client.state is following


# --------------------------------------------------------------------------------------- transfers

TO_TRANSFER: dict[Transfer, list[TransferInput]] = {
    Transfer.QUEUED: [],
    Transfer.SENDING: [TransferInput.CHUNK],
    Transfer.SENT: [TransferInput.CHUNK, TransferInput.LAST_CHUNK],
    Transfer.ABORTING: [TransferInput.CHUNK, TransferInput.CANCEL],
    Transfer.ENDED: [TransferInput.CANCEL],
}


@pytest.mark.parametrize("state", list(Transfer), ids=str)
@pytest.mark.parametrize("happened", list(TransferInput), ids=str)
def test_an_upload_follows_its_table(state: Transfer, happened: TransferInput) -> None:
    upload = Upload(1, program(content(2 * CHUNK)), CHUNK)
    for step in TO_TRANSFER[state]:
        upload.happened(step)
    assert upload.state is state
    following = s.TRANSFER.get((state, happened))
    if following is None:
        with pytest.raises(AssertionError):
            upload.happened(happened)
    else:
        upload.happened(happened)
        assert upload.state is following


# --------------------------------------------------------------------------------------- instances

TO_INSTANCE: dict[Instance, list[InstanceInput]] = {
    Instance.UNATTACHED: [],
    Instance.ATTACHING: [InstanceInput.ATTACH],
    Instance.ATTACHED: [InstanceInput.LAUNCHED],
    Instance.TERMINATING: [InstanceInput.LAUNCHED, InstanceInput.TERMINATE],
    Instance.DISCARDED: [InstanceInput.LAUNCHED, InstanceInput.DISCARD],
    Instance.ENDED: [InstanceInput.LAUNCHED],
    Instance.TERMINATED: [InstanceInput.LAUNCHED, InstanceInput.TERMINATE],
}


@pytest.mark.parametrize("state", list(Instance), ids=str)
@pytest.mark.parametrize("happened", list(InstanceInput), ids=str)
def test_an_instance_follows_its_table(state: Instance, happened: InstanceInput) -> None:
    mailboxes = Mailboxes(DEFAULT_LIMITS)
    for step in TO_INSTANCE[state]:
        mailboxes.happened(A, step)
    if state in {Instance.ENDED, Instance.TERMINATED}:
        mailboxes.deliver(e.InstanceEvent(A, e.Event.Completed, ""))
    assert mailboxes.state(A) is state
    following = s.INSTANCE.get((state, happened))
    assert mailboxes.allows(A, happened) is (following is not None)
    if following is None:
        with pytest.raises(AssertionError):
            mailboxes.happened(A, happened)
    else:
        mailboxes.happened(A, happened)
        assert mailboxes.state(A) is following


def instance_at(state: Instance) -> Talk:
    talk = Talk()
    if state is Instance.ATTACHING:
        talk.ask(c.AttachInstance(A))
    elif state is not Instance.UNATTACHED:
        talk.launch(A)
    if state in {Instance.TERMINATING, Instance.TERMINATED}:
        talk.ask(c.TerminateInstance(A))
    if state is Instance.DISCARDED:
        talk.session.discard(A)
    if state in {Instance.ENDED, Instance.TERMINATED}:
        talk.happen(A, 1)
        talk.events()
    assert talk.session.instance_state(A) is state
    talk.sent()
    return talk


ASKED: dict[InstanceInput, list[c.Command]] = {
    InstanceInput.ATTACH: [c.AttachInstance(A)],
    InstanceInput.MESSAGE: [
        c.SendMessage(A, "x"),
        program(b"x"),
    ],
    InstanceInput.BLOB: [c.UploadBlob(instance_id=A, size=0, hash="0" * 64)],
    InstanceInput.TERMINATE: [c.TerminateInstance(A)],
}


@pytest.mark.parametrize("state", list(Instance), ids=str)
@pytest.mark.parametrize("happened", list(ASKED), ids=str)
def test_what_may_be_asked_of_an_instance_in_each_state(
    state: Instance, happened: InstanceInput
) -> None:
    for command in ASKED[happened]:
        talk = instance_at(state)
        following = s.INSTANCE.get((state, happened))
        if following is None and not isinstance(command, c.UploadProgram):
            with pytest.raises(LocalProtocolError, match=state.value):
                talk.session.send(command, 0.0)
            assert talk.sent() == []
            assert talk.session.instance_state(A) is state
        else:
            talk.session.send(command, 0.0)
            # The user cannot know of an end that is unread, so a message is dropped.
            dropped = state is Instance.ENDED and isinstance(command, c.SendMessage)
            assert len(talk.sent()) == (0 if dropped else 1)
            if not isinstance(command, c.UploadProgram):
                assert talk.session.instance_state(A) is following


def test_after_the_end_no_state_is_asked() -> None:
    pair = authenticated()
    pair.client.receive_eof(0.0)
    pair.drain_client()
    for command in (c.Identify("x"), c.SendMessage(A, "x"), c.AttachInstance("")):
        with pytest.raises(ConnectionLost):
            pair.client.send(command, 0.0)
