"""From a URI to a byte stream."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream, SocketAttribute

from pie_proto.errors import ConnectFailed

__all__ = ["ServerAddress", "connect_stream", "describe"]

_DEFAULT_PORT = 80

# The `socket` module has had the name since Python 3.12 only; these are the systems' own numbers.
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)

# Two chunks: enough that the line does not run dry while the next is made.
_UNSENT_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Where a server is: what a ``ws://`` URI says."""

    uri: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, uri: str) -> ServerAddress:
        """Read a ``ws://host[:port][/path]`` URI. Raises `ValueError` that says what is wrong."""
        if not isinstance(uri, str):
            raise TypeError(f"a server URI is a str, not {type(uri).__name__}")
        parts = urlsplit(uri)
        if parts.scheme != "ws":
            raise ValueError(f"a server URI begins with ws://, as in ws://127.0.0.1:8080: {uri!r}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a server URI takes no user name or password: call authenticate()")
        if not parts.hostname:
            raise ValueError(f"the server URI has no host: {uri!r}")
        if not uri.isascii() or not uri.isprintable() or " " in uri:
            raise ValueError(
                f"a server URI has ASCII characters only, without spaces: {uri!r}. Write names in "
                "Punycode, and paths with percent signs"
            )
        if parts.fragment:
            raise ValueError(f"a server URI has no #fragment: {uri!r}")
        try:
            port = parts.port
        except ValueError as exc:
            raise ValueError(f"the server URI has no valid port: {uri!r}") from exc
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        return cls(
            uri=uri,
            host=parts.hostname,
            port=_DEFAULT_PORT if port is None else port,
            target=target,
        )

    @property
    def host_header(self) -> str:
        """What the ``Host`` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT else f"{host}:{self.port}"


async def connect_stream(address: ServerAddress) -> ByteStream:
    """Open a TCP connection. Raises `ConnectFailed` that names the address, the cause and a remedy.

    Cancel-safe: nothing is left open.
    """
    try:
        stream = await anyio.connect_tcp(address.host, address.port)
    except OSError as exc:
        raise ConnectFailed(
            f"no connection to {address.uri}: {describe(exc)}. Is a Pie server listening there?"
        ) from exc
    _keep_send_queue_short(stream.extra(SocketAttribute.raw_socket))
    return stream


def _keep_send_queue_short(raw_socket: socket.socket) -> None:
    # What lies in the kernel's send queue cannot be overtaken: megabytes of an upload, by default.
    if _TCP_NOTSENT_LOWAT is not None:
        with suppress(OSError):
            raw_socket.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def describe(exc: BaseException) -> str:
    """What the operating system says is behind an exception of a transport's, in a few words."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, OSError) and cause.errno:
            # A failure to look a name up has numbers of its own, below 0.
            return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return str(exc) or type(exc).__name__
