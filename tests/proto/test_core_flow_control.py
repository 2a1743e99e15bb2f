"""Flow control: reading pauses over the mark, and every way out of it works while it is paused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.errors import ConnectionLost, LocalProtocolError, RequestTimeout, error_for
from pie_proto.events import NEED_DATA
from pie_proto.limits import Limits
from pie_proto.states import ConnectionState, InstanceState
from tests.proto.pair import CHUNK, A, B, Pair, Talk, authenticated, content, only, program
from tests.proto.test_core_session import violation_of

# Ten events of 100 bytes each, 28 of them text.
SMALL = Limits(unread_bytes=1000, unread_low_bytes=500, event_cost_bytes=72)
TEXT = "x" * 28


def paused_talk(limits: Limits = SMALL) -> Talk:
    """A session paused by ten unread events of A, with five more received and not decoded."""
    talk = Talk(limits)
    talk.launch(A)
    for _ in range(15):
        talk.stdout(A, TEXT)
    assert talk.events() == [e.InstanceReadable(A)]
    assert talk.session.reading_paused
    return talk


def paused_pair() -> Pair:
    pair = authenticated(limits=SMALL)
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    for _ in range(15):
        pair.server.emit(e.InstanceEvent(A, e.Event.Stdout, TEXT))
    assert pair.told() == [e.InstanceReadable(A)]
    assert pair.client.reading_paused
    return pair


def test_reading_pauses_at_the_mark_and_decodes_no_further() -> None:
    talk = Talk(SMALL)
    talk.launch(A)
    for _ in range(9):
        talk.stdout(A, TEXT)
    assert talk.events() == [e.InstanceReadable(A)]
    assert not talk.session.reading_paused
    talk.stdout(A, TEXT)
    request_id = talk.ask(c.Ping())
    talk.respond(request_id, "Pong")
    assert talk.events() == []
    assert talk.session.reading_paused
    assert talk.session.statistics().unread_bytes == 1000
    assert talk.session.statistics().requests_pending == 1


def test_reading_resumes_at_the_low_mark_and_goes_on() -> None:
    talk = paused_talk()
    for left in (900, 800, 700, 600):
        talk.session.read_instance(A)
        assert talk.session.statistics().unread_bytes == left
        assert talk.session.reading_paused
        assert talk.session.next_event() is NEED_DATA
    talk.session.read_instance(A)
    assert not talk.session.reading_paused
    assert talk.events() == []
    assert talk.session.statistics().unread_bytes == 1000
    assert talk.session.reading_paused
    assert len(talk.session.read_instance_many(A, 100)) == 10
    assert not talk.session.reading_paused


def test_the_unread_events_of_all_instances_count_together() -> None:
    talk = Talk(SMALL)
    talk.launch(A)
    talk.launch(B)
    for _ in range(5):
        talk.stdout(A, TEXT)
        talk.stdout(B, TEXT)
    talk.events()
    assert talk.session.reading_paused
    talk.read(B)
    assert not talk.session.reading_paused


def test_empty_events_count_too() -> None:
    talk = Talk(Limits(unread_bytes=1280, unread_low_bytes=1))
    talk.launch(A)
    for _ in range(11):
        talk.stdout(A, "")
    talk.events()
    assert talk.session.reading_paused
    assert len(talk.session.read_instance_many(A, 100)) == 10


@pytest.mark.parametrize("way", ["discard", "terminate", "read", "close", "eof"])
def test_every_way_out_works_while_reading_is_paused(way: str) -> None:
    pair = paused_pair()
    client = pair.client
    ping = pair.ask(c.Ping())
    pair.asked()
    pair.server.answer(e.Pong(ping))
    assert pair.told() == []
    match way:
        case "discard":
            client.discard(A)
        case "terminate":
            pair.ask(c.TerminateInstance(A))
        case "read":
            client.read_instance_many(A, 100)
        case "close":
            client.close(now=0.0)
        case _:
            client.receive_eof(0.0)
    assert not client.reading_paused
    assert e.Pong(ping) in pair.told()


def test_what_was_read_is_told_after_the_end_as_well() -> None:
    pair = paused_pair()
    pair.client.receive_eof(0.0)
    assert isinstance(pair.told()[-1], e.ConnectionClosed)
    texts = [event.data for event in pair.client.read_instance_many(A, 100)]
    assert texts == [TEXT] * 15
    with pytest.raises(ConnectionLost):
        pair.client.read_instance_many(A, 100)


def test_reading_does_not_pause_again_once_the_input_is_complete() -> None:
    talk = paused_talk()
    talk.session.input_complete()
    assert not talk.session.reading_paused
    assert talk.events() == []
    assert len(talk.read(A)) == 15
    assert talk.session.next_deadline() is None


def test_terminating_an_ended_instance_makes_room_and_keeps_its_end() -> None:
    talk = Talk(SMALL)
    talk.launch(A)
    for _ in range(9):
        talk.stdout(A, TEXT)
    talk.happen(A, 1, TEXT)
    talk.events()
    assert talk.session.reading_paused
    talk.ask(c.TerminateInstance(A))
    assert not talk.session.reading_paused
    assert talk.read(A) == [("Completed", TEXT)]


def test_a_blob_being_put_together_does_not_pause_its_own_reading() -> None:
    talk = Talk(SMALL)
    talk.launch(A)
    data = content(5000)
    for n in range(10):
        talk.blob_chunk(A, data, n, 10, data[n * 500 : n * 500 + 500])
        assert not talk.session.reading_paused
    assert talk.events() == [e.InstanceReadable(A)]
    assert talk.session.reading_paused
    assert talk.read(A) == [("Blob", data)]


# ------------------------------------------------------------------------------------- the grace


def test_a_request_behind_unread_events_fails_after_the_grace_and_names_the_instance() -> None:
    talk = paused_talk()
    assert talk.session.next_deadline() is None
    talk.now = 5.0
    request_id = talk.ask(c.Ping())
    assert talk.session.next_deadline() == 10.0  # it may be early, never late
    talk.session.handle_timeout(10.0)
    assert talk.session.next_deadline() == 15.0
    talk.session.handle_timeout(14.9)
    assert talk.events() == []
    talk.session.handle_timeout(15.0)
    timed_out = only(talk.events())
    assert isinstance(timed_out, e.TimedOut)
    assert timed_out.request_id == request_id
    assert timed_out.command == c.Ping()
    assert A in timed_out.reason
    assert "1000 bytes" in timed_out.reason
    assert isinstance(error_for(timed_out), RequestTimeout)
    # Its answer is a late one.
    talk.respond(request_id, "Pong")
    talk.session.discard(A)
    assert talk.events() == []
    assert talk.session.statistics().late_answers == 1


def test_the_grace_begins_with_the_pause_for_requests_made_before_it() -> None:
    talk = Talk(replace(SMALL, request_timeout=None))
    talk.launch(A)
    talk.ask(c.Ping())
    talk.now = 100.0
    for _ in range(10):
        talk.stdout(A, TEXT)
    talk.events()
    assert talk.session.next_deadline() == 110.0
    talk.session.discard(A)
    assert talk.session.next_deadline() is None
    talk.session.handle_timeout(200.0)
    assert talk.events() == []


def test_the_grace_of_an_upload_begins_anew_with_each_chunk() -> None:
    talk = paused_talk()
    talk.ask(program(content(3 * CHUNK)))
    talk.now = 8.0
    talk.next_sent()
    talk.session.handle_timeout(17.9)
    assert talk.events() == []
    assert talk.session.next_deadline() == 18.0
    talk.now = 17.9
    talk.sent()
    talk.session.handle_timeout(27.8)
    assert talk.events() == []
    # All is sent: from here on it only waits for the answer.
    talk.session.handle_timeout(28.0)
    assert isinstance(only(talk.events()), e.TimedOut)


def test_a_launch_that_timed_out_is_undone_when_its_answer_is_read() -> None:
    talk = paused_talk()
    request_id = talk.ask(c.LaunchFromRegistry(name="echo"))
    talk.sent()
    talk.result("launch", request_id, B)
    talk.session.handle_timeout(10.0)
    assert isinstance(only(talk.events()), e.TimedOut)
    talk.session.discard(A)
    assert talk.events() == []
    assert only(talk.sent())["type"] == "terminate_instance"
    assert talk.session.instance_state(B) is InstanceState.DISCARDED


def test_a_second_authentication_that_times_out_closes_the_connection() -> None:
    pair = paused_pair()
    request_id = pair.ask(c.Identify("bob"))
    pair.client.handle_timeout(10.0)
    timed_out = pair.client.next_event()
    assert isinstance(timed_out, e.TimedOut)
    assert timed_out.request_id == request_id
    assert pair.client.state is ConnectionState.CLOSING


def test_the_grace_is_one_of_the_connections_deadlines() -> None:
    pair = paused_pair()
    assert pair.client.next_deadline() is None
    pair.ask(c.Ping())
    assert pair.client.next_deadline() == 10.0
    pair.client.handle_timeout(10.0)
    assert isinstance(only(pair.told()), e.TimedOut)
    assert pair.client.next_deadline() is None


# -------------------------------------------------------------------- the end, after unread events

COMMANDS = [
    c.Ping(),
    c.ListInstances(),
    c.TerminateInstance(B),
    c.LaunchFromRegistry(name="echo"),
    program(b"content"),
]


@pytest.mark.parametrize("end", ["Close", "EOF", "violation"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_the_end_reaches_every_request_however_much_is_unread(end: str, command: c.Command) -> None:
    pair = paused_pair()
    pair.ask(command)
    assert pair.client.wants_data
    if end == "Close":
        pair.server.close(1012, "restart", now=0.0)
        pair.client.receive_data(pair.server.data_to_send(now=0.0), 0.0)
    elif end == "violation":
        pair.client.receive_data(b"\xff\xff", 0.0)
    else:
        pair.client.receive_eof(0.0)
    told = pair.told()
    assert isinstance(told[-1], e.ConnectionClosed)
    assert (told[-1].code == 1012) == (end == "Close")
    # And nothing that came before it is lost.
    assert [event.data for event in pair.client.read_instance_many(A, 100)] == [TEXT] * 15


def test_what_is_received_ahead_is_bounded() -> None:
    pair = authenticated(limits=replace(SMALL, read_ahead_bytes=300))
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    for n in range(13):
        assert pair.client.wants_data, n
        pair.server.emit(e.InstanceEvent(A, e.Event.Stdout, TEXT))
        pair.told()
    assert not pair.client.wants_data
    # A part of a frame counts as well.
    pair.client.read_instance_many(A, 5)
    pair.told()
    assert pair.client.wants_data
    while not pair.client.reading_paused:
        pair.server.emit(e.InstanceEvent(A, e.Event.Stdout, TEXT))
        pair.told()
    pair.client.receive_data(b"\x82\x7e\xff\xff" + bytes(300), 0.0)
    assert pair.client.next_event() is NEED_DATA
    assert not pair.client.wants_data


def test_pings_are_answered_while_reading_is_paused() -> None:
    pair = paused_pair()
    pair.client.data_to_send(now=0.0)
    pair.client.receive_data(b"\x89\x02hi", 0.0)
    assert pair.client.next_event() is NEED_DATA
    assert pair.client.data_to_send(now=0.0)[0] == 0x8A


# --------------------------------------------------------------------------------------- writing


def test_writing_pauses_when_too_much_is_unsent() -> None:
    pair = authenticated(limits=Limits(unsent_bytes=1000))
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    pair.client.send(c.SendMessage(A, "x" * 900), 0.0)
    assert not pair.client.writing_paused
    pair.client.send(c.SendMessage(A, "x" * 900), 0.0)
    assert pair.client.writing_paused
    for command in (c.SendMessage(A, ""), c.Ping(), program(b"x")):
        with pytest.raises(LocalProtocolError, match="writing_paused"):
            pair.client.send(command, 0.0)
    # What makes room is taken.
    pair.ask(c.TerminateInstance(A))
    pair.shuttle()
    assert not pair.client.writing_paused
    pair.ask(c.Ping())


def test_messages_held_up_behind_a_blob_count_as_unsent_and_content_does_not() -> None:
    talk = Talk(Limits(unsent_bytes=1000))
    talk.launch(A)
    upload = talk.ask(c.UploadBlob(instance_id=A, size=10 * CHUNK, hash="0" * 64))
    assert not talk.session.writing_paused
    talk.session.send(c.SendMessage(A, "x" * 1000), 0.0)
    assert talk.session.writing_paused
    assert talk.sent() == []
    talk.session.cancel(upload, 0.0)
    assert len(talk.sent()) == 1
    assert not talk.session.writing_paused
    assert talk.session.statistics().unsent_bytes == 0


def test_requests_under_way_are_bounded() -> None:
    talk = Talk(Limits(pending_requests=3))
    talk.launch(A)
    ids = [talk.ask(c.LaunchFromRegistry(name="echo")) for _ in range(3)]
    with pytest.raises(LocalProtocolError, match="3 requests are under way"):
        talk.session.send(c.Ping(), 0.0)
    # A message makes no request; a launch given up still is one.
    talk.session.send(c.SendMessage(A, "x"), 0.0)
    talk.session.cancel(ids[0], 0.0)
    with pytest.raises(LocalProtocolError, match="3 requests are under way"):
        talk.session.send(c.Ping(), 0.0)
    talk.result("launch", ids[1], "no", ok=False)
    talk.events()
    talk.ask(c.Ping())


# ----------------------------------------------------------------------- what a server may pile up


def test_events_held_for_instances_not_yet_known_are_bounded() -> None:
    talk = Talk(Limits(held_bytes=1000))
    talk.ask(c.LaunchFromRegistry(name="echo"))
    talk.stdout(A, "x" * 500)
    assert talk.events() == []
    talk.stdout(B, "x" * 500)
    assert "1000 bytes of events" in violation_of(talk)


def test_what_was_held_no_longer_counts_once_it_is_delivered_or_dropped() -> None:
    talk = Talk(Limits(held_bytes=1000))
    for n in range(5):
        request_id = talk.ask(c.LaunchFromRegistry(name="echo"))
        talk.stdout(str(n), "x" * 400)
        talk.stdout("nobody", "x" * 300)
        talk.result("launch", request_id, str(n))
        assert talk.events()[0] == e.Launched(request_id, str(n), False)
        assert talk.read(str(n)) == [("Stdout", "x" * 400)]


def test_what_was_delivered_no_longer_counts_while_another_launch_is_unanswered() -> None:
    talk = Talk(Limits(held_bytes=1000))
    request_id = talk.ask(c.LaunchFromRegistry(name="echo"))
    for n in range(5):
        answered, request_id = request_id, talk.ask(c.LaunchFromRegistry(name="echo"))
        talk.stdout(str(n), "x" * 400)
        talk.result("launch", answered, str(n))
        assert talk.events()[0] == e.Launched(answered, str(n), False)
        assert talk.read(str(n)) == [("Stdout", "x" * 400)]


def test_one_blob_is_bounded() -> None:
    talk = Talk(Limits(blob_bytes=1000))
    talk.launch(A)
    data = content(1001)
    talk.blob_chunk(A, data, 0, 2, data[:1000])
    assert talk.events() == []
    talk.blob_chunk(A, data, 1, 2, data[1000:])
    assert "too large: expected 1000, got 1001" in violation_of(talk)


def test_all_blobs_being_put_together_are_bounded() -> None:
    talk = Talk(Limits(assembling_bytes=10_000))
    talk.launch(A)
    talk.blob_chunk(A, b"1", 0, 2, bytes(3000))
    talk.blob_chunk(A, b"2", 0, 2, bytes(2000))
    assert talk.events() == []
    talk.blob_chunk(A, b"2", 1, 2, bytes(2000))
    assert "10000 bytes together" in violation_of(talk)


def test_blobs_begun_with_nothing_are_bounded_too() -> None:
    talk = Talk(Limits(assembling_bytes=100_000))
    talk.launch(A)
    for n in range(100):
        talk.blob_chunk(A, n.to_bytes(2, "big"), 0, 2, b"")
    assert "100000 bytes together" in violation_of(talk)


def test_blobs_put_together_one_after_the_other_do_not_add_up() -> None:
    talk = Talk(Limits(assembling_bytes=10_000))
    talk.launch(A)
    for n in range(10):
        data = content(3000, n)
        talk.blob_chunk(A, data, 0, 2, data[:1500])
        talk.blob_chunk(A, data, 1, 2, data[1500:])
        talk.events()
        assert talk.read(A) == [("Blob", data)]


def test_the_names_of_instances_not_yet_known_count_too() -> None:
    talk = Talk(Limits(held_bytes=1000))
    talk.ask(c.LaunchFromRegistry(name="echo"))
    talk.stdout("x" * 1000, "")
    assert "1000 bytes of events" in violation_of(talk)
