"""A network in memory, for clients of every make: a peer's replies, one by one, to what is sent."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel
import pytest
import trio
from anyio.abc import ByteStream

from tests.families.world import client_of

__all__ = ["Network", "Reply"]

Reply: TypeAlias = Callable[[bytes], bytes]
"""What is answered to what was sent."""

_URI: Final = "ws+unix:///nowhere"


class Network:
    """Each connection made has the next of ``peers``: its replies to what is sent, in turn.

    After ``cut`` bytes of all replies together, every connection ends, or is reset. Whatever
    arrives takes ``seconds`` to, which is for clocks that jump.
    """

    def __init__(
        self,
        peers: Sequence[Sequence[Reply]],
        *,
        cut: float = math.inf,
        resets: bool = False,
        seconds: float = 0.0,
    ) -> None:
        self.connections: list[Connection] = []
        self.carried = 0
        self.cut = cut
        self.resets = resets
        self.seconds = seconds
        self._peers = peers

    def connect(self) -> Connection:
        """The next connection."""
        connection = Connection(self, self._peers[len(self.connections)])
        self.connections.append(connection)
        return connection

    def client(self, driver: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
        """A client on this network that was given no path."""

        async def connect(*path: str) -> Any:
            connection = self.connect()
            return OfTrio(connection) if driver == "trio-adapter" else OfAnyio(connection)

        if driver == "trio-adapter":
            # It has no way to be given more than one stream.
            monkeypatch.setattr(trio, "open_unix_socket", connect)
        else:
            options["connect"] = connect
        return client_of(driver, _URI, **options)


class Connection:
    """One connection, as far as it needs no event loop."""

    def __init__(self, network: Network, replies: Sequence[Reply]) -> None:
        self.closed = False
        self._network = network
        self._replies = iter(replies)
        self._arrived = bytearray()
        self._news = anyio.Event()

    @property
    def is_cut(self) -> bool:
        """Whether the line has ended."""
        return self._network.carried >= self._network.cut

    @property
    def resets(self) -> bool:
        """Whether the line has been reset."""
        return self.is_cut and self._network.resets

    def send(self, data: bytes) -> None:
        """The client has sent this."""
        reply = next(self._replies, None)
        if reply is not None:
            self._arrived += reply(data)
            self._news.set()

    async def receive(self) -> bytes:
        """What there is to receive, as soon as there is any; empty at the end."""
        while not (self._arrived or self.is_cut):
            self._news = anyio.Event()
            await self._news.wait()
        await anyio.sleep(self._network.seconds)
        room = min(len(self._arrived), self._network.cut - self._network.carried)
        data = bytes(self._arrived[: int(room)])
        self._arrived.clear()
        self._network.carried += len(data)
        return data


def reset() -> OSError:
    """What the operating system says of a reset line."""
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


class OfAnyio(ByteStream):
    """The connection, as `PieClient` takes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self._connection.receive()
        if data:
            return data
        if self._connection.resets:
            raise anyio.BrokenResourceError from reset()
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self._connection.resets:
            raise anyio.BrokenResourceError from reset()
        self._connection.send(item)

    async def send_eof(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._connection.closed = True
        await anyio.lowlevel.checkpoint()


class OfTrio(trio.abc.Stream):
    """The connection, as `open_client` takes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._connection.receive()
        if not data and self._connection.resets:
            raise trio.BrokenResourceError from reset()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self._connection.resets:
            raise trio.BrokenResourceError from reset()
        self._connection.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._connection.closed = True
        await trio.lowlevel.checkpoint()
