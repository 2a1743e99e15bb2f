"""What is legal when: the transition tables of connection, authentication, transfer and instance.

Rules of this file:

* A table maps (state, input) to the next state. A pair that is missing is not legal; whoever made
  the input decides whose fault that is (`LocalProtocolError` or `RemoteProtocolError`).
* Inputs are things that happen, in the past or present tense of the side that keeps the state.
* Nothing here knows bytes, messages or ids. Effects live in the session, next to the input.
* The diagrams in ``docs/states.md`` are drawn from these tables, and the tests walk their full
  product.
"""

from __future__ import annotations

import enum
from typing import Final, TypeVar

__all__ = [
    "AUTHENTICATION",
    "CONNECTION",
    "DETACHED_LAUNCH",
    "INSTANCE",
    "SERVER_AUTHENTICATION",
    "TRANSFER",
    "AuthenticationInput",
    "AuthenticationState",
    "ConnectionInput",
    "ConnectionState",
    "DetachedLaunchInput",
    "DetachedLaunchState",
    "InstanceInput",
    "InstanceState",
    "ServerAuthenticationInput",
    "ServerAuthenticationState",
    "TransferInput",
    "TransferState",
    "next_state",
]


class _Named(enum.Enum):
    """An enum hashed by identity (the standard hash is a Python call) and shown by its name."""

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return self.name


# ------------------------------------------------------------------------------------- connection


class ConnectionState(_Named):
    """Where a connection stands. Both roles."""

    CONNECTING = "connecting"
    """The opening handshake is under way."""
    OPEN = "open"
    """Messages go both ways."""
    CLOSING = "closing"
    """This side has asked to end; the peer has not yet followed."""
    CLOSED = "closed"
    """Over. Nothing is sent or received any more."""


class ConnectionInput(_Named):
    """What happens to a connection."""

    OPENED = "handshake done"
    CLOSE = "this side closes"
    PEER_CLOSE = "the peer closes"
    END = "the transport ends"
    VIOLATION = "the peer breaks the protocol"
    TIMEOUT = "a deadline passes"


_C, _CI = ConnectionState, ConnectionInput

CONNECTION: Final = {
    (_C.CONNECTING, _CI.OPENED): _C.OPEN,
    (_C.CONNECTING, _CI.CLOSE): _C.CLOSED,
    (_C.CONNECTING, _CI.END): _C.CLOSED,
    (_C.CONNECTING, _CI.VIOLATION): _C.CLOSED,
    (_C.CONNECTING, _CI.TIMEOUT): _C.CLOSED,
    (_C.OPEN, _CI.CLOSE): _C.CLOSING,
    (_C.OPEN, _CI.PEER_CLOSE): _C.CLOSED,
    (_C.OPEN, _CI.END): _C.CLOSED,
    (_C.OPEN, _CI.VIOLATION): _C.CLOSED,
    (_C.OPEN, _CI.TIMEOUT): _C.CLOSED,
    (_C.CLOSING, _CI.CLOSE): _C.CLOSING,
    (_C.CLOSING, _CI.PEER_CLOSE): _C.CLOSED,
    (_C.CLOSING, _CI.END): _C.CLOSED,
    (_C.CLOSING, _CI.VIOLATION): _C.CLOSED,
    (_C.CLOSING, _CI.TIMEOUT): _C.CLOSED,
    # Closing what is closed is how everyone cleans up; it is no mistake.
    (_C.CLOSED, _CI.CLOSE): _C.CLOSED,
}

# --------------------------------------------------------------------------------- authentication


class AuthenticationState(_Named):
    """How far a client has come in proving who it is."""

    UNAUTHENTICATED = "unauthenticated"
    IDENTIFYING = "identifying"
    """A user name was sent; the answer is awaited."""
    CHALLENGED = "challenged"
    """The server sent a challenge; the signature is the caller's to make."""
    PROVING = "proving"
    """A signature or a token was sent; the verdict is awaited."""
    AUTHENTICATED = "authenticated"
    REFUSED = "refused"
    """The server said no. It ends the connection behind that."""


class AuthenticationInput(_Named):
    """What happens to a client's authentication."""

    IDENTIFY = "user name sent"
    TOKEN = "token sent"  # noqa: S105 - a name, not a secret
    ANSWER = "signature sent"
    CHALLENGED = "challenge received"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    COMMAND = "any other command"


_A, _AI = AuthenticationState, AuthenticationInput

AUTHENTICATION: Final = {
    (_A.UNAUTHENTICATED, _AI.IDENTIFY): _A.IDENTIFYING,
    (_A.UNAUTHENTICATED, _AI.TOKEN): _A.PROVING,
    (_A.IDENTIFYING, _AI.ACCEPTED): _A.AUTHENTICATED,
    (_A.IDENTIFYING, _AI.CHALLENGED): _A.CHALLENGED,
    (_A.IDENTIFYING, _AI.REFUSED): _A.REFUSED,
    (_A.CHALLENGED, _AI.ANSWER): _A.PROVING,
    (_A.PROVING, _AI.ACCEPTED): _A.AUTHENTICATED,
    (_A.PROVING, _AI.REFUSED): _A.REFUSED,
    (_A.AUTHENTICATED, _AI.COMMAND): _A.AUTHENTICATED,
    # The server answers a second authentication with success and changes nothing.
    (_A.AUTHENTICATED, _AI.IDENTIFY): _A.AUTHENTICATED,
    (_A.AUTHENTICATED, _AI.TOKEN): _A.AUTHENTICATED,
    (_A.AUTHENTICATED, _AI.ACCEPTED): _A.AUTHENTICATED,
    (_A.AUTHENTICATED, _AI.REFUSED): _A.AUTHENTICATED,
}


class ServerAuthenticationState(_Named):
    """How far a server has come in finding out who its client is."""

    AWAITING_IDENTITY = "awaiting identity"
    DECIDING = "deciding"
    """A name or a token came; what to say to it is the application's to decide."""
    CHALLENGING = "challenging"
    """A challenge was sent; nothing but its answer may come."""
    VERIFYING = "verifying"
    """A signature came; whether it is good is the application's to decide."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    """The client was told no; the connection ends behind that."""


class ServerAuthenticationInput(_Named):
    """What happens to a server's authentication of its client."""

    IDENTIFY = "user name received"
    TOKEN = "token received"  # noqa: S105 - a name, not a secret
    ANSWER = "signature received"
    CHALLENGE = "challenge sent"
    ACCEPT = "accepted"
    REFUSE = "refused"
    COMMAND = "any other command received"


_S, _SI = ServerAuthenticationState, ServerAuthenticationInput

SERVER_AUTHENTICATION: Final = {
    (_S.AWAITING_IDENTITY, _SI.IDENTIFY): _S.DECIDING,
    (_S.AWAITING_IDENTITY, _SI.TOKEN): _S.DECIDING,
    (_S.DECIDING, _SI.CHALLENGE): _S.CHALLENGING,
    (_S.DECIDING, _SI.ACCEPT): _S.ACCEPTED,
    (_S.DECIDING, _SI.REFUSE): _S.REFUSED,
    (_S.CHALLENGING, _SI.ANSWER): _S.VERIFYING,
    (_S.VERIFYING, _SI.ACCEPT): _S.ACCEPTED,
    (_S.VERIFYING, _SI.REFUSE): _S.REFUSED,
    (_S.ACCEPTED, _SI.COMMAND): _S.ACCEPTED,
    (_S.ACCEPTED, _SI.IDENTIFY): _S.ACCEPTED,
    (_S.ACCEPTED, _SI.TOKEN): _S.ACCEPTED,
    (_S.ACCEPTED, _SI.ANSWER): _S.ACCEPTED,
    (_S.ACCEPTED, _SI.ACCEPT): _S.ACCEPTED,
}

# --------------------------------------------------------------------------------------- transfer


class TransferState(_Named):
    """How far an upload has come."""

    QUEUED = "queued"
    """No chunk has left; it can still be forgotten without a trace."""
    SENDING = "sending"
    """At least one chunk has left, and at least one has not."""
    SENT = "sent"
    """Every chunk has left; the answer is awaited."""
    ABORTING = "aborting"
    """Given up half way: one chunk that does not fit will clear the server's slot."""
    ENDED = "ended"


class TransferInput(_Named):
    """What happens to an upload."""

    CHUNK = "a chunk leaves, more follow"
    LAST_CHUNK = "the last chunk leaves"
    ANSWER = "the server answers"
    CANCEL = "the caller gives up"
    ABORT_CHUNK = "the abort chunk leaves"


_T, _TI = TransferState, TransferInput

TRANSFER: Final = {
    (_T.QUEUED, _TI.CHUNK): _T.SENDING,
    (_T.QUEUED, _TI.LAST_CHUNK): _T.SENT,
    (_T.QUEUED, _TI.CANCEL): _T.ENDED,
    (_T.SENDING, _TI.CHUNK): _T.SENDING,
    (_T.SENDING, _TI.LAST_CHUNK): _T.SENT,
    # An answer before the last chunk is a refusal: the server has dropped the upload by itself.
    (_T.SENDING, _TI.ANSWER): _T.ENDED,
    (_T.SENDING, _TI.CANCEL): _T.ABORTING,
    (_T.SENT, _TI.ANSWER): _T.ENDED,
    (_T.SENT, _TI.CANCEL): _T.ENDED,
    (_T.ABORTING, _TI.ABORT_CHUNK): _T.ENDED,
    (_T.ABORTING, _TI.ANSWER): _T.ENDED,
}

# -------------------------------------------------------------------------------- detached launch


class DetachedLaunchState(_Named):
    """How far a detached launch has come where the server does not say which instance it made."""

    WAITING = "waiting"
    """Another is under way: two at a time could not be told apart."""
    LISTING = "listing"
    """What runs before is asked for."""
    LAUNCHING = "launching"
    """Sent; the answer is awaited."""
    ABANDONED = "abandoned"
    """Sent, and nobody waits for it any more; what comes next must still wait for the answer."""
    SEARCHING = "searching"
    """It runs; what runs behind it is asked for."""
    FOUND = "found"
    """What is new is known; launches under way may yet claim some of it."""
    ENDED = "ended"


class DetachedLaunchInput(_Named):
    """What happens to such a launch."""

    TURN = "its turn comes"
    LISTED = "a list comes"
    LAUNCHED = "launched"
    REFUSED = "the server says no"
    CANCEL = "the caller gives up"
    SETTLED = "all others have their ids"


_D, _DI = DetachedLaunchState, DetachedLaunchInput

DETACHED_LAUNCH: Final = {
    (_D.WAITING, _DI.TURN): _D.LISTING,
    (_D.WAITING, _DI.CANCEL): _D.ENDED,
    (_D.LISTING, _DI.LISTED): _D.LAUNCHING,
    (_D.LISTING, _DI.REFUSED): _D.ENDED,
    (_D.LISTING, _DI.CANCEL): _D.ENDED,
    (_D.LAUNCHING, _DI.LAUNCHED): _D.SEARCHING,
    (_D.LAUNCHING, _DI.REFUSED): _D.ENDED,
    (_D.LAUNCHING, _DI.CANCEL): _D.ABANDONED,
    (_D.ABANDONED, _DI.LAUNCHED): _D.ENDED,
    (_D.ABANDONED, _DI.REFUSED): _D.ENDED,
    (_D.SEARCHING, _DI.LISTED): _D.FOUND,
    (_D.SEARCHING, _DI.REFUSED): _D.ENDED,
    (_D.SEARCHING, _DI.CANCEL): _D.ENDED,
    (_D.FOUND, _DI.SETTLED): _D.ENDED,
    (_D.FOUND, _DI.CANCEL): _D.ENDED,
}

# --------------------------------------------------------------------------------------- instance


class InstanceState(_Named):
    """What an instance is to this connection. Every id not known is `UNATTACHED`."""

    UNATTACHED = "unattached"
    """Never launched or attached here, launched detached, or over and read to the end."""
    ATTACHING = "attaching"
    """Asked for; the answer is awaited."""
    ATTACHED = "attached"
    """Its events come to this connection."""
    TERMINATING = "terminating"
    """Asked to end: its output is dropped, its terminal event is awaited."""
    DISCARDED = "discarded"
    """Nobody wants its events; what still comes is dropped."""
    ENDED = "ended"
    """Its terminal event has come; there are events unread."""
    TERMINATED = "terminated"
    """It was asked to end, and its terminal event has come; that is unread."""


class InstanceInput(_Named):
    """What happens to an instance."""

    LAUNCHED = "launched attached"
    ATTACH = "attach sent"
    ATTACHED = "attach accepted"
    ATTACH_REFUSED = "attach refused"
    MESSAGE = "message sent"
    BLOB = "blob sent"
    OUTPUT = "event received"
    END = "terminal event received"
    TERMINATE = "terminate sent"
    DISCARD = "discarded"
    DRAINED = "read to the end"


_I, _II = InstanceState, InstanceInput

INSTANCE: Final = {
    (_I.UNATTACHED, _II.LAUNCHED): _I.ATTACHED,
    (_I.UNATTACHED, _II.ATTACH): _I.ATTACHING,
    (_I.UNATTACHED, _II.TERMINATE): _I.UNATTACHED,
    (_I.UNATTACHED, _II.DISCARD): _I.UNATTACHED,
    (_I.ATTACHING, _II.ATTACHED): _I.ATTACHED,
    # Its launch is under way, too: a list has named it before the answer did.
    (_I.ATTACHING, _II.LAUNCHED): _I.ATTACHED,
    (_I.ATTACHING, _II.ATTACH_REFUSED): _I.UNATTACHED,
    (_I.ATTACHING, _II.TERMINATE): _I.ATTACHING,
    (_I.ATTACHED, _II.MESSAGE): _I.ATTACHED,
    (_I.ATTACHED, _II.BLOB): _I.ATTACHED,
    (_I.ATTACHED, _II.OUTPUT): _I.ATTACHED,
    (_I.ATTACHED, _II.END): _I.ENDED,
    (_I.ATTACHED, _II.TERMINATE): _I.TERMINATING,
    (_I.ATTACHED, _II.DISCARD): _I.DISCARDED,
    (_I.TERMINATING, _II.OUTPUT): _I.TERMINATING,
    (_I.TERMINATING, _II.END): _I.TERMINATED,
    (_I.TERMINATING, _II.TERMINATE): _I.TERMINATING,
    (_I.TERMINATING, _II.DISCARD): _I.DISCARDED,
    (_I.DISCARDED, _II.OUTPUT): _I.DISCARDED,
    (_I.DISCARDED, _II.END): _I.UNATTACHED,
    (_I.DISCARDED, _II.TERMINATE): _I.DISCARDED,
    (_I.DISCARDED, _II.DISCARD): _I.DISCARDED,
    # The user has not read the end and cannot know of it: the message is dropped.
    (_I.ENDED, _II.MESSAGE): _I.ENDED,
    (_I.ENDED, _II.TERMINATE): _I.TERMINATED,
    (_I.ENDED, _II.DISCARD): _I.UNATTACHED,
    (_I.ENDED, _II.DRAINED): _I.UNATTACHED,
    (_I.TERMINATED, _II.TERMINATE): _I.TERMINATED,
    (_I.TERMINATED, _II.DISCARD): _I.UNATTACHED,
    (_I.TERMINATED, _II.DRAINED): _I.UNATTACHED,
}

_State = TypeVar("_State")
_Input = TypeVar("_Input")


def next_state(
    table: dict[tuple[_State, _Input], _State], state: _State, happened: _Input
) -> _State | None:
    """The state that follows, or ``None`` where the table does not allow it."""
    return table.get((state, happened))
