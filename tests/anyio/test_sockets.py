"""A socket of our own: what a peer sent before a write to it failed can still be read."""

from __future__ import annotations

import socket
import sys
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream

from pie_anyio.sockets import connect_tcp, connect_unix
from pie_anyio.transport import Connector
from pie_proto.addresses import ServerAddress
from tests.anyio.proxies import peer
from tests.anyio.world import SOON

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="a reset there drops what has arrived"),
]

WORDS = b"last words"


async def goes(stream: SocketStream) -> None:
    await stream.send(WORDS)
    await stream.aclose()


async def write_until_it_fails(stream: anyio.abc.ByteStream) -> None:
    with anyio.fail_after(SOON), pytest.raises(anyio.BrokenResourceError):
        while True:
            await stream.send(b"x")


async def test_everything_is_read_after_a_write_failed() -> None:
    with anyio.fail_after(SOON):
        async with peer(goes) as port:
            connector = Connector(ServerAddress.parse(f"ws://127.0.0.1:{port}"))
            async with await connector.connect() as stream:
                await write_until_it_fails(stream)
                received = b""
                with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
                    while True:
                        received += await stream.receive(4)
                assert received == WORDS
                with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
                    await stream.receive()


async def test_an_end_after_the_last_bytes_is_an_end() -> None:
    with anyio.fail_after(SOON):
        async with peer(goes) as port:
            connector = Connector(ServerAddress.parse(f"ws://127.0.0.1:{port}"))
            async with await connector.connect() as stream:
                assert await stream.receive() == WORDS
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
                await stream.send_eof()


async def test_much_is_sent_to_a_slow_reader_and_arrives_whole() -> None:
    content = bytes(range(256)) * 20_000
    received = bytearray()

    async def reads_slowly(stream: SocketStream) -> None:
        async with stream:
            async for data in stream:
                received.extend(data)
                await anyio.lowlevel.checkpoint()
            await stream.send(WORDS)

    with anyio.fail_after(SOON):
        async with peer(reads_slowly) as port:
            async with await connect_tcp("127.0.0.1", port) as stream:
                await stream.send(content)
                await stream.send(content)
                await stream.send_eof()
                assert await stream.receive() == WORDS
                assert received == content * 2


async def test_others_get_a_turn_while_much_is_sent_and_received() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async def takes_and_gives(stream: SocketStream) -> None:
        async with stream:
            async for _ in stream:
                pass
            await stream.send(bytes(2_000_000))

    with anyio.fail_after(SOON):
        async with peer(takes_and_gives) as port, anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            async with await connect_tcp("127.0.0.1", port) as stream:
                for _ in range(200):
                    await stream.send(bytes(10_000))
                assert turns > 0
                await stream.send_eof()
                left, turns = 2_000_000, 0
                while left:
                    left -= len(await stream.receive(1000))
                assert turns > 500
            tasks.cancel_scope.cancel()


async def test_closing_ends_the_wait_of_another_task() -> None:
    async def says_nothing(stream: SocketStream) -> None:
        async with stream:
            async for _ in stream:
                pass

    with anyio.fail_after(SOON):
        async with peer(says_nothing) as port, anyio.create_task_group() as tasks:
            stream = await connect_tcp("127.0.0.1", port)
            waiting = anyio.Event()

            async def receive() -> None:
                waiting.set()
                with pytest.raises(anyio.ClosedResourceError):
                    await stream.receive()

            tasks.start_soon(receive)
            await waiting.wait()
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()
            await stream.aclose()
            for use in (stream.receive, partial(stream.send, b"x"), stream.send_eof):
                with pytest.raises(anyio.ClosedResourceError):
                    await use()


async def test_a_cancelled_receive_loses_nothing() -> None:
    async def counts(stream: SocketStream) -> None:
        async with stream:
            for n in range(100):
                await stream.send(n.to_bytes(1, "big"))
                await anyio.lowlevel.checkpoint()

    with anyio.fail_after(SOON):
        async with peer(counts) as port:
            async with await connect_tcp("127.0.0.1", port) as stream:
                received = b""
                while len(received) < 100:
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        received += await stream.receive(3)
                    with anyio.move_on_after(0.001):
                        received += await stream.receive(3)
                assert received == bytes(range(100))


async def test_a_connect_that_is_rejected_leaves_no_socket_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        await connect_tcp("127.0.0.1", port)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets here")
async def test_a_unix_server_that_has_no_room_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening, anyio.fail_after(SOON):
        listening.bind(path)
        listening.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            async with anyio.create_task_group() as tasks:
                connected = anyio.Event()

                async def connect() -> None:
                    async with await connect_unix(path):
                        connected.set()

                tasks.start_soon(connect)
                await anyio.wait_all_tasks_blocked()
                assert not connected.is_set()
                listening.accept()[0].close()
                await connected.wait()
