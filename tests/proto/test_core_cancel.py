"""Cancelling: what it means to the server, command by command, and that buffers are let go of."""

from __future__ import annotations

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.errors import ConnectionLost, LocalProtocolError
from pie_proto.limits import Limits
from pie_proto.states import ConnectionState, InstanceState
from tests.proto.pair import (
    CHALLENGE,
    CHUNK,
    A,
    B,
    Talk,
    authenticated,
    blob,
    connected,
    content,
    only,
    program,
)
from tests.proto.test_core_uploads import shapes


def test_a_cancelled_request_is_answered_late() -> None:
    talk = Talk()
    request_id = talk.ask(c.Query("s", "r"))
    talk.session.cancel(request_id, 0.0)
    talk.session.cancel(request_id, 0.0)
    talk.session.cancel(99, 0.0)
    talk.respond(request_id, "too late")
    assert talk.events() == []
    assert talk.session.statistics().requests_pending == 0


def test_a_cancelled_launch_that_still_succeeds_is_terminated_and_its_events_are_dropped() -> None:
    talk = Talk()
    request_id = talk.ask(c.LaunchFromRegistry(name="echo"))
    talk.sent()
    talk.session.cancel(request_id, 0.0)
    talk.result("launch", request_id, A)
    talk.stdout(A, "unheard")
    assert talk.events() == []
    assert talk.session.instance_state(A) is InstanceState.DISCARDED
    assert talk.sent() == [
        {"type": "terminate_instance", "corr_id": request_id + 1, "instance_id": A}
    ]
    talk.respond(request_id + 1, "Instance terminated")
    talk.happen(A, 2, "Signal termination")
    assert talk.events() == []
    assert talk.session.instance_state(A) is InstanceState.UNATTACHED


def test_events_held_for_a_cancelled_launch_are_dropped_with_it() -> None:
    talk = Talk()
    request_id = talk.ask(c.LaunchFromRegistry(name="echo"))
    other = talk.ask(c.LaunchFromRegistry(name="echo"))
    talk.session.cancel(request_id, 0.0)
    talk.stdout(A, "early")
    talk.happen(A, 1, "already over")
    talk.result("launch", request_id, A)
    assert talk.events() == []
    assert talk.session.instance_state(A) is InstanceState.UNATTACHED
    assert talk.session.statistics().dropped_events == 1
    talk.result("launch", other, B)
    assert talk.events() == [e.Launched(other, B, False)]


def test_a_cancelled_launch_answered_with_an_id_that_cannot_be_said_breaks_the_protocol() -> None:
    talk = Talk()
    request_id = talk.ask(c.LaunchFromRegistry(name="echo"))
    talk.session.cancel(request_id, 0.0)
    talk.result("launch", request_id, "x" * (17 << 20))
    closed = only(talk.events())
    assert isinstance(closed, e.ConnectionClosed)
    assert "has 17825792 characters" in (closed.violation or "")


def test_a_cancelled_launch_of_a_detached_instance_is_left_alone() -> None:
    talk = Talk()
    request_id = talk.ask(c.LaunchInstance(hash="h", detached=True))
    talk.sent()
    talk.session.cancel(request_id, 0.0)
    talk.result("launch", request_id, A)
    assert talk.events() == []
    assert talk.sent() == []


def test_a_cancelled_launch_that_fails_is_over() -> None:
    talk = Talk()
    request_id = talk.ask(c.LaunchInstance(hash="h"))
    talk.sent()
    talk.session.cancel(request_id, 0.0)
    talk.result("launch", request_id, "no such program", ok=False)
    assert talk.events() == []
    assert talk.sent() == []


@pytest.mark.parametrize("ok", [True, False])
def test_a_cancelled_attach_is_discarded(ok: bool) -> None:
    talk = Talk()
    request_id = talk.ask(c.AttachInstance(A))
    talk.sent()
    talk.session.cancel(request_id, 0.0)
    assert talk.session.instance_state(A) is InstanceState.ATTACHING
    talk.stdout(A, "early")
    talk.result("attach", request_id, "whatever it says", ok=ok)
    talk.stdout(A, "unheard")
    assert talk.events() == []
    state = InstanceState.DISCARDED if ok else InstanceState.UNATTACHED
    assert talk.session.instance_state(A) is state
    assert talk.sent() == []
    assert talk.session.statistics().dropped_events == 2


def test_an_outcome_that_reached_nobody_is_undone() -> None:
    talk = Talk()
    talk.launch(A)
    talk.session.abandon(e.Launched(2, A, False), 0.0)
    assert only(talk.sent())["type"] == "terminate_instance"
    assert talk.session.instance_state(A) is InstanceState.DISCARDED
    attach = talk.ask(c.AttachInstance(B))
    talk.sent()
    talk.result("attach", attach, "Instance attached")
    talk.session.abandon(only(talk.events()), 0.0)  # type: ignore[arg-type]
    assert talk.session.instance_state(B) is InstanceState.DISCARDED
    talk.session.abandon(e.Launched(9, "detached", True), 0.0)
    talk.session.abandon(e.Pong(1), 0.0)
    assert talk.sent() == []


def test_a_challenge_that_reached_nobody_closes_the_connection() -> None:
    pair = connected()
    request_id = pair.ask(c.Identify("ada"))
    pair.asked()
    pair.server.answer(e.ChallengeReceived(request_id, CHALLENGE))
    challenge = only(pair.told())
    assert isinstance(challenge, e.ChallengeReceived)
    pair.client.abandon(challenge, 0.0)
    assert pair.client.state is ConnectionState.CLOSING


@pytest.mark.parametrize("step", ["identify", "answer", "token"])
def test_cancelling_an_authentication_closes_the_connection(step: str) -> None:
    pair = connected()
    if step == "token":
        request_id = pair.ask(c.AuthenticateWithToken("secret"))
    else:
        request_id = pair.ask(c.Identify("ada"))
    if step == "answer":
        pair.asked()
        pair.server.answer(e.ChallengeReceived(request_id, CHALLENGE))
        pair.told()
        request_id = pair.ask(c.AnswerChallenge(b"sig"))
    pair.client.cancel(request_id, 0.0)
    assert pair.client.state is ConnectionState.CLOSING
    with pytest.raises(ConnectionLost):
        pair.client.send(c.Identify("bob"), 0.0)
    assert isinstance(only(pair.told()), e.ConnectionClosed)


# ---------------------------------------------------------------------------------------- uploads


def test_a_queued_upload_is_forgotten() -> None:
    talk = Talk()
    first = talk.ask(program(content(CHUNK + 1)))
    second = talk.ask(program(content(CHUNK + 1, 1)))
    third = talk.ask(program(content(1, 2)))
    talk.session.cancel(second, 0.0)
    assert [n for _, n, _ in shapes(talk.sent())] == [first, first, third]


def test_an_upload_whose_turn_has_come_but_of_which_nothing_left_is_forgotten() -> None:
    talk = Talk()
    data = content(CHUNK + 1)
    first = talk.ask(program(data))
    launch = talk.ask(c.LaunchInstance(hash=c.hash_of(data)))
    second = talk.ask(program(b"x"))
    talk.session.cancel(first, 0.0)
    assert [n for _, n, _ in shapes(talk.sent())] == [launch, second]


def test_an_upload_in_the_middle_of_its_lane_is_forgotten() -> None:
    talk = Talk()
    talk.launch(A)
    first = talk.ask(blob(A, content(1)))
    second = talk.ask(blob(A, content(2)))
    third = talk.ask(blob(A, content(3)))
    talk.session.cancel(second, 0.0)
    assert [n for _, n, _ in shapes(talk.sent())] == [first, third]


def test_a_half_sent_program_is_aborted_by_one_chunk_and_the_slot_is_free_behind_it() -> None:
    talk = Talk()
    first = talk.ask(program(content(4 * CHUNK)))
    second = talk.ask(program(content(1, 1)))
    talk.next_sent()
    talk.next_sent()
    talk.session.cancel(first, 0.0)
    abort, chunk = talk.sent()
    assert abort["corr_id"] == first
    assert (abort["chunk_index"], abort["total_chunks"], abort["chunk_data"]) == (3, 4, b"")
    assert chunk["corr_id"] == second
    talk.respond(first, "Out-of-order chunk: expected 2, got 3", ok=False)
    talk.respond(second, "hash")
    assert talk.events() == [e.ProgramUploaded(second, c.hash_of(content(1, 1)))]


def test_a_half_sent_blob_is_aborted_and_its_slot_is_free_with_the_answer() -> None:
    talk = Talk()
    talk.launch(A)
    data = content(4 * CHUNK)
    first = talk.ask(blob(A, data))
    talk.next_sent()
    second = talk.ask(blob(A, data))
    talk.session.send(c.SendMessage(A, "behind both"), 0.0)
    talk.session.cancel(first, 0.0)
    assert shapes(talk.sent()) == [("upload_blob", first, 2)]
    talk.respond(first, "Out-of-order chunk: expected 1, got 2", ok=False)
    assert talk.events() == []
    assert [n for _, n, _ in shapes(talk.sent())] == [second] * 4 + [0]


def test_a_cancelled_blob_whose_instance_is_gone_leaves_a_slot_to_clear() -> None:
    talk = Talk()
    talk.launch(A)
    talk.launch(B)
    data = content(2 * CHUNK)
    first = talk.ask(blob(A, data))
    talk.next_sent()
    talk.session.cancel(first, 0.0)
    second = talk.ask(blob(B, data))
    assert shapes(talk.sent()) == [("upload_blob", first, 2)]
    talk.respond(first, f"Instance not owned by client: {A}", ok=False)
    talk.events()
    assert shapes(talk.sent()) == [
        ("upload_blob", first, 2),
        ("upload_blob", second, 0),
        ("upload_blob", second, 1),
    ]


@pytest.mark.parametrize("kind", ["program", "blob"])
def test_a_fully_sent_upload_needs_no_abort(kind: str) -> None:
    talk = Talk()
    talk.launch(A)
    data = content(CHUNK + 1)
    command = program(data) if kind == "program" else blob(A, data)
    first = talk.ask(command)
    talk.sent()
    talk.session.cancel(first, 0.0)
    assert talk.sent() == []
    second = talk.ask(command)
    if kind == "blob":
        assert talk.sent() == []
    talk.respond(first, "whatever")
    assert talk.events() == []
    assert [n for _, n, _ in shapes(talk.sent())] == [second, second]


def test_on_a_real_server_session_the_next_upload_succeeds_after_a_cancelled_one() -> None:
    for chunks in range(5):
        pair = authenticated()
        pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
        data = content(4 * CHUNK)
        for command, outcome in (
            (program(data), (e.ProgramUploaded, c.hash_of(data))),
            (blob(A, data), (e.BlobUploaded,)),
        ):
            request_id = pair.ask(command)
            while (pair.client.upload_progress(request_id) or 0) < chunks * CHUNK:
                pair.server.receive_data(pair.client.data_to_send(now=0.0), 0.0)
            pair.client.cancel(request_id, 0.0)
            asked = pair.asked()
            if chunks == 4:
                assert asked == [e.Request(request_id, command)]
                pair.server.answer(outcome[0](request_id, *outcome[1:]))
            assert pair.told() == []
            assert isinstance(pair.request(command, *outcome), outcome[0])


def test_a_cancelled_launch_is_not_sent_late_forever_but_stays_in_its_lane() -> None:
    talk = Talk()
    data = content(2 * CHUNK)
    upload = talk.ask(program(data))
    launch = talk.ask(c.LaunchInstance(hash=c.hash_of(data)))
    talk.session.cancel(launch, 0.0)
    assert [n for _, n, _ in shapes(talk.sent())] == [upload, upload, launch]


# ------------------------------------------------------------------------- the caller's own buffer


@pytest.mark.parametrize("sent_bytes", [0, 100, 70_000, 300_000, 3 * CHUNK])
@pytest.mark.parametrize("wrap", [bytearray, memoryview])
@pytest.mark.parametrize("way", ["cancel", "close", "violation", "eof"])
def test_the_callers_buffer_is_let_go_of(way: str, wrap: type, sent_bytes: int) -> None:
    pair = authenticated()
    buffer = bytearray(content(2 * CHUNK + 100))
    given = wrap(buffer) if wrap is memoryview else buffer
    request_id = pair.ask(c.UploadProgram(size=len(buffer), hash="0" * 64, data=given))
    handed_out = b""
    while len(handed_out) < sent_bytes and (
        data := pair.client.data_to_send(sent_bytes - len(handed_out), now=0.0)
    ):
        handed_out += data
    if sent_bytes < len(buffer):
        with pytest.raises(BufferError):
            _grow(buffer)
    if way == "cancel":
        pair.client.cancel(request_id, 0.0)
    elif way == "close":
        pair.client.close(now=0.0)
    elif way == "violation":
        pair.client.receive_data(b"\xff\xff", 0.0)
        pair.drain_client()
    else:
        pair.client.receive_eof(0.0)
        pair.drain_client()
    if wrap is memoryview:
        given.release()
    _grow(buffer)
    # The frame begun is finished all the same.
    pair.server.receive_data(handed_out, 0.0)
    pair.shuttle()
    pair.drain_server()
    assert not any(getattr(event, "violation", None) for event in pair.server_events)


def test_a_buffer_given_piece_by_piece_is_let_go_of() -> None:
    pair = authenticated()
    buffer = bytearray(CHUNK)
    request_id = pair.ask(c.UploadProgram(size=2 * CHUNK, hash="0" * 64))
    pair.client.provide_chunk(request_id, buffer)
    pair.client.cancel(request_id, 0.0)
    _grow(buffer)
    request_id = pair.ask(c.UploadProgram(size=2 * CHUNK, hash="0" * 64))
    pair.client.provide_chunk(request_id, buffer[:CHUNK])
    pair.client.data_to_send(1000, now=0.0)
    pair.client.cancel(request_id, 0.0)
    _grow(buffer)
    pair.shuttle()


def test_a_request_that_times_out_lets_go_of_its_buffer() -> None:
    pair = authenticated(limits=Limits(unread_bytes=1000, unread_low_bytes=100))
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    pair.server.emit(e.InstanceEvent(A, e.Event.Stdout, "x" * 1000))
    pair.told()
    buffer = bytearray(content(2 * CHUNK))
    request_id = pair.ask(program(buffer))
    pair.client.data_to_send(1000, now=0.0)
    pair.client.handle_timeout(11.0)
    assert isinstance(pair.client.next_event(), e.TimedOut)
    _grow(buffer)
    with pytest.raises(LocalProtocolError):
        pair.client.provide_chunk(request_id + 1, b"")


def _grow(buffer: bytearray) -> None:
    buffer.append(0)
