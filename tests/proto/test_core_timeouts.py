"""Timeouts of requests: how long an answer may take, and how an upload may go without progress."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_5
from pie_proto.errors import LocalProtocolError, RequestTimeout, error_for
from pie_proto.limits import DEFAULT_TIMEOUT, Limits, timeout_of
from pie_proto.session import ClientSession
from pie_proto.states import InstanceState
from tests.proto.pair import CHUNK, A, B, Talk, authenticated, content, only, program, wire

LIMITS = Limits(request_timeout=6.0, launch_timeout=30.0)


def timed_out(talk: Talk) -> e.TimedOut:
    """The timeout that is the only thing that has happened."""
    event = only(talk.events())
    assert isinstance(event, e.TimedOut)
    return event


def times_out_at(talk: Talk, request_id: int, when: float) -> None:
    """Check that this request times out just at this time."""
    talk.session.handle_timeout(when - 0.01)
    assert talk.events() == []
    deadline = talk.session.next_deadline()
    assert deadline is not None
    assert deadline <= when
    talk.session.handle_timeout(when)
    assert timed_out(talk).request_id == request_id
    assert talk.session.next_deadline() is None


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        (c.Ping(), 6.0),
        (c.Query("model", ""), 6.0),
        (c.ProgramExists("0" * 64), 6.0),
        (c.ListInstances(), 6.0),
        (c.AttachInstance(A), 6.0),
        (c.TerminateInstance(A), 6.0),
        (c.LaunchInstance(hash="0" * 64), 30.0),
        (c.LaunchFromRegistry(name="echo"), 30.0),
        (c.LaunchServerInstance(hash="0" * 64, port=80), 30.0),
        (program(b"content"), 30.0),
        (c.Identify("ada"), 30.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_request_times_out_by_its_kind(command: c.Command, seconds: float) -> None:
    talk = Talk(LIMITS)
    talk.now = 10.0
    request_id = talk.ask(command)
    talk.sent()
    times_out_at(talk, request_id, 10.0 + seconds)


def test_the_defaults_are_a_minute_and_five() -> None:
    assert Limits().request_timeout == 60.0
    assert Limits().launch_timeout == 300.0


@pytest.mark.parametrize(
    "command", [c.Ping(), c.LaunchFromRegistry(name="echo"), program(b"content")]
)
def test_a_timeout_of_the_call_takes_the_place_of_the_default(command: c.Command) -> None:
    talk = Talk(LIMITS)
    request_id = talk.session.send(command, 0.0, timeout=2)
    assert request_id is not None
    talk.sent()
    times_out_at(talk, request_id, 2.0)


@pytest.mark.parametrize("timeout", [None, math.inf])
@pytest.mark.parametrize("command", [c.Ping(), program(content(3 * CHUNK))])
def test_without_a_bound_a_request_waits_for_ever(command: c.Command, timeout: Any) -> None:
    talk = Talk(LIMITS)
    talk.session.send(command, 0.0, timeout=timeout)
    assert talk.session.next_deadline() is None
    talk.next_sent()
    talk.session.handle_timeout(1e9)
    talk.sent()
    talk.session.handle_timeout(2e9)
    assert talk.events() == []


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "1", True, [3]])
def test_a_timeout_that_is_no_positive_number_is_rejected_and_nothing_is_sent(timeout: Any) -> None:
    talk = Talk(LIMITS)
    with pytest.raises(LocalProtocolError, match="timeout must be"):
        talk.session.send(c.Ping(), 0.0, timeout=timeout)
    assert talk.sent() == []
    with pytest.raises((ValueError, TypeError), match="timeout must be"):
        timeout_of(timeout)


def test_the_default_shows_its_name() -> None:
    assert repr(timeout_of(DEFAULT_TIMEOUT)) == "DEFAULT_TIMEOUT"


def test_the_error_says_what_was_asked_and_of_whom() -> None:
    pair = authenticated(limits=LIMITS)
    pair.ask(c.Query("modle_status", ""))
    pair.client.data_to_send(now=0.0)
    pair.client.handle_timeout(6.0)
    error = error_for(only(pair.told()))  # type: ignore[arg-type]
    assert isinstance(error, RequestTimeout)
    assert isinstance(error, TimeoutError)
    assert error.command == c.Query("modle_status", "")
    assert str(error) == (
        "query of 'modle_status': the server at localhost did not answer within 6 s (these servers "
        "never answer a query of a subject that they do not know; they know backend_stats, "
        "model_status)"
    )


@pytest.mark.parametrize(("dialect", "advice"), [(INSTANCE, True), (PROCESS_0_5, False)])
def test_only_of_servers_that_do_so_it_says_that_they_drop_queries(
    dialect: Dialect, advice: bool
) -> None:
    session = ClientSession(dialect=dialect, limits=LIMITS)
    session.send(c.Identify("ada"), 0.0)
    text = "Authenticated (Engine disabled authentication)"
    said = wire("response", corr_id=1, successful=True, ok=True, result=text)
    session.receive_message(said, 0.0)
    assert isinstance(session.next_event(), e.Authenticated)
    session.send(c.Query("x", ""), 0.0)
    session.message_to_send(0.0)
    session.handle_timeout(6.0)
    event = session.next_event()
    assert isinstance(event, e.TimedOut)
    assert ("never answer" in event.reason) == advice


def test_a_late_answer_is_dropped_and_the_next_request_gets_its_own() -> None:
    talk = Talk(LIMITS)
    first = talk.ask(c.Query("model", ""))
    talk.sent()
    talk.session.handle_timeout(6.0)
    assert timed_out(talk).request_id == first
    talk.now = 6.0
    second = talk.ask(c.Query("model", ""))
    talk.respond(first, "late")
    talk.respond(second, "in time")
    assert talk.events() == [e.QueryAnswered(second, "in time")]
    assert talk.session.statistics().late_answers == 1


def test_a_launch_that_timed_out_is_undone_when_it_succeeds_late() -> None:
    talk = Talk(LIMITS)
    request_id = talk.ask(c.LaunchFromRegistry(name="echo"))
    talk.sent()
    talk.session.handle_timeout(30.0)
    timed_out(talk)
    talk.result("launch", request_id, B)
    assert talk.events() == []
    assert only(talk.sent())["type"] == "terminate_instance"
    assert talk.session.instance_state(B) is InstanceState.DISCARDED


def test_a_request_after_a_launch_has_as_long_as_that_since_answers_come_in_order() -> None:
    talk = Talk(LIMITS)
    launch = talk.ask(c.LaunchFromRegistry(name="echo"))
    ping = talk.ask(c.Ping())
    talk.sent()
    talk.session.handle_timeout(29.0)
    assert talk.events() == []
    talk.result("launch", launch, A)
    talk.respond(ping, "Pong")
    talk.events()
    # Once that is answered, the next has its own time again.
    talk.now = 29.0
    request_id = talk.ask(c.Ping())
    talk.sent()
    times_out_at(talk, request_id, 35.0)


def test_a_launch_that_was_cancelled_counts_until_it_is_answered() -> None:
    talk = Talk(LIMITS)
    launch = talk.ask(c.LaunchFromRegistry(name="echo"))
    talk.sent()
    talk.session.cancel(launch, 0.0)
    ping = talk.ask(c.Ping())
    talk.sent()
    talk.session.handle_timeout(29.0)
    assert talk.events() == []
    talk.session.cancel(ping, 29.0)
    talk.result("launch", launch, "no", ok=False)
    assert talk.events() == []
    talk.now = 29.0
    times_out_at(talk, talk.ask(c.Ping()), 35.0)


def test_an_upload_is_bounded_by_lack_of_progress_and_then_by_its_answer() -> None:
    talk = Talk(LIMITS)
    request_id = talk.ask(program(content(20 * CHUNK)))
    for _ in range(19):
        talk.next_sent()
        talk.now += 5.0
        talk.session.handle_timeout(talk.now)
        assert talk.events() == []
    talk.next_sent()
    times_out_at(talk, request_id, talk.now + 30.0)


def test_an_upload_that_makes_no_progress_times_out_and_says_so() -> None:
    talk = Talk(LIMITS)
    request_id = talk.ask(program(content(3 * CHUNK)))
    talk.next_sent()
    talk.session.handle_timeout(5.9)
    assert talk.events() == []
    talk.session.handle_timeout(6.0)
    event = timed_out(talk)
    assert event.request_id == request_id
    assert event.reason == "the server took nothing of it for 6 s"
    # It has taken a part, so the server is told to drop it.
    assert only(talk.sent())["chunk_index"] == 2


def test_a_part_of_a_chunk_is_progress_on_a_slow_line() -> None:
    pair = authenticated(limits=replace(LIMITS, keepalive_interval=None))
    request_id = pair.ask(program(content(CHUNK)))
    now = 0.0
    while data := pair.client.data_to_send(16 * 1024, now=now):
        pair.client.handle_timeout(now)
        pair.server.receive_data(data, now)
        now += 5.0
    assert now > 60.0
    pair.client.handle_timeout(now + 24.9)
    assert pair.client.next_event() is e.NEED_DATA
    pair.client.handle_timeout(now + 30.0)
    event = pair.client.next_event()
    assert isinstance(event, e.TimedOut)
    assert event.request_id == request_id


def test_what_waits_for_an_upload_waits_as_long_as_that_makes_progress() -> None:
    talk = Talk(LIMITS)
    upload = program(content(20 * CHUNK))
    talk.ask(upload)
    launch = talk.ask(c.LaunchInstance(hash=upload.hash))
    for _ in range(20):
        talk.next_sent()
        talk.now += 5.0
        talk.session.handle_timeout(talk.now)
        assert talk.events() == []
    assert only(talk.sent())["type"] == "launch_instance"
    talk.session.handle_timeout(talk.now + 24.9)
    assert talk.events() == []
    talk.session.handle_timeout(talk.now + 30.0)
    assert launch in [event.request_id for event in talk.events() if isinstance(event, e.TimedOut)]


def test_a_request_blocked_by_unread_events_says_what_blocks_it() -> None:
    limits = Limits(unread_bytes=1000, unread_low_bytes=10, request_grace=100.0)
    talk = Talk(limits)
    talk.launch(A)
    talk.stdout(A, "x" * 1000)
    talk.events()
    talk.session.send(c.Ping(), 0.0, timeout=2.0)
    talk.sent()
    talk.session.handle_timeout(2.0)
    assert timed_out(talk).reason == (
        "the server did not answer within 2 s; instance "
        f"{A} has 1128 bytes of unread events, which block the connection; read, discard or "
        "terminate it"
    )


def test_nothing_times_out_once_the_connection_is_closing() -> None:
    talk = Talk(LIMITS)
    talk.ask(c.Ping())
    talk.session.close(0.0)
    assert talk.session.next_deadline() is None
    talk.session.handle_timeout(1000.0)
    assert talk.events() == []


def test_requests_answered_in_time_leave_nothing_to_look_at() -> None:
    talk = Talk(LIMITS)
    stuck = talk.ask(c.Query("model", ""))
    for n in range(2000):
        talk.now = n / 1000
        talk.respond(talk.ask(c.Ping()), "Pong")
        talk.sent()
        talk.events()
    # Entries of answered requests are not kept until their time, or they would pile up.
    assert len(talk.session._requests._deadlines) < 100
    times_out_at(talk, stuck, 6.0)
