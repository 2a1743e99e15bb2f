"""Clients that do not do what a client should."""

from __future__ import annotations

from dataclasses import replace

import anyio
import msgpack
import pytest
from anyio.abc import SocketStream

from pie_anyio.server import SERVER_LIMITS, Server, serve
from pie_proto import (
    Identify,
    Ping,
    Pong,
)
from tests.server.server_peer import SECONDS, attach, client, connected

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


async def read_all(stream: SocketStream) -> bytes:
    received = bytearray()
    with anyio.fail_after(SECONDS):
        try:
            while True:
                received += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return bytes(received)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\0" * 100_000])
async def test_what_is_no_websocket_is_answered_with_an_error(server: Server, said: bytes) -> None:
    async with client(server) as peer:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(said)
            assert (await read_all(stream)).startswith(b"HTTP/1.1 4")
        assert isinstance(await peer.ask(Ping()), Pong)


async def test_a_client_that_breaks_the_protocol_is_told_and_left(server: Server) -> None:
    async with client(server) as peer:
        instance_id = await peer.launch("sleep")
        await peer.stream.send(b"\xff" * 20)
        closed = await peer.closed()
        assert closed.code == 1002
    async with client(server) as other:
        await attach(other, instance_id)


async def test_a_message_that_is_not_understood_is_dropped_without_an_answer(
    server: Server,
) -> None:
    message = msgpack.packb({"type": "dance", "corr_id": 7})
    async with client(server) as peer:
        # The core of a client would not send it: so, a frame of our own (masked with 0).
        await peer.stream.send(bytes((0x82, 0x80 | len(message))) + bytes(4) + message)
        assert await peer.ask(Ping()) == Pong(2)
        assert await peer.ask(Ping()) == Pong(3)


async def test_a_client_that_never_asks_to_open_is_left_after_a_while() -> None:
    limits = replace(SERVER_LIMITS, handshake_timeout=0.05)
    async with (
        serve(limits=limits) as server,
        await anyio.connect_tcp("127.0.0.1", server.port) as stream,
    ):
        assert await read_all(stream) == b""


async def test_a_client_that_does_not_part_is_left_after_a_while() -> None:
    limits = replace(SERVER_LIMITS, close_timeout=0.05)
    async with serve(authorized_keys={}, limits=limits) as server, connected(server) as peer:
        assert "not authorized" in await peer.refusal(Identify("joe"))
        # Behind that a Close frame, and then the end, though it is not answered.
        assert len(await read_all(peer.stream)) < 100


async def test_a_client_that_neither_reads_nor_parts_is_left_after_a_while() -> None:
    limits = replace(SERVER_LIMITS, close_timeout=0.05)
    async with serve(limits=limits) as server, client(server) as other, client(server) as deaf:
        instance_id = await deaf.launch("flood", "1000000")
        await other.wait_for("instances blocked", 1)
        await deaf.stream.send_eof()
        await attach(other, instance_id)
