"""However the bytes are cut, cut off or spoiled: the same events, or one of the documented ends.

A whole conversation is recorded once, both ways, and replayed in pieces. After the handshake the
bytes towards a client depend on nothing, and those towards a server carry their own mask keys.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.connection import ClientConnection
from pie_proto.errors import ConnectFailed, ConnectionLost, LocalProtocolError, RemoteProtocolError
from pie_proto.events import NEED_DATA, ConnectionClosed, Event, InstanceEvent
from pie_proto.limits import Limits
from pie_proto.server import ServerConnection
from pie_proto.session import ClientSession
from pie_proto.states import ConnectionState
from tests.proto.pair import CHALLENGE, A, B, Pair, blob, connected, content, program
from tests.proto.websocket_wire import answer_101

# Small enough to pause in the middle of the conversation.
LIMITS = Limits(unread_bytes=700, unread_low_bytes=300)


class Recording(NamedTuple):
    to_client: bytes
    goodbye: bytes
    """The Close frame that the server sends after everything else has been read."""
    to_server: bytes
    """Behind the handshake."""
    opening: bytes
    """A client's opening request."""


def converse() -> Pair:
    """Some of everything, but for the end."""
    pair = connected()
    pair.to_client.clear()
    pair.to_server.clear()
    first = pair.ask(c.Identify("ada"))
    pair.asked()
    pair.server.answer(e.ChallengeReceived(first, CHALLENGE))
    pair.told()
    second = pair.ask(c.AnswerChallenge(b"signature"))
    pair.asked()
    pair.server.answer(e.Authenticated(second, e.Authentication.PROVED))
    pair.told()
    upload = program(content(700))
    pair.request(upload, e.ProgramUploaded, upload.hash)
    pair.request(c.LaunchInstance(hash=upload.hash, arguments=("a",)), e.Launched, A, False)
    pair.server.emit(InstanceEvent(A, Event.Stdout, "some text, "))
    pair.server.emit(InstanceEvent(A, Event.Stderr, "and more: ü"))
    pair.server.emit(InstanceEvent(A, Event.Blob, content(300)))
    pair.server.emit(InstanceEvent(A, Event.Message, "x" * 130))
    pair.client.send(c.SendMessage(A, "hello"), 0.0)
    pair.server.notify("going down")
    attach = pair.ask(c.AttachInstance(B))
    ping = pair.ask(c.Ping())
    pair.asked()
    pair.server.answer(e.Pong(ping))
    pair.server.answer(e.Attached(attach, B))
    pair.told()
    pair.request(blob(B, content(100)), e.BlobUploaded)
    info = e.InstanceInfo(id=B, arguments=("x", ""), status="Attached")
    pair.request(c.ListInstances(), e.InstancesListed, (info,))
    failing = pair.ask(c.Query("subject", "record"))
    pair.asked()
    pair.server.answer(e.Failed(failing, c.Query("subject", "record"), "no"))
    pair.server.emit(InstanceEvent(A, Event.Completed, "done"))
    pair.server.emit(InstanceEvent(B, Event.Exception, "trap"))
    pair.told()
    return pair


@cache
def recording() -> Recording:
    pair = converse()
    to_client = bytes(pair.to_client)
    pair.server.close(1001, "bye", now=0.0)
    pair.told()
    goodbye = bytes(pair.to_client)[len(to_client) :]
    opening = ClientConnection("h", now=0.0).data_to_send(now=0.0)
    return Recording(to_client, goodbye, bytes(pair.to_server), opening)


# ---------------------------------------------------------------------------------------- replaying


def unread(client: ClientConnection, instance_id: str) -> InstanceEvent | None:
    try:
        return client.read_instance(instance_id)
    except (ConnectionLost, RemoteProtocolError):
        return None


def replay_to_client(pieces: Iterable[bytes], *, eof: bool = True) -> list[object]:
    """What a client is told that asked the same, whatever it is sent. Raises whatever is a bug."""
    client = ClientConnection("h", now=0.0, limits=LIMITS)
    client.receive_data(answer_101(client.data_to_send(now=0.0)), 0.0)
    assert client.next_event() == e.Connected()
    script = iter(SCRIPT)
    told: list[object] = []
    client.send(next(script), 0.0)
    client.data_to_send(now=0.0)

    def drain() -> None:
        while True:
            event = client.next_event()
            if event is NEED_DATA:
                # Paused: read all that is unread, and go on.
                if not client.reading_paused:
                    return
                read()
                continue
            told.append(event)
            if isinstance(event, ConnectionClosed):
                return
            for command in itertools.islice(script, PACE.get(type(event), 0)):
                try:
                    client.send(command, 0.0)
                except LocalProtocolError:  # what was spoiled on the way says otherwise
                    told.append(command)
            client.data_to_send(now=0.0)

    def read() -> None:
        for instance_id in (A, B):
            told.extend(client.read_instance_many(instance_id, 1000))

    for piece in pieces:
        if client.state is ConnectionState.CLOSED:
            break
        client.receive_data(piece, 0.0)
        drain()
    if client.state is not ConnectionState.CLOSED:
        client.handle_timeout(1.0)
        if eof:
            client.receive_eof(0.0)
        drain()
    if client.state is ConnectionState.CLOSED:
        assert isinstance(told[-1], ConnectionClosed)
        ends: list[Callable[[], object]] = [client.next_event, lambda: client.send(c.Ping(), 0.0)]
        for call in ends:
            with pytest.raises((ConnectionLost, RemoteProtocolError)):
                call()
        for instance_id in (A, B):
            while client.statistics().unread_bytes and (event := unread(client, instance_id)):
                told.append(event)
    return told


SCRIPT: list[c.Command] = [
    c.Identify("ada"),
    c.AnswerChallenge(b"signature"),
    program(content(700)),
    c.LaunchInstance(hash=c.hash_of(content(700)), arguments=("a",)),
    c.SendMessage(A, "hello"),
    c.AttachInstance(B),
    c.Ping(),
    blob(B, content(100)),
    c.ListInstances(),
    c.Query("subject", "record"),
]

PACE: dict[type, int] = {
    e.ChallengeReceived: 1,
    e.Authenticated: 1,
    e.ProgramUploaded: 1,
    e.Launched: 3,
    e.Attached: 1,
    e.BlobUploaded: 1,
    e.InstancesListed: 1,
}
"""After which event how many more commands are sent."""


def replay_to_server(pieces: Iterable[bytes], *, eof: bool = True) -> list[object]:
    """What a server is asked that answers the same, whatever it is sent."""
    server = ServerConnection(now=0.0)
    server.receive_data(recording().opening, 0.0)
    assert isinstance(server.next_event(), e.HandshakeReceived)
    server.accept()
    asked: list[object] = []

    def drain() -> None:
        while (event := server.next_event()) is not NEED_DATA:
            asked.append(event)
            match event:
                case ConnectionClosed():
                    return
                case e.Request(int() as request_id, command):
                    server.answer(ANSWERS[type(command)](request_id, command))
                    server.data_to_send(now=0.0)

    for piece in pieces:
        if server.state is ConnectionState.CLOSED:
            break
        server.receive_data(piece, 0.0)
        drain()
    if server.state is not ConnectionState.CLOSED and eof:
        server.receive_eof(0.0)
        drain()
    if server.state is ConnectionState.CLOSED:
        assert isinstance(asked[-1], ConnectionClosed)
        with pytest.raises((ConnectionLost, RemoteProtocolError)):
            server.next_event()
    return asked


ANSWERS: dict[type, Callable[[int, c.Command], e.Outcome]] = {
    c.Identify: lambda n, _: e.ChallengeReceived(n, CHALLENGE) if n == 1 else _already(n),
    c.AnswerChallenge: lambda n, _: e.Authenticated(n, e.Authentication.PROVED),
    c.AuthenticateWithToken: lambda n, _: _already(n),
    c.UploadProgram: lambda n, command: e.ProgramUploaded(n, command.hash),  # type: ignore[union-attr]
    c.UploadBlob: lambda n, _: e.BlobUploaded(n),
    c.LaunchInstance: lambda n, command: e.Launched(n, A, command.detached),  # type: ignore[union-attr]
    c.LaunchFromRegistry: lambda n, command: e.Launched(n, A, command.detached),  # type: ignore[union-attr]
    c.AttachInstance: lambda n, command: e.Attached(n, command.instance_id),  # type: ignore[union-attr]
    c.Ping: lambda n, _: e.Pong(n),
    c.ListInstances: lambda n, _: e.InstancesListed(n, ()),
    c.Query: lambda n, command: e.Failed(n, command, "no"),
    c.ProgramExists: lambda n, _: e.ProgramExistsAnswered(n, False),
    c.TerminateInstance: lambda n, _: e.Terminated(n),
}


def _already(request_id: int) -> e.Outcome:
    return e.Authenticated(request_id, e.Authentication.ALREADY)


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    pieces: list[bytes] = []
    for size in itertools.chain(sizes, itertools.repeat(1 << 30)):
        if not data:
            return pieces
        pieces.append(data[:size])
        data = data[size:]
    raise AssertionError


def pieces(sizes: Iterable[int]) -> list[bytes]:
    """The recording for a client in pieces; the Close comes when all before it was read."""
    sizes = itertools.cycle(list(itertools.islice(sizes, 1000)) or [1 << 30])
    return cut(recording().to_client, sizes) + cut(recording().goodbye, sizes)


def whole_replay() -> tuple[list[object], dict[str, list[object]]]:
    """What a client is told that receives the recording in as few pieces as can be."""
    return comparable(replay_to_client([recording().to_client, recording().goodbye]))


def comparable(told: list[object]) -> tuple[list[object], dict[str, list[object]]]:
    """What was told in order; and apart, since when it is read is the reader's, by instance."""
    events = [event for event in told if not isinstance(event, InstanceEvent | e.InstanceReadable)]
    read = {
        instance_id: [
            event
            for event in told
            if isinstance(event, InstanceEvent) and event.instance_id == instance_id
        ]
        for instance_id in (A, B)
    }
    return events, read


# ------------------------------------------------------------------------------------------ splits


def test_the_recording_replays() -> None:
    events, read = whole_replay()
    assert [type(event).__name__ for event in events] == [
        "ChallengeReceived",
        "Authenticated",
        "ProgramUploaded",
        "Launched",
        "ServerNotice",
        "Pong",
        "Attached",
        "BlobUploaded",
        "InstancesListed",
        "Failed",
        "ConnectionClosed",
    ]
    names = [event.event.name for event in read[A] if isinstance(event, InstanceEvent)]
    assert names == ["Stdout", "Stderr", "Blob", "Message", "Completed"]
    asked = replay_to_server([recording().to_server])
    requests = [event.command for event in asked if isinstance(event, e.Request)]
    assert requests == SCRIPT
    assert isinstance(asked[-1], ConnectionClosed)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 400), max_size=40))
def test_however_bytes_are_cut_a_client_is_told_the_same(sizes: list[int]) -> None:
    whole = whole_replay()
    assert comparable(replay_to_client(pieces(sizes))) == whole


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 400), max_size=40))
def test_however_bytes_are_cut_a_server_is_asked_the_same(sizes: list[int]) -> None:
    whole = replay_to_server([recording().to_server])
    assert replay_to_server(cut(recording().to_server, sizes)) == whole


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_however_small_the_pieces_both_sides_say_and_hear_the_same(size: int) -> None:
    to_server = recording().to_server
    in_pieces = comparable(replay_to_client(pieces(itertools.repeat(size))))
    assert in_pieces == whole_replay()
    assert replay_to_server(cut(to_server, itertools.repeat(size))) == replay_to_server([to_server])


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 2000), min_size=1), st.integers(100, 5000))
def test_a_whole_conversation_does_not_depend_on_cuts_or_write_sizes(
    sizes: list[int], max_bytes: int
) -> None:
    pair = connected(cuts=itertools.cycle(sizes))
    identify = pair.ask(c.Identify("ada"))
    pair.shuttle(max_bytes)
    pair.server.answer(e.Authenticated(identify, e.Authentication.ASSERTED))
    pair.shuttle(max_bytes)
    upload = program(content(9000))
    launch = c.LaunchInstance(hash=upload.hash)
    ids = [pair.ask(command) for command in (upload, launch, c.Ping())]
    pair.shuttle(max_bytes)
    assert sorted(pair.server_events[1:], key=str) == sorted(
        map(e.Request, ids, (upload, launch, c.Ping())), key=str
    )


# --------------------------------------------------------------------------- cut off, and spoiled


def test_at_whatever_byte_the_line_ends_a_client_is_told_a_prefix_and_how_it_ended() -> None:
    data = recording().to_client
    whole, whole_read = whole_replay()
    for length in range(0, len(data), 3):
        told, read = comparable(replay_to_client([data[:length]]))
        assert told[:-1] == whole[: len(told) - 1]
        closed = told[-1]
        assert isinstance(closed, ConnectionClosed)
        assert closed.violation is None
        for instance_id in (A, B):
            assert read[instance_id] == whole_read[instance_id][: len(read[instance_id])]


def test_at_whatever_byte_the_line_ends_a_server_is_asked_a_prefix_and_told_how_it_ended() -> None:
    data = recording().to_server
    whole = replay_to_server([data])
    for length in range(0, len(data), 3):
        asked = replay_to_server([data[:length]])
        assert asked[:-1] == whole[: len(asked) - 1]
        closed = asked[-1]
        assert isinstance(closed, ConnectionClosed)
        assert closed.violation is None


def test_at_whatever_byte_the_opening_ends_no_connection_was_made() -> None:
    client = ClientConnection("h", now=0.0)
    answer = answer_101(client.data_to_send(now=0.0))
    for length in range(len(answer)):
        client = ClientConnection("h", now=0.0)
        client.receive_data(answer[:length], 0.0)
        client.receive_eof(0.0)
        closed = client.next_event()
        assert isinstance(closed, ConnectionClosed)
        assert not closed.opened
        with pytest.raises((ConnectFailed, RemoteProtocolError)):
            client.next_event()
        server = ServerConnection(now=0.0)
        server.receive_data(recording().opening[:length], 0.0)
        server.receive_eof(0.0)
        assert isinstance(server.next_event(), ConnectionClosed | e.HandshakeReceived)


def test_a_flipped_bit_ends_in_no_exception_but_the_documented() -> None:
    chance = random.Random(1)
    for data, replay in (
        (recording().to_client, replay_to_client),
        (recording().to_server, replay_to_server),
    ):
        for place in range(chance.randrange(3), len(data), 3):
            spoiled = bytearray(data)
            spoiled[place] ^= 1 << chance.randrange(8)
            told = replay([bytes(spoiled)])
            assert isinstance(told[-1], ConnectionClosed | InstanceEvent)


def test_garbage_ends_in_no_exception_but_the_documented() -> None:
    chance = random.Random(2)
    for data, replay in (
        (recording().to_client, replay_to_client),
        (recording().to_server, replay_to_server),
    ):
        for place in range(chance.randrange(11), len(data), 11):
            garbage = chance.randbytes(chance.randrange(1, 200))
            replay([data[:place] + garbage])
            replay([data[:place], garbage, data[place:]], eof=False)


def test_garbage_instead_of_a_handshake_ends_in_no_exception_but_the_documented() -> None:
    chance = random.Random(3)
    for n in range(300):
        client = ClientConnection("h", now=0.0)
        opening = recording().opening
        answer = answer_101(client.data_to_send(now=0.0))
        for connection, greeting in ((client, answer), (ServerConnection(now=0.0), opening)):
            spoiled = bytearray(greeting)
            for _ in range(n % 5 + 1):
                spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
            connection.receive_data(spoiled, 0.0)
            connection.receive_eof(0.0)
            while not isinstance(event := connection.next_event(), ConnectionClosed):
                assert isinstance(event, e.Connected | e.HandshakeReceived)
            with pytest.raises((ConnectFailed, ConnectionLost, RemoteProtocolError)):
                connection.next_event()


# ----------------------------------------------------------------------------- arbitrary messages

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=8)
names = st.sampled_from(
    [
        *("response", "challenge", "instance_launch_result", "instance_attach_result"),
        *("live_instances", "instance_event", "streaming_output", "download_blob", "server_event"),
        *("identification", "signature", "upload_program", "upload_blob", "query", "ping"),
    ]
)
fields = st.sampled_from(
    [
        *("corr_id", "successful", "result", "message", "challenge", "instances", "instance_id"),
        *("event", "output", "blob_hash", "chunk_index", "total_chunks", "chunk_data"),
        *("username", "signature", "program_hash", "subject", "record", "arguments"),
    ]
)
fitting = st.sampled_from([A, B, True, False, 0, 1, 2, 3, "true", {"Stdout": "x"}, ["a"]]) | values
messages = st.dictionaries(fields, fitting, max_size=10).flatmap(
    lambda body: names.map(lambda name: {**body, "type": name})
)


@settings(deadline=None, max_examples=150)
@given(st.lists(messages.map(msgpack.packb) | st.binary(max_size=60), max_size=8))
def test_whatever_a_server_says_a_client_session_ends_in_a_violation_or_goes_on(
    payloads: list[bytes],
) -> None:
    session = ClientSession(limits=LIMITS)
    session.send(c.Identify("ada"), 0.0)
    session.receive_message(
        msgpack.packb(
            {"type": "response", "corr_id": 1, "successful": True, "result": "Authenticated"}
        ),
        0.0,
    )
    session.next_event()
    session.send(c.LaunchFromRegistry(name="echo"), 0.0)
    session.send(c.ListInstances(), 0.0)
    for payload in payloads:
        session.receive_message(payload, 0.0)
    while (event := session.next_event()) is not NEED_DATA:
        if isinstance(event, ConnectionClosed):
            assert event.violation is not None
            with pytest.raises(RemoteProtocolError):
                session.next_event()
            break
    while session.message_to_send(0.0) is not None:
        pass
