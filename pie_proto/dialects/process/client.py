"""The client's side of the dialect `process`: requests written, answers and events read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, assert_never

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.arguments import arguments_from, input_from
from pie_proto.dialects.abilities import ABILITIES
from pie_proto.dialects.common import (
    accepted,
    blob_hash,
    encoded,
    existence,
    identified,
    launched_id,
)
from pie_proto.dialects.process.naming import Program, completed, name_of
from pie_proto.dialects.wire import field
from pie_proto.errors import RemoteProtocolError
from pie_proto.json_text import read_json
from pie_proto.messages import (
    Answer,
    BlobChunk,
    Nothing,
    ServerMessage,
    Unattributed,
    Unknown,
)

__all__ = [
    "KILLED",
    "RUNNING",
    "SERVER_MESSAGES",
    "chunk_fields",
    "may_be_launch",
    "meaning",
    "read_text",
    "request_fields",
]

_Fields = Mapping[str, object]

RUNNING: Final = "Running"
"""The status of whatever is listed: these servers do not tell who is attached."""

KILLED: Final = "Signal"
"""The error of an instance that was terminated. An exception's text begins with its type."""

_ADVICE: Final[dict[type[c.Command], str]] = {
    c.LaunchInstance: (
        "these servers know programs by name: what was uploaded with a manifest that names it is "
        "launched from the registry, by that name"
    ),
    c.AttachInstance: f"these servers {ABILITIES['kept-instances'].lack}",
}
"""What a refusal may be about that the server does not say."""

_EVENTS: Final = {
    "stdout": e.Event.Stdout,
    "stderr": e.Event.Stderr,
    "message": e.Event.Message,
    "return": e.Event.Completed,
    "error": e.Event.Exception,
}

# ----------------------------------------------------------------------------------------- to write


def request_fields(command: c.Command, request_id: int) -> dict[str, object]:
    """The message for any command that the family can do, but an upload."""
    fields: dict[str, object]
    match command:
        case c.Identify():
            fields = {"type": "auth_identify", "username": command.username}
        case c.AnswerChallenge():
            fields = {"type": "auth_prove", "signature": encoded(command.signature)}
        case c.AuthenticateWithToken():
            fields = {"type": "auth_by_token", "token": command.token}
        case c.Ping():
            fields = {"type": "ping"}
        case c.Query():
            fields = {"type": "query", "subject": command.subject, "record": command.record}
        case c.ProgramExists():
            name, version = _program(command.hash)
            fields = {"type": "check_program", "name": name, "version": version}
        case c.LaunchInstance():
            fields = _launch(str(name_of(command.hash)), command)
        case c.LaunchFromRegistry():
            fields = _launch(command.name, command)
        case c.AttachInstance():
            fields = {"type": "attach_process", "process_id": command.instance_id}
        case c.ListInstances():
            fields = {"type": "list_processes"}
        case c.TerminateInstance():
            fields = {"type": "terminate_process", "process_id": command.instance_id}
        case c.SendMessage():
            return {
                "type": "signal_process",
                "process_id": command.instance_id,
                "message": command.message,
            }
        case c.UploadProgram() | c.UploadBlob() | c.LaunchServerInstance():
            raise AssertionError(f"{type(command).__name__} is no single message here")
        case _:
            assert_never(command)
    fields["corr_id"] = request_id
    return fields


def _program(text: str) -> Program:
    name, at, version = text.partition("@")
    return Program(name, version) if at else name_of(text)


def _launch(program: str, command: c.LaunchInstance | c.LaunchFromRegistry) -> dict[str, object]:
    return {
        "type": "launch_process",
        "inferlet": program,
        "input": _input(command),
        "capture_outputs": not command.detached,
    }


def _input(command: c.LaunchInstance | c.LaunchFromRegistry) -> str:
    return input_from(command.arguments) if command.input is None else command.input


def may_be_launch(command: c.LaunchInstance | c.LaunchFromRegistry, info: e.InstanceInfo) -> bool:
    """Whether a row of a list shows what a launch could have made."""
    name, at, version = (
        command.name.partition("@")
        if isinstance(command, c.LaunchFromRegistry)
        else str(name_of(command.hash)).partition("@")
    )
    running, _, running_version = (info.program or "").partition("@")
    if name != running or (at and version != running_version):
        return False
    # What is checked when it is sent is JSON; what a server says may be anything.
    try:
        return read_json(_input(command)) == read_json(info.input or "{}")
    except ValueError:
        return False


def chunk_fields(
    command: c.UploadCommand, request_id: int, index: int, total: int
) -> dict[str, object]:
    """A chunk's message without its content."""
    place: dict[str, object] = {"chunk_index": index, "total_chunks": total}
    match command:
        case c.UploadProgram():
            return {
                "type": "add_program",
                "corr_id": request_id,
                "program_hash": command.hash,
                "manifest": completed(command.manifest or "", command.hash),
                # Without, a server that has another program of this name keeps that, and says yes.
                "force_overwrite": True,
                **place,
            }
        case c.UploadBlob():
            return {
                "type": "transfer_file",
                "process_id": command.instance_id,
                "file_hash": command.hash,
                **place,
            }
        case _:
            assert_never(command)


# ------------------------------------------------------------------------------------------ to read


def _response(message: _Fields) -> Answer:
    return Answer(
        field(message, "corr_id", int),
        "response",
        field(message, "ok", bool),
        field(message, "result", str),
    )


def _process_event(message: _Fields) -> ServerMessage:
    kind = field(message, "event", str)
    instance_id, value = field(message, "process_id", str), field(message, "value", str)
    event = _EVENTS.get(kind)
    if event is None:
        return Unknown(f"an event {kind[:40]!r}")
    if event is e.Event.Exception and value == KILLED:
        event = e.Event.Aborted
    return e.InstanceEvent(instance_id, event, value)


def _file(message: _Fields) -> BlobChunk:
    return BlobChunk(
        field(message, "process_id", str),
        blob_hash(field(message, "file_hash", str)),
        field(message, "chunk_index", int),
        field(message, "total_chunks", int),
        field(message, "chunk_data", bytes),
        None if message.get("name") is None else field(message, "name", str),
    )


SERVER_MESSAGES: Final[dict[str, Callable[[_Fields], ServerMessage]]] = {
    "response": _response,
    "process_event": _process_event,
    "file": _file,
    "error": lambda message: Unattributed(field(message, "message", str)),
}


def read_text(text: str) -> ServerMessage:
    """A text message: JSON, and never so important that a broken one ends the connection."""
    try:
        message = read_json(text)
    except ValueError:
        message = None
    match message:
        case {"type": "turn_done"}:
            return Nothing()
        case {"type": "error", "message": str() as reason}:
            return Unattributed(reason)
        case {"type": str() as name}:
            return Unknown(name[:80])
        case _:
            return Unknown(f"a text message of {len(text)} characters")


def meaning(command: c.Command, answer: Answer) -> e.Outcome:
    """What an answer means to its command. Raises `RemoteProtocolError` if nothing."""
    request_id, text = answer.request_id, answer.text
    if not answer.ok:
        return e.Failed(request_id, command, text, _ADVICE.get(type(command), ""))
    match command:
        case c.Identify():
            return identified(request_id, text)
        case c.AnswerChallenge() | c.AuthenticateWithToken():
            return accepted(request_id, text, command)
        case c.Ping():
            return e.Pong(request_id)
        case c.Query():
            return e.QueryAnswered(request_id, text)
        case c.ProgramExists():
            return e.ProgramExistsAnswered(request_id, existence(text))
        case c.UploadProgram():
            return e.ProgramUploaded(request_id, command.hash)
        case c.LaunchInstance() | c.LaunchFromRegistry():
            if command.detached and not text:
                return e.LaunchedUnnamed(request_id)
            return e.Launched(request_id, launched_id(text), command.detached)
        case c.AttachInstance():
            return e.Attached(request_id, command.instance_id)
        case c.ListInstances():
            return e.InstancesListed(request_id, _listed(text))
        case c.TerminateInstance():
            return e.Terminated(request_id)
        case c.SendMessage() | c.UploadBlob() | c.LaunchServerInstance():
            raise RemoteProtocolError(f"the server answered {type(command).__name__}")
        case _:
            assert_never(command)


def _listed(text: str) -> tuple[e.InstanceInfo, ...]:
    try:
        rows = read_json(text)
    except ValueError as exc:
        raise RemoteProtocolError(f"a list of instances is not JSON: {exc}") from exc
    if not isinstance(rows, list):
        raise RemoteProtocolError(f"a list of instances is {type(rows).__name__}, not a list")
    return tuple(_row(row) for row in rows)


def _row(row: object) -> e.InstanceInfo:
    if not isinstance(row, dict):
        raise RemoteProtocolError("a list of instances has a row that is no map")
    given = field(row, "input", str)
    return e.InstanceInfo(
        id=field(row, "id", str),
        arguments=arguments_from(given),
        status=RUNNING,
        program=field(row, "program", str),
        input=given,
    )
