"""Every bound of the client and server cores, by name, in one frozen data class."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]

KIB = 1024
MIB = 1024 * KIB


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

    blob_bytes: int = 1024 * MIB
    """One blob from an instance, put together from its chunks."""

    assembling_bytes: int = 1025 * MIB
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

    request_grace: float = 10.0
    """How long a request may wait behind unread events of an instance before it fails."""

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
        """Refuse bounds that contradict each other, where they are written down."""
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value!r}")
        if self.unread_low_bytes > self.unread_bytes:
            raise ValueError(
                f"unread_low_bytes ({self.unread_low_bytes}) must not be above "
                f"unread_bytes ({self.unread_bytes})"
            )


DEFAULT_LIMITS = Limits()
