"""What every family says alike: who a client is, request ids, and what is wrong with a chunk."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final, assert_never

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects.wire import field
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.messages import Refusal
from pie_proto.transfers import ChunkFault, ChunkProblem

__all__ = [
    "ACCEPTANCE",
    "MAX_REQUEST_ID",
    "accepted",
    "blob_hash",
    "chunk_words",
    "encoded",
    "existence",
    "identified",
    "launched_id",
    "refusal_words",
    "request_id_in",
    "signature",
]

_OPEN_SERVER: Final = "Authenticated (Engine disabled authentication)"
_ACCEPTED: Final = {
    "Authenticated": e.Authentication.PROVED,
    _OPEN_SERVER: e.Authentication.ASSERTED,
    "Already authenticated": e.Authentication.ALREADY,
}

ACCEPTANCE: Final = {
    e.Authentication.ASSERTED: _OPEN_SERVER,
    e.Authentication.PROVED: "Authenticated",
    e.Authentication.TOKEN: "Authenticated",
    e.Authentication.ALREADY: "Already authenticated",
}
"""How a server words that it accepts a user."""

# Servers send 48 bytes. An SSH login has a client sign a blob that holds a session id, a user name
# and a public key, never under 64 bytes: nothing so long may be signed at a stranger's request.
_MAX_CHALLENGE: Final = 64

MAX_REQUEST_ID: Final = 0xFFFF_FFFF
"""The highest id that a request can have: 32 bits."""

# Ids are UUIDs, of 36 characters, and kept for as long as there is the instance.
_MAX_INSTANCE_ID: Final = 256


def identified(request_id: int, text: str, *, asks: bool = False) -> e.Outcome:
    """What a yes to a user name means; ``asks`` if its form alone makes it a challenge."""
    if not asks and text in _ACCEPTED:
        method = _ACCEPTED[text]
        # A bare "Authenticated" to a name alone: no proof was asked for.
        if method is e.Authentication.PROVED:
            method = e.Authentication.ASSERTED
        return e.Authenticated(request_id, method)
    return e.ChallengeReceived(request_id, _challenge(text))


def accepted(
    request_id: int, text: str, command: c.AnswerChallenge | c.AuthenticateWithToken
) -> e.Authenticated:
    """What a yes to a signature or a token means."""
    if isinstance(command, c.AnswerChallenge):
        return e.Authenticated(request_id, _ACCEPTED.get(text, e.Authentication.PROVED))
    already = _ACCEPTED.get(text) is e.Authentication.ALREADY
    method = e.Authentication.ALREADY if already else e.Authentication.TOKEN
    return e.Authenticated(request_id, method)


def _challenge(text: str) -> bytes:
    try:
        challenge = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise RemoteProtocolError(f"the server's challenge is not base64: {text[:80]!r}") from exc
    if not 1 <= len(challenge) <= _MAX_CHALLENGE:
        raise RemoteProtocolError(
            f"the server's challenge has {len(challenge)} bytes; Pie servers send 48, and one that "
            f"is not of 1 to {_MAX_CHALLENGE} bytes is not signed: it could be a request for an "
            "SSH login in disguise"
        )
    return challenge


def encoded(data: bytes) -> str:
    """Bytes as text: a challenge, a signature."""
    return base64.b64encode(data).decode()


def signature(text: str) -> bytes:
    """The bytes of a signature, as a server reads them."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        # Not a signature, so not a good one: verifying it will say so.
        return b""


def existence(text: str) -> bool:
    """Whether a server says that there is a program."""
    if text not in {"true", "false"}:
        raise RemoteProtocolError(f"asked whether a program exists, it said {text[:80]!r}")
    return text == "true"


def launched_id(text: str) -> str:
    """The id of an instance that was launched."""
    if not 1 <= len(text) <= _MAX_INSTANCE_ID:
        raise RemoteProtocolError(
            f"an instance was launched, but its id has {len(text)} characters"
        )
    return text


def blob_hash(text: str) -> str:
    """The hash that a blob is announced with."""
    if not c.is_hash(text):
        raise RemoteProtocolError(f"{text[:80]!r} is not the hash of a blob")
    return text


def request_id_in(message: Mapping[str, object]) -> int:
    """The id of a client's request. Raises `RemoteProtocolError`."""
    request_id = field(message, "corr_id", int)
    if request_id > MAX_REQUEST_ID:
        raise RemoteProtocolError(f"corr_id {request_id} is above {MAX_REQUEST_ID}")
    return request_id


def refusal_words(
    table: Mapping[tuple[type[c.Command], Refusal], str | None],
    command: c.Command,
    why: Refusal,
    detail: str,
) -> str | None:
    """What a family's table has for a no to ``command``. Raises `LocalProtocolError`."""
    key = (type(command), why)
    if key not in table:
        raise LocalProtocolError(f"{type(command).__name__} is not refused because {why.value}")
    words = table[key]
    return None if words is None else words.format(detail=detail)


def chunk_words(problem: ChunkProblem) -> str:
    """How servers word what is wrong with a chunk."""
    match problem.fault:
        case ChunkFault.FIRST_INDEX:
            return "First chunk index must be 0"
        case ChunkFault.ORDER:
            return f"Out-of-order chunk: expected {problem.expected}, got {problem.got}"
        case ChunkFault.TOTAL:
            return f"Chunk count mismatch: expected {problem.expected}, got {problem.got}"
        case ChunkFault.CHUNK_SIZE:
            return f"Chunk size {problem.got} exceeds limit {problem.expected}"
        case ChunkFault.SIZE:
            return f"Upload size {problem.got} exceeds limit {problem.expected}"
        case ChunkFault.HASH:
            return f"Hash mismatch: expected {problem.expected}, got {problem.got}"
        case _:
            assert_never(problem.fault)
