"""TLS on a byte stream, for client and server. Imported by need, as `ssl` is.

Not anyio's ``TLSStream``, for three things that a WebSocket wants of it: a reader and a writer at
the same time, also when TLS itself has something to say; a peer that learns by an alert why it was
turned away; and an end of sending (``close_notify``) behind which is still read.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

__all__ = ["TLSStream", "client_stream", "server_stream"]

_READ_BYTES: Final = 65_536

_BROKEN: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class TLSStream(ByteStream):
    """What is sent leaves encrypted on ``transport``, which is closed with this.

    An end without ``close_notify`` is an end like any other (`anyio.EndOfStream`): a WebSocket has
    a Close of its own to tell a conversation that was cut. Cancelling a `send` half way breaks the
    stream; cancelling a `receive` loses nothing.
    """

    def __init__(self, transport: ByteStream, wrap: Callable[..., ssl.SSLObject]) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = wrap(self._incoming, self._outgoing)
        self._sending = anyio.Lock(fast_acquire=True)
        self._receiving = anyio.Lock(fast_acquire=True)
        self._fills = 0
        self._eof_sent = False
        self._failure: ssl.SSLError | None = None

    async def shake_hands(self) -> None:
        """Agree on the keys. Raises `ssl.SSLError`, of which the peer was told by an alert."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with suppress(*_BROKEN):
                    await self._flush()
                raise
            else:
                break
        await self._flush()

    async def receive(self, max_bytes: int = _READ_BYTES) -> bytes:
        """Receive some bytes; raises `anyio.EndOfStream`, `anyio.BrokenResourceError`."""
        await checkpoint_if_cancelled()
        while not (data := self._decrypt(max_bytes)):
            await self._flush()
            await self._fill()
        await cancel_shielded_checkpoint()
        return data

    def _decrypt(self, max_bytes: int) -> bytes:
        """What has come, many records at once; ``b""``: more is to come first."""
        pieces: list[bytes] = []
        room = max_bytes
        try:
            while room and self._failure is None:
                piece = self._tls.read(room)
                if not piece:
                    self._failure = ssl.SSLZeroReturnError()
                    break
                pieces.append(piece)
                room -= len(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self._failure = exc
        if not pieces and self._failure is not None:
            if _is_end(self._failure):
                raise anyio.EndOfStream
            if not self._eof_sent:
                raise anyio.BrokenResourceError from self._failure
            # After our end, TLS 1.2 reads no more, but the peer may not have heard it yet.
            self._incoming.read()
        return b"".join(pieces)

    async def send(self, item: bytes) -> None:
        """Send all of ``item``; raises `anyio.BrokenResourceError`."""
        while item:
            try:
                self._tls.write(item)
            except ssl.SSLWantReadError:  # only where keys are agreed on anew, before TLS 1.3
                await self._flush()
                await self._fill()
            except ssl.SSLError as exc:
                raise anyio.BrokenResourceError from exc
            else:
                break
        await self._flush()

    async def send_eof(self) -> None:
        """Tell the peer that nothing more follows; what it still sends can be received."""
        if not self._eof_sent:
            self._eof_sent = True
            # Asks for more to read, as it has sent its part and would now wait for the other's.
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            await self._flush()
            await self._transport.send_eof()

    async def aclose(self) -> None:
        """Close the stream, without waiting for the peer."""
        await self._transport.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the transport."""
        return self._transport.extra_attributes

    async def _flush(self) -> None:
        # Also a reader has to send at times; in what order is decided where it is encrypted.
        async with self._sending:
            if self._outgoing.pending:
                await self._transport.send(self._outgoing.read())

    async def _fill(self) -> None:
        fills = self._fills
        async with self._receiving:
            if self._fills != fills:
                return
            try:
                data = await self._transport.receive(_READ_BYTES)
            except anyio.EndOfStream:
                if self._incoming.eof:
                    # TLS has been told, and still asks: it is past caring.
                    raise
                self._incoming.write_eof()
            else:
                self._incoming.write(data)
            self._fills += 1


def _is_end(exc: ssl.SSLError) -> bool:
    return (
        isinstance(exc, ssl.SSLZeroReturnError | ssl.SSLEOFError)
        or exc.reason == "UNEXPECTED_EOF_WHILE_READING"
    )


async def client_stream(
    transport: ByteStream, context: ssl.SSLContext, server_name: str
) -> TLSStream:
    """TLS to a server whose certificate is to be for ``server_name``.

    Raises `ssl.SSLError`, `ValueError` for a name that no certificate can be for, and what the
    transport raises; ``transport`` is then still to be closed.
    """
    stream = TLSStream(
        transport, lambda read, write: context.wrap_bio(read, write, server_hostname=server_name)
    )
    await stream.shake_hands()
    return stream


async def server_stream(transport: ByteStream, context: ssl.SSLContext) -> TLSStream:
    """TLS to a client. Raises as `client_stream`."""
    stream = TLSStream(
        transport, lambda read, write: context.wrap_bio(read, write, server_side=True)
    )
    await stream.shake_hands()
    return stream
