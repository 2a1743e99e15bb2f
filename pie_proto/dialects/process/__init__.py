"""The dialect `process`: servers 0.3 to 0.5, programs by name, processes and files.

One codec for two families, told apart by their `Capabilities`: 0.3 and 0.4 ask for proof of who a
user is; 0.5 has that said in the opening request.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, assert_never
from uuid import UUID

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.arguments import input_from
from pie_proto.dialects import Capabilities, ProgramsBy
from pie_proto.dialects.abilities import ABILITIES
from pie_proto.dialects.common import ACCEPTANCE, MAX_REQUEST_ID, chunk_words, refusal_words
from pie_proto.dialects.process import client, server
from pie_proto.dialects.process.naming import is_identifier, is_name, name_of, program_in
from pie_proto.dialects.wire import bin_prefix, field, pack, unpack_map
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.json_text import read_json
from pie_proto.messages import (
    Answer,
    ClientMessage,
    Refusal,
    ServerMessage,
    Unknown,
    UploadChunk,
)
from pie_proto.transfers import ChunkFault, ChunkProblem

__all__ = ["PROCESS_0_3", "PROCESS_0_5", "ProcessDialect"]

_CHUNK_BYTES: Final = 262_144
_WASM: Final = b"\0asm"

_EXAMPLE: Final = (
    'manifest=\'[package]\\nname = "echo"\\nversion = "0.1.0"\\n'
    '[runtime]\\nlanguage = "python"\\nentry = "echo"\\ncall = "kwargs"\\n\''
)

# Every chunk carries the manifest beside its content: room for both, and for the field names.
_CHUNK_OVERHEAD: Final = 1024


class ProcessDialect:
    """The codec of the `process` families. No state; use `PROCESS_0_3` or `PROCESS_0_5`."""

    __slots__ = ("_capabilities",)

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What these servers take and do."""
        return self._capabilities

    def objection(self, command: c.Command) -> str | None:
        """What only servers that know programs by hash can do, and what could not be named."""
        try:
            self._check(command)
        except LocalProtocolError as exc:
            return str(exc)
        return None

    def _check(self, command: c.Command) -> None:
        servers = f"servers {self._capabilities.servers}"
        match command:
            case c.AuthenticateWithToken() if not self._capabilities.tokens:
                raise LocalProtocolError(ABILITIES["token"].missing(self._capabilities))
            case c.LaunchServerInstance():
                raise LocalProtocolError(ABILITIES["server-launch"].missing(self._capabilities))
            case c.ProgramExists(text) if not (c.is_hash(text) or is_identifier(text)):
                raise LocalProtocolError(
                    f"{servers} are asked for a hash of 64 characters, for a program uploaded "
                    f"without a manifest, or for name@major.minor.patch, not for {text[:80]!r}"
                )
            case c.UploadProgram():
                self._check_program(command)
            case c.LaunchInstance():
                if not c.is_hash(command.hash):
                    raise LocalProtocolError(
                        f"{command.hash[:80]!r} is no hash of 64 characters: launch a program that "
                        "has a name from the registry"
                    )
                _check_input(command)
            case c.LaunchFromRegistry():
                if not is_name(command.name):
                    raise LocalProtocolError(
                        f"{servers} know programs as name or name@major.minor.patch, not as "
                        f"{command.name[:80]!r}"
                    )
                _check_input(command)
            case _:
                pass

    def _check_program(self, command: c.UploadProgram) -> None:
        if command.manifest is not None:
            limit = self._capabilities.frame_bytes - _CHUNK_BYTES - _CHUNK_OVERHEAD
            size = len(command.manifest.encode())
            if size > limit:
                raise LocalProtocolError(f"the manifest has {size} bytes; the server takes {limit}")
            program_in(command.manifest, command.hash)
        elif command.data is not None:
            _check_binary(command.data)

    def objection_to_content(self, command: c.UploadCommand, start: c.Buffer) -> str | None:
        """Without a manifest nothing says what language a program is in, so it is WebAssembly."""
        if isinstance(command, c.UploadProgram) and command.manifest is None:
            try:
                _check_binary(start)
            except LocalProtocolError as exc:
                return str(exc)
        return None

    # ------------------------------------------------------------------------------- client role

    def encode(self, command: c.Command, request_id: int) -> bytes:
        """The message for any command but an upload."""
        return pack(client.request_fields(command, request_id))

    def chunk(
        self, command: c.UploadCommand, request_id: int, index: int, total: int, length: int
    ) -> bytes:
        """A chunk's message up to its content."""
        fields = client.chunk_fields(command, request_id, index, total)
        return bin_prefix(fields, "chunk_data", length)

    def decode(self, payload: bytes) -> ServerMessage:
        """Read one message of a server's."""
        message = unpack_map(payload)
        name = field(message, "type", str)
        reader = client.SERVER_MESSAGES.get(name)
        return Unknown(name) if reader is None else reader(message)

    def decode_text(self, text: str) -> ServerMessage:
        """Text messages tell that something is done, or of an error that names no request."""
        return client.read_text(text)

    def interpret(self, command: c.Command, answer: Answer) -> e.Outcome:
        """What ``answer`` means to ``command``."""
        return client.meaning(command, answer)

    def recognises(self, answer: Answer) -> bool:
        """Who has been told in the opening request who the client is, says that it was told."""
        was_told = answer.ok and answer.text == ACCEPTANCE[e.Authentication.ALREADY]
        return was_told is not self._capabilities.proof

    def program_of(
        self,
        command: c.UploadProgram | c.LaunchInstance | c.LaunchFromRegistry | c.LaunchServerInstance,
    ) -> str:
        """The name, without a version: a launch may name none, and means the newest then."""
        match command:
            case c.UploadProgram():
                return program_in(command.manifest or "", command.hash).name
            case c.LaunchFromRegistry():
                return command.name.partition("@")[0]
            case c.LaunchInstance() | c.LaunchServerInstance():
                return name_of(command.hash).name
            case _:
                assert_never(command)

    def registered_name(self, command: c.UploadProgram) -> str | None:
        """What the manifest says, unless it leaves the naming to the hash."""
        program = program_in(command.manifest or "", command.hash)
        return None if program == name_of(command.hash) else str(program)

    def may_be_launch(
        self, command: c.LaunchInstance | c.LaunchFromRegistry, info: e.InstanceInfo
    ) -> bool:
        """Whether it is the same program with an equal input."""
        return client.may_be_launch(command, info)

    def slot(self, command: c.UploadCommand) -> Hashable:
        """Programs are kept apart by their requests, blobs by instance and hash."""
        if isinstance(command, c.UploadBlob):
            return (command.instance_id, command.hash)
        # Servers would take one program twice at a time; nobody needs it.
        return command.hash

    def slot_needs_answer(self, command: c.UploadCommand) -> bool:
        """A chunk that does not fit clears the slot, and so does the last."""
        return False

    def slot_stays_taken(self, command: c.UploadCommand, reason: str) -> bool:
        """Whatever was refused is gone."""
        return False

    # ------------------------------------------------------------------------------- server role

    def decode_request(self, payload: bytes) -> ClientMessage:
        """Read one message of a client's; `Unknown` for all that a server could not read."""
        if (large := self._too_large(len(payload))) is not None:
            return large
        try:
            return server.read(unpack_map(payload), self._capabilities)
        except RemoteProtocolError as exc:
            return Unknown(str(exc))

    def decode_request_text(self, text: str) -> ClientMessage:
        """A text message is JSON, and read like any other. Bytes cannot stand in it."""
        if (large := self._too_large(len(text))) is not None:
            return large
        try:
            message = read_json(text)
        except ValueError as exc:
            return Unknown(f"a text message is not JSON: {exc}")
        if not isinstance(message, dict):
            return Unknown(f"a text message is {type(message).__name__}, not an object")
        return server.read(message, self._capabilities)

    def _too_large(self, size: int) -> Unknown | None:
        limit = self._capabilities.frame_bytes
        if size <= limit:
            return None
        return Unknown(f"it has {size} bytes, and no more than {limit} are taken", too_large=True)

    def encode_outcome(self, command: c.Command, outcome: e.Outcome) -> bytes:
        """The answer to ``command``."""
        return pack(
            {
                "type": "response",
                "corr_id": outcome.request_id,
                "ok": not isinstance(outcome, e.Failed | e.TimedOut),
                "result": server.answer_text(command, outcome, self._capabilities),
            }
        )

    def encode_event(self, event: e.InstanceEvent) -> bytes:
        """The message for any event of an instance but a blob."""
        return pack(server.event_fields(event))

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
            "type": "file",
            "process_id": instance_id,
            "file_hash": content_hash,
            "chunk_index": index,
            "total_chunks": total,
            "name": name,
        }
        return bin_prefix(fields, "chunk_data", length)

    def encode_notice(self, text: str) -> str:
        """An error that names no request, which is a text message."""
        return server.text_message({"type": "error", "message": text})

    def encode_done(self) -> str:
        """Behind an answer, a signal and a chunk; for who is attached, when the instance ends."""
        return server.text_message({"type": "turn_done"})

    def encode_unread(self, unknown: Unknown) -> str:
        """An error that names no request, since none could be read."""
        return self.encode_notice(f"bad client frame: {unknown.name}")

    def upload_slot(self, chunk: UploadChunk) -> Hashable:
        """Programs are kept apart by their requests, files by instance and hash."""
        return chunk.request_id if chunk.instance_id is None else (chunk.instance_id, chunk.hash)

    def answers_misfit(self, chunk: UploadChunk) -> bool:
        """What is wrong with a program is told when its last chunk comes, and not before."""
        return chunk.position >= chunk.total - 1

    def describe(self, problem: ChunkProblem) -> str:
        """How these servers word what is wrong with a chunk."""
        match problem.fault:
            case ChunkFault.HASH:
                return f"Program hash mismatch: declared {problem.expected}, uploaded {problem.got}"
            case ChunkFault.SIZE:
                # What is too large is dropped in silence, and the last chunk then fits nothing.
                return "First chunk index must be 0"
            case _:
                return chunk_words(problem)

    def not_owned(self, instance_id: str) -> str:
        """How these servers word that an instance is not there."""
        try:
            UUID(instance_id)
        except ValueError:
            return "Invalid process_id"
        return "Process not found"

    def refusal(self, command: c.Command, why: Refusal, detail: str = "") -> str | None:
        """How these servers word a no."""
        return refusal_words(server.REFUSALS, command, why, detail)


def _check_binary(data: c.Buffer) -> None:
    start = bytes(memoryview(data).cast("B")[: len(_WASM)])
    if start != _WASM:
        raise LocalProtocolError(
            f"this is no WebAssembly (it begins with {start!r}): a program in source needs a "
            f"manifest that says what it is, as in {_EXAMPLE}"
        )


def _check_input(command: c.LaunchInstance | c.LaunchFromRegistry) -> None:
    if command.input is None:
        input_from(command.arguments)
    elif command.arguments:
        raise LocalProtocolError("give arguments or an input, not both")


PROCESS_0_3: Final = ProcessDialect(
    Capabilities(
        name="process-0.3",
        servers="0.3 to 0.4",
        chunk_bytes=_CHUNK_BYTES,
        frame_bytes=16 * 1024 * 1024,
        upload_bytes=256 * 1024 * 1024,
        max_request_id=MAX_REQUEST_ID,
        programs_by=ProgramsBy.NAME,
        takes_input=True,
        returns_json=True,
        default_target="/",
        identity_header=None,
        proof=True,
        tokens=True,
        server_launch=False,
        confirms_blobs=False,
        detached_launch_has_id=False,
        keeps_instances=False,
        keeps_output=False,
        keeps_finished=False,
        terminates_unknown=False,
        query_subjects=frozenset({"model_status"}),
        answers_every_query=True,
        any_target=True,
        answers_close=True,
    )
)
"""The dialect of servers 0.3 to 0.4: a challenge for users, a token for the server's own."""

PROCESS_0_5: Final = ProcessDialect(
    Capabilities(
        name="process",
        servers="0.5",
        chunk_bytes=_CHUNK_BYTES,
        frame_bytes=7_340_032,
        upload_bytes=256 * 1024 * 1024,
        max_request_id=MAX_REQUEST_ID,
        programs_by=ProgramsBy.NAME,
        takes_input=True,
        returns_json=True,
        default_target="/v1/ws",
        identity_header="x-pie-identity",
        proof=False,
        tokens=False,
        server_launch=False,
        confirms_blobs=False,
        detached_launch_has_id=False,
        keeps_instances=False,
        keeps_output=False,
        keeps_finished=False,
        terminates_unknown=False,
        query_subjects=frozenset({"model_status"}),
        answers_every_query=True,
        any_target=False,
        answers_close=False,
    )
)
"""The dialect of servers 0.5: who the user is, the opening request says, and nobody asks again."""
