"""What you ask of a Pie server: one frozen data class per command, and the check of its fields.

Building a command never fails; sending one that cannot be meant is refused by the session with a
`LocalProtocolError` that says which field and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TypeAlias

from blake3 import blake3

from pie_proto.json_text import read_json

__all__ = [
    "AnswerChallenge",
    "AttachInstance",
    "AuthenticateWithToken",
    "Buffer",
    "Command",
    "Identify",
    "LaunchFromRegistry",
    "LaunchInstance",
    "LaunchServerInstance",
    "ListInstances",
    "Ping",
    "ProgramExists",
    "Query",
    "SendMessage",
    "TerminateInstance",
    "UploadBlob",
    "UploadCommand",
    "UploadProgram",
    "buffer_problem",
    "hash_of",
    "in_lower_case",
    "is_hash",
    "problem_with",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes of the caller's, not copied until they are sent."""


def hash_of(data: Buffer) -> str:
    """The name Pie gives to content: lower-case hex BLAKE3-256 (64 characters) of the whole of it.

    One thread, about 1 GB/s; callers with an event loop hash large content in a worker thread.
    """
    return blake3(memoryview(data).cast("B")).hexdigest()


def is_hash(text: str) -> bool:
    """Whether a text has the form of such a name: nothing else is ever made part of a path."""
    return _HASH.fullmatch(text) is not None


_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HASH_IN_ANY_CASE = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Identify:
    """Say who you are. Answered by `Authenticated`, by `ChallengeReceived`, or by `Failed`."""

    username: str


@dataclass(frozen=True, slots=True)
class AnswerChallenge:
    """Answer a challenge with the raw signature over its raw bytes."""

    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthenticateWithToken:
    """Authenticate with the server's internal token. A wrong one is answered late, on purpose."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a sign of life from the Pie server itself (not its WebSocket). Answered by `Pong`."""


@dataclass(frozen=True, slots=True)
class Query:
    """Ask the server about a subject it knows. Some servers never answer an unknown subject."""

    subject: str
    record: str


@dataclass(frozen=True, slots=True)
class ProgramExists:
    """Ask whether the program with this hash is on the server."""

    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadProgram:
    """Upload a program of ``size`` bytes with this ``hash``.

    With ``data`` the core takes the chunks from it. Without, it asks for each chunk when it is
    about to send it (``chunks_wanted``), so that the content need never be in memory.

    ``manifest`` is the TOML text that names the program, for servers that know programs by name;
    a WebAssembly component without one is named after its hash.
    """

    size: int
    hash: str
    data: Buffer | None = field(default=None, repr=False, compare=False)
    manifest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadBlob:
    """Upload ``size`` bytes to an instance; ``data`` and ``hash`` as in `UploadProgram`."""

    instance_id: str
    size: int
    hash: str
    data: Buffer | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchInstance:
    """Launch the uploaded program with this hash. Attached instances stream to this connection.

    ``input`` is the JSON text of an object, for servers whose programs take one; ``None`` means:
    made from ``arguments``.
    """

    hash: str
    arguments: tuple[str, ...] = ()
    detached: bool = False
    input: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFromRegistry:
    """Launch a program of the server's registry by name (``name``, ``name@version``, …).

    ``input`` as in `LaunchInstance`.
    """

    name: str
    arguments: tuple[str, ...] = ()
    detached: bool = False
    input: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchServerInstance:
    """Launch the uploaded program with this hash as a server of its own, listening on ``port``."""

    hash: str
    port: int
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AttachInstance:
    """Take over a detached instance: its buffered output, then what it does from here on."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class ListInstances:
    """List the user's instances that are running, or finished and not yet claimed."""


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send a text to an attached instance. Nothing answers it."""

    instance_id: str
    message: str


@dataclass(frozen=True, slots=True)
class TerminateInstance:
    """Terminate an instance, attached or not. Its unread output is dropped, its end is not."""

    instance_id: str


UploadCommand: TypeAlias = UploadProgram | UploadBlob

Command: TypeAlias = (
    Identify
    | AnswerChallenge
    | AuthenticateWithToken
    | Ping
    | Query
    | ProgramExists
    | UploadProgram
    | UploadBlob
    | LaunchInstance
    | LaunchFromRegistry
    | LaunchServerInstance
    | AttachInstance
    | ListInstances
    | SendMessage
    | TerminateInstance
)


_MAX_PORT = 65_535


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return f"must be str, not {type(value).__name__}"
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        return f"cannot be sent as UTF-8: {exc.reason} at character {exc.start}"
    return None


def _filled_text(value: object) -> str | None:
    return _text(value) or (None if value else "must not be empty")


def _hash(value: object) -> str | None:
    problem = _text(value)
    if problem is None and not is_hash(str(value)):
        return "must be the BLAKE3 hash in lower-case hex, 64 characters"
    return problem


def _text_tuple(value: object) -> str | None:
    if not isinstance(value, tuple):
        return f"must be a tuple of str, not {type(value).__name__}"
    for index, item in enumerate(value):
        if problem := _text(item):
            return f"[{index}] {problem}"
    return None


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else f"must be bool, not {type(value).__name__}"


def _size(value: object) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return f"must be int, not {type(value).__name__}"
    return None if value >= 0 else "must not be negative"


def _port(value: object) -> str | None:
    problem = _size(value)
    if problem is None and not (isinstance(value, int) and 1 <= value <= _MAX_PORT):
        return f"must be a port, 1 to {_MAX_PORT}"
    return problem


def _signature(value: object) -> str | None:
    if not isinstance(value, bytes):
        return f"must be bytes, not {type(value).__name__}"
    return None if value else "must not be empty"


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _optional_object(value: object) -> str | None:
    problem = _optional_text(value)
    if value is None or problem is not None:
        return problem
    try:
        found = read_json(str(value))
    except ValueError as exc:
        return f"must be the JSON text of an object: {exc}"
    if not isinstance(found, dict):
        return f"must be the JSON text of an object, not of {type(found).__name__}"
    return None


def _optional_buffer(value: object) -> str | None:
    return None if value is None else buffer_problem(value)


def buffer_problem(value: object) -> str | None:
    """Why ``value`` is no `Buffer`, in words; ``None`` if it is one."""
    if not isinstance(value, bytes | bytearray | memoryview):
        return f"must be bytes, bytearray or memoryview, not {type(value).__name__}"
    try:
        memoryview(value).cast("B").release()
    except (TypeError, ValueError) as exc:
        return f"must be a contiguous memoryview of bytes: {exc}"
    return None


_CHECKS: dict[str, Callable[[object], str | None]] = {
    "username": _filled_text,
    "signature": _signature,
    "token": _text,
    "subject": _text,
    "record": _text,
    # A hash that is asked for is any text: whether such a program exists is the server's to say.
    "hash": _text,
    "name": _filled_text,
    "arguments": _text_tuple,
    "detached": _flag,
    "instance_id": _filled_text,
    "message": _text,
    "size": _size,
    "port": _port,
    "data": _optional_buffer,
    "manifest": _optional_text,
    "input": _optional_object,
}


def in_lower_case(command: Command) -> Command:
    """The command with the hash that it names in lower case, as servers write it.

    Some tools print hashes in upper case. Where a program is asked for by a name of the registry,
    what has the form of a hash is one, too. Never raises, whatever the fields are.
    """
    match command:
        case (
            ProgramExists()
            | LaunchInstance()
            | LaunchServerInstance()
            | UploadProgram()
            | UploadBlob()
        ) if _is_hash_in_upper_case(command.hash):
            return replace(command, hash=command.hash.lower())
        case LaunchFromRegistry() if _is_hash_in_upper_case(command.name):
            return replace(command, name=command.name.lower())
        case _:
            return command


def _is_hash_in_upper_case(value: object) -> bool:
    return (
        isinstance(value, str) and bool(_HASH_IN_ANY_CASE.fullmatch(value)) and not is_hash(value)
    )


def problem_with(command: Command) -> str | None:
    """What is wrong with the fields of ``command``, in words; ``None`` if it can be sent."""
    for item in fields(command):
        value = getattr(command, item.name)
        if problem := _CHECKS[item.name](value):
            return f"{type(command).__name__}.{item.name} {problem}"
    if isinstance(command, UploadCommand):
        if problem := _hash(command.hash):
            return f"{type(command).__name__}.hash {problem}"
        if command.data is not None and memoryview(command.data).nbytes != command.size:
            given = memoryview(command.data).nbytes
            return f"{type(command).__name__}.size is {command.size}, but data has {given} bytes"
    return None
