"""Uploads: how content is cut, what waits behind it, what overtakes it, who may have the slot."""

from __future__ import annotations

from itertools import repeat

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.errors import LocalProtocolError
from pie_proto.transfers import ChunkWanted
from tests.proto.pair import CHUNK, A, B, Message, Talk, authenticated, blob, content, only, program

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * 1024 * 1024 + 17]
MIB = 1024 * 1024


def shape(message: Message) -> tuple[str, int, int]:
    """What a message is, in short: its type, its request, and which chunk it carries."""
    return message["type"], message.get("corr_id", 0), message.get("chunk_index", -1)


def shapes(messages: list[Message]) -> list[tuple[str, int, int]]:
    return [shape(message) for message in messages]


# ---------------------------------------------------------------------------------------- the cut


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["program", "blob"])
def test_content_of_any_size_arrives_whole(size: int, kind: str) -> None:
    pair = authenticated()
    data = content(size)
    command: c.UploadCommand = program(data)
    outcome: e.Outcome = e.ProgramUploaded(3, command.hash)
    if kind == "blob":
        command, outcome = blob(A, data), e.BlobUploaded(3)
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    request_id = pair.ask(command)
    request = only(pair.asked())
    assert isinstance(request, e.Request)
    assert isinstance(request.command, c.UploadProgram | c.UploadBlob)
    assert request == e.Request(request_id, command)
    assert request.command.data == data
    pair.server.answer(outcome)
    assert pair.told() == [outcome]


@pytest.mark.parametrize("size", SIZES)
def test_chunks_are_as_the_protocol_says(size: int) -> None:
    talk = Talk()
    data = content(size)
    request_id = talk.ask(program(data))
    chunks = talk.sent()
    assert b"".join(chunk["chunk_data"] for chunk in chunks) == data
    assert [chunk["chunk_index"] for chunk in chunks] == list(range(max(1, -(-size // CHUNK))))
    for chunk in chunks:
        assert len(chunk["chunk_data"]) <= CHUNK
        assert {**chunk, "chunk_index": 0, "chunk_data": b""} == {
            "type": "upload_program",
            "corr_id": request_id,
            "program_hash": c.hash_of(data),
            "chunk_index": 0,
            "total_chunks": len(chunks),
            "chunk_data": b"",
        }


def test_content_may_be_any_contiguous_buffer() -> None:
    data = content(CHUNK + 8)
    for buffer in (bytearray(data), memoryview(data), memoryview(data).cast("I")):
        talk = Talk()
        talk.ask(program(buffer))
        assert b"".join(chunk["chunk_data"] for chunk in talk.sent()) == data


def test_content_can_be_given_piece_by_piece() -> None:
    talk = Talk()
    data = content(CHUNK + 10)
    request_id = talk.ask(c.UploadProgram(size=len(data), hash=c.hash_of(data)))
    assert talk.sent() == []
    assert not talk.session.has_message_to_send
    assert talk.session.upload_progress(request_id) == 0
    sent = b""
    for offset, length in ((0, CHUNK), (CHUNK, 10)):
        assert talk.session.chunks_wanted() == (ChunkWanted(request_id, offset, length),)
        talk.session.provide_chunk(request_id, memoryview(data)[offset : offset + length])
        assert talk.session.chunks_wanted() == ()
        assert talk.session.has_message_to_send
        sent += only(talk.sent())["chunk_data"]
        assert talk.session.upload_progress(request_id) == len(sent)
    assert sent == data
    assert talk.session.chunks_wanted() == ()
    talk.respond(request_id, c.hash_of(data))
    assert talk.events() == [e.ProgramUploaded(request_id, c.hash_of(data))]
    assert talk.session.upload_progress(request_id) is None


def test_empty_content_needs_no_piece() -> None:
    talk = Talk()
    talk.ask(c.UploadProgram(size=0, hash=c.hash_of(b"")))
    assert talk.session.chunks_wanted() == ()
    assert only(talk.sent())["chunk_data"] == b""


def test_a_piece_must_be_wanted_and_fit() -> None:
    talk = Talk()
    request_id = talk.ask(c.UploadProgram(size=10, hash="0" * 64))
    ping = talk.ask(c.Ping())
    for given in (b"123456789", b"12345678901", b""):
        with pytest.raises(LocalProtocolError, match="wants 10 bytes from 0"):
            talk.session.provide_chunk(request_id, given)
    for thing in (None, "1234567890", memoryview(bytes(20))[::2]):
        with pytest.raises(LocalProtocolError, match="a chunk must be"):
            talk.session.provide_chunk(request_id, thing)  # type: ignore[arg-type]
    for other in (ping, 99, 0, -1):
        with pytest.raises(LocalProtocolError, match="wants no chunk"):
            talk.session.provide_chunk(other, b"1234567890")
    talk.session.provide_chunk(request_id, b"1234567890")
    with pytest.raises(LocalProtocolError, match="wants no chunk"):
        talk.session.provide_chunk(request_id, b"1234567890")
    talk.sent()
    with pytest.raises(LocalProtocolError, match="wants no chunk"):
        talk.session.provide_chunk(request_id, b"1234567890")
    # One that is over no longer cares.
    talk.respond(request_id, "no", ok=False)
    talk.events()
    talk.session.provide_chunk(request_id, b"1234567890")


def test_no_more_than_four_pieces_are_asked_for_at_a_time() -> None:
    talk = Talk()
    for n in range(6):
        talk.launch(str(n))
        talk.ask(c.UploadBlob(instance_id=str(n), size=10, hash=f"{n:064x}"))
    wanted = talk.session.chunks_wanted()
    assert len(wanted) == 4
    seen = set()
    for _ in range(6):
        for want in talk.session.chunks_wanted():
            talk.session.provide_chunk(want.request_id, bytes(want.length))
        seen |= {message["instance_id"] for message in talk.sent()}
    assert seen == {str(n) for n in range(6)}


def test_an_upload_beyond_the_servers_numbers_is_refused() -> None:
    talk = Talk()
    most = CHUNK * 0xFFFF_FFFF
    talk.ask(c.UploadProgram(size=most, hash="0" * 64))
    with pytest.raises(LocalProtocolError, match=f"has {most + 1} bytes; the server takes {most}"):
        talk.session.send(c.UploadProgram(size=most + 1, hash="0" * 64), 0.0)


# ------------------------------------------------------------------------------- who overtakes whom


def test_a_ping_passes_an_upload_between_two_chunks() -> None:
    talk = Talk()
    upload = talk.ask(program(content(3 * CHUNK)))
    assert shape(talk.next_sent() or {}) == ("upload_program", upload, 0)
    ping = talk.ask(c.Ping())
    assert shape(talk.next_sent() or {}) == ("ping", ping, -1)
    assert shapes(talk.sent()) == [("upload_program", upload, 1), ("upload_program", upload, 2)]


def test_on_the_wire_too_a_ping_waits_for_one_chunk_at_most() -> None:
    pair = authenticated()
    pair.ask(program(content(8 * CHUNK)))
    first = pair.client.data_to_send(now=0.0)
    ping = pair.ask(c.Ping())
    sent = 0
    pair.server.receive_data(first, 0.0)
    while e.Request(ping, c.Ping()) not in pair.server_events:
        data = pair.client.data_to_send(now=0.0)
        sent += len(data)
        pair.server.receive_data(data, 0.0)
        pair.drain_server()
    assert sent <= CHUNK + 64 * 1024


def test_uploads_share_the_line_chunk_by_chunk() -> None:
    talk = Talk()
    talk.launch(A)
    one = talk.ask(program(content(3 * CHUNK)))
    two = talk.ask(blob(A, content(2 * CHUNK, 7)))
    three = talk.ask(blob(A, content(1 * CHUNK, 8)))
    assert [(n, index) for _, n, index in shapes(talk.sent())] == [
        (one, 0),
        (two, 0),
        (one, 1),
        (two, 1),
        (one, 2),
        (three, 0),
    ]


def test_a_launch_waits_behind_the_upload_of_its_program_and_no_other() -> None:
    talk = Talk()
    data = content(2 * CHUNK)
    upload = talk.ask(program(data))
    launch = talk.ask(c.LaunchInstance(hash=c.hash_of(data)))
    other = talk.ask(c.LaunchInstance(hash="0" * 64))
    named = talk.ask(c.LaunchFromRegistry(name="echo"))
    exists = talk.ask(c.ProgramExists(c.hash_of(data)))
    assert shapes(talk.sent()) == [
        ("launch_instance", other, -1),
        ("launch_instance_from_registry", named, -1),
        ("query", exists, -1),
        ("upload_program", upload, 0),
        ("upload_program", upload, 1),
        ("launch_instance", launch, -1),
    ]


def test_a_message_waits_behind_a_blob_of_its_instance_and_no_other() -> None:
    talk = Talk()
    talk.launch(A)
    talk.launch(B)
    upload = talk.ask(blob(A, content(2 * CHUNK)))
    for instance_id in (A, B):
        talk.session.send(c.SendMessage(instance_id, "behind"), 0.0)
    stop = talk.ask(c.TerminateInstance(A))
    order = [(message["type"], message.get("instance_id")) for message in talk.sent()]
    assert order == [
        ("signal_instance", B),
        ("terminate_instance", A),
        ("upload_blob", A),
        ("upload_blob", A),
        ("signal_instance", A),
    ]
    assert (upload, stop) != (0, 0)


def test_messages_and_blobs_of_one_instance_keep_their_order() -> None:
    talk = Talk()
    talk.launch(A)
    for n in range(3):
        talk.session.send(c.SendMessage(A, f"before {n}"), 0.0)
        talk.ask(blob(A, content(CHUNK + 1, n)))
    talk.session.send(c.SendMessage(A, "last"), 0.0)
    order = [message.get("message") or message["chunk_index"] for message in talk.sent()]
    assert order == ["before 0", 0, 1, "before 1", 0, 1, "before 2", 0, 1, "last"]


# -------------------------------------------------------------------------------------- the slots


def test_programs_are_uploaded_one_after_the_other() -> None:
    talk = Talk()
    ids = [talk.ask(program(content(2 * CHUNK, n))) for n in range(3)]
    assert [(n, index) for _, n, index in shapes(talk.sent())] == [
        (n, index) for n in ids for index in (0, 1)
    ]


def test_the_second_program_waits_until_the_firsts_pieces_are_given() -> None:
    talk = Talk()
    first = talk.ask(c.UploadProgram(size=10, hash="1" * 64))
    second = talk.ask(program(b"second"))
    assert talk.sent() == []
    talk.session.provide_chunk(first, bytes(10))
    assert [message["corr_id"] for message in talk.sent()] == [first, second]


@pytest.mark.parametrize("instances", [(A, A), (A, B)])
def test_the_same_blob_twice_at_once_goes_one_after_the_answer_to_the_other(
    instances: tuple[str, str],
) -> None:
    talk = Talk()
    for instance_id in set(instances):
        talk.launch(instance_id)
    data = content(CHUNK + 1)
    first, second = (talk.ask(blob(instance_id, data)) for instance_id in instances)
    talk.session.send(c.SendMessage(instances[1], "behind"), 0.0)
    assert [n for _, n, _ in shapes(talk.sent())] == [first, first]
    talk.respond(first, "Blob sent to instance")
    assert talk.events() == [e.BlobUploaded(first)]
    assert shapes(talk.sent()) == [
        ("upload_blob", second, 0),
        ("upload_blob", second, 1),
        ("signal_instance", 0, -1),
    ]


def test_different_blobs_go_side_by_side() -> None:
    talk = Talk()
    talk.launch(A)
    talk.launch(B)
    first = talk.ask(blob(A, content(2 * CHUNK)))
    second = talk.ask(blob(B, content(2 * CHUNK, 1)))
    assert [n for _, n, _ in shapes(talk.sent())] == [first, second, first, second]


def test_an_upload_refused_half_way_stops_and_lets_the_next_go() -> None:
    talk = Talk()
    first = talk.ask(program(content(3 * CHUNK)))
    second = talk.ask(program(content(1, 1)))
    talk.next_sent()
    talk.respond(first, "Chunk size 1 exceeds limit 0", ok=False)
    assert isinstance(only(talk.events()), e.Failed)
    assert shapes(talk.sent()) == [("upload_program", second, 0)]
    # The chunk that was under way is refused too, late.
    talk.respond(first, "First chunk index must be 0", ok=False)
    assert talk.events() == []


def test_the_slot_that_a_lost_instance_leaves_is_cleared_for_the_next_upload() -> None:
    """The server refuses the chunks for an instance that is gone, and keeps those it had."""
    pair = authenticated()
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, B, False)
    data = content(3 * CHUNK)
    lost = pair.ask(blob(A, data))
    again = pair.ask(blob(B, data))
    while pair.client.upload_progress(lost) != 2 * CHUNK:
        pair.server.receive_data(pair.client.data_to_send(100_000, now=0.0), 0.0)
    pair.drain_server()
    pair.server.emit(e.InstanceEvent(A, e.Event.Aborted, ""))
    told = pair.told()
    assert told[:2] == [
        e.InstanceReadable(A),
        e.Failed(lost, blob(A, data), f"Instance not owned by client: {A}"),
    ]
    assert e.Request(again, blob(B, data)) in pair.asked()
    pair.server.answer(e.BlobUploaded(again))
    assert pair.told() == [e.BlobUploaded(again)]


def test_a_leftover_slot_is_cleared_by_a_chunk_that_cannot_fit() -> None:
    talk = Talk()
    talk.launch(A)
    talk.launch(B)
    data = content(2 * CHUNK)
    lost = talk.ask(blob(A, data))
    talk.sent()
    talk.respond(lost, f"Instance not owned by client: {A}", ok=False)
    talk.events()
    assert talk.sent() == []
    again = talk.ask(blob(B, data))
    clearing, *chunks = talk.sent()
    assert clearing == {
        "type": "upload_blob",
        "corr_id": lost,
        "instance_id": B,
        "blob_hash": c.hash_of(data),
        "chunk_index": 2,
        "total_chunks": 2,
        "chunk_data": b"",
    }
    assert shapes(chunks) == [("upload_blob", again, 0), ("upload_blob", again, 1)]
    talk.respond(lost, "Out-of-order chunk: expected 1, got 2", ok=False)
    talk.respond(again, "Blob sent to instance")
    assert talk.events() == [e.BlobUploaded(again)]


def test_a_leftover_slot_is_cleared_for_the_upload_that_really_follows() -> None:
    talk = Talk()
    for instance_id in (A, B):
        talk.launch(instance_id)
    data = content(2 * CHUNK)
    lost = talk.ask(blob(A, data))
    talk.sent()
    talk.respond(lost, f"Instance not owned by client: {A}", ok=False)
    talk.events()
    given_up = talk.ask(blob(A, data))
    assert shape(talk.next_sent() or {}) == ("upload_blob", lost, 2)
    talk.session.cancel(given_up, 0.0)
    # What it was cleared for never came: its instance may be gone, and the slot as it was.
    again = talk.ask(blob(B, data))
    messages = talk.sent()
    assert shapes(messages) == [
        ("upload_blob", lost, 2),
        ("upload_blob", again, 0),
        ("upload_blob", again, 1),
    ]
    assert [message["instance_id"] for message in messages] == [B, B, B]


def test_the_same_blob_can_be_uploaded_again_and_again() -> None:
    pair = authenticated()
    pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
    for _ in range(3):
        assert isinstance(pair.request(blob(A, content(CHUNK + 1)), e.BlobUploaded), e.BlobUploaded)
        assert isinstance(
            pair.request(program(b"x"), e.ProgramUploaded, c.hash_of(b"x")), e.ProgramUploaded
        )


@pytest.mark.parametrize("sent", [0, 1])
def test_an_upload_accepted_before_its_last_chunk_breaks_the_protocol(sent: int) -> None:
    talk = Talk()
    request_id = talk.ask(program(content(2 * CHUNK)))
    for _ in range(sent):
        talk.next_sent()
    talk.respond(request_id, c.hash_of(b""))
    closed = only(talk.events())
    assert isinstance(closed, e.ConnectionClosed)
    assert "before its" in (closed.violation or "")


def test_an_upload_refused_before_its_first_chunk_breaks_the_protocol() -> None:
    talk = Talk()
    request_id = talk.ask(program(b"x"))
    talk.respond(request_id, "no", ok=False)
    closed = only(talk.events())
    assert isinstance(closed, e.ConnectionClosed)
    assert "before its first chunk" in (closed.violation or "")


def test_pieces_are_given_through_the_connection_too() -> None:
    pair = authenticated(cuts=repeat(10_000))
    data = content(3 * CHUNK + 5)
    command = c.UploadProgram(size=len(data), hash=c.hash_of(data))
    request_id = pair.ask(command)
    while wanted := pair.client.chunks_wanted():
        (want,) = wanted
        pair.client.provide_chunk(want.request_id, data[want.offset : want.offset + want.length])
        pair.shuttle()
    assert pair.asked() == [e.Request(request_id, command)]
    assert pair.client.upload_progress(request_id) == len(data)


def test_a_large_upload_is_never_in_memory() -> None:
    pair = authenticated()
    size = 1 << 40
    request_id = pair.ask(c.UploadProgram(size=size, hash="0" * 64))
    for want in pair.client.chunks_wanted():
        pair.client.provide_chunk(want.request_id, bytes(want.length))
    while pair.client.data_to_send(now=0.0):
        pass
    assert pair.client.upload_progress(request_id) == CHUNK
    assert only(list(pair.client.chunks_wanted())) == (request_id, CHUNK, CHUNK)
