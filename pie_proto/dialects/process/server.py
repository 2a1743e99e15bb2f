"""The server's side of the dialect `process`: requests read, answers and events written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.arguments import input_from
from pie_proto.dialects import Capabilities
from pie_proto.dialects.common import ACCEPTANCE, encoded, request_id_in, signature
from pie_proto.dialects.process.client import KILLED
from pie_proto.dialects.process.naming import Program, hash_in, manifest_for
from pie_proto.dialects.wire import field
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.messages import ClientMessage, Refusal, Unknown, UploadChunk

__all__ = ["REFUSALS", "answer_text", "event_fields", "read", "text_message"]

_Fields = Mapping[str, object]

# ------------------------------------------------------------------------------------------ to read


def _asks(read: Callable[[_Fields], c.Command]) -> Callable[[_Fields], ClientMessage]:
    return lambda message: e.Request(request_id_in(message), read(message))


def _check(message: _Fields) -> c.Command:
    program = str(Program(field(message, "name", str), field(message, "version", str)))
    return c.ProgramExists(hash_in(program) or program)


def _launch(message: _Fields) -> c.Command:
    program, given = field(message, "inferlet", str), field(message, "input", str)
    detached = not field(message, "capture_outputs", bool)
    if (program_hash := hash_in(program)) is not None:
        return c.LaunchInstance(hash=program_hash, input=given, detached=detached)
    return c.LaunchFromRegistry(name=program, input=given, detached=detached)


def _signal(message: _Fields) -> ClientMessage:
    command = c.SendMessage(field(message, "process_id", str), field(message, "message", str))
    return e.Request(None, command)


def _program_chunk(message: _Fields) -> ClientMessage:
    program_hash, manifest = field(message, "program_hash", str), field(message, "manifest", str)
    # Programs are replaced here in any case: what is uploaded is what is meant.
    field(message, "force_overwrite", bool)
    return UploadChunk(
        request_id_in(message),
        None,
        program_hash,
        field(message, "chunk_index", int),
        field(message, "total_chunks", int),
        field(message, "chunk_data", bytes),
        None if manifest == manifest_for(program_hash) else manifest,
    )


def _file_chunk(message: _Fields) -> ClientMessage:
    return UploadChunk(
        None,
        field(message, "process_id", str),
        field(message, "file_hash", str),
        field(message, "chunk_index", int),
        field(message, "total_chunks", int),
        field(message, "chunk_data", bytes),
    )


_BY_WORD: Final = "auth_by_token"

_CLIENT_MESSAGES: Final[dict[str, Callable[[_Fields], ClientMessage]]] = {
    "auth_identify": _asks(lambda m: c.Identify(field(m, "username", str))),
    "auth_prove": _asks(lambda m: c.AnswerChallenge(signature(field(m, "signature", str)))),
    _BY_WORD: _asks(lambda m: c.AuthenticateWithToken(field(m, "token", str))),
    "ping": _asks(lambda _: c.Ping()),
    "query": _asks(lambda m: c.Query(field(m, "subject", str), field(m, "record", str))),
    "check_program": _asks(_check),
    "add_program": _program_chunk,
    "launch_process": _asks(_launch),
    "attach_process": _asks(lambda m: c.AttachInstance(field(m, "process_id", str))),
    "list_processes": _asks(lambda _: c.ListInstances()),
    "signal_process": _signal,
    "transfer_file": _file_chunk,
    "terminate_process": _asks(lambda m: c.TerminateInstance(field(m, "process_id", str))),
}


def read(message: _Fields, can: Capabilities) -> ClientMessage:
    """What a client's message says, however it was written; `Unknown` if it cannot be read."""
    try:
        name = field(message, "type", str)
        reader = _CLIENT_MESSAGES.get(name)
        if reader is None or (name == _BY_WORD and not can.tokens):
            return Unknown(name[:80])
        return reader(message)
    except RemoteProtocolError as exc:
        return Unknown(str(exc))


# ----------------------------------------------------------------------------------------- to write

REFUSALS: Final[dict[tuple[type[c.Command], Refusal], str | None]] = {
    (c.AttachInstance, Refusal.NOT_FOUND): "Process not found",
    (c.AttachInstance, Refusal.MALFORMED_ID): "Invalid process_id",
    (c.AttachInstance, Refusal.TAKEN): "Cannot attach: already attached",
    (c.TerminateInstance, Refusal.NOT_FOUND): "Process not found",
    (c.TerminateInstance, Refusal.MALFORMED_ID): "Invalid process ID",
    (c.ProgramExists, Refusal.PROGRAM_NAME): "Invalid program identifier {detail}",
    (c.UploadProgram, Refusal.MANIFEST): (
        "Invalid manifest: Failed to parse manifest TOML: {detail}"
    ),
    (c.Query, Refusal.SUBJECT): "Unknown query subject: {detail}",
}
"""How these servers word a no; that a subject is unknown, in words of our own."""

_KINDS: Final = {
    e.Event.Stdout: "stdout",
    e.Event.Stderr: "stderr",
    e.Event.Message: "message",
    e.Event.Completed: "return",
}


def event_fields(event: e.InstanceEvent) -> dict[str, object]:
    """The message for any event but a blob. Every end but a good one is an error."""
    return {
        "type": "process_event",
        "process_id": event.instance_id,
        "event": _KINDS.get(event.event, "error"),
        # The one text by which a client tells that an instance was terminated.
        "value": KILLED if event.event is e.Event.Aborted else event.data,
    }


def text_message(fields: dict[str, object]) -> str:
    """A message as JSON. Raises `LocalProtocolError` for what is no valid Unicode."""
    text = json.dumps(fields, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise LocalProtocolError(f"a text message cannot be UTF-8: {exc}") from exc
    # As real servers write it, without spaces.
    return json.dumps(fields, separators=(",", ":"))


def answer_text(command: c.Command, outcome: e.Outcome, abilities: Capabilities) -> str:
    """The text that answers a command. Raises `LocalProtocolError` where the two do not fit."""
    match command, outcome:
        case _, e.Failed() | e.TimedOut():
            return outcome.reason
        case c.Identify(), e.ChallengeReceived() if abilities.proof:
            return encoded(outcome.challenge)
        case c.Identify() | c.AnswerChallenge() | c.AuthenticateWithToken(), e.Authenticated():
            # Who needs no proof was let in with the opening request.
            already = e.Authentication.ALREADY
            return ACCEPTANCE[outcome.method if abilities.proof else already]
        case c.Ping(), e.Pong():
            return "Pong"
        case c.Query(), e.QueryAnswered():
            return outcome.result
        case c.ProgramExists(), e.ProgramExistsAnswered():
            return "true" if outcome.exists else "false"
        case c.UploadProgram(), e.ProgramUploaded():
            return "Program installed successfully"
        case (
            c.LaunchInstance(detached=True) | c.LaunchFromRegistry(detached=True),
            e.Launched(detached=True) | e.LaunchedUnnamed(),
        ):
            return ""
        case (
            c.LaunchInstance(detached=False) | c.LaunchFromRegistry(detached=False),
            e.Launched(detached=False),
        ):
            return outcome.instance_id
        case c.AttachInstance(asked), e.Attached(instance_id=done) if asked == done:
            return "Process attached"
        case c.ListInstances(), e.InstancesListed():
            return json.dumps([_row(info) for info in outcome.instances])
        case c.TerminateInstance(), e.Terminated():
            return "Process terminated"
        case _:
            raise LocalProtocolError(
                f"{type(command).__name__} cannot be answered with this {type(outcome).__name__}"
            )


def _row(info: e.InstanceInfo) -> dict[str, object]:
    given = info.input
    if given is None:
        try:
            given = input_from(info.arguments)
        except LocalProtocolError:
            given = json.dumps(info.arguments)
    return {
        "id": info.id,
        # Real servers write this for everyone, and tell the age, which is not known here.
        "username": "internal",
        "program": info.program or "",
        "input": given,
        "elapsed_secs": 0,
    }
