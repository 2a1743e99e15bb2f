"""How a client gets to its server: TLS, Unix sockets, proxies, and headers of its own."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from pie_anyio import ConnectFailed, ConnectionLost, Event, Limits, PieClient
from pie_anyio.proxy import Proxy
from pie_anyio.server import serve
from pie_anyio.tls import client_stream, server_stream
from pie_proto import DEFAULT_LIMITS, Closer, HandshakeReceived
from pie_proto.request_headers import checked_headers
from pie_proto.server import ServerConnection
from tests.anyio.proxies import TunnelProxy, peer, running
from tests.anyio.world import SOON, connected, launch, read_until
from tests.tls_names import client_context, server_context

pytestmark = pytest.mark.anyio

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets on Windows")


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


async def failure(uri: str, **options: Any) -> ConnectFailed:
    """Why there is no connection."""
    with anyio.fail_after(SOON), pytest.raises(ConnectFailed) as caught:
        async with PieClient(uri, **options):
            pytest.fail("it connected")
    assert uri in str(caught.value)
    return caught.value


async def check_conversation(client: PieClient) -> None:
    """A short talk, and one that takes many records of TLS each way."""
    instance = await launch(client, "echo")
    text = "x" * 300_000
    await instance.send(text)
    _, data = await read_until(instance, Event.Message)
    assert data == f"echo: {text}"


# --------------------------------------------------------------------------------------------- TLS


async def test_tls_to_a_server_that_is_trusted() -> None:
    with anyio.fail_after(SOON):
        async with (
            serve(ssl_context=server_context()) as server,
            connected(server, ssl_context=client_context()) as client,
        ):
            assert server.url.startswith("wss://127.0.0.1:")
            await check_conversation(client)


async def test_many_talk_over_tls_at_the_same_time() -> None:
    with anyio.fail_after(SOON):
        async with (
            serve(ssl_context=server_context()) as server,
            connected(server, ssl_context=client_context()) as client,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(4):
                tasks.start_soon(check_conversation, client)


async def test_by_default_the_system_says_whom_to_trust() -> None:
    with anyio.fail_after(SOON):
        async with serve(ssl_context=server_context()) as server:
            error = await failure(server.url)
            assert "certificate is not accepted" in str(error)
            assert "issuer" in str(error)
            assert "ssl_context=" in str(error)
            assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_a_certificate_for_another_name_is_not_accepted() -> None:
    import trustme

    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    other = server_context(authority.issue_cert("other.test"))
    with anyio.fail_after(SOON):
        async with serve(ssl_context=other) as server:
            error = await failure(server.url, ssl_context=trusting)
            assert "IP address mismatch" in str(error)
            assert "Connect to a name that it is for" in str(error)


async def test_tls_is_not_spoken_by_a_plain_server() -> None:
    with anyio.fail_after(SOON):
        async with serve() as server:
            error = await failure(server.url.replace("ws:", "wss:"), ssl_context=client_context())
            assert "ws:// there" in str(error)


async def test_a_plain_client_is_told_that_the_server_speaks_tls() -> None:
    with anyio.fail_after(SOON):
        async with serve(ssl_context=server_context()) as server:
            error = await failure(server.url.replace("wss:", "ws:"))
            assert error.status == 400
            assert "connect to wss://" in str(error)


async def test_one_that_hangs_up_during_the_tls_handshake() -> None:
    async def hang_up(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()

    with anyio.fail_after(SOON):
        async with peer(hang_up) as port:
            error = await failure(f"wss://127.0.0.1:{port}", ssl_context=client_context())
            assert "hung up during the TLS handshake" in str(error)


async def test_one_that_says_nothing_is_given_up() -> None:
    async def listen(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    with anyio.fail_after(SOON):
        async with peer(listen) as port:
            limits = Limits(handshake_timeout=0.1)
            error = await failure(
                f"wss://127.0.0.1:{port}", ssl_context=client_context(), limits=limits
            )
            assert "within 0.1 s" in str(error)


async def test_no_certificate_can_be_for_such_a_name() -> None:
    uri = f"wss://{'a' * 70}.test"
    assert "no connection" in str(await failure(uri))
    with anyio.fail_after(SOON):
        async with (
            serve(ssl_context=server_context()) as server,
            running(TunnelProxy(server.port)) as proxy,
        ):
            error = await failure(uri, proxy=proxy.uri)
            assert "no certificate can be for" in str(error)


@pytest.mark.parametrize(("scheme", "proxied"), [("wss", False), ("ws", True)])
async def test_a_connection_that_is_reset_at_its_beginning(scheme: str, *, proxied: bool) -> None:
    async def reset(stream: anyio.abc.SocketStream) -> None:
        linger = struct.pack("ii", 1, 0)
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await stream.receive(1)
        await anyio.aclose_forcefully(stream)

    with anyio.fail_after(SOON):
        async with peer(reset) as port:
            options: dict[str, Any] = {"proxy": f"http://127.0.0.1:{port}"} if proxied else {}
            error = await failure(f"{scheme}://127.0.0.1:{port}", **options)
            assert "hung up" in str(error)


@asynccontextmanager
async def raw_tls_server(
    serve_client: Callable[[ServerConnection, anyio.abc.ByteStream, Any], Any],
) -> AsyncIterator[str]:
    """A server that accepts the WebSocket over TLS and then does what it is told."""

    async def handle(raw: anyio.abc.SocketStream) -> None:
        async with raw:
            stream = await server_stream(raw, server_context())
            connection = ServerConnection(now=anyio.current_time())
            while not isinstance(connection.next_event(), HandshakeReceived):
                connection.receive_data(await stream.receive(), anyio.current_time())
            connection.accept()
            await stream.send(connection.data_to_send(now=anyio.current_time()))
            await serve_client(connection, stream, raw)

    async with peer(handle) as port:
        yield f"wss://127.0.0.1:{port}"


async def test_an_end_of_tls_that_nobody_announced_is_a_lost_connection() -> None:
    async def truncate(connection: object, stream: Any, raw: anyio.abc.SocketStream) -> None:
        await stream.receive()
        await raw.send_eof()
        await anyio.sleep_forever()

    with anyio.fail_after(SOON):
        async with (
            raw_tls_server(truncate) as uri,
            PieClient(uri, ssl_context=client_context()) as client,
        ):
            with pytest.raises(ConnectionLost) as caught:
                await client.authenticate("ada")
            assert caught.value.by is Closer.REMOTE


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_behind_the_end_of_sending_is_still_received(version: ssl.TLSVersion) -> None:
    context = client_context()
    context.maximum_version = version
    heard: list[bytes] = []

    async def handle(raw: anyio.abc.SocketStream) -> None:
        async with await server_stream(raw, server_context()) as stream:
            await stream.send(b"first")
            await stream.send_eof()
            await stream.send_eof()
            with pytest.raises(anyio.EndOfStream):
                while True:
                    heard.append(await stream.receive())
        ended.set()

    with anyio.fail_after(SOON):
        ended = anyio.Event()
        async with peer(handle) as port:
            raw = await anyio.connect_tcp("127.0.0.1", port)
            async with await client_stream(raw, context, "localhost") as stream:
                assert await stream.receive(3) == b"fir"
                assert await stream.receive() == b"st"
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
                if version is ssl.TLSVersion.TLSv1_3:
                    await stream.send(b"answer")
            await ended.wait()
    assert b"".join(heard) == (b"answer" if version is ssl.TLSVersion.TLSv1_3 else b"")


# ------------------------------------------------------------------------------------ Unix sockets


@UNIX
async def test_a_unix_socket(tmp_path: Path) -> None:
    with anyio.fail_after(SOON):
        async with serve(unix_path=tmp_path / "a b") as server, connected(server) as client:
            assert server.url == f"ws+unix://{tmp_path}/a%20b"
            await check_conversation(client)


@UNIX
async def test_a_unix_socket_that_is_not_there_or_has_no_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    error = await failure(f"ws+unix://{path}")
    assert "No such file" in str(error)
    assert "Has the server been started?" in str(error)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert "no server listens to it any more" in str(await failure(f"ws+unix://{path}"))
    assert "no connection" in str(await failure(f"ws+unix://{tmp_path}/{'x' * 200}"))


@UNIX
async def test_a_unix_socket_that_may_not_be_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may enter everything.
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EACCES)
    assert "must be allowed" in str(await failure(f"ws+unix://{tmp_path}/socket"))


# ----------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize("kind", [dict, list])
async def test_headers_reach_the_server(kind: Callable[[Any], Any]) -> None:
    seen: list[tuple[str, str]] = []

    async def look(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            connection = ServerConnection(now=anyio.current_time())
            while not isinstance(event := connection.next_event(), HandshakeReceived):
                connection.receive_data(await stream.receive(), anyio.current_time())
            seen.extend(event.headers)
            connection.reject(401, "no")
            await stream.send(connection.data_to_send(now=anyio.current_time()))

    with anyio.fail_after(SOON):
        async with peer(look) as port:
            headers = kind([("Authorization", "Bearer a b"), ("X-Empty", "")])
            error = await failure(f"ws://127.0.0.1:{port}/", headers=headers)
            assert error.status == 401
    assert {("authorization", "Bearer a b"), ("x-empty", "")} <= set(seen)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"": "x"}, "no name"),
        ({"a b": "x"}, "no name"),
        ({"a:": "x"}, "no name"),
        ({"a\r\nb": "x"}, "no name"),
        ({"é": "x"}, "no name"),
        ({"A": "secret\r\nB: c"}, "value of the header A"),
        ({"A": "secret\n"}, "value of the header A"),
        ({"A": " secret"}, "value of the header A"),
        ({"A": "secreté"}, "value of the header A"),
        ({"A": "secret\0"}, "value of the header A"),
        ({"Host": "x"}, "handshake's own"),
        ({"UPGRADE": "x"}, "handshake's own"),
        ({"Connection": "close"}, "handshake's own"),
        ({"Content-Length": "0"}, "handshake's own"),
        ({"Sec-WebSocket-Key": "x"}, "handshake's own"),
        ({"Sec-WebSocket-Protocol": "x"}, "handshake's own"),
        ({"Proxy-Authorization": "x"}, "handshake's own"),
        ({"A": 1}, "pairs"),
        (["ab"], "pairs"),
        ([("a", "b", "c")], "pairs"),
        ("ab", "pairs"),
    ],
)
def test_headers_that_cannot_be_are_refused(headers: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        checked_headers(headers)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match=words):
        PieClient("ws://pie.test", headers=headers)


# ----------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize("tls", [False, True])
async def test_through_a_proxy_to_a_name_that_only_it_knows(*, tls: bool) -> None:
    secured: dict[str, Any] = {"ssl_context": server_context()} if tls else {}
    trusting: dict[str, Any] = {"ssl_context": client_context()} if tls else {}
    with anyio.fail_after(SOON):
        async with serve(**secured) as server, running(TunnelProxy(server.port)) as proxy:
            scheme = "wss" if tls else "ws"
            uri = proxy.uri.replace("//", "//ada:p%40ss@")
            async with PieClient(f"{scheme}://pie.test", proxy=uri, **trusting) as client:
                await client.authenticate("ada")
                await check_conversation(client)
    port = 443 if tls else 80
    assert len(proxy.asked) == 1
    assert proxy.asked[0].startswith(f"CONNECT pie.test:{port} HTTP/1.1\r\n")
    assert b64encode(b"ada:p@ss").decode() in proxy.asked[0]


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"HTTP/1.1 407 No\r\nContent-Length: 7\r\n\r\nwho are", 407, "wants a user"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 4000\r\n\r\n" + b"b" * 4000, 502, "b" * 1024),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 9\r\n\r\ncut", 502, "HTTP 502 instead of leading"),
        (b"HTTP/1.1 302 Go\r\n\r\n", 302, "HTTP 302"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None, "no HTTP proxy"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", None, "nobody asked for"),
        (b"HTTP/1.1 100 Go on\r\n\r\n", None, "hung up without an answer"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000, None, "have no end"),
        (b"HTTP/1.1 100 A\r\n\r\n" * 10_000, None, "have no end"),
        (b"", None, "hung up"),
    ],
)
async def test_a_proxy_that_does_not_lead_there(
    answer: bytes, status: int | None, words: str
) -> None:
    with anyio.fail_after(SOON):
        async with running(TunnelProxy(0, answer)) as proxy:
            error = await failure("ws://pie.test", proxy=proxy.uri)
    assert error.status == status
    assert words in str(error)
    assert proxy.uri in str(error)
    assert len(error.body) <= DEFAULT_LIMITS.handshake_body_bytes


async def test_a_refused_password_is_not_repeated() -> None:
    answer = b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"
    with anyio.fail_after(SOON):
        async with running(TunnelProxy(0, answer)) as proxy:
            uri = proxy.uri.replace("//", "//ada:secret@")
            error = await failure("ws://pie.test", proxy=uri)
    assert "does not accept this user" in str(error)
    assert "secret" not in str(error)
    assert "secret" not in repr(Proxy.parse(uri))


async def test_a_proxy_that_hangs_is_given_up() -> None:
    limits = replace(DEFAULT_LIMITS, handshake_timeout=0.1)
    with anyio.fail_after(SOON):
        async with running(TunnelProxy(0, b"HTTP/1.1 ", hangs=True)) as proxy:
            error = await failure("ws://pie.test", proxy=proxy.uri, limits=limits)
    assert "within 0.1 s" in str(error)


@pytest.mark.parametrize(
    "framed",
    [
        b"\r\nno room",
        b"Content-Length: 2000\r\n\r\nno room",
        b"Transfer-Encoding: chunked\r\n\r\n7\r\nno room\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nff\r\nno room",
        b"Transfer-Encoding: chunked\r\n\r\n7\r\nno room\r\nzz\r\n",
        b"Content-Length: many\r\n\r\nno room",
        b"Transfer-Encoding: gzip\r\n\r\nno room",
    ],
)
@pytest.mark.parametrize("hangs", [True, False])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(handshake_body_timeout=0.05),
        Limits(handshake_timeout=0.2, handshake_body_timeout=SOON),
    ],
    ids=["the wait for it ends", "all time is up"],
)
async def test_a_proxys_status_is_reported_however_the_body_is_framed(
    framed: bytes, limits: Limits, *, hangs: bool
) -> None:
    answer = b"HTTP/1.1 403 No\r\nLocation: /there\r\n" + framed
    with anyio.fail_after(SOON):
        async with running(TunnelProxy(0, answer, hangs=hangs)) as proxy:
            error = await failure("ws://pie.test", proxy=proxy.uri, limits=limits)
    assert (error.status, error.body, error.location) == (403, "no room", "/there")
    assert f"{proxy.uri} answered HTTP 403" in str(error)


async def test_a_proxys_body_commands_no_terminal() -> None:
    answer = b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\n\x1b[2J"
    with anyio.fail_after(SOON):
        async with running(TunnelProxy(0, answer)) as proxy:
            error = await failure("ws://pie.test", proxy=proxy.uri)
    assert error.body == "\ufffd[2J"
    assert "\x1b" not in str(error)


async def test_a_proxy_that_is_not_there() -> None:
    error = await failure("wss://pie.test", proxy="http://127.0.0.1:1")
    assert "the proxy http://127.0.0.1:1 is not reached" in str(error)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("socks5://127.0.0.1:1080", "SOCKS.*connect="),
        ("socks5h://ada:secret@127.0.0.1", "SOCKS.*connect="),
        ("https://ada:secret@127.0.0.1", "connect="),
        ("127.0.0.1:3128", "http://"),
        ("", "http://"),
        ("http://", "host or port"),
        ("http://ada:secret@:80", "host or port"),
        ("http://ada:secret@h:0", "host or port"),
        ("http://ada:secret@h/path", "path"),
        ("http://ada:secret@h?query", "path"),
    ],
)
def test_a_proxy_that_cannot_be_is_refused(
    proxy: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        PieClient("ws://pie.test", proxy=proxy)
    assert "secret" not in str(caught.value)
    if "://" in proxy:
        monkeypatch.setenv("all_proxy", proxy)
        with pytest.raises(ValueError, match=words) as caught:
            PieClient("ws://pie.test", proxy="environment")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "scheme", "asked"),
    [
        ("http_proxy", "ws", True),
        ("https_proxy", "wss", True),
        ("all_proxy", "ws", True),
        ("all_proxy", "wss", True),
        ("http_proxy", "wss", False),
        ("https_proxy", "ws", False),
    ],
)
async def test_the_environment_decides_if_it_is_asked(
    variable: str, scheme: str, monkeypatch: pytest.MonkeyPatch, *, asked: bool
) -> None:
    answer = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    with anyio.fail_after(SOON):
        async with running(TunnelProxy(0, answer)) as proxy:
            monkeypatch.setenv(variable, proxy.uri.removeprefix("http://"))
            error = await failure(f"{scheme}://127.0.0.1:1", proxy="environment")
            assert (error.status == 503) is asked
            assert (await failure(f"{scheme}://127.0.0.1:1")).status is None
            for exceptions in ("127.0.0.1", "x, 127.0.0.1:1", "*"):
                monkeypatch.setenv("no_proxy", exceptions)
                error = await failure(f"{scheme}://127.0.0.1:1", proxy="environment")
                assert error.status is None
    assert len(proxy.asked) == asked


@UNIX
async def test_no_proxy_leads_to_a_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    uri = f"ws+unix://{tmp_path}/socket"
    assert "No such file" in str(await failure(uri, proxy="environment"))
    with pytest.raises(ValueError, match="no proxy leads"):
        PieClient(uri, proxy="http://127.0.0.1:1")


# ------------------------------------------------------------------------ what goes not together


async def test_a_stream_of_ones_own_is_talked_over_as_it_is() -> None:
    with anyio.fail_after(SOON):
        async with serve() as server:
            async with PieClient("wss://pie.test", connect=server.connect) as client:
                await client.authenticate("ada")


def test_arguments_that_do_not_go_together() -> None:
    async def connect() -> anyio.abc.ByteStream:
        raise AssertionError

    context = client_context()
    with pytest.raises(ValueError, match="do not go with it"):
        PieClient("wss://pie.test", connect=connect, ssl_context=context)
    with pytest.raises(ValueError, match="do not go with it"):
        PieClient("ws://pie.test", connect=connect, proxy="environment")
    with pytest.raises(ValueError, match="is for wss://"):
        PieClient("ws://pie.test", ssl_context=context)
    with pytest.raises(ValueError, match="is for servers"):
        PieClient("wss://pie.test", ssl_context=server_context())
    with pytest.raises(TypeError, match="not str"):
        PieClient("wss://pie.test", ssl_context="strict")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        PieClient("ws://pie.test", proxy=3128)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("proxy", "host", "shown"),
    [
        ("http://[fe80::7%25Wi-Fi0]:3128", "fe80::7%Wi-Fi0", "http://[fe80::7%25Wi-Fi0]:3128"),
        ("http://a:b%2F@[FE80::7%25a%20b]/", "fe80::7%a b", "http://[fe80::7%25a%20b]:80"),
        ("http://[::1]:3128", "::1", "http://[::1]:3128"),
    ],
)
def test_the_uri_of_a_proxy_takes_the_same_zones(proxy: str, host: str, shown: str) -> None:
    parsed = Proxy.parse(proxy)
    assert (parsed.host, str(parsed)) == (host, shown)
