"""What a peer sent before a write to it failed is still read, on asyncio too."""

from __future__ import annotations

import sys

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

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
                assert stream.extra(SocketAttribute.remote_port) == port
                assert await stream.receive() == WORDS
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
                await stream.send_eof()
