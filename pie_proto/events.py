"""What happened: the events of a client and of a server, as closed unions for ``match``.

Outcomes carry the ``request_id`` of the command they settle. What an instance says is an
`InstanceEvent`, kept in the instance's mailbox until it is read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self, TypeAlias

from pie_proto.commands import Command

__all__ = [
    "NEED_DATA",
    "Attached",
    "Authenticated",
    "Authentication",
    "Blob",
    "BlobPiece",
    "BlobUploaded",
    "ChallengeReceived",
    "ClientEvent",
    "Closer",
    "Connected",
    "ConnectionClosed",
    "Event",
    "Failed",
    "HandshakeReceived",
    "InstanceEvent",
    "InstanceInfo",
    "InstanceReadable",
    "InstancesListed",
    "Launched",
    "LaunchedUnnamed",
    "NeedData",
    "Outcome",
    "Pong",
    "ProgramExistsAnswered",
    "ProgramUploaded",
    "QueryAnswered",
    "Request",
    "ServerEvent",
    "ServerInstanceLaunched",
    "ServerNotice",
    "Terminated",
    "TimedOut",
    "UnknownMessage",
]


class NeedData(enum.Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = "NEED_DATA"

    def __repr__(self) -> str:
        return "NEED_DATA"


NEED_DATA: Literal[NeedData.NEED_DATA] = NeedData.NEED_DATA
"""There is no event now: feed more bytes, or read what is unread if reading is paused."""


class Event(enum.Enum):
    """The kinds of event that an instance sends; users compare ``.name``."""

    Message = "Message"
    Stdout = "Stdout"
    Stderr = "Stderr"
    Blob = "Blob"
    Completed = "Completed"
    Aborted = "Aborted"
    Exception = "Exception"
    ServerError = "ServerError"
    OutOfResources = "OutOfResources"

    # The standard hash of an enum is a Python call (0.2 µs); identity is as right and free.
    __hash__ = object.__hash__

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows for that instance."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        Event.Completed,
        Event.Aborted,
        Event.Exception,
        Event.ServerError,
        Event.OutOfResources,
    }
)


class InstanceEvent(NamedTuple):
    """One event of one instance: ``data`` is ``bytes`` for `Event.Blob`, ``str`` for all others.

    To a client those ``bytes`` are a `Blob`, or after ``stream_blobs`` a `BlobPiece`.
    """

    instance_id: str
    event: Event
    data: str | bytes


class Blob(bytes):
    """What an instance sent as a blob: its bytes, and what is known of them."""

    name: str | None
    """What the program calls it, in its own words, if anything: no path, and not to be made one.

    At most 4096 characters; one that is longer is none. Servers up to 0.2 tell no names.
    """
    hash: str
    """The hash of the content, 64 characters of lower-case hex. It has been checked."""

    # The hash that Pie gives to content, in the dialects and everywhere, has no other name.
    def __new__(cls, data: bytes, *, hash: str, name: str | None = None) -> Self:  # noqa: A002
        """A blob with these bytes; they are copied."""
        blob = super().__new__(cls, data)
        blob.hash, blob.name = hash, name
        return blob

    def __getnewargs_ex__(self) -> tuple[tuple[bytes], dict[str, str | None]]:
        return (bytes(self),), {"hash": self.hash, "name": self.name}


class BlobPiece(bytes):
    """One piece of a blob, for an instance whose blobs are not to be put together in memory.

    Pieces of one blob come in order, those of several may be mixed. The hash has been checked when
    the last one comes; one that is wrong ends the connection instead.
    """

    hash: str
    """The hash of the whole blob, 64 characters of lower-case hex."""
    offset: int
    """Where in the blob it stands, in bytes."""
    is_last: bool
    """Whether the blob is whole with it."""
    name: str | None
    """What the program calls the blob, as `Blob.name`."""

    def __new__(
        cls,
        data: bytes,
        *,
        hash: str,  # noqa: A002
        offset: int,
        is_last: bool,
        name: str | None = None,
    ) -> Self:
        """A piece with these bytes; they are copied."""
        piece = super().__new__(cls, data)
        piece.hash, piece.offset, piece.is_last, piece.name = hash, offset, is_last, name
        return piece


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceInfo:
    """One row of a list of instances; ``status`` is Attached, Detached or Finished.

    Servers that know programs by name tell neither who is attached nor what has finished: there,
    ``status`` is Running, and ``program`` (``name@version``) and ``input`` (JSON text) are told.
    """

    id: str
    arguments: tuple[str, ...]
    status: str
    program: str | None = None
    input: str | None = None


class Authentication(enum.Enum):
    """How a server came to accept a user."""

    ASSERTED = "asserted"
    """The server asks for no proof: any user name does."""
    PROVED = "proved"
    """The user signed the server's challenge."""
    TOKEN = "token"  # noqa: S105 - a name, not a secret
    """The caller knew the server's internal token."""
    ALREADY = "already"
    """The connection had been authenticated before; nothing changed."""


# ------------------------------------------------------------------------- the connection's events


@dataclass(frozen=True, slots=True)
class Connected:
    """The opening handshake is done; the conversation can begin."""


class Closer(enum.Enum):
    """Who ended a connection."""

    LOCAL = "this side"
    REMOTE = "the other side"
    TRANSPORT = "the network"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed:
    """The end. Every request not settled before is lost, and no event follows.

    ``code`` and ``reason`` are those of the WebSocket Close frame, where there was one.
    ``violation`` says how the peer broke the protocol, if it did. ``opened`` tells whether the
    handshake had been done; ``status``, ``body`` and ``location`` (where its answer points to) are
    what an HTTP server answered instead.
    """

    by: Closer
    code: int | None = None
    reason: str = ""
    violation: str | None = None
    opened: bool = True
    status: int | None = None
    body: str = ""
    location: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceReadable:
    """The mailbox of an instance went from empty to non-empty: read it until ``None``."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class ServerNotice:
    """A notice of the server's for the whole connection."""

    text: str


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A well-formed message of a type this dialect does not know; ``name`` is its type."""

    name: str


# ------------------------------------------------------------------------------------- the outcomes


@dataclass(frozen=True, slots=True)
class ChallengeReceived:
    """The server wants ``challenge`` (1 to 64 raw bytes) signed: send `AnswerChallenge`."""

    request_id: int
    challenge: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The server accepted the user."""

    request_id: int
    method: Authentication


@dataclass(frozen=True, slots=True)
class Pong:
    """The server is alive and answering."""

    request_id: int


@dataclass(frozen=True, slots=True)
class QueryAnswered:
    """The text the server answered a query with."""

    request_id: int
    result: str


@dataclass(frozen=True, slots=True)
class ProgramExistsAnswered:
    """Whether the server has the program."""

    request_id: int
    exists: bool


@dataclass(frozen=True, slots=True)
class ProgramUploaded:
    """The server has the whole program under this hash."""

    request_id: int
    hash: str


@dataclass(frozen=True, slots=True)
class BlobUploaded:
    """The server has handed the whole blob to the instance."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Launched:
    """An instance runs. Unless ``detached``, its events come to this connection from now on."""

    request_id: int
    instance_id: str
    detached: bool


@dataclass(frozen=True, slots=True)
class LaunchedUnnamed:
    """An instance was launched detached, and the server does not say which: list to find it."""

    request_id: int


@dataclass(frozen=True, slots=True)
class ServerInstanceLaunched:
    """The program runs as a server of its own. It has no id here, and its events come to nobody."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Attached:
    """The instance's events come to this connection from now on, buffered output first."""

    request_id: int
    instance_id: str


@dataclass(frozen=True, slots=True)
class InstancesListed:
    """The user's instances, running or finished and unclaimed."""

    request_id: int
    instances: tuple[InstanceInfo, ...]


@dataclass(frozen=True, slots=True)
class Terminated:
    """The server has taken note. Some servers say so for instances they never knew."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The server said no to ``command``; ``reason`` is in its words, if it is the server's.

    ``advice`` is what to do about it, where there is something to say.
    """

    request_id: int
    command: Command
    reason: str
    advice: str = field(default="", compare=False)
    by_server: bool = True
    """False for what the client found out: the server has said yes, and it was of no use."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """No answer within the bound. ``reason`` says what it waited for, and what to do."""

    request_id: int
    command: Command
    reason: str


Outcome: TypeAlias = (
    ChallengeReceived
    | Authenticated
    | Pong
    | QueryAnswered
    | ProgramExistsAnswered
    | ProgramUploaded
    | BlobUploaded
    | Launched
    | LaunchedUnnamed
    | ServerInstanceLaunched
    | Attached
    | InstancesListed
    | Terminated
    | Failed
    | TimedOut
)
"""What settles a request. The server role sends the same types that the client role receives."""

ClientEvent: TypeAlias = (
    Connected | ConnectionClosed | InstanceReadable | ServerNotice | UnknownMessage | Outcome
)

# ----------------------------------------------------------------------------- the server's events


@dataclass(frozen=True, slots=True)
class HandshakeReceived:
    """A client asks to open a WebSocket: accept or reject it. Header names are lower-case."""

    target: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A client's command. ``request_id`` is ``None`` where the client expects no answer.

    Uploads come whole: ``command.data`` is the content, its hash checked.
    """

    request_id: int | None
    command: Command


ServerEvent: TypeAlias = HandshakeReceived | Request | UnknownMessage | ConnectionClosed
