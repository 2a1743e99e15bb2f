"""The dialect `instance`: the wire as docs/protocol.md has it, byte by byte, and no other."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects import wire as packing
from pie_proto.dialects.instance import INSTANCE
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.events import Authentication, Event, InstanceEvent
from pie_proto.messages import Answer, BlobChunk, Notice, Unknown, UploadChunk
from pie_proto.transfers import ChunkFault, ChunkProblem
from tests.proto.pair import CHALLENGE, OPEN, A, B, b64, wire
from tests.proto.test_commands import GOOD

HASH = "0123456789abcdef" * 4

# ------------------------------------------------------------------------- what a client says

SAID: list[tuple[c.Command, dict[str, Any]]] = [
    (c.Identify("ada"), {"type": "identification", "corr_id": 7, "username": "ada"}),
    (
        c.AnswerChallenge(b"\x00\xff\xfe"),
        {"type": "signature", "corr_id": 7, "signature": "AP/+"},
    ),
    (c.AuthenticateWithToken("t"), {"type": "internal_authenticate", "corr_id": 7, "token": "t"}),
    (c.Ping(), {"type": "ping", "corr_id": 7}),
    (
        c.Query("model_status", "x"),
        {"type": "query", "corr_id": 7, "subject": "model_status", "record": "x"},
    ),
    (
        c.ProgramExists(HASH),
        {"type": "query", "corr_id": 7, "subject": "program_exists", "record": HASH},
    ),
    (
        c.LaunchInstance(hash=HASH, arguments=("a", "ü"), detached=True),
        {
            "type": "launch_instance",
            "corr_id": 7,
            "program_hash": HASH,
            "arguments": ["a", "ü"],
            "detached": True,
        },
    ),
    (
        c.LaunchFromRegistry(name="std/echo@1"),
        {
            "type": "launch_instance_from_registry",
            "corr_id": 7,
            "inferlet": "std/echo@1",
            "arguments": [],
            "detached": False,
        },
    ),
    (
        c.LaunchServerInstance(hash=HASH, port=8080, arguments=("a",)),
        {
            "type": "launch_server_instance",
            "corr_id": 7,
            "port": 8080,
            "program_hash": HASH,
            "arguments": ["a"],
        },
    ),
    (c.AttachInstance(A), {"type": "attach_instance", "corr_id": 7, "instance_id": A}),
    (c.ListInstances(), {"type": "list_instances", "corr_id": 7}),
    (c.TerminateInstance(A), {"type": "terminate_instance", "corr_id": 7, "instance_id": A}),
    (
        c.SendMessage(A, "hello"),
        {"type": "signal_instance", "instance_id": A, "message": "hello"},
    ),
]


@pytest.mark.parametrize(("command", "message"), SAID, ids=lambda value: type(value).__name__)
def test_a_command_is_the_message_that_the_protocol_says_both_ways(
    command: c.Command, message: dict[str, Any]
) -> None:
    assert msgpack.unpackb(INSTANCE.encode(command, 7)) == message
    expected = e.Request(7 if "corr_id" in message else None, command)
    assert INSTANCE.decode_request(msgpack.packb(message)) == expected
    # The order of keys carries no meaning, and what is unknown is no obstacle.
    shuffled = {"extra": None, **dict(reversed(message.items()))}
    assert INSTANCE.decode_request(msgpack.packb(shuffled)) == expected


def test_every_command_but_uploads_is_covered_and_uploads_are_no_single_message() -> None:
    uploads = {c.UploadProgram, c.UploadBlob}
    assert {type(command) for command, _ in SAID} | uploads == {type(good) for good in GOOD}
    for command in GOOD:
        if type(command) in uploads:
            with pytest.raises(AssertionError):
                INSTANCE.encode(command, 1)


def test_a_ping_byte_by_byte() -> None:
    assert INSTANCE.encode(c.Ping(), 1) == b"\x82\xa4type\xa4ping\xa7corr_id\x01"
    assert INSTANCE.encode(c.Ping(), 300) == b"\x82\xa4type\xa4ping\xa7corr_id\xcd\x01\x2c"


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 262_144])
def test_a_chunk_is_its_prefix_and_its_content(size: int) -> None:
    data = bytes(size)
    program = c.UploadProgram(size=size, hash=HASH)
    blob = c.UploadBlob(instance_id=A, size=size, hash=HASH)
    common = {"corr_id": 7, "chunk_index": 3, "total_chunks": 5, "chunk_data": data}
    payload = INSTANCE.chunk(program, 7, 3, 5, size) + data
    assert msgpack.unpackb(payload) == {"type": "upload_program", "program_hash": HASH, **common}
    assert INSTANCE.decode_request(payload) == UploadChunk(7, None, HASH, 3, 5, data)
    payload = INSTANCE.chunk(blob, 7, 3, 5, size) + data
    assert msgpack.unpackb(payload) == {
        "type": "upload_blob",
        "instance_id": A,
        "blob_hash": HASH,
        **common,
    }
    assert INSTANCE.decode_request(payload) == UploadChunk(7, A, HASH, 3, 5, data)
    payload = INSTANCE.blob_chunk(A, HASH, 3, 5, size) + data
    assert msgpack.unpackb(payload) == {
        "type": "download_blob",
        "instance_id": A,
        "blob_hash": HASH,
        **common,
        "corr_id": 0,
    }
    assert INSTANCE.decode(payload) == BlobChunk(A, HASH, 3, 5, data)


def test_the_numbers_of_the_family() -> None:
    assert INSTANCE.capabilities.name == "instance"
    assert INSTANCE.capabilities.chunk_bytes == 262_144
    assert INSTANCE.capabilities.frame_bytes == 16_777_216


def test_slots() -> None:
    one, two = (c.UploadProgram(size=0, hash=digit * 64) for digit in "12")
    assert INSTANCE.slot(one) == INSTANCE.slot(two)
    first, second, other = (
        c.UploadBlob(instance_id=instance_id, size=0, hash=digit * 64)
        for instance_id, digit in ((A, "1"), (B, "1"), (A, "2"))
    )
    assert INSTANCE.slot(first) == INSTANCE.slot(second) != INSTANCE.slot(other)
    assert INSTANCE.slot_needs_answer(first)
    assert not INSTANCE.slot_needs_answer(one)
    assert INSTANCE.slot_stays_taken(first, INSTANCE.not_owned(A))
    assert not INSTANCE.slot_stays_taken(first, "Hash mismatch: expected a, got b")
    assert not INSTANCE.slot_stays_taken(one, INSTANCE.not_owned(A))


# ------------------------------------------------------------------------- what a server says

HEARD: list[tuple[bytes, object]] = [
    (
        wire("response", corr_id=7, successful=True, result="Pong"),
        Answer(7, "response", True, "Pong"),
    ),
    (
        wire("challenge", corr_id=7, challenge="AAAA"),
        Answer(7, "challenge", True, "AAAA"),
    ),
    (
        wire("instance_launch_result", corr_id=7, successful=True, message=A),
        Answer(7, "instance_launch_result", True, A),
    ),
    (
        wire("instance_attach_result", corr_id=7, successful=False, message="no"),
        Answer(7, "instance_attach_result", False, "no"),
    ),
    (
        wire(
            "live_instances",
            corr_id=7,
            instances=[{"id": A, "arguments": ["x", ""], "status": "Detached", "more": 1}],
        ),
        Answer(
            7,
            "live_instances",
            True,
            "",
            (e.InstanceInfo(id=A, arguments=("x", ""), status="Detached"),),
        ),
    ),
    (wire("server_event", message="notice"), Notice("notice")),
    (wire("mcp_request", corr_id=1), Unknown("mcp_request")),
    (
        wire("streaming_output", instance_id=A, output={"Stdout": "o"}),
        InstanceEvent(A, Event.Stdout, "o"),
    ),
    (
        wire("streaming_output", instance_id=A, output={"Stderr": ""}),
        InstanceEvent(A, Event.Stderr, ""),
    ),
    *(
        (
            wire("instance_event", instance_id=A, event=code, message="m"),
            InstanceEvent(A, event, "m"),
        )
        for code, event in enumerate(
            [
                Event.Message,
                Event.Completed,
                Event.Aborted,
                Event.Exception,
                Event.ServerError,
                Event.OutOfResources,
            ]
        )
    ),
]


@pytest.mark.parametrize(("payload", "message"), HEARD)
def test_a_servers_message_is_read_as_the_protocol_says(payload: bytes, message: object) -> None:
    assert INSTANCE.decode(payload) == message
    if isinstance(message, InstanceEvent):
        assert msgpack.unpackb(INSTANCE.encode_event(message)) == msgpack.unpackb(payload)
    if isinstance(message, Notice):
        assert INSTANCE.encode_notice(message.text) == payload


MALFORMED: list[Any] = [
    b"",
    b"\xc1",
    b"\x80 and more",
    msgpack.packb([1]),
    msgpack.packb("text"),
    msgpack.packb({}),
    msgpack.packb({"type": 1}),
    msgpack.packb({"type": b"ping"}),
    msgpack.packb({b"type": "response"}),
    msgpack.packb({1: "response"}),
    b"\x81\xa4type\xa2\xff\xff",
    b"\x81\xa4type\xc7\x01\x05x",
    b"\x81\xa4type\xd6\xff\x00\x00\x00\x00",
    b"\x81\xa4type" + b"\x91" * 1020 + b"\xc0",
    b"\x81\xa4type" + b"\x91" * 5000 + b"\xc0",
    b"\xdf\xff\xff\xff\xff\xa4type",
    b"\x81\xa4type\xdd\xff\xff\xff\xff",
    b"\x81\xa4type\xc6\xff\xff\xff\xff",
    wire("response"),
    wire("response", corr_id="1", successful=True, result=""),
    wire("response", corr_id=True, successful=True, result=""),
    wire("response", corr_id=-1, successful=True, result=""),
    wire("response", corr_id=1.0, successful=True, result=""),
    wire("response", corr_id=1, successful=1, result=""),
    wire("response", corr_id=1, successful=True, result=b""),
    wire("response", corr_id=1, successful=True, result=None),
    wire("challenge", corr_id=1, challenge=b"x"),
    wire("instance_launch_result", corr_id=1, successful=True, message=None),
    wire("instance_attach_result", corr_id=1, successful="yes", message=""),
    wire("live_instances", corr_id=1, instances={}),
    wire("live_instances", corr_id=1, instances=[1]),
    wire("live_instances", corr_id=1, instances=[{}]),
    wire(
        "live_instances", corr_id=1, instances=[{"id": A, "arguments": "x", "status": "Attached"}]
    ),
    wire(
        "live_instances", corr_id=1, instances=[{"id": A, "arguments": [1], "status": "Attached"}]
    ),
    wire("live_instances", instances=[]),
    wire("instance_event", instance_id=A, event=6, message=""),
    wire("instance_event", instance_id=A, event="Message", message=""),
    wire("instance_event", instance_id=1, event=0, message=""),
    wire("instance_event", instance_id=A, event=0, message=None),
    wire("streaming_output", instance_id=A, output={}),
    wire("streaming_output", instance_id=A, output={"Stdout": "", "Stderr": ""}),
    wire("streaming_output", instance_id=A, output={"Stdin": ""}),
    wire("streaming_output", instance_id=A, output={"x" * 10_000: ""}),
    wire("streaming_output", instance_id=A, output={b"Stdout": ""}),
    wire("streaming_output", instance_id=A, output={"Stdout": b""}),
    wire("streaming_output", instance_id=A, output="Stdout"),
    wire("streaming_output", instance_id=None, output={"Stdout": ""}),
    wire("download_blob", instance_id=A, blob_hash=HASH, chunk_index=0, total_chunks=1),
    wire(
        "download_blob",
        instance_id=A,
        blob_hash=HASH * 1000,
        chunk_index=0,
        total_chunks=1,
        chunk_data=b"",
    ),
    wire(
        "download_blob", instance_id=A, blob_hash=1, chunk_index=0, total_chunks=1, chunk_data=b""
    ),
    wire(
        "download_blob",
        instance_id=A,
        blob_hash=HASH,
        chunk_index=-1,
        total_chunks=1,
        chunk_data=b"",
    ),
    wire(
        "download_blob", instance_id=A, blob_hash=HASH, chunk_index=0, total_chunks=1, chunk_data=""
    ),
    wire("server_event"),
]


@pytest.mark.parametrize("payload", MALFORMED)
def test_a_malformed_message_breaks_the_protocol_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        INSTANCE.decode(payload)
    assert len(str(caught.value)) < 500
    # As a client's message it is dropped.
    assert isinstance(INSTANCE.decode_request(payload), Unknown)


def test_a_text_message_is_unknown() -> None:
    assert INSTANCE.decode_text("{}") == Unknown("a text message of 2 characters")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from(["response", "ping", "Stdout", A, "upload_blob"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=9) | st.binary(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | values.map(msgpack.packb))
def test_arbitrary_bytes_are_a_message_or_break_the_protocol(payload: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        INSTANCE.decode(payload)
    INSTANCE.decode_request(payload)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([payload for payload, _ in HEARD] + [msgpack.packb(m) for _, m in SAID]),
    st.data(),
)
def test_a_message_with_any_field_changed_is_a_message_or_breaks_the_protocol(
    payload: bytes, data: st.DataObject
) -> None:
    message = msgpack.unpackb(payload)
    message[data.draw(st.sampled_from(sorted(message)))] = data.draw(values)
    changed = msgpack.packb(message)
    INSTANCE.decode_request(changed)
    try:
        decoded = INSTANCE.decode(changed)
    except RemoteProtocolError:
        return
    if isinstance(decoded, Answer):
        for command in GOOD[:-2]:
            try:
                outcome = INSTANCE.interpret(command, decoded)
            except RemoteProtocolError:
                continue
            assert outcome.request_id == decoded.request_id


# ------------------------------------------------------------------------- what an answer means

INFO = e.InstanceInfo(id=A, arguments=("x",), status="Finished")

ANSWERS: list[tuple[c.Command, e.Outcome, dict[str, Any]]] = [
    (
        c.Identify("ada"),
        e.Authenticated(7, Authentication.ASSERTED),
        {"type": "response", "successful": True, "result": OPEN},
    ),
    (
        c.Identify("ada"),
        e.Authenticated(7, Authentication.ALREADY),
        {"type": "response", "successful": True, "result": "Already authenticated"},
    ),
    (
        c.Identify("ada"),
        e.ChallengeReceived(7, CHALLENGE),
        {"type": "response", "successful": True, "result": b64(CHALLENGE)},
    ),
    (
        c.AnswerChallenge(b"s"),
        e.Authenticated(7, Authentication.PROVED),
        {"type": "response", "successful": True, "result": "Authenticated"},
    ),
    (
        c.AuthenticateWithToken("t"),
        e.Authenticated(7, Authentication.TOKEN),
        {"type": "response", "successful": True, "result": "Authenticated"},
    ),
    (
        c.AuthenticateWithToken("t"),
        e.Authenticated(7, Authentication.ALREADY),
        {"type": "response", "successful": True, "result": "Already authenticated"},
    ),
    (c.Ping(), e.Pong(7), {"type": "response", "successful": True, "result": "Pong"}),
    (
        c.Query("s", "r"),
        e.QueryAnswered(7, "text"),
        {"type": "response", "successful": True, "result": "text"},
    ),
    (
        c.ProgramExists(HASH),
        e.ProgramExistsAnswered(7, True),
        {"type": "response", "successful": True, "result": "true"},
    ),
    (
        c.ProgramExists(HASH),
        e.ProgramExistsAnswered(7, False),
        {"type": "response", "successful": True, "result": "false"},
    ),
    (
        c.UploadProgram(size=0, hash=HASH),
        e.ProgramUploaded(7, HASH),
        {"type": "response", "successful": True, "result": HASH},
    ),
    (
        c.UploadBlob(instance_id=A, size=0, hash=HASH),
        e.BlobUploaded(7),
        {"type": "response", "successful": True, "result": "Blob sent to instance"},
    ),
    (
        c.LaunchInstance(hash=HASH),
        e.Launched(7, A, False),
        {"type": "instance_launch_result", "successful": True, "message": A},
    ),
    (
        c.LaunchFromRegistry(name="n", detached=True),
        e.Launched(7, A, True),
        {"type": "instance_launch_result", "successful": True, "message": A},
    ),
    (
        c.LaunchServerInstance(hash=HASH, port=8080),
        e.ServerInstanceLaunched(7),
        {"type": "response", "successful": True, "result": "server launched"},
    ),
    (
        c.AttachInstance(A),
        e.Attached(7, A),
        {"type": "instance_attach_result", "successful": True, "message": "Instance attached"},
    ),
    (
        c.ListInstances(),
        e.InstancesListed(7, (INFO,)),
        {
            "type": "live_instances",
            "instances": [{"id": A, "arguments": ["x"], "status": "Finished"}],
        },
    ),
    (
        c.TerminateInstance(A),
        e.Terminated(7),
        {"type": "response", "successful": True, "result": "Instance terminated"},
    ),
    (
        c.LaunchInstance(hash=HASH),
        e.Failed(7, c.LaunchInstance(hash=HASH), "no"),
        {"type": "instance_launch_result", "successful": False, "message": "no"},
    ),
    (
        c.AttachInstance(A),
        e.Failed(7, c.AttachInstance(A), "no"),
        {"type": "instance_attach_result", "successful": False, "message": "no"},
    ),
    (
        c.ListInstances(),
        e.Failed(7, c.ListInstances(), "no"),
        {"type": "response", "successful": False, "result": "no"},
    ),
    (
        c.Ping(),
        e.Failed(7, c.Ping(), "no"),
        {"type": "response", "successful": False, "result": "no"},
    ),
]


@pytest.mark.parametrize(("command", "outcome", "message"), ANSWERS)
def test_an_outcome_is_the_answer_that_the_protocol_says_both_ways(
    command: c.Command, outcome: e.Outcome, message: dict[str, Any]
) -> None:
    message = {**message, "corr_id": 7}
    assert msgpack.unpackb(INSTANCE.encode_outcome(command, outcome)) == message
    answer = INSTANCE.decode(msgpack.packb(message))
    assert isinstance(answer, Answer)
    assert INSTANCE.interpret(command, answer) == outcome


def interpret(command: c.Command, text: str, form: str = "response") -> e.Outcome:
    return INSTANCE.interpret(command, Answer(7, form, True, text))


def test_a_bare_authenticated_to_a_name_means_that_no_proof_was_asked_for() -> None:
    asserted = e.Authenticated(7, Authentication.ASSERTED)
    assert interpret(c.Identify("ada"), "Authenticated") == asserted


@pytest.mark.parametrize("size", [1, 47, 48, 64])
@pytest.mark.parametrize("form", ["response", "challenge"])
def test_a_challenge_of_1_to_64_bytes_is_passed_on(size: int, form: str) -> None:
    challenge = bytes(range(255, 255 - size, -1))
    assert interpret(c.Identify("ada"), b64(challenge), form) == e.ChallengeReceived(7, challenge)


@pytest.mark.parametrize("size", [0, 65, 66, 500])
def test_a_challenge_of_another_size_is_not_signed(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"has {size} bytes"):
        interpret(c.Identify("ada"), b64(bytes(size)))


@pytest.mark.parametrize(
    "text", ["!", "AAA", "AAA=A", "AA AA", "AAAA\n", "-_-_", "ÄÖÜ=", "A" * 5, "====", "x" * 10_001]
)
def test_a_challenge_that_is_not_strict_base64_breaks_the_protocol(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not base64") as caught:
        interpret(c.Identify("ada"), text)
    assert len(str(caught.value)) < 200


def test_the_fixed_answers_are_no_challenge_in_the_form_of_one() -> None:
    with pytest.raises(RemoteProtocolError, match="not base64"):
        interpret(c.Identify("ada"), OPEN, "challenge")


@pytest.mark.parametrize("command", GOOD[1:-2], ids=lambda command: type(command).__name__)
def test_only_a_name_may_be_challenged(command: c.Command) -> None:
    with pytest.raises(RemoteProtocolError, match="challenged"):
        interpret(command, b64(CHALLENGE), "challenge")


def test_an_answer_that_means_nothing_breaks_the_protocol() -> None:
    for command, text, form in (
        (c.ProgramExists(HASH), "maybe", "response"),
        (c.ProgramExists(HASH), "x" * 10_000, "response"),
        (c.LaunchInstance(hash=HASH), "", "instance_launch_result"),
        (c.LaunchInstance(hash=HASH), A, "response"),
        (c.Ping(), A, "instance_launch_result"),
        (c.ListInstances(), "", "response"),
        (c.AttachInstance(A), "", "live_instances"),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            interpret(command, text, form)
        assert len(str(caught.value)) < 300


def test_a_message_is_never_answered() -> None:
    with pytest.raises(AssertionError):
        interpret(c.SendMessage(A, "x"), "")
    with pytest.raises(LocalProtocolError):
        INSTANCE.encode_outcome(c.SendMessage(A, "x"), e.Pong(1))


# ---------------------------------------------------------------------------- the server's words


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ChunkFault.FIRST_INDEX, "First chunk index must be 0"),
        (ChunkFault.ORDER, "Out-of-order chunk: expected 1, got 2"),
        (ChunkFault.TOTAL, "Chunk count mismatch: expected 1, got 2"),
        (ChunkFault.CHUNK_SIZE, "Chunk size 2 exceeds limit 1"),
        (ChunkFault.SIZE, "Upload size 2 exceeds limit 1"),
        (ChunkFault.HASH, "Hash mismatch: expected 1, got 2"),
    ],
)
def test_what_is_wrong_with_a_chunk_is_said_in_the_servers_words(
    fault: ChunkFault, words: str
) -> None:
    assert INSTANCE.describe(ChunkProblem(fault, 1, 2)) == words


@pytest.mark.parametrize(
    "fields",
    [{"type": "x", "a": 1 << 64}, {"type": "x", "a": "\ud800"}, {"type": object()}],
)
def test_what_cannot_be_packed_is_the_callers_mistake_and_leaves_no_trace(
    fields: dict[str, object],
) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be packed"):
        packing.pack(fields)
    assert packing.pack({"a": 1}) == b"\x81\xa1a\x01"
