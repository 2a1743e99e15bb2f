"""The dialect `process`: servers 0.3 to 0.5, programs by name, processes and files.

One codec for two families, told apart by their `Capabilities`: 0.3 and 0.4 ask for proof of who a
user is; 0.5 has that said in the opening request.

The codec comes first: sessions do not yet do what these servers ask of a client beyond it, which
is to find detached instances by listing them, and to take an upload that nothing answers as done.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final
from uuid import UUID

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.arguments import input_from
from pie_proto.dialects import Capabilities, ProgramsBy
from pie_proto.dialects.common import MAX_REQUEST_ID, chunk_words
from pie_proto.dialects.process import client, server
from pie_proto.dialects.process.naming import is_identifier, is_name, program_in
from pie_proto.dialects.wire import bin_prefix, field, pack, unpack_map
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.messages import Answer, ClientMessage, ServerMessage, Unknown
from pie_proto.transfers import ChunkFault, ChunkProblem

__all__ = ["PROCESS_0_3", "PROCESS_0_5", "ProcessDialect"]

_CHUNK_BYTES: Final = 262_144
_WASM: Final = b"\0asm"

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
            return f"{type(command).__name__}: {exc}"
        return None

    def _check(self, command: c.Command) -> None:
        servers = f"servers {self._capabilities.servers}"
        match command:
            case c.AuthenticateWithToken() if not self._capabilities.tokens:
                raise LocalProtocolError(f"{servers} know no internal token: give a user name")
            case c.LaunchServerInstance():
                raise LocalProtocolError(
                    f"{servers} launch no programs that are servers: launch it as an instance"
                )
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
            program_in(command.manifest)
        elif command.data is not None:
            head = bytes(memoryview(command.data).cast("B")[: len(_WASM)])
            if head != _WASM:
                raise LocalProtocolError(
                    f"this is no WebAssembly (it begins with {head!r}): a program in source needs "
                    "a manifest that gives its name, version and language"
                )

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
        try:
            message = unpack_map(payload)
            name = field(message, "type", str)
        except RemoteProtocolError as exc:
            return Unknown(str(exc))
        try:
            reader = server.CLIENT_MESSAGES.get(name)
            return Unknown(name) if reader is None else reader(message)
        except RemoteProtocolError as exc:
            return Unknown(f"{name}: {exc}")

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
        self, instance_id: str, content_hash: str, index: int, total: int, length: int
    ) -> bytes:
        """A blob chunk's message up to its content."""
        fields: dict[str, object] = {
            "type": "file",
            "process_id": instance_id,
            "file_hash": content_hash,
            "chunk_index": index,
            "total_chunks": total,
            "name": None,
        }
        return bin_prefix(fields, "chunk_data", length)

    def encode_notice(self, text: str) -> bytes:
        """An error that names no request. Real servers write it as JSON in a text message."""
        return pack({"type": "error", "message": text})

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


def _check_input(command: c.LaunchInstance | c.LaunchFromRegistry) -> None:
    if command.input is None:
        input_from(command.arguments)
    elif command.arguments:
        raise LocalProtocolError("give arguments or an input, not both")


PROCESS_0_3: Final = ProcessDialect(
    Capabilities(
        name="process",
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
    )
)
"""The dialect of servers 0.5: who the user is, the opening request says, and nobody asks again."""
