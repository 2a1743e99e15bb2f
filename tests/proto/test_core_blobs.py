"""Blobs that come piece by piece, and are put together by somebody else."""

from __future__ import annotations

import pytest

from pie_proto import BlobPiece, Event
from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.limits import Limits
from tests.proto.pair import CHUNK, KIB, A, B, Talk, authenticated, content, only


def send(talk: Talk, blob: bytes, unit: int = CHUNK) -> None:
    pieces = [blob[start : start + unit] for start in range(0, len(blob), unit)]
    for index, piece in enumerate(pieces):
        talk.blob_chunk(A, blob, index, len(pieces), piece)


def read(talk: Talk) -> list[BlobPiece]:
    talk.events()
    pieces = []
    while (event := talk.session.read_instance(A)) is not None:
        assert event.event is Event.Blob
        assert isinstance(event.data, BlobPiece)
        pieces.append(event.data)
    return pieces


def test_the_pieces_of_a_blob_come_in_order_and_say_where_they_stand() -> None:
    talk = Talk()
    talk.launch()
    talk.session.stream_blobs(A)
    blob = content(2 * CHUNK + 1)
    send(talk, blob)
    pieces = read(talk)
    assert b"".join(pieces) == blob
    assert [(piece.offset, piece.is_last) for piece in pieces] == [
        (0, False),
        (CHUNK, False),
        (2 * CHUNK, True),
    ]
    assert {piece.hash for piece in pieces} == {c.hash_of(blob)}


def test_pieces_are_told_at_once_and_count_as_unread() -> None:
    talk = Talk()
    talk.launch()
    talk.session.stream_blobs(A)
    blob = content(2 * CHUNK)
    talk.blob_chunk(A, blob, 0, 2, blob[:CHUNK])
    assert talk.events() == [e.InstanceReadable(A)]
    assert talk.session.statistics().unread_bytes >= CHUNK
    assert only(read(talk)).offset == 0
    assert talk.session.statistics().unread_bytes == 0


def test_pieces_pause_reading_as_any_event_does() -> None:
    talk = Talk(Limits(unread_bytes=300 * KIB, unread_low_bytes=KIB))
    talk.launch()
    talk.session.stream_blobs(A)
    blob = content(5 * CHUNK)
    send(talk, blob)
    received = b""
    while pieces := read(talk):
        received += b"".join(pieces)
    assert received == blob


def test_no_bound_of_blobs_that_are_put_together_holds_for_pieces() -> None:
    talk = Talk(Limits(blob_bytes=CHUNK, assembling_bytes=CHUNK))
    talk.launch()
    talk.session.stream_blobs(A)
    blob = content(4 * CHUNK)
    send(talk, blob)
    assert b"".join(read(talk)) == blob


def test_a_blob_that_has_begun_before_comes_whole() -> None:
    talk = Talk()
    talk.launch()
    blob = content(2 * CHUNK)
    talk.blob_chunk(A, blob, 0, 2, blob[:CHUNK])
    assert talk.events() == []
    talk.session.stream_blobs(A)
    talk.blob_chunk(A, blob, 1, 2, blob[CHUNK:])
    talk.events()
    assert talk.read(A) == [("Blob", blob)]


@pytest.mark.parametrize("wrong", ["content", "order", "total"])
def test_a_blob_that_does_not_fit_together_ends_the_connection_before_its_last_piece(
    wrong: str,
) -> None:
    talk = Talk()
    talk.launch()
    talk.session.stream_blobs(A)
    blob = content(2 * CHUNK)
    talk.blob_chunk(A, blob, 0, 2, blob[:CHUNK])
    match wrong:
        case "content":
            talk.blob_chunk(A, blob, 1, 2, bytes(CHUNK))
        case "order":
            talk.blob_chunk(A, blob, 0, 2, blob[:CHUNK])
        case _:
            talk.blob_chunk(A, blob, 1, 3, blob[CHUNK:])
    closed = talk.events()[-1]
    assert isinstance(closed, e.ConnectionClosed)
    assert closed.violation is not None
    event = talk.session.read_instance(A)
    assert event is not None
    assert isinstance(event.data, BlobPiece)
    assert not event.data.is_last


def test_the_blobs_of_other_instances_are_put_together_as_before() -> None:
    talk = Talk()
    talk.launch()
    talk.launch(B)
    talk.session.stream_blobs(A)
    blob = content(CHUNK + 1)
    for index in range(2):
        talk.blob_chunk(B, blob, index, 2, blob[index * CHUNK : (index + 1) * CHUNK])
    talk.events()
    assert talk.read(B) == [("Blob", blob)]


def test_streaming_the_blobs_of_nobody_is_ignored() -> None:
    talk = Talk()
    talk.session.stream_blobs(A)
    talk.launch()
    blob = content(10)
    send(talk, blob)
    talk.events()
    assert talk.read(A) == [("Blob", blob)]


def test_through_a_connection_too() -> None:
    pair = authenticated()
    pair.request(c.LaunchFromRegistry(name="p"), e.Launched, A, False)
    pair.client.stream_blobs(A)
    blob = content(CHUNK + 1)
    pair.server.emit(e.InstanceEvent(A, Event.Blob, blob))
    pair.told()
    pieces = pair.read(A)
    assert [len(data) for _, data in pieces] == [CHUNK, 1]


@pytest.mark.parametrize("name", ["../" * 21 + "x", "A" * 64, "", "0" * 63])
def test_a_hash_that_is_none_is_never_given_to_those_who_make_files_of_it(name: str) -> None:
    talk = Talk()
    talk.launch()
    talk.session.stream_blobs(A)
    talk.tell(
        "download_blob",
        corr_id=0,
        instance_id=A,
        blob_hash=name,
        chunk_index=0,
        total_chunks=2,
        chunk_data=b"x",
    )
    closed = talk.events()[-1]
    assert isinstance(closed, e.ConnectionClosed)
    assert "hash of a blob" in (closed.violation or "")
    assert talk.session.statistics().unread_bytes == 0
