"""The trio client over TLS: a `trio.SSLStream` is a stream like any other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from pie_proto import DEFAULT_LIMITS
from pie_trio_adapter import (
    Closer,
    ConnectFailed,
    ConnectionLost,
    Event,
    TrioPieClient,
    open_client,
)
from tests.serving import serving
from tests.tls_names import client_context, server_context
from tests.trio_adapter.scripted import Scripted
from tests.trio_adapter.world import connected, in_trio, launch, read_until


@asynccontextmanager
async def secured() -> AsyncIterator[tuple[Scripted, TrioPieClient]]:
    """A scripted server, and a client of it that has authenticated; over TLS, in memory."""
    raw_ours, raw_theirs = trio.testing.memory_stream_pair()
    ours = trio.SSLStream(raw_ours, client_context(), server_hostname="localhost")
    server = Scripted(trio.SSLStream(raw_theirs, server_context(), server_side=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve)
        async with connected(ours) as client:
            yield server, client
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_conversation_with_a_server_that_is_trusted() -> None:
    with serving(ssl_context=server_context()) as server:
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", server.port, ssl_context=client_context()
        )
        async with connected(stream, host="127.0.0.1") as client:
            instance = await launch(client, "echo")
            # Many records of TLS, each way.
            text = "x" * 300_000
            await instance.send(text)
            assert await instance.receive() == (Event.Message, f"echo: {text}")
            await instance.send("stop")
            assert (await read_until(instance, Event.Completed)) == ([], "stopped")


@in_trio
async def test_a_uri_may_ask_for_tls() -> None:
    with serving(ssl_context=server_context()) as server:
        async with connected(server.url, ssl_context=client_context()) as client:
            assert await (await launch(client, "hello")).result() == "done"


async def failure(where: str | trio.abc.Stream, **options: Any) -> ConnectFailed:
    with trio.fail_after(DEFAULT_LIMITS.handshake_timeout / 2):
        with pytest.raises(ConnectFailed) as caught:
            async with open_client(where, **options):
                pass
    return caught.value


@in_trio
async def test_a_server_that_is_not_trusted_is_refused_in_words() -> None:
    with serving(ssl_context=server_context()) as server:
        error = await failure(server.url)
        assert server.url in str(error)
        assert "the server's certificate is not accepted" in str(error)
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", server.port)
        assert "the server's certificate is not accepted" in str(await failure(stream))


@in_trio
async def test_a_server_that_speaks_no_tls_is_refused_in_words() -> None:
    with serving() as server:
        error = await failure(f"wss://127.0.0.1:{server.port}")
    assert "speaks no TLS" in str(error)


@trio.testing.trio_test
async def test_a_tls_handshake_that_is_not_answered_is_bounded(
    clock: trio.testing.MockClock,
) -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(ConnectFailed, match="within 30 s"):
        async with open_client(trio.SSLStream(ours, client_context(), server_hostname="x")):
            pass
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


@in_trio
async def test_both_ways_at_the_same_time() -> None:
    async def talk(client: TrioPieClient) -> None:
        instance = await launch(client, "blob_back")
        blob = bytes(range(256)) * 2000
        await instance.upload_blob(blob)
        assert await instance.receive() == (Event.Blob, blob)
        await instance.terminate()

    with serving(ssl_context=server_context()) as server:
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", server.port, ssl_context=client_context()
        )
        async with connected(stream) as client, trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(talk, client)


@trio.testing.trio_test
async def test_an_hour_of_silence_over_tls_is_kept_up(clock: trio.testing.MockClock) -> None:
    async with secured() as (_, client):
        await trio.sleep(3600)
        await client.ping()


@in_trio
async def test_an_end_that_nobody_announced_is_a_lost_connection() -> None:
    async with secured() as (server, client):
        instance = await client.launch_instance("0" * 64)
        await server.emit(Event.Message, "last words")
        assert isinstance(server.stream, trio.SSLStream)
        await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(server.stream.transport_stream)
        assert await instance.receive() == (Event.Message, "last words")
        with pytest.raises(ConnectionLost) as caught:
            await instance.receive()
        assert caught.value.by is not Closer.LOCAL


@trio.testing.trio_test
async def test_closing_is_bounded_when_the_other_side_ends_nothing(
    clock: trio.testing.MockClock,
) -> None:
    async with secured() as (server, client):
        server.fall_silent()
        started = trio.current_time()
        await client.aclose()
        assert trio.current_time() - started <= 2 * DEFAULT_LIMITS.close_timeout
        with pytest.raises(ConnectionLost) as caught:
            await client.ping()
        assert caught.value.by is Closer.LOCAL
