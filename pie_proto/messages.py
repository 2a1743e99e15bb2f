"""Neutral messages, both directions: what dialects produce and consume, and sessions deal in.

No wire name stands here. Client to server: `Request` (from `events`, with or without an id) and
`UploadChunk`. Server to client: `Answer`, `InstanceEvent` (from `events`), `BlobChunk`, `Notice`,
`Unattributed`, `Nothing`. Either way: `Unknown`. A `Refusal` is what a server says no for.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from pie_proto.events import InstanceEvent, InstanceInfo, Request

__all__ = [
    "Answer",
    "BlobChunk",
    "ClientMessage",
    "Nothing",
    "Notice",
    "Refusal",
    "ServerMessage",
    "Unattributed",
    "Unknown",
    "UploadChunk",
]


class Answer(NamedTuple):
    """What answers a request. It means something only beside its command.

    ``form`` is the dialect's own name for the kind of answer; only the dialect compares it.
    """

    request_id: int
    form: str
    ok: bool
    text: str
    instances: tuple[InstanceInfo, ...] = ()


class Refusal(enum.Enum):
    """Why a server says no. Each family has its own words for it, or none."""

    NOT_FOUND = "there is no such instance"
    MALFORMED_ID = "that is no id of an instance"
    TAKEN = "somebody else is attached to the instance"
    NOT_OWNED = "the instance is not attached to this connection"
    PROGRAM_NAME = "no program can be called that"
    MANIFEST = "the manifest does not name a program"
    SUBJECT = "nothing is known about this subject"

    __hash__ = object.__hash__


class UploadChunk(NamedTuple):
    """One chunk of an upload, as the server role receives it. No ``instance_id``: a program.

    No ``request_id``: nothing is to answer it. ``manifest`` names a program, where it has one.
    """

    request_id: int | None
    instance_id: str | None
    hash: str
    position: int
    total: int
    data: bytes
    manifest: str | None = None


class BlobChunk(NamedTuple):
    """One chunk of a blob that an instance sends; ``name`` is what it calls it, if anything."""

    instance_id: str
    hash: str
    position: int
    total: int
    data: bytes
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """A message that is known, and tells nobody anything."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A text for the whole connection."""

    text: str


@dataclass(frozen=True, slots=True)
class Unattributed:
    """An error that names no request."""

    text: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message that this dialect does not know, or whose fields make no sense to a server.

    ``too_large``: a server does not even look at it.
    """

    name: str
    too_large: bool = False


ClientMessage: TypeAlias = Request | UploadChunk | Unknown
ServerMessage: TypeAlias = (
    Answer | InstanceEvent | BlobChunk | Notice | Unattributed | Nothing | Unknown
)
