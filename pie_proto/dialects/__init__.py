"""What a dialect is: the set of messages that one family of Pie servers speaks.

A dialect is a codec and a table of abilities, without state. Nothing outside this package knows a
name, a field or a text of the wire.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from pie_proto.commands import (
    Buffer,
    Command,
    LaunchFromRegistry,
    LaunchInstance,
    LaunchServerInstance,
    UploadCommand,
    UploadProgram,
)
from pie_proto.events import InstanceEvent, InstanceInfo, Outcome
from pie_proto.messages import (
    Answer,
    ClientMessage,
    Refusal,
    ServerMessage,
    Unknown,
    UploadChunk,
)
from pie_proto.transfers import ChunkProblem

__all__ = ["Capabilities", "Dialect", "ProgramsBy"]


class ProgramsBy(enum.Enum):
    """What a family of servers knows its programs by."""

    HASH = "hash"
    NAME = "name"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a family of servers takes and does. Sizes in bytes."""

    name: str
    """What the family is called where one names it, as in ``dialect=``."""
    servers: str
    """The server releases, for people."""
    chunk_bytes: int
    """The most content that one chunk carries."""
    frame_bytes: int
    """The largest message in one frame that the server takes from a client."""
    upload_bytes: int
    """The most content that one upload can be, program or blob."""
    max_request_id: int
    """The highest id that a request can have."""
    programs_by: ProgramsBy
    """What programs are known by: their hash, or a name and version that a manifest gives."""
    takes_input: bool
    """Whether programs are given a JSON object, not a list of arguments."""
    returns_json: bool
    """Whether what programs return comes as JSON: all but a string, which comes as it is."""
    default_target: str
    """The path of the opening request where the caller gave none."""
    identity_header: str | None
    """The header of the opening request that says who the client is, where there is one."""
    proof: bool
    """Whether a user may be asked to sign a challenge. Without, a name is taken as it is."""
    tokens: bool
    """Whether an internal token authenticates."""
    server_launch: bool
    """Whether programs can be launched that are servers of their own."""
    confirms_blobs: bool
    """Whether an answer tells that a blob has arrived. Without, nothing tells, nor that it has not.
    """
    detached_launch_has_id: bool
    """Whether a detached launch is answered with the instance's id. Without, list to find it."""
    keeps_instances: bool
    """Whether attached instances outlive the connection. Without, they end with it."""
    keeps_output: bool
    """Whether what an instance prints while nobody is attached is kept for who attaches then."""
    keeps_finished: bool
    """Whether an instance that ended with nobody attached can be attached once, to be told how.
    Without, what has ended is gone: it is not listed either."""
    terminates_unknown: bool
    """Whether terminating an instance that is not there is a success."""
    query_subjects: frozenset[str]
    """What the server can be queried about."""
    answers_every_query: bool
    """Whether a query of a subject that is not known is refused. Without, it is never answered."""
    any_target: bool
    """Whether every path is taken in the opening request, not ``default_target`` alone."""
    answers_close: bool
    """Whether the server answers a WebSocket Close. Without, it just drops the transport."""


class Dialect(Protocol):
    """The codec of one family, for both roles. Implementations keep no state."""

    @property
    def capabilities(self) -> Capabilities:
        """What these servers take and do."""

    def objection(self, command: Command) -> str | None:
        """Why these servers cannot do ``command``, and what to do instead; ``None`` if they can."""

    def objection_to_content(self, command: UploadCommand, start: Buffer) -> str | None:
        """Why they could not use content that begins with ``start`` (its first piece)."""

    # ------------------------------------------------------------------------------- client role

    def encode(self, command: Command, request_id: int) -> bytes:
        """The message for any command but an upload. ``request_id`` 0 where nothing answers."""

    def chunk(
        self, command: UploadCommand, request_id: int, index: int, total: int, length: int
    ) -> bytes:
        """Everything of a chunk's message but its ``length`` bytes of content, which follow it."""

    def decode(self, payload: bytes) -> ServerMessage:
        """Read one message of a server's. Raises `RemoteProtocolError` and nothing else."""

    def decode_text(self, text: str) -> ServerMessage:
        """Read one WebSocket *text* message of a server's."""

    def interpret(self, command: Command, answer: Answer) -> Outcome:
        """What ``answer`` means to ``command``. Raises `RemoteProtocolError` if nothing."""

    def recognises(self, answer: Answer) -> bool:
        """Whether an ``answer`` to the first word on who the client is, is of this family.

        Asked where several families are possible, of one that can read the answer.
        """

    def program_of(
        self, command: UploadProgram | LaunchInstance | LaunchFromRegistry | LaunchServerInstance
    ) -> str:
        """What the program of ``command`` is known by: an upload goes before what launches it."""

    def registered_name(self, command: UploadProgram) -> str | None:
        """The name by which a launch finds the program, if it is not found by its hash."""

    def may_be_launch(
        self, command: LaunchInstance | LaunchFromRegistry, info: InstanceInfo
    ) -> bool:
        """Whether a row of the list of instances can be what ``command`` launched."""

    def slot(self, command: UploadCommand) -> Hashable:
        """Uploads with equal slots must not be under way at one time."""

    def slot_needs_answer(self, command: UploadCommand) -> bool:
        """Whether only the answer tells that the slot is free, not the last chunk."""

    def slot_stays_taken(self, command: UploadCommand, reason: str) -> bool:
        """Whether a refusal with this ``reason`` leaves the server's slot occupied."""

    # ------------------------------------------------------------------------------- server role

    def decode_request(self, payload: bytes) -> ClientMessage:
        """Read one message of a client's; `Unknown` for what a server would drop. Never raises."""

    def decode_request_text(self, text: str) -> ClientMessage:
        """Read one WebSocket *text* message of a client's; otherwise like `decode_request`."""

    def encode_outcome(self, command: Command, outcome: Outcome) -> bytes:
        """The answer to ``command``. Raises `LocalProtocolError` where the two do not fit."""

    def encode_event(self, event: InstanceEvent) -> bytes:
        """The message for any event of an instance but a blob."""

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
        """Everything of a blob chunk's message but its content, which follows it."""

    def encode_notice(self, text: str) -> bytes | str:
        """The message for a notice to the whole connection; a ``str`` is a text message."""

    def encode_done(self) -> str | None:
        """The text message behind all that there is to say to one message of a client's."""

    def encode_unread(self, unknown: Unknown) -> str | None:
        """The text message that tells of one that could not be read; ``None``: nothing does."""

    def upload_slot(self, chunk: UploadChunk) -> Hashable:
        """Chunks with equal slots are put together."""

    def answers_misfit(self, chunk: UploadChunk) -> bool:
        """Whether ``chunk`` is answered if it does not fit; otherwise it is dropped in silence."""

    def describe(self, problem: ChunkProblem) -> str:
        """How a server of this family words what is wrong with a chunk."""

    def not_owned(self, instance_id: str) -> str:
        """How it words that an instance is not attached to the connection that speaks to it."""

    def refusal(self, command: Command, why: Refusal, detail: str = "") -> str | None:
        """How it words a no to ``command``; ``None``: it leaves that without an answer.

        Raises `LocalProtocolError` where such a server does not refuse ``command`` for that.
        """
