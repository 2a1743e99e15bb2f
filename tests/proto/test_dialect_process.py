"""The dialect `process`: the wire of servers 0.3 to 0.5, field by field, both roles."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tomllib
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects import Dialect, ProgramsBy
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_3, PROCESS_0_5, ProcessDialect
from pie_proto.dialects.process.naming import (
    Program,
    completed,
    hash_in,
    is_name,
    manifest_for,
    name_of,
    program_in,
)
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.events import NEED_DATA, Authentication, Event, InstanceEvent
from pie_proto.messages import Answer, BlobChunk, Nothing, Unattributed, Unknown, UploadChunk
from pie_proto.server.session import ServerSession
from pie_proto.session import ClientSession
from pie_proto.transfers import ChunkFault, ChunkProblem
from tests.proto.pair import CHALLENGE, OPEN, A, B, b64, wire
from tests.proto.test_commands import GOOD

HASH = "0123456789abcdef" * 4
MANIFEST = '[package]\nname = "echo"\nversion = "0.1.0"\n'
BOTH = [PROCESS_0_3, PROCESS_0_5]
UPLOADS = {c.UploadProgram, c.UploadBlob}

# ------------------------------------------------------------------------- what a client says

SAID: list[tuple[c.Command, dict[str, Any]]] = [
    (c.Identify("ada"), {"type": "auth_identify", "corr_id": 7, "username": "ada"}),
    (
        c.AnswerChallenge(b"\x00\xff\xfe"),
        {"type": "auth_prove", "corr_id": 7, "signature": "AP/+"},
    ),
    (c.AuthenticateWithToken("t"), {"type": "auth_by_token", "corr_id": 7, "token": "t"}),
    (c.Ping(), {"type": "ping", "corr_id": 7}),
    (
        c.Query("model_status", "x"),
        {"type": "query", "corr_id": 7, "subject": "model_status", "record": "x"},
    ),
    (
        c.ProgramExists(HASH),
        {"type": "check_program", "corr_id": 7, "name": f"blake3-{HASH}", "version": "0.1.0"},
    ),
    (
        c.ProgramExists("echo@1.2.3"),
        {"type": "check_program", "corr_id": 7, "name": "echo", "version": "1.2.3"},
    ),
    (
        c.LaunchInstance(hash=HASH, input='{"a": "ü"}', detached=True),
        {
            "type": "launch_process",
            "corr_id": 7,
            "inferlet": f"blake3-{HASH}@0.1.0",
            "input": '{"a": "ü"}',
            "capture_outputs": False,
        },
    ),
    (
        c.LaunchFromRegistry(name="echo@1.2.3", input="{}"),
        {
            "type": "launch_process",
            "corr_id": 7,
            "inferlet": "echo@1.2.3",
            "input": "{}",
            "capture_outputs": True,
        },
    ),
    (c.AttachInstance(A), {"type": "attach_process", "corr_id": 7, "process_id": A}),
    (c.ListInstances(), {"type": "list_processes", "corr_id": 7}),
    (c.TerminateInstance(A), {"type": "terminate_process", "corr_id": 7, "process_id": A}),
    (c.SendMessage(A, "hello"), {"type": "signal_process", "process_id": A, "message": "hello"}),
]


@pytest.mark.parametrize(("command", "message"), SAID, ids=lambda value: type(value).__name__)
def test_a_command_is_the_message_that_the_protocol_says_both_ways(
    command: c.Command, message: dict[str, Any]
) -> None:
    assert msgpack.unpackb(PROCESS_0_3.encode(command, 7)) == message
    expected = e.Request(7 if "corr_id" in message else None, command)
    shuffled = {"extra": None, **dict(reversed(message.items()))}
    for dialect in BOTH:
        # What servers of a release cannot do, they do not know.
        can = dialect.objection(command) is None
        wanted = expected if can else Unknown(message["type"])
        assert dialect.decode_request(msgpack.packb(message)) == wanted
        assert dialect.decode_request(msgpack.packb(shuffled)) == wanted


def test_every_command_is_covered_but_those_that_are_no_message_here() -> None:
    others = UPLOADS | {c.LaunchServerInstance}
    assert {type(command) for command, _ in SAID} | others == {type(good) for good in GOOD}
    for command in GOOD:
        if type(command) in others:
            with pytest.raises(AssertionError):
                PROCESS_0_5.encode(command, 1)


def test_arguments_become_the_input() -> None:
    by_hash = c.LaunchInstance(hash=HASH, arguments=("--prompt", "Hi", "--n=3"))
    by_name = c.LaunchFromRegistry(name="echo", arguments=("--prompt", "Hi", "--n=3"))
    for command in (by_hash, by_name):
        message = msgpack.unpackb(PROCESS_0_5.encode(command, 7))
        assert json.loads(message["input"]) == {"prompt": "Hi", "n": 3}


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 262_144])
def test_a_chunk_is_its_prefix_and_its_content(size: int) -> None:
    data = bytes(size)
    place = {"chunk_index": 3, "total_chunks": 5, "chunk_data": data}
    for manifest in (None, MANIFEST):
        program = c.UploadProgram(size=size, hash=HASH, manifest=manifest)
        payload = PROCESS_0_5.chunk(program, 7, 3, 5, size) + data
        assert msgpack.unpackb(payload) == {
            "type": "add_program",
            "corr_id": 7,
            "program_hash": HASH,
            "manifest": manifest or f'[package]\nname = "blake3-{HASH}"\nversion = "0.1.0"\n',
            "force_overwrite": True,
            **place,
        }
        received = PROCESS_0_5.decode_request(payload)
        assert received == UploadChunk(7, None, HASH, 3, 5, data, manifest)
    blob = c.UploadBlob(instance_id=A, size=size, hash=HASH)
    payload = PROCESS_0_5.chunk(blob, 7, 3, 5, size) + data
    file = {"process_id": A, "file_hash": HASH, **place}
    assert msgpack.unpackb(payload) == {"type": "transfer_file", **file}
    assert PROCESS_0_5.decode_request(payload) == UploadChunk(None, A, HASH, 3, 5, data)
    payload = PROCESS_0_5.blob_chunk(A, HASH, 3, 5, size) + data
    assert msgpack.unpackb(payload) == {"type": "file", "name": None, **file}
    assert PROCESS_0_5.decode(payload) == BlobChunk(A, HASH, 3, 5, data)


def test_the_two_families_differ_in_how_they_know_their_users() -> None:
    old, new = (dataclasses.asdict(dialect.capabilities) for dialect in BOTH)
    assert {name for name in old if old[name] != new[name]} == {
        "name", "servers", "frame_bytes", "default_target", "identity_header", "proof", "tokens",
        "any_target", "answers_close",
    }  # fmt: skip
    assert new["frame_bytes"] == 7_340_032
    assert new["upload_bytes"] == 268_435_456
    assert (new["default_target"], new["identity_header"]) == ("/v1/ws", "x-pie-identity")
    assert INSTANCE.capabilities.programs_by is ProgramsBy.HASH
    assert PROCESS_0_5.capabilities.programs_by is ProgramsBy.NAME


def test_slots() -> None:
    one, two = (c.UploadProgram(size=0, hash=digit * 64) for digit in "12")
    assert PROCESS_0_5.slot(one) != PROCESS_0_5.slot(two)
    first, second, other = (
        c.UploadBlob(instance_id=instance_id, size=0, hash=digit * 64)
        for instance_id, digit in ((A, "1"), (B, "1"), (A, "2"))
    )
    assert len({PROCESS_0_5.slot(blob) for blob in (one, first, second, other)}) == 4
    for command in (one, first):
        assert not PROCESS_0_5.slot_needs_answer(command)
        assert not PROCESS_0_5.slot_stays_taken(command, "Process not found")


# --------------------------------------------------------------------- what these servers cannot do


def wasm(data: bytes = b"\0asm", **options: Any) -> c.UploadProgram:
    return c.UploadProgram(size=len(data), hash=HASH, data=data, **options)


OBJECTIONS: list[tuple[Dialect, c.Command, str]] = [
    (INSTANCE, wasm(manifest=MANIFEST), "take no manifest"),
    (INSTANCE, c.LaunchInstance(hash=HASH, input="{}"), "use arguments"),
    (INSTANCE, c.LaunchFromRegistry(name="echo", input="{}"), "use arguments"),
    (PROCESS_0_5, c.AuthenticateWithToken("t"), "servers 0.5 know no internal token"),
    (PROCESS_0_3, c.LaunchServerInstance(hash=HASH, port=80), "servers 0.3 to 0.4 launch no"),
    (PROCESS_0_5, c.ProgramExists("echo"), "major.minor.patch"),
    (PROCESS_0_5, c.ProgramExists("std/echo@1.0.0"), "major.minor.patch"),
    (PROCESS_0_5, c.LaunchInstance(hash="echo"), "from the registry"),
    (PROCESS_0_5, c.LaunchInstance(hash=HASH, arguments=("a",)), "input="),
    (PROCESS_0_5, c.LaunchFromRegistry(name="std/echo"), "not as 'std/echo'"),
    (PROCESS_0_5, c.LaunchFromRegistry(name="echo@latest"), "not as 'echo@latest'"),
    (PROCESS_0_5, c.LaunchFromRegistry(name="a", arguments=("--b",), input="{}"), "not both"),
    (PROCESS_0_5, wasm(b"def main(): pass"), "needs a manifest"),
    (PROCESS_0_5, wasm(b""), "needs a manifest"),
    (PROCESS_0_5, wasm(manifest="broken ["), "not TOML"),
    (PROCESS_0_5, wasm(manifest="a = " + "[" * 100_000), "not TOML"),
    (PROCESS_0_5, wasm(manifest="#" * 7_340_032), "manifest has 7340032 bytes"),
]


@pytest.mark.parametrize(("dialect", "command", "words"), OBJECTIONS)
def test_what_a_family_cannot_do_is_said_with_what_to_do_and_nothing_is_sent(
    dialect: Dialect, command: c.Command, words: str
) -> None:
    assert words in (dialect.objection(command) or "")
    session = ClientSession(dialect=dialect)
    with pytest.raises(LocalProtocolError, match=words):
        session.send(command, 0.0)
    assert not session.has_message_to_send


@pytest.mark.parametrize(
    "command",
    [
        *(command for command, _ in SAID),
        wasm(),
        wasm(b"def main(): pass", manifest=MANIFEST),
        c.UploadProgram(size=5, hash=HASH),
        c.UploadBlob(instance_id=A, size=0, hash=HASH),
        c.LaunchInstance(hash=HASH, arguments=("--a", "b")),
        c.LaunchFromRegistry(name="echo"),
    ],
)
def test_what_a_family_can_do_it_does_not_object_to(command: c.Command) -> None:
    assert PROCESS_0_3.objection(command) is None


def test_a_large_manifest_still_leaves_room_for_its_chunk() -> None:
    room = 7_340_032 - 262_144 - 1024
    command = wasm(manifest=MANIFEST + "#" * (room - len(MANIFEST)))
    assert PROCESS_0_5.objection(command) is None
    larger = wasm(manifest=f"{command.manifest}#")
    assert f"has {room + 1} bytes; the server takes {room}" in (PROCESS_0_5.objection(larger) or "")
    assert len(PROCESS_0_5.chunk(command, 1 << 31, 1 << 10, 1 << 10, 262_144)) + 262_144 < 7_340_032


# -------------------------------------------------------------------------------------------- names


@given(st.binary(min_size=32, max_size=32))
def test_a_program_without_a_manifest_is_found_again_by_its_hash(digest: bytes) -> None:
    program = name_of(digest.hex())
    assert program_in(manifest_for(digest.hex()), digest.hex()) == program
    assert is_name(str(program))
    assert hash_in(str(program)) == hash_in(program.name) == digest.hex()


@pytest.mark.parametrize(
    "name", ["echo", HASH, "blake3-x", f"blake3-{HASH}0", f"blake3-{HASH}@1.0.0", "blake3-", ""]
)
def test_what_has_a_name_of_its_own_is_no_hash(name: str) -> None:
    assert hash_in(name) is None


@pytest.mark.parametrize("name", ["echo", "A_b.c", "a b", "echo@0.1.0", "ü@10.20.30"])
def test_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "@1.0.0", "a/b", "a\\b", "a\n", "a@", "a@1", "a@1.0.0-rc1", "a@1.0.0@2.0.0"),
        "a@\u0661.0.0",
    ],
)
def test_no_names(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("package = 1", "no table"),
        ("[package", "not TOML"),
        ('[package]\nname = "x"', "no text 'version'"),
        ("[package]\nname = 1", "no text 'name'"),
        ('[package]\nname = "a/b"\nversion = "1.0.0"', "'a/b@1.0.0'"),
        ('[package]\nname = "a@b"\nversion = "1.0.0"', "three numbers"),
        ('[package]\nname = "a"\nversion = "1"', "three numbers"),
    ],
)
def test_a_manifest_that_names_nothing_is_refused(manifest: str, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        program_in(manifest, HASH)


def test_what_a_manifest_names() -> None:
    more = MANIFEST + '[runtime]\nlanguage = "python"\n'
    assert program_in(more, HASH) == Program("echo", "0.1.0")
    assert str(program_in(more, HASH)) == "echo@0.1.0"
    assert completed(more, HASH) == more


@pytest.mark.parametrize("manifest", ["", "\n", '[runtime]\nlanguage = "python"\n', "a = 1"])
def test_a_manifest_that_leaves_the_name_out_gets_one_from_the_hash(manifest: str) -> None:
    whole = completed(manifest, HASH)
    assert program_in(manifest, HASH) == program_in(whole, HASH) == name_of(HASH)
    package = {"package": {"name": f"blake3-{HASH}", "version": "0.1.0"}}
    assert tomllib.loads(whole) == tomllib.loads(manifest) | package


# ------------------------------------------------------------------------- what a server says

FILE = {
    "process_id": A, "file_hash": HASH, "chunk_index": 0, "total_chunks": 1, "chunk_data": b"x",
}  # fmt: skip

HEARD: list[tuple[bytes, object]] = [
    (wire("response", corr_id=7, ok=True, result="Pong"), Answer(7, "response", True, "Pong")),
    (wire("response", corr_id=7, ok=False, result=""), Answer(7, "response", False, "")),
    (wire("error", message="stream aborted"), Unattributed("stream aborted")),
    (wire("file", **FILE), BlobChunk(A, HASH, 0, 1, b"x")),
    (wire("file", name=None, **FILE), BlobChunk(A, HASH, 0, 1, b"x")),
    (wire("file", name="out.bin", **FILE), BlobChunk(A, HASH, 0, 1, b"x", "out.bin")),
    (wire("mcp_request", corr_id=1), Unknown("mcp_request")),
    (wire("response_2"), Unknown("response_2")),
    (wire("process_event", process_id=A, event="new", value=""), Unknown("an event 'new'")),
    *(
        (
            wire("process_event", process_id=A, event=name, value=value),
            InstanceEvent(A, event, value),
        )
        for name, event, value in (
            ("stdout", Event.Stdout, "o"),
            ("stderr", Event.Stderr, ""),
            ("message", Event.Message, "ü"),
            ("return", Event.Completed, '{"a": 1}'),
            ("error", Event.Exception, "ValueError: Signal"),
            ("error", Event.Aborted, "Signal"),
            ("stdout", Event.Stdout, "Signal"),
            ("return", Event.Completed, "Signal"),
        )
    ),
]


@pytest.mark.parametrize(("payload", "message"), HEARD)
def test_a_servers_message_is_read_as_the_protocol_says(payload: bytes, message: object) -> None:
    for dialect in BOTH:
        assert dialect.decode(payload) == message
    if isinstance(message, InstanceEvent):
        assert msgpack.unpackb(PROCESS_0_5.encode_event(message)) == msgpack.unpackb(payload)
    if isinstance(message, Unattributed):
        assert PROCESS_0_5.decode_text(PROCESS_0_5.encode_notice(message.text)) == message


@pytest.mark.parametrize(
    ("event", "said", "heard"),
    [
        (Event.Aborted, "Signal termination", (Event.Aborted, "Signal")),
        (Event.ServerError, "x", (Event.Exception, "x")),
        (Event.OutOfResources, "x", (Event.Exception, "x")),
    ],
)
def test_every_end_but_a_good_one_is_an_error_on_the_wire(
    event: Event, said: str, heard: tuple[Event, str]
) -> None:
    payload = PROCESS_0_5.encode_event(InstanceEvent(A, event, said))
    assert PROCESS_0_5.decode(payload) == InstanceEvent(A, *heard)


MALFORMED: list[bytes] = [
    b"",
    b"\xc1",
    msgpack.packb([1]),
    msgpack.packb({}),
    msgpack.packb({"type": 1}),
    b"\x81\xa4type" + b"\x91" * 5000 + b"\xc0",
    wire("response"),
    wire("response", corr_id=-1, ok=True, result=""),
    wire("response", corr_id=1, ok=1, result=""),
    wire("response", corr_id=1, ok=True, result=None),
    wire("process_event", process_id=1, event="stdout", value=""),
    wire("process_event", process_id=A, event=1, value=""),
    wire("process_event", process_id=A, event="stdout", value=b""),
    wire("file", **{**FILE, "file_hash": "x" * 10_000}),
    wire("file", **{**FILE, "chunk_index": -1}),
    wire("file", **{**FILE, "chunk_data": ""}),
    wire("file", name=1, **FILE),
    wire("error", message=1),
]


@pytest.mark.parametrize("payload", MALFORMED)
def test_a_malformed_message_breaks_the_protocol_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        PROCESS_0_5.decode(payload)
    assert len(str(caught.value)) < 500
    assert isinstance(PROCESS_0_5.decode_request(payload), Unknown)


def test_a_request_has_any_id_of_32_bits() -> None:
    for request_id in (0, (1 << 32) - 1):
        payload = wire("ping", corr_id=request_id)
        assert PROCESS_0_5.decode_request(payload) == e.Request(request_id, c.Ping())


@pytest.mark.parametrize(
    "payload",
    [
        wire("identification", corr_id=1, username="ada"),
        wire("ping"),
        msgpack.packb({"type": "ping", "corr_id": 1, b"more": 1}),
        wire("ping", corr_id=1 << 32),
        wire("launch_process", corr_id=1, inferlet="a", input="{}", capture_outputs=1),
        wire("add_program", corr_id=1, program_hash=HASH, manifest="", force_overwrite=None),
        wire("transfer_file", **{**FILE, "process_id": None}),
    ],
)
def test_what_a_server_could_not_read_is_unknown(payload: bytes) -> None:
    assert isinstance(PROCESS_0_5.decode_request(payload), Unknown)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"turn_done"}', Nothing()),
        ('{"type": "turn_done", "more": [1]}', Nothing()),
        ('{"type":"error","message":"bad client frame: x"}', Unattributed("bad client frame: x")),
        ('{"type":"error","message":1}', Unknown("error")),
        ('{"type":"error","message":"\\ud800"}', Unknown("a text message of 35 characters")),
        ('{"type":"news"}', Unknown("news")),
        ('{"type":"' + "x" * 1000 + '"}', Unknown("x" * 80)),
        ("[]", Unknown("a text message of 2 characters")),
        ("{", Unknown("a text message of 1 characters")),
        ("", Unknown("a text message of 0 characters")),
        ('{"type":' + "[" * 99_992, Unknown("a text message of 100000 characters")),
    ],
)
def test_a_text_message_is_news_or_nothing_and_never_the_end(text: str, message: object) -> None:
    for dialect in BOTH:
        assert dialect.decode_text(text) == message


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from(["response", "ping", "error", A, "add_program", "[{}]", "Signal"]),
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
        PROCESS_0_5.decode(payload)
    PROCESS_0_5.decode_request(payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(
    st.text(max_size=50)
    | json_values.map(json.dumps)
    | json_values.map(lambda value: json.dumps({"type": "error", "message": value}))
)
def test_arbitrary_text_is_some_message(text: str) -> None:
    PROCESS_0_5.decode_text(text)
    answer = Answer(7, "response", True, text)
    with contextlib.suppress(RemoteProtocolError):
        PROCESS_0_5.interpret(c.ListInstances(), answer)


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
    PROCESS_0_5.decode_request(changed)
    try:
        decoded = PROCESS_0_5.decode(changed)
    except RemoteProtocolError:
        return
    if isinstance(decoded, Answer):
        for command in GOOD:
            with contextlib.suppress(RemoteProtocolError):
                assert PROCESS_0_5.interpret(command, decoded).request_id == decoded.request_id


# ------------------------------------------------------------------------- what an answer means

ROW = {"id": A, "username": "internal", "program": "echo@0.1.0", "input": '{"a":1}',
       "elapsed_secs": 0}  # fmt: skip
INFO = e.InstanceInfo(
    id=A, arguments=("--a", "1"), status="Running", program="echo@0.1.0", input='{"a":1}'
)
LAUNCH = c.LaunchFromRegistry(name="echo")
DETACHED = c.LaunchInstance(hash=HASH, detached=True)

ANSWERS: list[tuple[ProcessDialect, c.Command, e.Outcome, str]] = [
    (PROCESS_0_3, c.Identify("a"), e.Authenticated(7, Authentication.ASSERTED), OPEN),
    (PROCESS_0_3, c.Identify("a"), e.ChallengeReceived(7, CHALLENGE), b64(CHALLENGE)),
    (
        PROCESS_0_3,
        c.AnswerChallenge(b"s"),
        e.Authenticated(7, Authentication.PROVED),
        "Authenticated",
    ),
    (
        PROCESS_0_3,
        c.AuthenticateWithToken("t"),
        e.Authenticated(7, Authentication.TOKEN),
        "Authenticated",
    ),
    (
        PROCESS_0_5,
        c.Identify("a"),
        e.Authenticated(7, Authentication.ALREADY),
        "Already authenticated",
    ),
    (PROCESS_0_5, c.Ping(), e.Pong(7), "Pong"),
    (PROCESS_0_5, c.Query("s", "r"), e.QueryAnswered(7, "{}"), "{}"),
    (PROCESS_0_5, c.ProgramExists(HASH), e.ProgramExistsAnswered(7, True), "true"),
    (PROCESS_0_5, c.ProgramExists(HASH), e.ProgramExistsAnswered(7, False), "false"),
    (PROCESS_0_5, wasm(), e.ProgramUploaded(7, HASH), "Program installed successfully"),
    (PROCESS_0_5, LAUNCH, e.Launched(7, A, False), A),
    (PROCESS_0_5, c.LaunchInstance(hash=HASH), e.Launched(7, A, False), A),
    (PROCESS_0_5, DETACHED, e.LaunchedUnnamed(7), ""),
    (PROCESS_0_5, c.AttachInstance(A), e.Attached(7, A), "Process attached"),
    (PROCESS_0_5, c.ListInstances(), e.InstancesListed(7, ()), "[]"),
    (PROCESS_0_5, c.ListInstances(), e.InstancesListed(7, (INFO,)), json.dumps([ROW])),
    (PROCESS_0_5, c.TerminateInstance(A), e.Terminated(7), "Process terminated"),
]


@pytest.mark.parametrize(("dialect", "command", "outcome", "text"), ANSWERS)
def test_an_outcome_is_the_answer_that_the_protocol_says_both_ways(
    dialect: ProcessDialect, command: c.Command, outcome: e.Outcome, text: str
) -> None:
    message = {"type": "response", "corr_id": 7, "ok": True, "result": text}
    assert msgpack.unpackb(dialect.encode_outcome(command, outcome)) == message
    answer = dialect.decode(msgpack.packb(message))
    assert isinstance(answer, Answer)
    assert dialect.interpret(command, answer) == outcome


@pytest.mark.parametrize("command", GOOD, ids=lambda command: type(command).__name__)
def test_any_command_may_be_refused(command: c.Command) -> None:
    outcome = e.Failed(7, command, "no")
    payload = PROCESS_0_5.encode_outcome(command, outcome)
    assert msgpack.unpackb(payload) == {
        "type": "response", "corr_id": 7, "ok": False, "result": "no",
    }  # fmt: skip
    answer = PROCESS_0_5.decode(payload)
    assert isinstance(answer, Answer)
    assert PROCESS_0_5.interpret(command, answer) == outcome
    late = e.TimedOut(7, command, "no")
    assert PROCESS_0_5.encode_outcome(command, late) == payload


def interpret(command: c.Command, text: str) -> e.Outcome:
    return PROCESS_0_5.interpret(command, Answer(7, "response", True, text))


def test_an_id_of_a_detached_launch_is_taken_where_it_is_given_and_never_written() -> None:
    assert interpret(DETACHED, A) == e.Launched(7, A, True)
    payload = PROCESS_0_5.encode_outcome(DETACHED, e.Launched(7, A, True))
    assert msgpack.unpackb(payload)["result"] == ""


def test_an_input_that_no_arguments_mean_is_shown_as_it_stands() -> None:
    outcome = interpret(c.ListInstances(), json.dumps([{**ROW, "input": "no JSON"}]))
    assert isinstance(outcome, e.InstancesListed)
    assert outcome.instances[0].arguments == ("no JSON",)


@pytest.mark.parametrize(
    ("arguments", "given"), [(("--a", "1"), '{"a": 1}'), (("a", "b"), '["a", "b"]')]
)
def test_an_instance_that_was_given_arguments_is_listed_with_an_input(
    arguments: tuple[str, ...], given: str
) -> None:
    info = e.InstanceInfo(id=A, arguments=arguments, status="Attached")
    payload = PROCESS_0_5.encode_outcome(c.ListInstances(), e.InstancesListed(7, (info,)))
    [row] = json.loads(msgpack.unpackb(payload)["result"])
    assert row == {**ROW, "program": "", "input": given}


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (c.ProgramExists(HASH), "maybe"),
        (LAUNCH, ""),
        (LAUNCH, "x" * 257),
        (DETACHED, "x" * 257),
        (c.Identify("a"), "neither known nor base64"),
        (c.ListInstances(), ""),
        (c.ListInstances(), "{}"),
        (c.ListInstances(), "[1]"),
        (c.ListInstances(), "[{}]"),
        (c.ListInstances(), json.dumps([{**ROW, "id": 1}])),
        (c.ListInstances(), json.dumps([{**ROW, "program": None}])),
        (c.ListInstances(), "[" * 100_000),
        (c.SendMessage(A, "x"), ""),
        (c.UploadBlob(instance_id=A, size=0, hash=HASH), ""),
        (c.LaunchServerInstance(hash=HASH, port=80), ""),
    ],
)
def test_an_answer_that_means_nothing_breaks_the_protocol(command: c.Command, text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        interpret(command, text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (c.SendMessage(A, "x"), e.Pong(7)),
        (c.Identify("a"), e.ChallengeReceived(7, CHALLENGE)),
        (c.AttachInstance(A), e.Attached(7, B)),
        (LAUNCH, e.Launched(7, A, True)),
        (LAUNCH, e.LaunchedUnnamed(7)),
        (DETACHED, e.Launched(7, A, False)),
    ],
)
def test_an_outcome_that_does_not_fit_the_command_is_not_written(
    command: c.Command, outcome: e.Outcome
) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be answered"):
        PROCESS_0_5.encode_outcome(command, outcome)


def test_a_detached_launch_by_hash_cannot_be_answered_unnamed_where_ids_are_told() -> None:
    with pytest.raises(LocalProtocolError):
        INSTANCE.encode_outcome(DETACHED, e.LaunchedUnnamed(7))


# ---------------------------------------------------------------------------- the server's words


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ChunkFault.FIRST_INDEX, "First chunk index must be 0"),
        (ChunkFault.ORDER, "Out-of-order chunk: expected 1, got 2"),
        (ChunkFault.TOTAL, "Chunk count mismatch: expected 1, got 2"),
        (ChunkFault.CHUNK_SIZE, "Chunk size 2 exceeds limit 1"),
        (ChunkFault.SIZE, "First chunk index must be 0"),
        (ChunkFault.HASH, "Program hash mismatch: declared 1, uploaded 2"),
    ],
)
def test_what_is_wrong_with_a_chunk_is_said_in_the_servers_words(
    fault: ChunkFault, words: str
) -> None:
    assert PROCESS_0_5.describe(ChunkProblem(fault, 1, 2)) == words


def test_what_is_not_there_is_said_in_the_servers_words() -> None:
    assert PROCESS_0_5.not_owned(A) == "Process not found"
    assert PROCESS_0_5.not_owned("zz") == "Invalid process_id"


# ------------------------------------------------------------------------------------- in a session


def talk(*received: bytes | str) -> tuple[ClientSession, list[e.ClientEvent]]:
    """A session that has sent an identification and a ping and heard all this; what it told."""
    session = ClientSession(dialect=PROCESS_0_5)
    session.send(c.Identify("ada"), 0.0)
    told: list[e.ClientEvent] = []
    for payload in received:
        session.receive_message(payload, 0.0)
        while (event := session.next_event()) is not NEED_DATA:
            told.append(event)
    return session, told


def test_a_user_whom_the_opening_has_named_is_taken_at_their_word() -> None:
    again = wire("response", corr_id=1, ok=True, result="Already authenticated")
    _, told = talk(again, '{"type":"turn_done"}', '{"type":"error","message":"no worker"}')
    assert told == [e.Authenticated(1, Authentication.ASSERTED), e.ServerNotice("no worker")]


def test_another_user_on_one_connection_is_refused() -> None:
    session, _ = talk(wire("response", corr_id=1, ok=True, result="Already authenticated"))
    request_id = session.send(c.Identify("bob"), 0.0)
    again = wire("response", corr_id=request_id, ok=True, result="Already authenticated")
    session.receive_message(again, 0.0)
    event = session.next_event()
    assert isinstance(event, e.Failed)
    assert "'ada'" in event.reason


DONE = '{"type":"turn_done"}'


def serving() -> ServerSession:
    """A server's session whose client A belongs to."""
    session = ServerSession(dialect=PROCESS_0_5)
    session.receive_message(PROCESS_0_5.encode(c.Identify("ada"), 1))
    assert session.next_event() == e.Request(1, c.Identify("ada"))
    session.answer(e.Authenticated(1, Authentication.ALREADY))
    session.receive_message(PROCESS_0_5.encode(LAUNCH, 2))
    session.next_event()
    session.answer(e.Launched(2, A, False))
    while session.message_to_send() is not None:
        pass
    return session


def test_a_server_takes_files_without_a_word() -> None:
    session = serving()
    for instance_id, index in ((B, 0), (A, 1), (A, 0)):
        command = c.UploadBlob(instance_id=instance_id, size=3, hash=c.hash_of(b"abc"))
        session.receive_message(PROCESS_0_5.chunk(command, 3, index, 1, 3) + b"abc")
    whole = c.UploadBlob(instance_id=A, size=3, hash=c.hash_of(b"abc"))
    assert session.next_event() == e.Request(None, whole)
    assert session.next_event() is NEED_DATA
    assert [session.message_to_send() for _ in range(4)] == [*3 * [DONE], None]


def test_a_server_is_told_the_manifest_of_a_program() -> None:
    session = serving()
    for request_id, manifest in ((3, MANIFEST), (4, None)):
        command = c.UploadProgram(size=3, hash=c.hash_of(b"abc"), manifest=manifest)
        session.receive_message(PROCESS_0_5.chunk(command, request_id, 0, 1, 3) + b"abc")
        assert session.next_event() == e.Request(request_id, command)
