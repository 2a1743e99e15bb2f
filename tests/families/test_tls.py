"""TLS that fails, in the handshake and after it: every driver explains it in the same words."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import anyio
import pytest
import trustme
from anyio.abc import SocketStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pie_anyio import ConnectFailed, ConnectionLost
from pie_anyio.server import serve
from pie_anyio.tls import TLSStream, server_stream
from tests.anyio.proxies import peer
from tests.families.test_rejections import reset
from tests.families.world import SOON, client_of
from tests.proto.websocket_wire import answer_101, frame

pytestmark = pytest.mark.anyio

Handler: TypeAlias = Callable[[SocketStream], Awaitable[None]]

V2, V3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@cache
def authority(name: str = "") -> trustme.CA:
    return trustme.CA()


def certificate(*names: str, **options: Any) -> trustme.LeafCert:
    return authority().issue_cert(*(names or ["127.0.0.1"]), **options)


def server_context(leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (leaf or certificate()).configure_cert(context)
    return context


def asks_for_a_certificate(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = server_context()
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(context)
    return context


def client_context(leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    if leaf is not None:
        leaf.configure_cert(context)
    return context


def of_version(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


@cache
def self_signed() -> bytes:
    """A certificate that is its own issuer, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return private + made.public_bytes(pem)


def self_signed_context(folder: Path) -> ssl.SSLContext:
    path = folder / "self-signed.pem"
    path.write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def over_tls(context: ssl.SSLContext) -> Handler:
    """A server that goes through the TLS handshake, and hangs up."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            with suppress(OSError, anyio.BrokenResourceError, anyio.EndOfStream):
                await server_stream(stream, context)

    return handle


def saying(data: bytes) -> Handler:
    """A server without TLS, which says ``data`` first."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await stream.send(data)
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.receive()

    return handle


async def hangs_up(stream: SocketStream) -> None:
    async with stream:
        await stream.receive()
        await stream.send_eof()
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await stream.receive()


async def resets(stream: SocketStream) -> None:
    await stream.receive(1)
    await reset(stream)


NOT_OPEN = "{uri}: no WebSocket was opened: "
NO_CONNECTION = "no connection to {uri}: "
NOT_ACCEPTED = NO_CONNECTION + "the server's certificate is not accepted: "
TRUST = (
    ". If you trust its issuer, pass ssl_context=ssl.create_default_context(cafile=...) with the "
    "issuer's certificate"
)
LOAD = "into the context that you pass as ssl_context=, with load_cert_chain()"
REQUIRED = (
    f"the server requires a client certificate (tlsv13 alert certificate required). Load one {LOAD}"
)
REJECTED = f"). Load one that it accepts {LOAD}"
NO_TLS = NO_CONNECTION + "what answers speaks no TLS ("
IS_PLAIN = "). Is it ws:// there, and not wss://?"
HUNG_UP = NO_CONNECTION + "the other side hung up during the TLS handshake"
IN_COMMON = "client and server have no version of TLS in common ("


class Case(NamedTuple):
    """A server, a client's context, and how the error begins and ends."""

    handler: Callable[[Path], Handler]
    context: Callable[[], ssl.SSLContext]
    begins: str
    ends: str


CASES = {
    "unknown issuer": Case(
        lambda _: over_tls(server_context()),
        ssl.create_default_context,
        NOT_ACCEPTED + "unable to get local issuer certificate",
        TRUST,
    ),
    "self-signed": Case(
        lambda folder: over_tls(self_signed_context(folder)),
        client_context,
        NOT_ACCEPTED + "self",
        "signed certificate" + TRUST,
    ),
    "expired": Case(
        lambda _: over_tls(server_context(certificate(not_after=LONG_AGO))),
        client_context,
        NOT_ACCEPTED + "certificate has expired. Is this machine's clock right?",
        "the server needs a new certificate",
    ),
    "another name": Case(
        lambda _: over_tls(server_context(certificate("pie.test"))),
        client_context,
        NOT_ACCEPTED + "IP address mismatch",
        "'127.0.0.1'. Connect to a name that it is for",
    ),
    "HTTP": Case(
        lambda _: saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        client_context,
        NO_TLS,
        IS_PLAIN,
    ),
    "SSH": Case(lambda _: saying(b"SSH-2.0-OpenSSH_9.6\r\n"), client_context, NO_TLS, IS_PLAIN),
    "server too old": Case(
        lambda _: over_tls(of_version(server_context(), V2)),
        lambda: of_version(client_context(), V3),
        NO_CONNECTION + IN_COMMON,
        "says which ones the client takes",
    ),
    "client too old": Case(
        lambda _: over_tls(of_version(server_context(), V3)),
        lambda: of_version(client_context(), V2),
        NO_CONNECTION + IN_COMMON,
        "says which ones the client takes",
    ),
    "no client certificate, TLS 1.2": Case(
        lambda _: over_tls(asks_for_a_certificate(V2)),
        client_context,
        NO_CONNECTION + "the server found no settings of TLS in common (",
        "Does it require a client certificate, or other versions or ciphers? Set them in "
        "ssl_context=",
    ),
    "no client certificate, TLS 1.3": Case(
        lambda _: over_tls(asks_for_a_certificate(V3)), client_context, NOT_OPEN + REQUIRED, ""
    ),
    "unknown client certificate, TLS 1.2": Case(
        lambda _: over_tls(asks_for_a_certificate(V2)),
        lambda: client_context(authority("other").issue_cert("ada@pie.test")),
        NO_CONNECTION + "the server does not accept this client's certificate (tlsv1 alert unkn",
        "own ca" + REJECTED,
    ),
    "unknown client certificate, TLS 1.3": Case(
        lambda _: over_tls(asks_for_a_certificate(V3)),
        lambda: client_context(authority("other").issue_cert("ada@pie.test")),
        NOT_OPEN + "the server does not accept this client's certificate (tlsv1 alert unkn",
        "own ca" + REJECTED,
    ),
    "expired client certificate, TLS 1.3": Case(
        lambda _: over_tls(asks_for_a_certificate(V3)),
        lambda: client_context(certificate("ada@pie.test", not_after=LONG_AGO)),
        NOT_OPEN + "the server does not accept this client's certificate (",
        "alert certificate expired" + REJECTED,
    ),
    "hangs up": Case(
        lambda _: hangs_up, client_context, HUNG_UP, ". Does it speak TLS there, wss://?"
    ),
    # asyncio ends the stream before it resets the connection, so either may be seen.
    "resets": Case(lambda _: resets, client_context, HUNG_UP, ""),
    "says nothing after the handshake": Case(
        lambda _: over_tls(server_context()), client_context, NOT_OPEN, ""
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_is_wrong_and_what_to_try_is_said(
    driver: str, name: str, tmp_path: Path
) -> None:
    case = CASES[name]
    with anyio.fail_after(SOON):
        async with peer(case.handler(tmp_path)) as port:
            uri = f"wss://127.0.0.1:{port}"
            with pytest.raises(ConnectFailed) as caught:
                async with client_of(driver, uri, ssl_context=case.context()):
                    pytest.fail("it connected")
    text = str(caught.value)
    assert text.startswith(case.begins.format(uri=uri))
    assert text.endswith(case.ends)
    assert "_ssl.c" not in text


@contextmanager
def in_a_thread(context: ssl.SSLContext, connections: int) -> Iterator[int]:
    """A server that closes as soon as the handshake is over, whatever is on its way to it."""

    def run() -> None:
        for _ in range(connections):
            accepted, _ = listening.accept()
            accepted.settimeout(SOON)
            with suppress(OSError), context.wrap_socket(accepted, server_side=True):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SOON)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            thread.join()


async def test_why_the_server_closed_is_not_lost_when_a_write_finds_out_first(driver: str) -> None:
    """The client's request and the server's alert cross each other, and the request is reset."""
    times, context = 20, client_context()
    with anyio.fail_after(SOON), in_a_thread(asks_for_a_certificate(V3), times) as port:
        uri = f"wss://127.0.0.1:{port}"
        for _ in range(times):
            with pytest.raises(ConnectFailed) as caught:
                async with client_of(driver, uri, ssl_context=context):
                    pytest.fail("it connected")
            assert str(caught.value) == f"{uri}: no WebSocket was opened: {REQUIRED}"


async def test_by_default_the_client_asks_for_http_1_over_tls(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = tmp_path / "authority.pem"
    authority().cert_pem.write_to_path(str(trusted))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    chosen: list[str | None] = []

    async def handle(raw: SocketStream) -> None:
        context = server_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with raw:
            stream = await server_stream(raw, context)
            chosen.append(stream._tls.selected_alpn_protocol())

    with anyio.fail_after(SOON):
        async with peer(handle) as port:
            with pytest.raises(ConnectFailed, match="no WebSocket was opened"):
                async with client_of(driver, f"wss://127.0.0.1:{port}"):
                    pytest.fail("it connected")
    assert chosen == ["http/1.1"]


# ------------------------------------------------------------------------------ after the handshake


async def open_websocket(stream: TLSStream) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive()
    await stream.send(answer_101(head))


async def test_a_certificate_that_is_asked_for_later_is_a_lost_connection(driver: str) -> None:
    """Over TLS 1.3 a server may ask for one at any time."""

    async def handle(raw: SocketStream) -> None:
        async with raw:
            context = asks_for_a_certificate(V3)
            context.post_handshake_auth = True
            stream = await server_stream(raw, context)
            await open_websocket(stream)
            stream._tls.verify_client_post_handshake()
            await stream.send(frame(0x89, masked=False))
            with suppress(anyio.BrokenResourceError):
                while True:
                    await stream.receive()
            await stream._flush()
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await raw.receive()

    trusting = client_context()
    trusting.post_handshake_auth = True
    with anyio.fail_after(SOON):
        async with peer(handle) as port:
            async with client_of(driver, f"wss://127.0.0.1:{port}", ssl_context=trusting) as client:
                with pytest.raises(ConnectionLost) as caught:
                    await client.authenticate("ada")
    assert REQUIRED in str(caught.value)
    assert caught.value.reason == REQUIRED


async def test_garbage_within_tls_is_a_lost_connection_in_openssls_words(driver: str) -> None:
    async def handle(raw: SocketStream) -> None:
        async with raw:
            stream = await server_stream(raw, server_context())
            await open_websocket(stream)
            await stream.receive()
            await raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await raw.receive()

    with anyio.fail_after(SOON):
        async with peer(handle) as port:
            uri = f"wss://127.0.0.1:{port}"
            async with client_of(driver, uri, ssl_context=client_context()) as client:
                with pytest.raises(ConnectionLost, match=r"\(TLS: .*bad record mac\)$"):
                    await client.authenticate("ada")


async def test_a_client_certificate_that_is_accepted(driver: str) -> None:
    for version in (V2, V3):
        context = client_context(certificate("ada@pie.test"))
        with anyio.fail_after(SOON):
            async with serve(ssl_context=asks_for_a_certificate(version)) as server:
                async with client_of(driver, server.url, ssl_context=context) as client:
                    await client.authenticate("ada")
