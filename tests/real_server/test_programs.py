"""The programs that both kinds of server run, as sources, on the real one."""

from __future__ import annotations

import json

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.arguments import input_from
from pie_proto.events import Event
from tests.programs.table import PROGRAMS, Program
from tests.real_server.core_peer import CorePeer, upload

MIB = 1024 * 1024


def program(peer: CorePeer, name: str) -> Program:
    """A program of the table, uploaded."""
    upload(peer, PROGRAMS[name])
    return PROGRAMS[name]


def run(peer: CorePeer, name: str, *arguments: str) -> dict[Event, str]:
    return peer.run(program(peer, name), input_from(arguments))


def say(peer: CorePeer, instance_id: str, *messages: str) -> None:
    for message in messages:
        peer.send(c.SendMessage(instance_id, message))


def send_file(peer: CorePeer, instance_id: str, data: bytes) -> None:
    size, name = len(data), c.hash_of(data)
    peer.send(c.UploadBlob(instance_id=instance_id, size=size, hash=name, data=data))


def rest(peer: CorePeer, instance_id: str) -> list[tuple[str, str | bytes]]:
    return [(event.event.name, event.data) for event in peer.read_to_end(instance_id)]


def test_hello_prints_on_both_streams_and_returns(peer: CorePeer) -> None:
    assert run(peer, "hello") == {
        Event.Stdout: "hello from pie\n",
        Event.Stderr: "a warning\n",
        Event.Completed: "done",
    }


def test_echo_answers_until_it_is_told_to_stop(peer: CorePeer) -> None:
    instance_id = peer.launch(program(peer, "echo"))
    say(peer, instance_id, "one", "", "stop")
    assert rest(peer, instance_id) == [
        ("Message", "echo: one"),
        ("Message", "echo: "),
        ("Completed", "stopped"),
    ]


def test_conversation_does_a_bit_of_everything(peer: CorePeer) -> None:
    arguments = ["--name", "Ada", "--count", "3", "--flag"]
    instance_id = peer.launch(program(peer, "conversation"), input_from(arguments))
    said: dict[Event, list[str | bytes]] = {kind: [] for kind in Event}
    for event in peer.read_to_end(instance_id):
        said[event.event].append(event.data)
        if event.data == "ready":
            say(peer, instance_id, "hello")
        elif event.data == "you said: hello":
            send_file(peer, instance_id, b"a file")
    printed = "".join(map(str, said[Event.Stdout]))
    assert printed.splitlines() == [
        "hello from pie",
        *(f"argument: {argument}" for argument in arguments),
        *("tick 1", "tick 2", "tick 3"),
    ]
    assert "".join(map(str, said[Event.Stderr])) == "this goes to stderr\n"
    assert said[Event.Message] == ["ready", "you said: hello"]
    assert said[Event.Blob] == [b"a file"]
    assert said[Event.Completed] == ["goodbye"]


def test_an_exception_comes_with_its_type_and_its_traceback(peer: CorePeer) -> None:
    said = run(peer, "error")
    assert list(said) == [Event.Exception]
    assert said[Event.Exception].startswith("RuntimeError: it went wrong\n")

    said = run(peer, "value_error", "--text", "no such thing")
    first, *others = said[Event.Exception].splitlines()
    assert first == "ValueError: no such thing"
    assert any(line.strip().startswith("Traceback") for line in others)
    assert any("in refuse" in line for line in others)


def test_a_returned_text_comes_as_it_is(peer: CorePeer) -> None:
    assert run(peer, "return_value") == {Event.Completed: "forty-two"}
    assert run(peer, "give_back", "--value", "plain text") == {Event.Completed: "plain text"}


def test_nothing_returned_is_an_empty_text(peer: CorePeer) -> None:
    assert run(peer, "give_back") == {Event.Completed: ""}


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None], "b": {"ü": True}}, [1, "x"], 7, True])
def test_any_other_value_comes_as_json(peer: CorePeer, value: object) -> None:
    said = peer.run(program(peer, "give_back"), json.dumps({"value": value}))
    assert list(said) == [Event.Completed]
    assert json.loads(said[Event.Completed]) == value


def test_sleep_runs_until_it_is_terminated(peer: CorePeer) -> None:
    instance_id = peer.launch(program(peer, "sleep"))
    printed = ""
    while not printed.endswith("\n"):
        event = peer.next_event(instance_id)
        assert event.event is Event.Stdout
        printed += str(event.data)
    assert printed == "sleeping\n"
    peer.ask(c.TerminateInstance(instance_id), e.Terminated)
    assert rest(peer, instance_id) == [("Aborted", "Signal")]


def test_flood_writes_as_many_pieces_as_it_is_asked_for(peer: CorePeer) -> None:
    said = run(peer, "flood", "--count", "20")
    assert said[Event.Completed] == "flooded"
    pieces = said[Event.Stdout].splitlines(keepends=True)
    assert [int(piece[:16]) for piece in pieces] == list(range(20))
    assert {len(piece) for piece in pieces} == {65_536}


def test_no_line_of_many_is_lost(peer: CorePeer) -> None:
    # Two events for each, its text and its end, at some 8,000 a second.
    said = run(peer, "lines", "--count", "20000")
    assert said[Event.Completed] == "20000"
    assert said[Event.Stdout].splitlines() == [f"line {number}" for number in range(20_000)]


@pytest.mark.parametrize("sizes", [(1, 1000, 262_144, 262_145), (3 * MIB + 5,)])
def test_files_go_both_ways_until_one_is_empty(peer: CorePeer, sizes: tuple[int, ...]) -> None:
    instance_id = peer.launch(program(peer, "files"))
    for size in sizes:
        data = bytes(number % 251 for number in range(size))
        assert peer.next_event(instance_id).data == "ready"
        send_file(peer, instance_id, data)
        event = peer.next_event(instance_id)
        assert (event.event, event.data) == (Event.Blob, data)
    assert peer.next_event(instance_id).data == "ready"
    send_file(peer, instance_id, b"")
    assert rest(peer, instance_id) == [("Completed", "an empty blob came")]


def test_arguments_arrive_in_their_order(peer: CorePeer) -> None:
    arguments = ["--zebra", "a b", "--apple", "7", "--flag", "--list", "[1, 2]"]
    said = run(peer, "arguments", *arguments)
    assert said[Event.Stdout].splitlines() == arguments
    assert said[Event.Completed] == "--zebra"


def test_messages_come_back_in_order(peer: CorePeer) -> None:
    instance_id = peer.launch(program(peer, "parrot"))
    messages = [f"message {number}" for number in range(1000)]
    say(peer, instance_id, *messages, "stop")
    said = rest(peer, instance_id)
    assert said == [*(("Message", message) for message in messages), ("Completed", "1000")]


def test_a_message_of_four_mebibytes_comes_back(peer: CorePeer) -> None:
    instance_id = peer.launch(program(peer, "parrot"))
    message = "0123456789abcdef" * (4 * MIB // 16)
    say(peer, instance_id, message, "stop")
    assert rest(peer, instance_id) == [("Message", message), ("Completed", "1")]
