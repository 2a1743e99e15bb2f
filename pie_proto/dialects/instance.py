"""The dialect `instance`: servers 0.2, programs by hash, instances and blobs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final, Literal, assert_never
from uuid import UUID

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects import Capabilities, ProgramsBy
from pie_proto.dialects.abilities import ABILITIES
from pie_proto.dialects.common import (
    ACCEPTANCE,
    MAX_REQUEST_ID,
    accepted,
    blob_hash,
    chunk_words,
    encoded,
    existence,
    identified,
    launched_id,
    refusal_words,
    request_id_in,
    signature,
)
from pie_proto.dialects.wire import bin_prefix, field, pack, text_list, unpack_map
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.messages import (
    Answer,
    BlobChunk,
    ClientMessage,
    Notice,
    Refusal,
    ServerMessage,
    Unknown,
    UploadChunk,
)
from pie_proto.transfers import ChunkProblem

__all__ = ["INSTANCE", "InstanceDialect"]

_Fields = Mapping[str, object]

_CODES: Final = {
    e.Event.Message: 0,
    e.Event.Completed: 1,
    e.Event.Aborted: 2,
    e.Event.Exception: 3,
    e.Event.ServerError: 4,
    e.Event.OutOfResources: 5,
}
_EVENTS: Final = {code: event for event, code in _CODES.items()}
_STREAMS: Final = {"Stdout": e.Event.Stdout, "Stderr": e.Event.Stderr}


class InstanceDialect:
    """The codec of the `instance` family. It keeps no state; use the constant `INSTANCE`."""

    __slots__ = ()

    capabilities: Final = Capabilities(
        name="instance",
        servers="0.2",
        chunk_bytes=262_144,
        frame_bytes=16 * 1024 * 1024,
        max_request_id=MAX_REQUEST_ID,
        upload_bytes=262_144 * 0xFFFF_FFFF,
        programs_by=ProgramsBy.HASH,
        takes_input=False,
        returns_json=False,
        default_target="/",
        identity_header=None,
        proof=True,
        tokens=True,
        server_launch=True,
        confirms_blobs=True,
        detached_launch_has_id=True,
        keeps_instances=True,
        keeps_output=True,
        keeps_finished=True,
        terminates_unknown=True,
        query_subjects=frozenset({"model_status", "backend_stats"}),
        answers_every_query=False,
        any_target=True,
        answers_close=True,
    )

    def objection(self, command: c.Command) -> str | None:
        """Only what is for servers that know programs by name."""
        match command:
            case c.UploadProgram(manifest=str()):
                return ABILITIES["manifest"].missing(self.capabilities)
            case c.LaunchInstance(input=str()) | c.LaunchFromRegistry(input=str()):
                return ABILITIES["input"].missing(self.capabilities)
            case _:
                return None

    # ------------------------------------------------------------------------------- client role

    def encode(self, command: c.Command, request_id: int) -> bytes:
        """The message for any command but an upload."""
        return pack(_request_fields(command, request_id))

    def chunk(
        self, command: c.UploadCommand, request_id: int, index: int, total: int, length: int
    ) -> bytes:
        """A chunk's message up to its content."""
        fields: dict[str, object]
        match command:
            case c.UploadProgram():
                fields = {"type": "upload_program", "program_hash": command.hash}
            case c.UploadBlob():
                fields = {
                    "type": "upload_blob",
                    "instance_id": command.instance_id,
                    "blob_hash": command.hash,
                }
            case _:
                assert_never(command)
        fields |= {"corr_id": request_id, "chunk_index": index, "total_chunks": total}
        return bin_prefix(fields, "chunk_data", length)

    def decode(self, payload: bytes) -> ServerMessage:
        """Read one message of a server's."""
        message = unpack_map(payload)
        name = field(message, "type", str)
        reader = _SERVER_MESSAGES.get(name)
        return Unknown(name) if reader is None else reader(message)

    def decode_text(self, text: str) -> ServerMessage:
        """These servers send no text messages."""
        return Unknown(f"a text message of {len(text)} characters")

    def interpret(self, command: c.Command, answer: Answer) -> e.Outcome:
        """What ``answer`` means to ``command``."""
        expected = _ANSWER_FORMS.get(type(command), "response")
        if answer.form == "challenge" and not isinstance(command, c.Identify):
            raise RemoteProtocolError(f"the server challenged {type(command).__name__}")
        if not answer.ok:
            return e.Failed(answer.request_id, command, answer.text)
        if answer.form not in {expected, "challenge"}:
            raise RemoteProtocolError(
                f"the server answered {type(command).__name__} with {answer.form!r}, "
                f"not {expected!r}"
            )
        return _success(command, answer)

    def objection_to_content(self, command: c.UploadCommand, start: c.Buffer) -> str | None:
        """Whether content is a program, the server says."""
        return None

    def recognises(self, answer: Answer) -> bool:
        """There is one family that answers in these words."""
        return True

    def program_of(
        self,
        command: c.UploadProgram | c.LaunchInstance | c.LaunchFromRegistry | c.LaunchServerInstance,
    ) -> str:
        """Programs are known by their hash; what the registry has is not uploaded."""
        return command.name if isinstance(command, c.LaunchFromRegistry) else command.hash

    def registered_name(self, command: c.UploadProgram) -> str | None:
        """Uploaded programs have no name."""
        return None

    def may_be_launch(
        self, command: c.LaunchInstance | c.LaunchFromRegistry, info: e.InstanceInfo
    ) -> bool:
        """Launches are answered with an id, so nobody has to ask."""
        return command.arguments == info.arguments

    def slot(self, command: c.UploadCommand) -> Hashable:
        """One slot for programs; a blob's slot is its hash, for all instances."""
        return command.hash if isinstance(command, c.UploadBlob) else "program"

    def slot_needs_answer(self, command: c.UploadCommand) -> bool:
        """A blob's refusal may leave its slot taken, and only its words tell."""
        return isinstance(command, c.UploadBlob)

    def slot_stays_taken(self, command: c.UploadCommand, reason: str) -> bool:
        """Chunks for an instance that is gone are refused before the slot is looked at."""
        return isinstance(command, c.UploadBlob) and reason.startswith("Instance not owned")

    # ------------------------------------------------------------------------------- server role

    def decode_request(self, payload: bytes) -> ClientMessage:
        """Read one message of a client's; `Unknown` for all that a server drops in silence."""
        try:
            message = unpack_map(payload)
            name = field(message, "type", str)
        except RemoteProtocolError as exc:
            return Unknown(str(exc))
        try:
            reader = _CLIENT_MESSAGES.get(name)
            return Unknown(name) if reader is None else reader(message)
        except RemoteProtocolError as exc:
            return Unknown(f"{name}: {exc}")

    def decode_request_text(self, text: str) -> ClientMessage:
        """These servers read no text messages."""
        return Unknown(f"a text message of {len(text)} characters")

    def encode_outcome(self, command: c.Command, outcome: e.Outcome) -> bytes:
        """The answer to ``command``."""
        form = _ANSWER_FORMS.get(type(command), "response")
        fields: dict[str, object] = {"type": form, "corr_id": outcome.request_id}
        if isinstance(outcome, e.InstancesListed) and form == "live_instances":
            fields["instances"] = [
                {"id": row.id, "arguments": list(row.arguments), "status": row.status}
                for row in outcome.instances
            ]
            return pack(fields)
        if form == "live_instances":
            fields["type"] = "response"
        ok = not isinstance(outcome, e.Failed | e.TimedOut)
        text = _answer_text(command, outcome)
        key = "result" if fields["type"] == "response" else "message"
        return pack({**fields, "successful": ok, key: text})

    def encode_event(self, event: e.InstanceEvent) -> bytes:
        """The message for any event of an instance but a blob."""
        kind = event.event
        if kind in _CODES:
            return pack(
                {
                    "type": "instance_event",
                    "instance_id": event.instance_id,
                    "event": _CODES[kind],
                    "message": event.data,
                }
            )
        return pack(
            {
                "type": "streaming_output",
                "instance_id": event.instance_id,
                "output": {kind.name: event.data},
            }
        )

    def blob_chunk(
        self,
        instance_id: str,
        content_hash: str,
        index: int,
        total: int,
        length: int,
        *,
        name: str | None = None,
    ) -> bytes:
        """A blob chunk's message up to its content."""
        fields: dict[str, object] = {
            "type": "download_blob",
            "corr_id": 0,
            "instance_id": instance_id,
            "blob_hash": content_hash,
            "chunk_index": index,
            "total_chunks": total,
        }
        return bin_prefix(fields, "chunk_data", length)

    def encode_notice(self, text: str) -> bytes:
        """The message for a notice to the whole connection."""
        return pack({"type": "server_event", "message": text})

    def encode_done(self) -> None:
        """These servers do not tell."""

    def encode_unread(self, unknown: Unknown) -> None:
        """These servers drop such messages in silence."""

    def upload_slot(self, chunk: UploadChunk) -> Hashable:
        """One program at a time; blobs are kept apart by their hashes alone."""
        return "program" if chunk.instance_id is None else chunk.hash

    def answers_misfit(self, chunk: UploadChunk) -> bool:
        """Every chunk that does not fit is refused by itself."""
        return True

    def describe(self, problem: ChunkProblem) -> str:
        """How these servers word what is wrong with a chunk."""
        return chunk_words(problem)

    def not_owned(self, instance_id: str) -> str:
        """How these servers word that an instance is not this connection's, or no such thing."""
        try:
            UUID(instance_id)
        except ValueError:
            return f"Invalid instance_id: {instance_id}"
        return f"Instance not owned by client: {instance_id}"

    def refusal(self, command: c.Command, why: Refusal, detail: str = "") -> str | None:
        """How these servers word a no, if they answer at all."""
        return refusal_words(_REFUSALS, command, why, detail)


INSTANCE: Final = InstanceDialect()
"""The dialect of servers 0.2, the one that the user guide describes."""

# ------------------------------------------------------------------------------------- the client


_ANSWER_FORMS: Final[dict[type[c.Command], str]] = {
    c.LaunchInstance: "instance_launch_result",
    c.LaunchFromRegistry: "instance_launch_result",
    c.AttachInstance: "instance_attach_result",
    c.ListInstances: "live_instances",
}


def _request_fields(command: c.Command, request_id: int) -> dict[str, object]:
    fields: dict[str, object]
    match command:
        case c.Identify():
            fields = {"type": "identification", "username": command.username}
        case c.AnswerChallenge():
            fields = {"type": "signature", "signature": encoded(command.signature)}
        case c.AuthenticateWithToken():
            fields = {"type": "internal_authenticate", "token": command.token}
        case c.Ping():
            fields = {"type": "ping"}
        case c.Query():
            fields = {"type": "query", "subject": command.subject, "record": command.record}
        case c.ProgramExists():
            fields = {"type": "query", "subject": "program_exists", "record": command.hash}
        case c.LaunchInstance():
            fields = {
                "type": "launch_instance",
                "program_hash": command.hash,
                "arguments": list(command.arguments),
                "detached": command.detached,
            }
        case c.LaunchFromRegistry():
            fields = {
                "type": "launch_instance_from_registry",
                "inferlet": command.name,
                "arguments": list(command.arguments),
                "detached": command.detached,
            }
        case c.LaunchServerInstance():
            fields = {
                "type": "launch_server_instance",
                "port": command.port,
                "program_hash": command.hash,
                "arguments": list(command.arguments),
            }
        case c.AttachInstance():
            fields = {"type": "attach_instance", "instance_id": command.instance_id}
        case c.ListInstances():
            fields = {"type": "list_instances"}
        case c.TerminateInstance():
            fields = {"type": "terminate_instance", "instance_id": command.instance_id}
        case c.SendMessage():
            return {
                "type": "signal_instance",
                "instance_id": command.instance_id,
                "message": command.message,
            }
        case c.UploadProgram() | c.UploadBlob():
            raise AssertionError("uploads are encoded chunk by chunk")
        case _:
            assert_never(command)
    fields["corr_id"] = request_id
    return fields


def _success(command: c.Command, answer: Answer) -> e.Outcome:
    request_id, text = answer.request_id, answer.text
    match command:
        case c.Identify():
            return identified(request_id, text, asks=answer.form == "challenge")
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
        case c.UploadBlob():
            return e.BlobUploaded(request_id)
        case c.LaunchInstance() | c.LaunchFromRegistry():
            return e.Launched(request_id, launched_id(text), command.detached)
        case c.LaunchServerInstance():
            return e.ServerInstanceLaunched(request_id)
        case c.AttachInstance():
            return e.Attached(request_id, command.instance_id)
        case c.ListInstances():
            return e.InstancesListed(request_id, answer.instances)
        case c.TerminateInstance():
            return e.Terminated(request_id)
        case c.SendMessage():
            raise AssertionError("a message is not answered")
        case _:
            assert_never(command)


def _response(message: _Fields) -> Answer:
    return Answer(
        field(message, "corr_id", int),
        "response",
        field(message, "successful", bool),
        field(message, "result", str),
    )


def _challenge_answer(message: _Fields) -> Answer:
    return Answer(
        field(message, "corr_id", int), "challenge", True, field(message, "challenge", str)
    )


def _result(message: _Fields) -> Answer:
    return Answer(
        field(message, "corr_id", int),
        field(message, "type", str),
        field(message, "successful", bool),
        field(message, "message", str),
    )


def _live_instances(message: _Fields) -> Answer:
    rows: list[object] = field(message, "instances", list)
    instances = []
    for row in rows:
        if not isinstance(row, dict):
            raise RemoteProtocolError("a list of instances has a row that is no map")
        instances.append(
            e.InstanceInfo(
                id=field(row, "id", str),
                arguments=text_list(row, "arguments"),
                status=field(row, "status", str),
            )
        )
    request_id = field(message, "corr_id", int)
    return Answer(request_id, "live_instances", True, "", tuple(instances))


def _instance_event(message: _Fields) -> e.InstanceEvent:
    code = field(message, "event", int)
    event = _EVENTS.get(code)
    if event is None:
        raise RemoteProtocolError(f"an instance event has the unknown code {code}")
    return e.InstanceEvent(
        field(message, "instance_id", str), event, field(message, "message", str)
    )


def _streaming_output(message: _Fields) -> e.InstanceEvent:
    output: dict[str, object] = field(message, "output", dict)
    if len(output) != 1:
        raise RemoteProtocolError(f"an output has {len(output)} streams, not one")
    ((stream, text),) = output.items()
    event = _STREAMS.get(stream)
    if event is None or type(text) is not str:
        raise RemoteProtocolError(f"an output on the stream {stream[:40]!r} cannot be understood")
    return e.InstanceEvent(field(message, "instance_id", str), event, text)


def _download_blob(message: _Fields) -> BlobChunk:
    return BlobChunk(
        field(message, "instance_id", str),
        blob_hash(field(message, "blob_hash", str)),
        field(message, "chunk_index", int),
        field(message, "total_chunks", int),
        field(message, "chunk_data", bytes),
    )


_SERVER_MESSAGES: Final[dict[str, Callable[[_Fields], ServerMessage]]] = {
    "response": _response,
    "challenge": _challenge_answer,
    "instance_launch_result": _result,
    "instance_attach_result": _result,
    "live_instances": _live_instances,
    "instance_event": _instance_event,
    "streaming_output": _streaming_output,
    "download_blob": _download_blob,
    "server_event": lambda message: Notice(field(message, "message", str)),
}

# ------------------------------------------------------------------------------------- the server


_REFUSALS: Final[dict[tuple[type[c.Command], Refusal], str | None]] = {
    (c.AttachInstance, Refusal.NOT_FOUND): "Instance not found",
    (c.AttachInstance, Refusal.MALFORMED_ID): "Invalid instance_id",
    (c.AttachInstance, Refusal.TAKEN): "Instance already attached",
    (c.TerminateInstance, Refusal.MALFORMED_ID): "Malformed instance ID",
    (c.UploadBlob, Refusal.NOT_OWNED): "Instance not owned by client: {detail}",
    (c.Query, Refusal.SUBJECT): None,
}


def _answer_text(command: c.Command, outcome: e.Outcome) -> str:
    match command, outcome:
        case _, e.Failed() | e.TimedOut():
            return outcome.reason
        case c.Identify(), e.ChallengeReceived():
            return encoded(outcome.challenge)
        case c.Identify() | c.AnswerChallenge() | c.AuthenticateWithToken(), e.Authenticated():
            return ACCEPTANCE[outcome.method]
        case c.Ping(), e.Pong():
            return "Pong"
        case c.Query(), e.QueryAnswered():
            return outcome.result
        case c.ProgramExists(), e.ProgramExistsAnswered():
            return "true" if outcome.exists else "false"
        case c.UploadProgram(), e.ProgramUploaded():
            return outcome.hash
        case c.UploadBlob(), e.BlobUploaded():
            return "Blob sent to instance"
        case (
            c.LaunchInstance(detached=asked) | c.LaunchFromRegistry(detached=asked),
            e.Launched(detached=done),
        ) if asked is done:
            return outcome.instance_id
        case c.AttachInstance(asked_id), e.Attached(instance_id=done_id) if asked_id == done_id:
            return "Instance attached"
        case c.LaunchServerInstance(), e.ServerInstanceLaunched():
            return "server launched"
        case c.TerminateInstance(), e.Terminated():
            return "Instance terminated"
        case _:
            raise LocalProtocolError(
                f"{type(command).__name__} cannot be answered with this {type(outcome).__name__}"
            )


def _query(message: _Fields) -> c.Command:
    subject, record = field(message, "subject", str), field(message, "record", str)
    return c.ProgramExists(record) if subject == "program_exists" else c.Query(subject, record)


def _launch(message: _Fields) -> c.Command:
    return c.LaunchInstance(
        hash=field(message, "program_hash", str),
        arguments=text_list(message, "arguments"),
        detached=field(message, "detached", bool),
    )


def _launch_from_registry(message: _Fields) -> c.Command:
    return c.LaunchFromRegistry(
        name=field(message, "inferlet", str),
        arguments=text_list(message, "arguments"),
        detached=field(message, "detached", bool),
    )


def _launch_server(message: _Fields) -> c.Command:
    return c.LaunchServerInstance(
        hash=field(message, "program_hash", str),
        port=field(message, "port", int),
        arguments=text_list(message, "arguments"),
    )


def _asks(read: Callable[[_Fields], c.Command]) -> Callable[[_Fields], ClientMessage]:
    return lambda message: e.Request(request_id_in(message), read(message))


def _signal(message: _Fields) -> ClientMessage:
    command = c.SendMessage(field(message, "instance_id", str), field(message, "message", str))
    return e.Request(None, command)


def _upload_chunk(kind: Literal["program", "blob"]) -> Callable[[_Fields], ClientMessage]:
    def read(message: _Fields) -> UploadChunk:
        return UploadChunk(
            request_id_in(message),
            field(message, "instance_id", str) if kind == "blob" else None,
            field(message, f"{kind}_hash", str),
            field(message, "chunk_index", int),
            field(message, "total_chunks", int),
            field(message, "chunk_data", bytes),
        )

    return read


_CLIENT_MESSAGES: Final[dict[str, Callable[[_Fields], ClientMessage]]] = {
    "identification": _asks(lambda m: c.Identify(field(m, "username", str))),
    "signature": _asks(lambda m: c.AnswerChallenge(signature(field(m, "signature", str)))),
    "internal_authenticate": _asks(lambda m: c.AuthenticateWithToken(field(m, "token", str))),
    "ping": _asks(lambda _: c.Ping()),
    "query": _asks(_query),
    "launch_instance": _asks(_launch),
    "launch_instance_from_registry": _asks(_launch_from_registry),
    "launch_server_instance": _asks(_launch_server),
    "attach_instance": _asks(lambda m: c.AttachInstance(field(m, "instance_id", str))),
    "list_instances": _asks(lambda _: c.ListInstances()),
    "terminate_instance": _asks(lambda m: c.TerminateInstance(field(m, "instance_id", str))),
    "signal_instance": _signal,
    "upload_program": _upload_chunk("program"),
    "upload_blob": _upload_chunk("blob"),
}
