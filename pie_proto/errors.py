"""The error tree, and `error_for`, the one place that turns an outcome into an exception.

::

    PieError
      LocalProtocolError        the caller's mistake; nothing was sent, the connection lives
      RemoteProtocolError       the peer broke the protocol; the connection is dead
      AuthenticationError       the server does not accept this user
      RequestFailed             the server said no
        UploadFailed  LaunchFailed  AttachFailed  TerminateFailed  QueryFailed
      InstanceEnded             recv() or send() on an instance that is over
      InstanceFailed            result() of an instance that did not complete
      RequestTimeout            no answer within the bound (also a TimeoutError)
      KeyFormatError            not a key that can be used here (also a ValueError)
      AgentError                the ssh-agent does not sign
    ConnectionError             (builtin)
      ConnectFailed             no connection could be made
      ConnectionLost            it was there and is gone
"""

from __future__ import annotations

import os
from typing import assert_never

from pie_proto import commands as c
from pie_proto.events import Closer, ConnectionClosed, Event, Failed, TimedOut
from pie_proto.tls_errors import explain_tls_error, is_tls_error, is_tls_wait

__all__ = [
    "AgentError",
    "AttachFailed",
    "AuthenticationError",
    "ConnectFailed",
    "ConnectionLost",
    "InstanceEnded",
    "InstanceFailed",
    "KeyFormatError",
    "LaunchFailed",
    "LocalProtocolError",
    "PieError",
    "QueryFailed",
    "RemoteProtocolError",
    "RequestFailed",
    "RequestTimeout",
    "TerminateFailed",
    "UploadFailed",
    "describe_cause",
    "elsewhere",
    "error_for",
    "key_wanted",
    "tls_error_behind",
]


class PieError(Exception):
    """Base of everything that Pie says no to."""


class LocalProtocolError(PieError):
    """This state does not allow it, or an argument cannot be sent. Nothing was sent."""


class RemoteProtocolError(PieError):
    """The peer broke the protocol. The connection is dead and stays so.

    ``close_code`` is the WebSocket close code that the peer is told.
    """

    def __init__(self, message: str, *, close_code: int = 1002) -> None:
        super().__init__(message)
        self.close_code = close_code


class AuthenticationError(PieError):
    """The server does not accept this user, key or token; ``reason`` is in its words."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class RequestFailed(PieError):
    """The server said no: to ``command``, with ``reason`` in its own words."""

    def __init__(self, message: str, *, command: c.Command, reason: str) -> None:
        super().__init__(message)
        self.command = command
        self.reason = reason


class UploadFailed(RequestFailed):
    """A program or a blob could not be uploaded."""


class LaunchFailed(RequestFailed):
    """No instance was launched."""


class AttachFailed(RequestFailed):
    """The instance could not be attached."""


class TerminateFailed(RequestFailed):
    """The instance could not be terminated."""


class QueryFailed(RequestFailed):
    """The query was refused."""


class InstanceEnded(PieError):
    """The instance is over. ``event`` and ``data`` say how it ended, once that was read.

    Before, ``event`` is ``None``: the instance is known to have ended, or is being terminated, and
    its terminal event is still to be read.
    """

    def __init__(self, message: str, *, event: Event | None, data: str | bytes = "") -> None:
        super().__init__(message)
        self.event = event
        self.data = data


class InstanceFailed(PieError):
    """The instance did not complete: ``event`` and ``data`` say what happened instead."""

    def __init__(self, message: str, *, event: Event, data: str | bytes = "") -> None:
        super().__init__(message)
        self.event = event
        self.data = data


class RequestTimeout(PieError, TimeoutError):
    """The server did not answer ``command`` in time; a late answer is dropped."""

    def __init__(self, message: str, *, command: c.Command) -> None:
        super().__init__(message)
        self.command = command


class KeyFormatError(PieError, ValueError):
    """Not a private key that can be used here: says what was found and what is taken."""


class AgentError(PieError):
    """There is no ssh-agent, it has no such key, or it refuses to sign."""


class ConnectFailed(ConnectionError):
    """No connection could be made. ``status`` and ``body`` where an HTTP server answered.

    ``location`` is where its answer points to, if it does.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        body: str = "",
        location: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.location = location

    def at(self, where: str) -> ConnectFailed:
        """The same, beginning with where the connection was to go."""
        named = ConnectFailed(
            f"{where}: {self}", status=self.status, body=self.body, location=self.location
        )
        named.__cause__ = self.__cause__
        return named


class ConnectionLost(ConnectionError):
    """The connection was there and is gone: ``closed`` tells who ended it, when known why."""

    def __init__(self, message: str, *, closed: ConnectionClosed) -> None:
        super().__init__(message)
        self.closed = closed

    @property
    def by(self) -> Closer:
        """Who ended the connection."""
        return self.closed.by

    @property
    def code(self) -> int | None:
        """The WebSocket close code, if there was one."""
        return self.closed.code

    @property
    def reason(self) -> str:
        """The WebSocket close reason, or what the transport said."""
        return self.closed.reason


def error_for(
    event: Failed | TimedOut | ConnectionClosed,
) -> PieError | ConnectFailed | ConnectionLost:
    """A new exception that tells what ``event`` means to whoever waited.

    Each call makes an object of its own, since each waiter adds its own traceback.
    """
    match event:
        case ConnectionClosed():
            return _closed(event)
        case Failed():
            return _failed(event)
        case TimedOut():
            return RequestTimeout(f"{_tried(event.command)}: {event.reason}", command=event.command)
        case _:
            assert_never(event)


def elsewhere(what: str) -> LocalProtocolError:
    """The exception for the use of a client from another thread or event loop than its own."""
    return LocalProtocolError(
        f"{what} is used in another thread or event loop than the one it was opened in: a client "
        "and its instances belong to one event loop"
    )


def key_wanted(username: str) -> AuthenticationError:
    """The exception for a challenge that nobody can answer, because no key was given."""
    return AuthenticationError(
        f"the server wants proof that this is {username!r}: pass private_key= to authenticate()",
        reason="a private key is wanted",
    )


def describe_cause(exc: BaseException) -> str:
    """What the operating system or TLS says is behind an exception of a transport's.

    Of a group, each exception is described. A failure of TLS is explained, with what to try.
    """
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            return "; ".join(dict.fromkeys(map(describe_cause, cause.exceptions)))
        if is_tls_error(cause):
            return explain_tls_error(cause, handshake=False)
        if isinstance(cause, OSError) and cause.errno and not is_tls_wait(cause):
            # A failure to look a name up has numbers of its own, below 0.
            return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return str(exc) or type(exc).__name__


def tls_error_behind(exc: BaseException) -> BaseException | None:
    """The `ssl.SSLError` that an exception of a transport's was raised for, if it was."""
    cause: BaseException | None = exc
    while cause is not None and not is_tls_error(cause):
        cause = cause.__cause__
    return cause


_HTTP_ADVICE = {
    401: ' (servers 0.5 want to be told who asks: identity="TENANT/USER")',
    404: " (is this a Pie server? Those of 0.5 listen on /v1/ws, older ones on every path)",
}


def _closed(event: ConnectionClosed) -> PieError | ConnectFailed | ConnectionLost:
    if not event.opened:
        if event.violation is not None:
            return ConnectFailed(f"no WebSocket was opened: {event.violation}")
        if event.status is not None:
            where = f", and points to {event.location}" if event.location else ""
            advice = _HTTP_ADVICE.get(event.status, "")
            said = f": {event.body}" if event.body else ""
            return ConnectFailed(
                f"the server answered HTTP {event.status} instead of opening a WebSocket"
                f"{where}{advice}{said}",
                status=event.status,
                body=event.body,
                location=event.location,
            )
        why = event.reason or "the connection ended before the WebSocket was open"
        return ConnectFailed(f"no WebSocket was opened: {why}")
    if event.violation is not None:
        return RemoteProtocolError(event.violation, close_code=event.code or 1002)
    detail = ", ".join(
        part
        for part in (
            f"code {event.code}" if event.code is not None else "",
            event.reason,
        )
        if part
    )
    told = f" ({detail})" if detail else ""
    return ConnectionLost(f"the connection was ended by {event.by.value}{told}", closed=event)


def _tried(command: c.Command) -> str:
    match command:
        case c.Identify():
            return f"identifying as {command.username!r}"
        case c.AnswerChallenge():
            return "answering the server's challenge"
        case c.AuthenticateWithToken():
            return "authenticating with the internal token"
        case c.Ping():
            return "ping"
        case c.Query():
            return f"query of {command.subject!r}"
        case c.ProgramExists():
            return f"asking for program {command.hash}"
        case c.UploadProgram():
            return f"uploading program {command.hash}"
        case c.UploadBlob():
            return f"uploading blob {command.hash} to instance {command.instance_id}"
        case c.LaunchInstance():
            return f"launching program {command.hash}"
        case c.LaunchFromRegistry():
            return f"launching {command.name!r} from the registry"
        case c.LaunchServerInstance():
            return f"launching program {command.hash} as a server on port {command.port}"
        case c.AttachInstance():
            return f"attaching instance {command.instance_id}"
        case c.ListInstances():
            return "listing the instances"
        case c.SendMessage():
            return f"sending to instance {command.instance_id}"
        case c.TerminateInstance():
            return f"terminating instance {command.instance_id}"
        case _:
            assert_never(command)


def _failed(event: Failed) -> PieError:
    command, reason = event.command, event.reason
    said = f"the server said: {reason or '(nothing)'}" if event.by_server else reason
    advice = f" ({event.advice})" if event.advice else ""
    message = f"{_tried(command)}: {said}{advice}"
    kind: type[RequestFailed]
    match command:
        case c.Identify() | c.AnswerChallenge() | c.AuthenticateWithToken():
            return AuthenticationError(message, reason=reason)
        case c.UploadProgram() | c.UploadBlob():
            kind = UploadFailed
        case c.LaunchInstance() | c.LaunchFromRegistry() | c.LaunchServerInstance():
            kind = LaunchFailed
        case c.AttachInstance():
            kind = AttachFailed
        case c.TerminateInstance():
            kind = TerminateFailed
        case c.Query() | c.ProgramExists():
            kind = QueryFailed
        case c.Ping() | c.ListInstances() | c.SendMessage():
            kind = RequestFailed
        case _:
            assert_never(command)
    return kind(message, command=command, reason=reason)
