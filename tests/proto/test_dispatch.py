"""What drivers share: who is woken by what, and what the end means to each. No event loop here."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_5
from pie_proto.dispatch import Dispatcher, Exchange
from pie_proto.errors import (
    AuthenticationError,
    ConnectionLost,
    InstanceEnded,
    InstanceFailed,
    LocalProtocolError,
    RequestTimeout,
)
from pie_proto.events import Event
from pie_proto.instance_view import InstanceView, Refusal, arguments_of, input_of
from pie_proto.json_text import JSONValue
from pie_proto.keys import check_signer
from pie_proto.limits import Limits
from tests.proto.pair import A, Pair, authenticated, connected, content, program


class Bell:
    """A place to wait at, which counts."""

    def __init__(self) -> None:
        self.rung = 0

    def wake(self) -> None:
        self.rung += 1


class Desk:
    """A dispatcher on a connection of a pair, and all that it said."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.told: list[e.ServerNotice | e.UnknownMessage] = []
        self.changes = 0
        self.dispatcher = Dispatcher(
            pair.client, Bell, tell=self.told.append, changed=self._changed
        )

    def _changed(self) -> None:
        self.changes += 1

    def carry(self) -> None:
        """Carry bytes both ways, as a driver's tasks would."""
        for _ in range(1000):
            up = self.pair.client.data_to_send(now=self.pair.now)
            if up:
                self.dispatcher.written()
            else:
                self.dispatcher.ask_for_chunks()
            self.pair.server.receive_data(up, self.pair.now)
            self.pair.drain_server()
            down = self.pair.server.data_to_send(now=self.pair.now)
            if down:
                self.pair.client.receive_data(down, self.pair.now)
                self.dispatcher.pump()
            if not up and not down:
                return
        raise AssertionError("it never ends")

    def begin(self, command: c.Command, *, watched: bool = False) -> Exchange[Bell]:
        return self.dispatcher.begin(command, self.pair.now, watched=watched)

    def launch(self, *, detached: bool = False) -> InstanceView[Bell]:
        exchange = self.begin(c.LaunchFromRegistry(name="echo", detached=detached))
        self.carry()
        self.pair.server.answer(e.Launched(exchange.request_id, A, detached))
        self.carry()
        self.dispatcher.end(exchange, self.pair.now, given_up=False)
        return InstanceView(self.dispatcher, A, detached=detached)

    def emit(self, event: Event, data: str | bytes = "") -> None:
        self.pair.server.emit(e.InstanceEvent(A, event, data))
        self.carry()


@pytest.fixture
def desk() -> Desk:
    return Desk(authenticated())


def test_opening_is_told_once_to_who_waits_for_it() -> None:
    desk = Desk(Pair())
    assert not desk.dispatcher.is_open
    desk.carry()
    assert desk.dispatcher.is_open
    assert desk.dispatcher.opened.rung == 1


def test_an_answer_wakes_who_asked_and_nobody_else(desk: Desk) -> None:
    first, second = desk.begin(c.Ping()), desk.begin(c.Ping())
    desk.carry()
    desk.pair.server.answer(e.Pong(second.request_id))
    desk.carry()
    assert (first.woken.rung, second.woken.rung) == (0, 1)
    assert desk.dispatcher.result(second) == e.Pong(second.request_id)
    with pytest.raises(AssertionError):
        desk.dispatcher.result(first)


def test_a_command_that_nothing_answers_makes_no_exchange(desk: Desk) -> None:
    view = desk.launch()
    assert desk.dispatcher.submit(c.SendMessage(view.id, "hi"), 0.0) is None
    with pytest.raises(AssertionError, match="not answered"):
        desk.begin(c.SendMessage(view.id, "hi"))


def test_an_answer_that_nobody_waits_for_is_let_go(desk: Desk) -> None:
    request_id = desk.dispatcher.submit(c.Ping(), 0.0)
    assert request_id is not None
    desk.carry()
    desk.pair.server.answer(e.Pong(request_id))
    desk.carry()
    assert desk.told == []


def test_a_no_is_raised_as_what_it_means(desk: Desk) -> None:
    desk = Desk(connected())
    exchange = desk.begin(c.Identify("ada"))
    desk.carry()
    desk.pair.server.answer(e.Failed(exchange.request_id, exchange.command, "who?"))
    desk.carry()
    with pytest.raises(AuthenticationError, match="who"):
        desk.dispatcher.result(exchange)


def test_what_is_given_up_is_cancelled_and_its_answer_is_late(desk: Desk) -> None:
    exchange = desk.begin(c.Ping())
    desk.carry()
    desk.dispatcher.end(exchange, 0.0, given_up=True)
    desk.pair.server.answer(e.Pong(exchange.request_id))
    desk.carry()
    assert exchange.woken.rung == 0
    assert desk.pair.client.statistics().late_answers == 1


def test_an_instance_launched_for_somebody_who_has_gone_is_terminated(desk: Desk) -> None:
    exchange = desk.begin(c.LaunchFromRegistry(name="echo"))
    desk.carry()
    desk.pair.server.answer(e.Launched(exchange.request_id, A, False))
    desk.carry()
    desk.pair.asked()
    desk.dispatcher.end(exchange, 0.0, given_up=True)
    assert [request.command for request in desk.pair.asked() if isinstance(request, e.Request)] == [
        c.TerminateInstance(A)
    ]


def test_notices_and_unknown_messages_are_told_to_nobody_who_waits(desk: Desk) -> None:
    exchange = desk.begin(c.Ping())
    desk.carry()
    desk.pair.server.notify("going down at noon")
    desk.carry()
    assert desk.told == [e.ServerNotice("going down at noon")]
    assert exchange.woken.rung == 0


# ------------------------------------------------------------------------------------------ uploads


def test_the_pieces_of_an_upload_are_asked_for_and_its_progress_is_told(desk: Desk) -> None:
    data = content(600_000)
    command = c.UploadProgram(size=len(data), hash=c.hash_of(data))
    exchange = desk.begin(command, watched=True)
    assert exchange.size == 600_000
    told = []
    for _ in range(100):
        if (sent := desk.dispatcher.news(exchange)) is not None:
            told.append(sent)
        elif exchange.outcome is not None:
            break
        elif (wanted := exchange.wanted) is not None:
            desk.dispatcher.provide(exchange, data[wanted.offset : wanted.offset + wanted.length])
        else:
            before = exchange.woken.rung
            desk.carry()
            for request in desk.pair.asked():
                assert isinstance(request, e.Request)
                assert isinstance(request.command, c.UploadProgram)
                assert bytes(request.command.data or b"") == data
                desk.pair.server.answer(e.ProgramUploaded(exchange.request_id, command.hash))
                desk.carry()
            assert exchange.woken.rung > before, "nobody would have been woken"
    assert told == [0, 262_144, 524_288, 600_000]
    desk.dispatcher.end(exchange, 0.0, given_up=False)
    assert desk.dispatcher.result(exchange) == e.ProgramUploaded(exchange.request_id, command.hash)


def test_an_upload_that_was_refused_is_not_told_as_done(desk: Desk) -> None:
    exchange = desk.begin(program(content(10)), watched=True)
    desk.carry()
    assert desk.dispatcher.news(exchange) == 10
    assert desk.dispatcher.news(exchange) is None
    desk.pair.server.answer(e.Failed(exchange.request_id, exchange.command, "no"))
    desk.carry()
    assert desk.dispatcher.news(exchange) is None


def test_what_is_no_upload_has_no_size_and_no_news(desk: Desk) -> None:
    exchange = desk.begin(c.Ping())
    assert exchange.size == 0
    assert desk.dispatcher.news(exchange) is None


def test_room_is_told_when_what_was_too_much_has_left() -> None:
    desk = Desk(authenticated(limits=Limits(unsent_bytes=1000)))
    view = desk.launch()
    assert desk.dispatcher.has_room
    rung = desk.dispatcher.room.rung
    desk.dispatcher.submit(c.SendMessage(view.id, "x" * 2000), 0.0)
    assert not desk.dispatcher.has_room
    error = desk.dispatcher.no_room(c.Ping(), 1.5)
    assert isinstance(error, RequestTimeout)
    assert str(error).startswith("ping: the server at localhost took nothing for 1.5 s, and 20")
    desk.dispatcher.written()
    assert desk.dispatcher.room.rung == rung
    desk.carry()
    assert desk.dispatcher.has_room
    assert desk.dispatcher.room.rung > rung


# ---------------------------------------------------------------------------------------- instances


def test_whoever_waits_for_an_instance_is_woken_by_its_events(desk: Desk) -> None:
    view = desk.launch()
    waiting = desk.dispatcher.readable(view.id)
    assert desk.dispatcher.readable(view.id) is waiting
    assert view.take() is None
    desk.emit(Event.Stdout, "one")
    assert waiting.rung == 1
    assert view.take() == (Event.Stdout, "one")
    assert view.take() is None
    assert desk.dispatcher.readable(view.id) is not waiting


def test_reading_below_the_mark_lets_the_reader_go_on() -> None:
    desk = Desk(authenticated(limits=Limits(unread_bytes=1000, unread_low_bytes=500)))
    view = desk.launch()
    exchange = desk.begin(c.Ping())
    desk.carry()
    desk.pair.server.emit(e.InstanceEvent(A, Event.Stdout, "x" * 2000))
    desk.pair.server.answer(e.Pong(exchange.request_id))
    desk.carry()
    assert desk.pair.client.reading_paused
    assert exchange.outcome is None
    assert desk.dispatcher.to_read.rung == 0
    assert view.take() == (Event.Stdout, "x" * 2000)
    assert desk.dispatcher.to_read.rung == 1
    assert exchange.outcome == e.Pong(exchange.request_id), "what was held back is told"


def test_a_request_behind_unread_events_times_out_in_words() -> None:
    desk = Desk(
        authenticated(limits=Limits(unread_bytes=1000, unread_low_bytes=500, request_grace=1.0))
    )
    desk.launch()
    desk.emit(Event.Stdout, "x" * 2000)
    exchange = desk.begin(c.Ping())
    desk.pair.now = 2.0
    desk.pair.client.handle_timeout(2.0)
    desk.dispatcher.pump()
    with pytest.raises(RequestTimeout, match=A):
        desk.dispatcher.result(exchange)


@pytest.mark.parametrize(
    ("change", "refusal", "words"),
    [
        ("detached", Refusal.DETACHED, "launched detached"),
        ("receiving", Refusal.BUSY, "another task is reading"),
        ("discarded", Refusal.DISCARDED, "were discarded"),
    ],
)
def test_an_instance_says_why_it_cannot_be_read(
    change: str, refusal: Refusal, words: str, desk: Desk
) -> None:
    view = desk.launch()
    assert view.refusal() is None
    setattr(view, change, True)
    assert view.refusal() is refusal
    error = view.error(refusal)
    assert isinstance(error, LocalProtocolError)
    assert words in str(error)
    assert view.id in str(error)


def test_behind_the_end_an_instance_tells_how_it_ended(desk: Desk) -> None:
    view = desk.launch()
    with pytest.raises(AssertionError):
        view.result()
    desk.emit(Event.Completed, "42")
    # Its user cannot know of an end that is unread: a message is dropped, a blob is not.
    view.check_message()
    with pytest.raises(InstanceEnded, match="recv\\(\\) tells") as caught:
        view.check_blob()
    assert caught.value.event is None
    assert view.take() == (Event.Completed, "42")
    assert view.refusal() is Refusal.ENDED
    error = view.error(Refusal.ENDED)
    assert isinstance(error, InstanceEnded)
    assert (error.event, error.data) == (Event.Completed, "42")
    assert str(error) == f"instance {A} has ended: Completed: 42"
    assert view.result() == "42"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('{"answers": [42, 1.5, null, true]}', {"answers": [42, 1.5, None, True]}),
        ("5", 5),
        ('"quoted"', "quoted"),
        ("Hello", "Hello"),
        ("", ""),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        ("NaN", "NaN"),
        ('"\\ud800"', '"\\ud800"'),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5000, "9" * 5000),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_a_program_returned_is_read_where_programs_return_json(
    text: str, result: JSONValue
) -> None:
    desk = Desk(authenticated(dialect=PROCESS_0_5))
    view = desk.launch()
    desk.emit(Event.Completed, text)
    assert view.take() == (Event.Completed, text)
    assert view.result() == result
    assert type(view.result()) is type(result)


def test_what_a_program_returned_is_text_where_programs_return_text(desk: Desk) -> None:
    view = desk.launch()
    desk.emit(Event.Completed, '{"answer": 42}')
    view.take()
    assert view.result() == '{"answer": 42}'


def test_a_connection_tells_what_its_servers_do() -> None:
    assert authenticated().client.server is INSTANCE.capabilities
    assert authenticated(dialect=PROCESS_0_5).client.server is PROCESS_0_5.capabilities


def test_the_result_of_an_instance_that_did_not_complete_is_an_error(desk: Desk) -> None:
    view = desk.launch()
    desk.emit(Event.Aborted)
    view.take()
    with pytest.raises(InstanceFailed, match="did not complete: Aborted") as caught:
        view.result()
    assert (caught.value.event, caught.value.data) == (Event.Aborted, "")
    assert str(view.error(Refusal.ENDED)) == f"instance {A} has ended: Aborted"


def test_what_is_read_of_a_saved_blob_waits_until_it_is_saved(desk: Desk) -> None:
    view = desk.launch()
    desk.emit(Event.Blob, b"before")
    view.save_blobs()
    desk.emit(Event.Blob, b"after")
    desk.emit(Event.Message, "last")
    for expected in (b"before", b"after"):
        assert view.take() is None
        assert view.piece == expected
        assert view.take() is None, "nothing is given while a piece waits"
        view.piece = None
    assert view.take() == (Event.Message, "last")


def test_discarding_wakes_who_waits_and_gives_no_more(desk: Desk) -> None:
    view = desk.launch()
    waiting = desk.dispatcher.readable(view.id)
    desk.emit(Event.Stdout, "never read")
    view.discard()
    assert waiting.rung >= 1
    assert view.take() is None
    assert view.refusal() is Refusal.DISCARDED
    view.check_message()


def test_a_detached_instance_cannot_be_told_anything(desk: Desk) -> None:
    view = desk.launch(detached=True)
    assert repr(view) == f"<detached Instance {A}>"
    for check in (view.check_message, view.check_blob):
        with pytest.raises(LocalProtocolError, match="attach_instance"):
            check()


# ------------------------------------------------------------------------------------------ the end


def test_the_end_wakes_everyone_with_one_story_and_exceptions_of_their_own(desk: Desk) -> None:
    view = desk.launch()
    desk.emit(Event.Stdout, "before")
    first, second = desk.begin(c.Ping()), desk.begin(c.Ping())
    waiting = desk.dispatcher.readable(view.id)
    broken = OSError(32, "Broken pipe")
    desk.dispatcher.note_cause(broken)
    desk.dispatcher.note_cause(ValueError("a later one"))
    rung = desk.dispatcher.room.rung
    desk.dispatcher.receive_eof(0.0)
    assert (first.woken.rung, second.woken.rung, waiting.rung) == (1, 1, 1)
    assert desk.dispatcher.room.rung > rung
    assert desk.dispatcher.has_room, "nobody waits for what will never be"
    assert view.take() == (Event.Stdout, "before")
    errors = []
    for fails in (
        lambda: desk.dispatcher.result(first),
        lambda: desk.dispatcher.result(second),
        view.take,
        lambda: desk.dispatcher.submit(c.Ping(), 0.0),
    ):
        with pytest.raises(ConnectionLost, match="Broken pipe") as caught:
            fails()
        assert caught.value.__cause__ is broken
        errors.append(caught.value)
    assert len(set(map(id, errors))) == len(errors)
    view.check_message()  # what ended it is told by what is tried then


@pytest.mark.parametrize("first", ["the failed write", "the alert"])
def test_an_alert_of_tls_explains_the_end_before_a_write_that_failed(
    desk: Desk, first: str
) -> None:
    failed_write, alert = OSError(32, "Broken pipe"), RuntimeError("the stream is broken")
    alert.__cause__ = ssl.SSLError(1, "tlsv13 alert certificate required")
    causes: list[Exception] = [failed_write, alert]
    for cause in causes if first == "the failed write" else reversed(causes):
        desk.dispatcher.note_cause(cause)
    desk.dispatcher.receive_eof(0.0)
    error = desk.dispatcher.end_error()
    assert "the server requires a client certificate" in str(error)
    assert error.__cause__ is alert


def test_what_is_provided_or_given_up_after_the_end_is_ignored(desk: Desk) -> None:
    data = content(10)
    exchange = desk.begin(c.UploadProgram(size=10, hash=c.hash_of(data)))
    desk.carry()
    assert exchange.wanted is not None
    desk.dispatcher.finish(0.0)
    desk.dispatcher.provide(exchange, data)
    desk.dispatcher.end(exchange, 0.0, given_up=True)
    assert isinstance(exchange.outcome, e.ConnectionClosed)


def test_an_outcome_is_not_overwritten_by_the_end(desk: Desk) -> None:
    exchange = desk.begin(c.Ping())
    desk.carry()
    desk.pair.server.answer(e.Pong(exchange.request_id))
    desk.carry()
    desk.dispatcher.finish(0.0)
    assert desk.dispatcher.result(exchange) == e.Pong(exchange.request_id)


def test_closing_lets_the_reader_go_on_and_is_idempotent(desk: Desk) -> None:
    desk.dispatcher.close(0.0)
    assert desk.dispatcher.to_read.rung == 1
    desk.carry()
    desk.dispatcher.finish(0.0)
    desk.dispatcher.close(0.0)
    desk.dispatcher.finish(0.0)
    assert desk.dispatcher.to_read.rung == 1
    with pytest.raises(ConnectionLost, match="this side"):
        raise desk.dispatcher.end_error()


def test_before_the_end_there_is_no_story(desk: Desk) -> None:
    with pytest.raises(AssertionError):
        desk.dispatcher.end_error()


@pytest.mark.parametrize("broken", [True, False])
def test_a_fault_of_the_driver_at_the_end_leaves_nobody_waiting(
    broken: bool, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = desk.begin(c.Ping())
    if broken:
        desk.dispatcher.note_cause(OSError("torn"))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(desk.pair.client, "receive_eof", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        desk.dispatcher.finish(0.0)
    assert exchange.woken.rung == 1
    with pytest.raises(ConnectionLost, match="the network" if broken else "this side"):
        desk.dispatcher.result(exchange)


# ---------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("args", ["--prompt", 3, {"a"}])
def test_arguments_are_a_list(args: object) -> None:
    with pytest.raises(LocalProtocolError, match="list of strings"):
        arguments_of(args)  # type: ignore[arg-type]


def test_arguments_of_any_sequence_are_taken() -> None:
    assert arguments_of(["--prompt", "Hi"]) == ("--prompt", "Hi")
    assert arguments_of(()) == ()
    assert arguments_of(None) == ()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, None),
        ({}, "{}"),
        (MappingProxyType({"prompt": "Hi", "n": 3}), '{"prompt": "Hi", "n": 3}'),
        (
            {7: "a", True: "b", None: "c", 1.5: "d", "x": [{1: 2}, {"1": 3}]},
            '{"7": "a", "true": "b", "null": "c", "1.5": "d", "x": [{"1": 2}, {"1": 3}]}',
        ),
    ],
    ids=["none", "empty", "mapping", "other keys"],
)
def test_an_input_is_sent_as_json(given: Mapping[str, object] | None, text: str | None) -> None:
    assert input_of(given) == text


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('{"n": 1}', "an input is a mapping, not str"),
        ([("n", 1)], "an input is a mapping, not list"),
        ({"n": float("nan")}, "cannot be written as JSON: Out of range"),
        ({"n": b"1"}, "cannot be written as JSON: .*bytes"),
        ({("n",): 1}, "cannot be written as JSON: .*keys"),
        (nested(100_000), "cannot be written as JSON"),
        ({"n": "\ud800"}, "cannot be written as JSON: .*surrogates"),
        ({"\ud800": 1}, "cannot be written as JSON: .*surrogates"),
        ({float("inf"): 1}, "cannot be written as JSON: Out of range"),
        ({True: 1, "true": 2}, "the key 'true' is there twice"),
        ({None: 1, "null": 2}, "the key 'null' is there twice"),
        ({1: 1, "1": 2}, "the key '1' is there twice"),
        ({1.0: 1, "1.0": 2}, "the key '1.0' is there twice"),
        ({1e16: 1, "1e+16": 2}, "the key '1e\\+16' is there twice"),
        ({"a": {False: 1, "false": 2}}, "the key 'false' is there twice"),
        ({"a": [0, {10: 1, "10": 2}]}, "the key '10' is there twice"),
        ({"a": ({"b": ({10: 1, "10": 2},)},)}, "the key '10' is there twice"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "given",
)
def test_an_input_that_json_cannot_say_is_refused(given: object, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        input_of(given)  # type: ignore[arg-type]


def test_a_signer_is_what_has_sign() -> None:
    class Card:
        def sign(self, challenge: bytes) -> bytes:
            return challenge

    check_signer(None)
    check_signer(Card())
    with pytest.raises(LocalProtocolError, match="sign\\(challenge\\): str"):
        check_signer("~/.ssh/id_ed25519")  # type: ignore[arg-type]
