"""A byte stream over a socket of our own: what has arrived can be read after a write has failed.

asyncio's transports close the socket when a write fails, and what the peer sent last is lost with
it. Here sending and receiving fail each for itself. The same on asyncio, uvloop and trio.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

__all__ = ["SocketStream", "connect_tcp", "connect_unix"]

_TURN_BYTES: Final = 256 * 1024
"""How much is sent without waiting before other tasks get a turn."""

_RETRY_SECONDS: Final = 0.01
"""How long to wait while a server of a Unix socket has no room for another connection."""


class SocketStream(ByteStream):
    """A connected stream socket, which is closed with this. For one sender and one receiver.

    Cancelling a `receive` loses nothing; cancelling a `send` leaves open how much was sent.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._may_have_more = False
        self._sent_in_turn = 0

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Receive some bytes; raises `anyio.EndOfStream`, `anyio.BrokenResourceError`."""
        if self._may_have_more:
            await checkpoint()
        else:
            await self._wait(anyio.wait_readable)
        data: bytes | None = None
        while data is None:
            try:
                data = self._socket.recv(max_bytes)
            except (BlockingIOError, InterruptedError):
                await self._wait(anyio.wait_readable)
            except OSError as exc:
                raise self._broken(exc) from exc
        if not data:
            raise anyio.EndOfStream
        self._may_have_more = len(data) == max_bytes
        return data

    async def send(self, item: bytes) -> None:
        """Send all of ``item``; raises `anyio.BrokenResourceError`."""
        await checkpoint_if_cancelled()
        view = memoryview(item)
        while view:
            try:
                sent = self._socket.send(view)
            except (BlockingIOError, InterruptedError):
                self._sent_in_turn = 0
                await self._wait(anyio.wait_writable)
            except OSError as exc:
                raise self._broken(exc) from exc
            else:
                view = view[sent:]
                self._sent_in_turn += sent
        if self._sent_in_turn >= _TURN_BYTES:
            self._sent_in_turn = 0
            await checkpoint()

    async def send_eof(self) -> None:
        """Tell the peer that nothing more follows; what it still sends can be received."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise self._broken(exc) from exc
        await checkpoint()

    async def aclose(self) -> None:
        """Close the socket. A task that waits for it gets `anyio.ClosedResourceError`."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The raw socket."""
        return {SocketAttribute.raw_socket: lambda: self._socket}

    async def _wait(self, until: Callable[[socket.socket], Any]) -> None:
        if self._socket.fileno() < 0:
            raise anyio.ClosedResourceError
        await until(self._socket)

    def _broken(self, exc: OSError) -> Exception:
        if self._socket.fileno() < 0:
            return anyio.ClosedResourceError()
        return anyio.BrokenResourceError(str(exc))


async def connect_tcp(address: str, port: int) -> ByteStream:
    """Connect to a numeric address. Raises `OSError`. Cancel-safe: nothing is left open."""
    if sys.platform == "win32":
        # A failed connect is reported in another way there, which the event loops know.
        return await anyio.connect_tcp(address, port)
    [(family, kind, protocol, _, where), *_] = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await _connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return SocketStream(sock)


async def connect_unix(path: str) -> ByteStream:
    """Connect to a Unix socket. Raises `OSError`. Cancel-safe: nothing is left open."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        while True:
            try:
                await _connect(sock, path)
            except BlockingIOError:  # the server has not accepted those before us
                await anyio.sleep(_RETRY_SECONDS)
            else:
                break
    except BaseException:
        sock.close()
        raise
    return SocketStream(sock)


async def _connect(sock: socket.socket, where: Any) -> None:
    sock.setblocking(False)
    await checkpoint_if_cancelled()
    status = sock.connect_ex(where)
    if status == errno.EINPROGRESS:
        await anyio.wait_writable(sock)
        status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if status:
        # The subclass of OSError that belongs to the number, ConnectionRefusedError say.
        raise OSError(status, os.strerror(status))
