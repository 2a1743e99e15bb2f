"""What a command may hold: every field of every command, and each wrong type."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from blake3 import blake3

from pie_proto import commands as c
from tests.proto.pair import A

GOOD: list[c.Command] = [
    c.Identify("ada"),
    c.AnswerChallenge(b"signature"),
    c.AuthenticateWithToken("token"),
    c.Ping(),
    c.Query("subject", ""),
    c.ProgramExists("whatever"),
    c.UploadProgram(size=3, hash="0" * 64, data=b"123", manifest="[package]"),
    c.UploadBlob(instance_id=A, size=3, hash="f" * 64),
    c.LaunchInstance(hash="whatever", arguments=("", "ü"), detached=True),
    c.LaunchFromRegistry(name="std/echo@1.0", input='{"a": "\\u00fc"}'),
    c.LaunchServerInstance(hash="whatever", port=8080, arguments=("a",)),
    c.AttachInstance(A),
    c.ListInstances(),
    c.SendMessage(A, ""),
    c.TerminateInstance(A),
]

TEXT: list[Any] = [None, b"bytes", 1, ["list"], "\ud800 lone"]
FILLED_TEXT = [*TEXT, ""]
BAD: dict[str, list[Any]] = {
    "username": FILLED_TEXT,
    "signature": [None, "text", bytearray(b"x"), b""],
    "token": TEXT,
    "subject": TEXT,
    "record": TEXT,
    "hash": TEXT,
    "name": FILLED_TEXT,
    "arguments": [None, "text", ["list"], ("a", None), ("a", b"b"), ("\udfff",)],
    "detached": [None, 0, 1, "yes"],
    "instance_id": FILLED_TEXT,
    "message": TEXT,
    "size": [None, "1", 1.0, True, -1],
    "port": [None, "80", 80.0, True, -1, 0, 65_536],
    "manifest": [b"text", 1, "\ud800"],
    "input": [
        *(b"{}", {}, "", "[]", "1", "{", '{"a": NaN}', '{"a": "\\ud800"}', "[" * 100_000),
        *('{"a": 1, "a": 1}', '{"a": 1, "\\u0061": 2}', '{"x": [{"a": {"b": 1, "b": 2}}]}'),
    ],
    "data": ["text", 1, [b"x"], memoryview(b"123456")[::2]],
}
UPLOADS = (c.UploadProgram, c.UploadBlob)


def test_there_is_a_good_example_of_every_command() -> None:
    assert {type(command) for command in GOOD} == set(c.Command.__args__)
    for command in GOOD:
        assert c.problem_with(command) is None


def test_every_field_of_every_command_has_a_check() -> None:
    names = {item.name for command in GOOD for item in dataclasses.fields(command)}
    assert names == set(c._CHECKS) == set(BAD)


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        pytest.param(command, item.name, value, id=f"{type(command).__name__}.{item.name}-{n}")
        for command in GOOD
        for item in dataclasses.fields(command)
        for n, value in enumerate(BAD[item.name])
    ],
)
def test_what_cannot_be_sent_is_said_with_command_and_field(
    command: c.Command, name: str, value: object
) -> None:
    problem = c.problem_with(dataclasses.replace(command, **{name: value}))  # type: ignore[arg-type]
    assert problem is not None
    assert problem.startswith(f"{type(command).__name__}.{name}")


@pytest.mark.parametrize(
    "value", ["", "0" * 63, "0" * 65, "0" * 63 + "F", "g" * 64, "0" * 64 + "\n"]
)
@pytest.mark.parametrize("kind", UPLOADS)
def test_the_hash_of_an_upload_is_64_lower_case_hex_digits(kind: type, value: str) -> None:
    fields = {"size": 0, "hash": value}
    command = kind(**fields) if kind is c.UploadProgram else kind(instance_id=A, **fields)
    assert "64 characters" in (c.problem_with(command) or "")


HASH = c.hash_of(b"a program")
MIXED = HASH[:10].upper() + HASH[10:]
assert MIXED != HASH


@pytest.mark.parametrize("text", [HASH, HASH.upper(), MIXED])
def test_a_hash_is_the_same_in_upper_and_in_lower_case(text: str) -> None:
    named = [
        (command, item.name)
        for command in GOOD
        for item in dataclasses.fields(command)
        if item.name == "hash"
        or (isinstance(command, c.LaunchFromRegistry) and item.name == "name")
    ]
    assert len(named) == 6
    for command, name in named:
        given = dataclasses.replace(command, **{name: text})  # type: ignore[arg-type]
        expected = dataclasses.replace(command, **{name: HASH})  # type: ignore[arg-type]
        assert c.in_lower_case(given) == expected


@pytest.mark.parametrize(
    "text", ["A" * 63, "A" * 65, "A" * 64 + "\n", "G" * 64, "\uff21" * 64, None, 1, []]
)
def test_what_is_no_hash_stays_as_it_is(text: Any) -> None:
    for command in GOOD:
        assert c.in_lower_case(command) is command
    for given in (c.ProgramExists(text), c.LaunchFromRegistry(name=text)):
        assert c.in_lower_case(given) is given


@pytest.mark.parametrize("data", [b"1234", bytearray(2), memoryview(bytes(8)).cast("I")])
def test_content_must_be_as_large_as_is_said(data: c.Buffer) -> None:
    problem = c.problem_with(c.UploadProgram(size=3, hash="0" * 64, data=data))
    assert problem == f"UploadProgram.size is 3, but data has {memoryview(data).nbytes} bytes"


def test_a_memoryview_of_nothing_any_more_is_refused() -> None:
    view = memoryview(b"123")
    view.release()
    problem = c.problem_with(c.UploadProgram(size=3, hash="0" * 64, data=view))
    assert "released" in (problem or "")


def test_secrets_and_content_are_not_shown() -> None:
    shown = repr([c.AnswerChallenge(b"SECRET"), c.AuthenticateWithToken("SECRET"), GOOD[6]])
    assert "SECRET" not in shown
    assert "123" not in shown


def test_the_hash_of_content_is_its_blake3() -> None:
    for data in (b"", b"abc", bytes(100_000)):
        assert c.hash_of(data) == blake3(data).hexdigest()
        assert c.hash_of(bytearray(data)) == c.hash_of(memoryview(data)) == c.hash_of(data)
    assert c.hash_of(memoryview(bytes(8)).cast("I")) == c.hash_of(bytes(8))
