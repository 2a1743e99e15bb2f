"""Which exception an outcome becomes, and what it says."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest

from pie_proto import commands as c
from pie_proto import errors
from pie_proto.errors import error_for
from pie_proto.events import Closer, ConnectionClosed, Event, Failed, TimedOut
from tests.proto.pair import A
from tests.proto.test_commands import GOOD

FAILURES: dict[type, type[errors.PieError]] = {
    c.Identify: errors.AuthenticationError,
    c.AnswerChallenge: errors.AuthenticationError,
    c.AuthenticateWithToken: errors.AuthenticationError,
    c.Ping: errors.RequestFailed,
    c.Query: errors.QueryFailed,
    c.ProgramExists: errors.QueryFailed,
    c.UploadProgram: errors.UploadFailed,
    c.UploadBlob: errors.UploadFailed,
    c.LaunchInstance: errors.LaunchFailed,
    c.LaunchFromRegistry: errors.LaunchFailed,
    c.LaunchServerInstance: errors.LaunchFailed,
    c.AttachInstance: errors.AttachFailed,
    c.ListInstances: errors.RequestFailed,
    c.SendMessage: errors.RequestFailed,
    c.TerminateInstance: errors.TerminateFailed,
}

TRIED: dict[type, str] = {
    c.Identify: "identifying as 'ada'",
    c.AnswerChallenge: "challenge",
    c.AuthenticateWithToken: "internal token",
    c.Ping: "ping",
    c.Query: "'subject'",
    c.ProgramExists: "whatever",
    c.UploadProgram: "program 0000",
    c.UploadBlob: A,
    c.LaunchInstance: "whatever",
    c.LaunchFromRegistry: "'std/echo@1.0'",
    c.LaunchServerInstance: "port 8080",
    c.AttachInstance: A,
    c.ListInstances: "listing",
    c.SendMessage: A,
    c.TerminateInstance: A,
}

each_command = pytest.mark.parametrize("command", GOOD, ids=lambda command: type(command).__name__)


@each_command
def test_a_no_of_the_servers_says_what_was_tried_and_what_it_said(command: c.Command) -> None:
    error = error_for(Failed(7, command, "its own words"))
    assert type(error) is FAILURES[type(command)]
    assert TRIED[type(command)] in str(error)
    assert "the server said: its own words" in str(error)
    assert error.reason == "its own words"  # type: ignore[attr-defined]
    if isinstance(error, errors.RequestFailed):
        assert error.command is command


def test_a_no_without_words_says_so() -> None:
    assert str(error_for(Failed(1, c.Ping(), ""))) == "ping: the server said: (nothing)"


@each_command
def test_a_time_out_says_what_was_tried_and_what_to_do(command: c.Command) -> None:
    error = error_for(TimedOut(7, command, "unread events of instance X: read them"))
    assert isinstance(error, errors.RequestTimeout)
    assert isinstance(error, TimeoutError)
    assert TRIED[type(command)] in str(error)
    assert "read them" in str(error)
    assert error.command is command


@pytest.mark.parametrize(
    ("closed", "kind", "text"),
    [
        (
            ConnectionClosed(by=Closer.LOCAL, code=1007, violation="a message is not a map"),
            errors.RemoteProtocolError,
            "a message is not a map",
        ),
        (
            ConnectionClosed(by=Closer.REMOTE, opened=False, status=401, body="who are you?"),
            errors.ConnectFailed,
            '(servers 0.5 want to be told who asks: identity="TENANT/USER"): who are you?',
        ),
        (
            ConnectionClosed(by=Closer.REMOTE, opened=False, status=404),
            errors.ConnectFailed,
            "(is this a Pie server? Those of 0.5 listen on /v1/ws, older ones on every path)",
        ),
        (
            ConnectionClosed(
                by=Closer.REMOTE, opened=False, status=302, body="moved", location="/there"
            ),
            errors.ConnectFailed,
            "HTTP 302 instead of opening a WebSocket, and points to /there: moved",
        ),
        (
            ConnectionClosed(by=Closer.REMOTE, opened=False, status=503, location=""),
            errors.ConnectFailed,
            "the server answered HTTP 503 instead of opening a WebSocket",
        ),
        (
            ConnectionClosed(by=Closer.TRANSPORT, opened=False, reason="reset"),
            errors.ConnectFailed,
            "no WebSocket was opened: reset",
        ),
        (
            ConnectionClosed(by=Closer.LOCAL, opened=False, violation="it speaks SSH"),
            errors.ConnectFailed,
            "no WebSocket was opened: it speaks SSH",
        ),
        (
            ConnectionClosed(by=Closer.REMOTE, opened=False),
            errors.ConnectFailed,
            "the connection ended before the WebSocket was open",
        ),
        (
            ConnectionClosed(by=Closer.REMOTE, code=1001, reason="bye"),
            errors.ConnectionLost,
            "the connection was ended by the other side (code 1001, bye)",
        ),
        (
            ConnectionClosed(by=Closer.LOCAL, code=1000),
            errors.ConnectionLost,
            "the connection was ended by this side (code 1000)",
        ),
        (
            ConnectionClosed(by=Closer.TRANSPORT, reason="reset"),
            errors.ConnectionLost,
            "the connection was ended by the network (reset)",
        ),
        (
            ConnectionClosed(by=Closer.TRANSPORT),
            errors.ConnectionLost,
            "the connection was ended by the network",
        ),
    ],
)
def test_the_end_says_who_ended_it_and_why(
    closed: ConnectionClosed, kind: type[Exception], text: str
) -> None:
    error = error_for(closed)
    assert type(error) is kind
    assert text in str(error)
    match error:
        case errors.ConnectionLost():
            assert error.closed is closed
            told = (error.by, error.code, error.reason)
            assert told == (closed.by, closed.code, closed.reason)
        case errors.ConnectFailed():
            said = (error.status, error.body, error.location)
            assert said == (closed.status, closed.body, closed.location)
        case _:
            assert isinstance(error, errors.RemoteProtocolError)
            assert error.close_code == 1007


def test_each_waiter_gets_an_exception_of_its_own() -> None:
    for event in (
        Failed(1, c.Ping(), "no"),
        TimedOut(1, c.Ping(), "late"),
        ConnectionClosed(by=Closer.REMOTE),
    ):
        assert error_for(event) is not error_for(event)


def test_the_use_in_another_event_loop_is_named() -> None:
    error = errors.elsewhere("this client")
    assert isinstance(error, errors.LocalProtocolError)
    assert str(error).startswith("this client is used in another thread or event loop")


def test_the_tree() -> None:
    tree = {
        errors.PieError: Exception,
        errors.LocalProtocolError: errors.PieError,
        errors.RemoteProtocolError: errors.PieError,
        errors.AuthenticationError: errors.PieError,
        errors.RequestFailed: errors.PieError,
        errors.UploadFailed: errors.RequestFailed,
        errors.LaunchFailed: errors.RequestFailed,
        errors.AttachFailed: errors.RequestFailed,
        errors.TerminateFailed: errors.RequestFailed,
        errors.QueryFailed: errors.RequestFailed,
        errors.InstanceEnded: errors.PieError,
        errors.InstanceFailed: errors.PieError,
        errors.RequestTimeout: errors.PieError,
        errors.KeyFormatError: errors.PieError,
        errors.AgentError: errors.PieError,
        errors.ConnectFailed: ConnectionError,
        errors.ConnectionLost: ConnectionError,
    }
    for kind, base in tree.items():
        assert kind.__bases__[0] is base
    assert {kind.__name__ for kind in tree} | {
        "describe_cause",
        "elsewhere",
        "error_for",
        "key_wanted",
        "tls_error_behind",
    } == set(errors.__all__)
    # The guide tells a connection lost from what Pie says no to.
    assert not issubclass(errors.ConnectionLost, errors.PieError)
    assert issubclass(errors.KeyFormatError, ValueError)


def test_the_end_of_an_instance_is_told_with_its_event() -> None:
    ended = errors.InstanceEnded("over", event=Event.Completed, data="result")
    failed = errors.InstanceFailed("failed", event=Event.Exception, data="trap")
    assert (ended.event, ended.data, str(ended)) == (Event.Completed, "result", "over")
    assert (failed.event, failed.data) == (Event.Exception, "trap")


def _raised(exc: Exception, *, because: Exception | None = None) -> Exception:
    try:
        raise exc from because
    except Exception as caught:
        return caught


def _while_waiting() -> ssl.SSLError:
    """What TLS raises when the transport has nothing more: no failure."""
    tls = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="pie.test"
    )
    with pytest.raises(ssl.SSLWantReadError) as caught:
        tls.do_handshake()
    return caught.value


def _tls_error() -> ssl.SSLError:
    with pytest.raises(ssl.SSLError) as caught:
        ssl.create_default_context().load_verify_locations(cadata=b"no certificate")
    return caught.value


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (OSError(errno.ECONNREFUSED, "in its own words"), os.strerror(errno.ECONNREFUSED)),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (
            _raised(ValueError("outside"), because=OSError(errno.EPIPE, "")),
            os.strerror(errno.EPIPE),
        ),
        (ExceptionGroup("all", [OSError(errno.EPIPE, "")]), os.strerror(errno.EPIPE)),
        (
            _raised(
                OSError("all failed"),
                because=ExceptionGroup(
                    "all",
                    [OSError(errno.EPIPE, ""), OSError(errno.EIO, ""), OSError(errno.EPIPE, "x")],
                ),
            ),
            f"{os.strerror(errno.EPIPE)}; {os.strerror(errno.EIO)}",
        ),
        (_tls_error(), "TLS: not enough data: cadata does not contain a certificate"),
        (_raised(EOFError("end"), because=_while_waiting()), "end"),
        (_raised(_while_waiting(), because=OSError(errno.EPIPE, "")), os.strerror(errno.EPIPE)),
        (ValueError("odd"), "odd"),
        (ValueError(), "ValueError"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_the_system_says_is_found_behind_an_exception(exc: Exception, words: str) -> None:
    assert errors.describe_cause(exc) == words


def test_a_failed_connection_can_be_told_with_where_it_was_to_go() -> None:
    cause = OSError("why")
    error = errors.ConnectFailed("HTTP 404", status=404, body="gone", location="/there")
    error.__cause__ = cause
    named = error.at("ws://here")
    assert (str(named), named.status, named.body) == ("ws://here: HTTP 404", 404, "gone")
    assert named.location == "/there"
    assert named.__cause__ is cause


def test_who_has_no_key_is_told_how_to_give_one() -> None:
    error = errors.key_wanted("ada")
    assert "'ada'" in str(error)
    assert "private_key=" in str(error)
