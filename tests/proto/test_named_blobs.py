"""What a blob is beside its bytes: the name that its program gave it, and its hash."""

from __future__ import annotations

import copy
import pickle

import pytest

from pie_proto import Blob, BlobPiece, ClientSession, Event
from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_5
from pie_proto.errors import LocalProtocolError
from pie_proto.limits import DEFAULT_LIMITS, Limits
from tests.proto.pair import CHUNK, A, B, Talk, authenticated, content, only, wire


class Ours(Blob):
    """A blob that can do more."""


class Named:
    """A session with a server that names its files, by hand; one instance is attached."""

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        *,
        blob_type: type[Blob] = Blob,
        launched: bool = True,
    ) -> None:
        self.session = ClientSession(dialect=PROCESS_0_5, limits=limits, blob_type=blob_type)
        self.answer(c.Identify("ada"), "Already authenticated")
        if launched:
            self.answer(c.LaunchFromRegistry(name="p"), A)

    def answer(self, command: c.Command, result: str) -> None:
        request_id = self.session.send(command, 0.0)
        self.tell("response", corr_id=request_id, ok=True, result=result)
        assert isinstance(self.session.next_event(), e.Authenticated | e.Launched)

    def tell(self, kind: str, /, **fields: object) -> None:
        self.session.receive_message(wire(kind, **fields), 0.0)

    def file(self, data: bytes, *names: str | None, instance_id: str = A, total: int = 0) -> None:
        """As many chunks as there are names, each with its own, of ``total``."""
        unit = -(-len(data) // (total or len(names)))
        for index, name in enumerate(names):
            self.tell(
                "file",
                process_id=instance_id,
                file_hash=c.hash_of(data),
                chunk_index=index,
                total_chunks=total or len(names),
                chunk_data=data[index * unit : (index + 1) * unit],
                name=name,
            )

    def read(self) -> list[bytes]:
        while (event := self.session.next_event()) is not e.NEED_DATA:
            assert isinstance(event, e.InstanceReadable)
        read = []
        while (unread := self.session.read_instance(A)) is not None:
            assert unread.event is Event.Blob
            assert isinstance(unread.data, bytes)
            read.append(unread.data)
        return read

    def violation(self) -> str | None:
        while (event := self.session.next_event()) is not e.NEED_DATA:
            if isinstance(event, e.ConnectionClosed):
                return event.violation
        return None


ABSURD = ["", ".", "../../etc/passwd", "a\0b", "\N{RIGHT-TO-LEFT OVERRIDE}fdp.exe", "x" * 4096]


@pytest.mark.parametrize("name", ["report.txt", None, *ABSURD], ids=lambda name: repr(name)[:20])
def test_a_blob_is_its_bytes_and_has_the_name_that_its_program_gave_it(name: str | None) -> None:
    named = Named()
    named.file(b"content", name)
    blob = only(named.read())
    assert type(blob) is Blob
    assert blob == b"content"
    assert hash(blob) == hash(b"content")
    assert (blob.name, blob.hash) == (name, c.hash_of(b"content"))


@pytest.mark.parametrize("length", [4097, 1_000_000])
def test_a_name_that_nothing_could_have_is_none(length: int) -> None:
    named = Named()
    named.file(b"content", "x" * length)
    blob = only(named.read())
    assert isinstance(blob, Blob)
    assert (blob, blob.name) == (b"content", None)


def test_of_several_chunks_the_name_of_the_first_counts() -> None:
    named = Named()
    named.file(b"123456", "first", "second", None)
    named.file(b"abcdef", None, "second")
    blobs = named.read()
    assert blobs == [b"123456", b"abcdef"]
    assert [blob.name for blob in blobs if isinstance(blob, Blob)] == ["first", None]


def test_the_pieces_of_a_blob_have_its_name() -> None:
    named = Named()
    named.session.stream_blobs(A)
    named.file(b"123456", "first", "second", None)
    pieces = named.read()
    assert [piece.name for piece in pieces if isinstance(piece, BlobPiece)] == ["first"] * 3


def test_blobs_come_as_what_they_are_wanted_as() -> None:
    named = Named(blob_type=Ours)
    named.file(b"content", "a.txt")
    blob = only(named.read())
    assert isinstance(blob, Ours)
    assert (blob, blob.name, blob.hash) == (b"content", "a.txt", c.hash_of(b"content"))


def test_through_a_connection_too() -> None:
    pair = authenticated(blob_type=Ours)
    pair.request(c.LaunchFromRegistry(name="p"), e.Launched, A, False)
    pair.server.emit(e.InstanceEvent(A, Event.Blob, b"content"))
    pair.told()
    _, blob = only(pair.read(A))
    assert isinstance(blob, Ours)


@pytest.mark.parametrize("size", [7, CHUNK + 1])
@pytest.mark.parametrize(
    ("dialect", "given", "told"),
    [
        (PROCESS_0_5, "report.txt", "report.txt"),
        (PROCESS_0_5, "", ""),
        (PROCESS_0_5, None, None),
        (INSTANCE, "report.txt", None),
    ],
)
def test_a_server_tells_the_name_of_a_blob_where_the_dialect_has_a_place_for_it(
    dialect: Dialect, given: str | None, told: str | None, size: int
) -> None:
    pair = authenticated(dialect=dialect)
    pair.request(c.AttachInstance(A), e.Attached, A)
    data = content(size)
    sent = Blob(data, hash=c.hash_of(data), name=given)
    pair.server.emit(e.InstanceEvent(A, Event.Blob, sent))
    pair.told()
    _, blob = only(pair.read(A))
    assert isinstance(blob, Blob)
    assert (blob, blob.name) == (data, told)


def test_a_name_that_is_no_text_is_refused_before_anything_is_sent() -> None:
    pair = authenticated(dialect=PROCESS_0_5)
    pair.request(c.AttachInstance(A), e.Attached, A)
    sent = Blob(b"content", hash=c.hash_of(b"content"), name="\ud800")
    with pytest.raises(LocalProtocolError, match="cannot be packed"):
        pair.server.emit(e.InstanceEvent(A, Event.Blob, sent))
    assert pair.server.data_to_send(now=0.0) == b""


def test_where_servers_tell_no_names_a_blob_has_none() -> None:
    talk = Talk()
    talk.launch()
    data = content(CHUNK + 1)
    talk.blob_chunk(A, data, 0, 2, data[:CHUNK])
    talk.blob_chunk(A, data, 1, 2, data[CHUNK:])
    talk.events()
    _, blob = only(talk.read(A))
    assert isinstance(blob, Blob)
    assert (blob, blob.name, blob.hash) == (data, None, c.hash_of(data))


@pytest.mark.parametrize("kind", [Blob, Ours])
def test_a_blob_can_be_copied_and_sent_to_another_process(kind: type[Blob]) -> None:
    blob = kind(b"content", hash="0" * 64, name="a.txt")
    for same in (copy.copy(blob), copy.deepcopy(blob), pickle.loads(pickle.dumps(blob))):
        assert type(same) is kind
        assert (same, same.name, same.hash) == (b"content", "a.txt", "0" * 64)


# ------------------------------------------------------------------------- names are bounded, too


def test_an_unread_name_is_unread() -> None:
    named = Named()
    named.file(b"content", "x" * 4000)
    assert isinstance(named.session.next_event(), e.InstanceReadable)
    assert named.session.statistics().unread_bytes > 4000
    named.read()
    assert named.session.statistics().unread_bytes == 0


def test_the_names_of_blobs_that_are_put_together_count() -> None:
    limits = Limits(assembling_bytes=5000)
    named = Named(limits)
    named.file(b"1234", "a", total=2)
    named.file(b"5678", "b", total=2)
    assert named.violation() is None
    named = Named(limits)
    named.file(b"1234", "x" * 4000, total=2)
    assert "5000 bytes" in (named.violation() or "")


def test_the_name_of_a_blob_that_is_whole_counts_no_more() -> None:
    named = Named(Limits(assembling_bytes=7000))
    for number in range(10):
        named.file(b"%d" % number, "x" * 4000)
        assert len(named.read()) == 1


def test_the_name_of_a_blob_that_is_held_counts() -> None:
    named = Named(Limits(held_bytes=5000), launched=False)
    assert named.session.send(c.LaunchFromRegistry(name="p"), 0.0) is not None
    named.file(b"content", "x" * 5000, instance_id=B)
    assert "5000 bytes" in (named.violation() or "")
