"""Where the embedded server listens: with TLS, and on Unix sockets."""

# ruff: noqa: ASYNC220, ASYNC240 - what a test looks at in its own folder does not make it wait

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskStatus

from pie_anyio import ConnectionLost, PieClient
from pie_anyio.server import serve
from pie_anyio.server.__main__ import main
from tests.server.server_peer import LINE, SECONDS
from tests.tls_names import client_context, server_certificate, server_context

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets on Windows")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """Files with a certificate and its key."""
    leaf = server_certificate()
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    return str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")


async def _works(url: str, **options: ssl.SSLContext) -> None:
    async with PieClient(url, **options) as client:  # type: ignore[arg-type]
        await client.authenticate("ada")
        await client.ping()


# --------------------------------------------------------------------------------------------- TLS


async def test_a_server_with_a_certificate_speaks_tls() -> None:
    with anyio.fail_after(SECONDS):
        async with serve("localhost", ssl_context=server_context()) as server:
            assert server.url.startswith("wss://")
            await _works(server.url, ssl_context=client_context())
            # In memory there is no TLS to speak.
            async with PieClient(server.url, connect=server.connect) as client:
                await client.authenticate("ada")


async def test_clients_that_do_not_get_through_the_tls_handshake_harm_nobody() -> None:
    with anyio.fail_after(SECONDS):
        async with serve(ssl_context=server_context()) as server:
            silent = await anyio.connect_tcp("127.0.0.1", server.port)
            gone = await anyio.connect_tcp("127.0.0.1", server.port)
            await gone.send(b"\x16\x03\x01")
            await gone.aclose()
            garbage = await anyio.connect_tcp("127.0.0.1", server.port)
            await garbage.send(bytes(1000))
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                while True:
                    await garbage.receive()
            await _works(server.url, ssl_context=client_context())
        # The server does not wait for who never spoke.
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await silent.receive()
        await silent.aclose()
        await garbage.aclose()


async def test_who_speaks_plain_http_to_a_tls_port_is_told_what_it_is() -> None:
    with anyio.fail_after(SECONDS):
        async with (
            serve(ssl_context=server_context()) as server,
            await anyio.connect_tcp("127.0.0.1", server.port) as stream,
        ):
            await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while b"wss://" not in received:
                received += await stream.receive()
            assert received.startswith(b"HTTP/1.1 400 ")


async def test_the_end_of_the_server_is_told_over_tls() -> None:
    async def stay(*, task_status: TaskStatus[None]) -> None:
        async with PieClient(server.url, ssl_context=client_context()) as client:
            await client.authenticate("ada")
            task_status.started()
            with pytest.raises(ConnectionLost) as caught:
                await client.query("unknown", "")
            assert caught.value.code == 1001

    with anyio.fail_after(SECONDS):
        async with (
            anyio.create_task_group() as tasks,
            serve(ssl_context=server_context()) as server,
        ):
            await tasks.start(stay)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")
async def test_the_command_serves_with_tls(
    certificate: tuple[str, str], anyio_backend: str
) -> None:
    chain, key = certificate
    with anyio.fail_after(SECONDS):
        await _command_works(
            "--certificate", chain, "--private-key", key, "--backend", anyio_backend
        )


async def _command_works(*arguments: str) -> str:
    with subprocess.Popen(
        [sys.executable, "-m", "pie_anyio.server", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = await anyio.to_thread.run_sync(process.stdout.readline)
            url = line.split()[-1]
            trust = {"ssl_context": client_context()} if url.startswith("wss") else {}
            await _works(url, **trust)
            process.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(process.wait) == 0
        finally:
            process.kill()
    return url


def test_the_command_says_what_is_wrong_with_a_certificate(
    certificate: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryptography.hazmat.primitives import serialization

    chain, key = certificate
    locked = tmp_path / "locked.pem"
    private = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    locked.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for arguments, words in (
        (["--private-key", key], "give --certificate too"),
        (["--certificate", chain], "and the same file are no certificate"),
        (["--certificate", key, "--private-key", chain], "belong together"),
        (["--certificate", "no-such-file"], "no-such-file"),
        (["--certificate", sys.executable], "is not text"),
        (["--certificate", chain, "--private-key", str(locked)], "passphrase"),
        (["--unix", str(tmp_path / "s"), "--port", "1"], "no host, no port"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err


# ------------------------------------------------------------------------------------ Unix sockets


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "pie.sock"
    assert not (tmp_path / "pie.sock").is_socket()


@UNIX
async def test_a_unix_socket_is_there_while_it_is_served(path: Path) -> None:
    with anyio.fail_after(SECONDS):
        async with serve(unix_path=path) as server:
            assert repr(server) == f"<Server ws+unix://{path}>"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with pytest.raises(RuntimeError, match="it has no port"):
                _ = server.port
            await _works(server.url)
        assert not path.exists()


@UNIX
async def test_with_keys_the_umask_says_who_may_connect(path: Path) -> None:
    before = os.umask(0o027)
    try:
        async with serve(unix_path=path, authorized_keys={"joe": LINE}):
            assert stat.S_IMODE(path.stat().st_mode) == 0o750
    finally:
        os.umask(before)


@UNIX
async def test_a_socket_left_behind_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with anyio.fail_after(SECONDS):
        async with serve(unix_path=path) as server:
            await _works(server.url)


@UNIX
async def test_a_socket_that_somebody_listens_on_is_not_replaced(path: Path) -> None:
    with anyio.fail_after(SECONDS):
        async with serve(unix_path=path) as server:
            with pytest.raises(OSError, match="a server listens there"):
                async with serve(unix_path=path):
                    pytest.fail("it serves")
            await _works(server.url)


@UNIX
async def test_a_socket_that_is_too_busy_is_not_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with anyio.fail_after(SECONDS), pytest.raises(OSError, match="a server listens there"):
            async with serve(unix_path=path):
                pytest.fail("it serves")
    path.unlink()


@UNIX
async def test_a_file_that_is_no_socket_is_not_replaced(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OSError, match="no socket"):
        async with serve(unix_path=path):
            pytest.fail("it serves")
    assert path.read_text() == "precious"


@UNIX
async def test_what_another_put_in_its_place_is_left_alone(path: Path) -> None:
    async with serve(unix_path=path):
        path.unlink()
        path.write_text("precious")
    assert path.read_text() == "precious"
    path.unlink()
    async with serve(unix_path=path):
        path.unlink()


@UNIX
@pytest.mark.parametrize("options", [{"port": 1}, {"host": "localhost"}, {"ssl_context": True}])
def test_what_does_not_go_with_a_unix_socket(path: Path, options: dict[str, object]) -> None:
    if "ssl_context" in options:
        options = {"ssl_context": server_context()}
    with pytest.raises(ValueError, match="no host, no port and no TLS"):
        serve(unix_path=path, **options)  # type: ignore[arg-type]


@UNIX
async def test_the_command_serves_on_a_unix_socket(path: Path, anyio_backend: str) -> None:
    with anyio.fail_after(SECONDS):
        url = await _command_works("--unix", str(path), "--backend", anyio_backend)
    assert url == f"ws+unix://{path}"
