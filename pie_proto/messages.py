"""Neutral messages, both directions: what dialects produce and consume, and sessions deal in.

No wire name stands here. Client to server: `Request` (from `events`, with or without an id) and
`UploadChunk`. Server to client: `Answer`, `InstanceEvent` (from `events`), `BlobChunk`, `Notice`,
`Unattributed`, `Nothing`. Either way: `Unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from pie_proto.events import InstanceEvent, InstanceInfo, Request

__all__ = [
    "Answer",
    "BlobChunk",
    "ClientMessage",
    "Nothing",
    "Notice",
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
    """A message that this dialect does not know, or whose fields make no sense to a server."""

    name: str


ClientMessage: TypeAlias = Request | UploadChunk | Unknown
ServerMessage: TypeAlias = (
    Answer | InstanceEvent | BlobChunk | Notice | Unattributed | Nothing | Unknown
)
