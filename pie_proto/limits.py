"""Every bound of the client and server cores, by name, in one frozen data class."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, fields
from typing import Final, TypeAlias

__all__ = ["DEFAULT_LIMITS", "DEFAULT_TIMEOUT", "DefaultTimeout", "Limits", "Timeout", "timeout_of"]

KIB = 1024
MIB = 1024 * KIB


class DefaultTimeout(enum.Enum):
    """The type of `DEFAULT_TIMEOUT`."""

    DEFAULT_TIMEOUT = "the bound that `Limits` has for this kind of request"

    def __repr__(self) -> str:
        return self.name


DEFAULT_TIMEOUT: Final = DefaultTimeout.DEFAULT_TIMEOUT
"""The ``timeout`` of a request for which the caller has given none."""

Timeout: TypeAlias = float | DefaultTimeout | None
"""How long to wait for an answer: seconds, ``None`` for no bound, or `DEFAULT_TIMEOUT`."""


def timeout_of(given: Timeout) -> Timeout:
    """Check a ``timeout`` argument; infinity means ``None``.

    Raises `ValueError` for a number that is not above 0, and `TypeError` for any other type.
    """
    if given is None or isinstance(given, DefaultTimeout):
        return given
    if not _is_number(given):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(given).__name__}")
    if not given > 0:
        raise ValueError(f"timeout must be above 0 seconds, or None for no bound, not {given!r}")
    return None if given == math.inf else given


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one conversation. Sizes are in bytes, times in seconds.

    The *peer's* limits (how large a message it takes, how large a chunk) are not here: they are
    facts about a family of servers, and stand in the dialect's capability table.
    """

    unread_bytes: int = 16 * MIB
    """Unread instance events at which reading pauses. A few large outputs or some 100,000 small
    ones: enough that a busy consumer never stalls the network, small beside a process."""

    unread_low_bytes: int = 8 * MIB
    """Unread instance events at which paused reading resumes: half, so that one read does not
    toggle it."""

    event_cost_bytes: int = 128
    """Fixed cost of one unread event, beside its data: about what the tuple, the string header and
    the queue's slot take, so that a million empty events count too."""

    held_bytes: int = 1 * MIB
    """Events held for instances not yet known, while a launch or an attach is unanswered. Past it
    the server is talking about instances nobody asked for."""

    message_bytes: int = 64 * MIB
    """One message from the peer. Real servers send values of 5 MiB and more in one message and
    themselves take 64 MiB."""

    read_ahead_bytes: int = 8 * MIB
    """Bytes received and not decoded, at which receiving stops too. While reading is paused, bytes
    are still received up to this bound, so that the end of the connection is noticed. The default
    is more than the receive buffer of a socket commonly grows to (6 MiB on Linux)."""

    blob_bytes: int = 256 * MIB
    """One blob from an instance, put together from its chunks. Servers take as much in one upload.
    """

    assembling_bytes: int = 257 * MIB
    """All blobs being put together at one time, each with a fixed cost beside its content: one of
    the largest, and many small ones."""

    unsent_bytes: int = 1 * MIB
    """Small messages accepted and not yet handed to the transport, at which writing pauses. Uploads
    do not count: their chunks are made only when they are about to be sent."""

    pending_requests: int = 65_536
    """Requests under way at one time."""

    write_bytes: int = 64 * KIB
    """The most that one call of ``data_to_send`` makes by default. Transient allocations above
    128 KiB are what the C library makes slow."""

    upload_bytes: int = 256 * MIB
    """One upload that the *server role* takes, program or blob."""

    handshake_body_bytes: int = 1024
    """How much of an HTTP answer that is no WebSocket is kept to explain it."""

    request_timeout: float | None = 60.0
    """How long the server may take to answer a request that servers answer at once, and how long an
    upload may go without progress. ``None``: for ever. Long enough for a busy server and a slow
    line: a request that a server drops never gets an answer."""

    launch_timeout: float | None = 300.0
    """How long the server may take to answer a launch or the last chunk of an upload: it may
    compile the program first, or fetch it from a registry. Also the bound of requests sent while
    one of these is unanswered, since some servers answer in order. ``None``: for ever."""

    handshake_body_timeout: float = 2.0
    """How long the body of such an answer is waited for after its head. It comes with the head or
    soon after; 2 s leave time to repeat a lost packet. A body may also never end."""

    request_grace: float = 10.0
    """How long unread events of an instance may block a request before it fails."""

    handshake_timeout: float = 30.0
    """How long opening a connection may take, from the first packet to the answered handshake,
    also where a server is looked for at two paths."""

    authentication_timeout: float = 30.0
    """How long a server may take to answer who the client is, and what it signed. Servers answer at
    once, a wrong token within 3 s: whoever says nothing does not know these words."""

    close_timeout: float = 5.0
    """How long the peer may take to end the connection once it was asked to."""

    keepalive_interval: float | None = 20.0
    """Silence after which a WebSocket ping is sent; ``None`` turns keepalive off. 20 s is under the
    idle limits of common proxies (30 to 60 s)."""

    keepalive_timeout: float = 20.0
    """Silence after that ping has left at which the connection is given up."""

    def __post_init__(self) -> None:
        """Reject values that are not positive numbers, and bounds that contradict each other."""
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None and "None" in str(item.type):
                continue
            if not _is_number(value) or not value > 0:
                raise ValueError(f"{item.name} must be a number above 0, not {value!r}")
        if self.unread_low_bytes > self.unread_bytes:
            raise ValueError(
                f"unread_low_bytes ({self.unread_low_bytes}) must not be above "
                f"unread_bytes ({self.unread_bytes})"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


DEFAULT_LIMITS = Limits()
