"""What has arrived when a write fails: asyncio drops it, and here it is still read."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint

__all__ = ["ReadToTheEnd"]


class ReadToTheEnd(ByteStream):
    """A TCP stream of asyncio, from which everything can be read that came before it broke.

    When a write fails, asyncio closes the socket at once, whatever the system still holds of it:
    the last messages of a server, or the alert of TLS that says why it closed. A duplicate of the
    socket keeps that.
    """

    def __init__(self, stream: SocketStream, duplicate: socket.socket) -> None:
        self._stream = stream
        self._duplicate = duplicate
        self._broken: anyio.BrokenResourceError | None = None

    @classmethod
    def on(cls, stream: SocketStream) -> ByteStream:
        """Wrap a stream; as it is where the event loop gives away no socket to duplicate."""
        try:
            return cls(stream, stream.extra(SocketAttribute.raw_socket).dup())
        except (OSError, AttributeError):
            return stream

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Receive some bytes; raises `anyio.EndOfStream`, `anyio.BrokenResourceError`."""
        if self._broken is None:
            try:
                return await self._stream.receive(max_bytes)
            except anyio.BrokenResourceError as exc:
                self._broken = exc
        else:
            await checkpoint()
        data = b""
        with suppress(OSError):  # nothing is left, or it was reset
            data = self._duplicate.recv(max_bytes)
        if not data:
            raise self._broken
        return data

    async def send(self, item: bytes) -> None:
        """Send all of ``item``; raises `anyio.BrokenResourceError`."""
        await self._stream.send(item)

    async def send_eof(self) -> None:
        """End sending."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream."""
        self._duplicate.close()
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the stream."""
        return self._stream.extra_attributes
