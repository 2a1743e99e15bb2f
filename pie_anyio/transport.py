"""From a URI to a byte stream: TCP, TLS, a Unix socket, or any of the first two behind a proxy."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from anyio.abc import ByteStream, SocketAttribute

from pie_anyio.proxy import Proxy, open_tunnel
from pie_proto.addresses import ServerAddress
from pie_proto.errors import ConnectFailed, describe_cause
from pie_proto.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    import ssl

__all__ = ["connect_stream"]

# The `socket` module has had the name since Python 3.12 only; these are the systems' own numbers.
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)

# Two chunks: enough that the line does not run dry while the next is made.
_UNSENT_BYTES = 512 * 1024


async def connect_stream(
    address: ServerAddress,
    *,
    ssl_context: ssl.SSLContext | None = None,
    proxy: Proxy | None = None,
    body_bytes: int = DEFAULT_LIMITS.handshake_body_bytes,
) -> ByteStream:
    """Open a connection. Raises `ConnectFailed` that names the address, the cause and a remedy.

    With ``wss://``, ``ssl_context`` says what is trusted; by default, what the system trusts. Of
    the body of a proxy's refusal ``body_bytes`` are told. Cancel-safe: nothing is left open.
    """
    if address.path is not None:
        return await _connect_unix(address, address.path)
    stream = await _connect_tcp(address, proxy)
    try:
        if proxy is not None:
            await _lead_through(stream, proxy, address, body_bytes)
        if address.secure:
            return await _secured(stream, address, ssl_context)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    return stream


async def _connect_unix(address: ServerAddress, path: str) -> ByteStream:
    if not hasattr(socket, "AF_UNIX"):
        raise ConnectFailed(f"no connection to {address.uri}: there are no Unix sockets here")
    try:
        return await anyio.connect_unix(path)
    except OSError as exc:
        raise ConnectFailed(f"no connection to {address.uri}: {_describe_unix(exc, path)}") from exc


def _describe_unix(exc: OSError, path: str) -> str:
    words = describe_cause(exc)
    if isinstance(exc, FileNotFoundError):
        return f"{words}: {path}. Has the server been started?"
    if isinstance(exc, PermissionError):
        return f"{words}: to write to {path}, and to enter its folder, must be allowed"
    if isinstance(exc, ConnectionRefusedError):
        return f"{words}: {path} is there, but no server listens to it any more"
    return f"{words}: {path}"


async def _connect_tcp(address: ServerAddress, proxy: Proxy | None) -> ByteStream:
    host, port = (address.host, address.port) if proxy is None else (proxy.host, proxy.port)
    try:
        stream = await anyio.connect_tcp(host, port)
    except (OSError, UnicodeError) as exc:  # no name can be of such a form
        words = describe_cause(exc)
        if proxy is not None:
            raise ConnectFailed(
                f"no connection to {address.uri}: the proxy {proxy} is not reached: {words}"
            ) from exc
        raise ConnectFailed(
            f"no connection to {address.uri}: {words}. Is a Pie server listening there?"
        ) from exc
    _keep_send_queue_short(stream.extra(SocketAttribute.raw_socket))
    return stream


async def _lead_through(
    stream: ByteStream, proxy: Proxy, address: ServerAddress, body_bytes: int
) -> None:
    try:
        await open_tunnel(stream, proxy, address, body_bytes=body_bytes)
    except ConnectFailed as exc:
        raise exc.at(f"no connection to {address.uri}") from exc.__cause__
    except (anyio.BrokenResourceError, OSError) as exc:
        raise ConnectFailed(
            f"no connection to {address.uri}: the proxy {proxy} hung up: {describe_cause(exc)}"
        ) from exc


async def _secured(
    stream: ByteStream, address: ServerAddress, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    import ssl  # noqa: PLC0415 - by need

    from pie_anyio import tls  # noqa: PLC0415 - by need

    if ssl_context is None:
        # Half a megabyte of certificates is read.
        ssl_context = await anyio.to_thread.run_sync(tls.default_context)
    try:
        return await tls.client_stream(stream, ssl_context, address.server_name)
    except ssl.SSLError as exc:
        words = tls.explain(exc)
        raise ConnectFailed(f"no connection to {address.uri}: {words}") from exc
    except (anyio.EndOfStream, anyio.BrokenResourceError, OSError) as exc:
        words = f"the other side hung up during the TLS handshake: {describe_cause(exc)}"
        raise ConnectFailed(f"no connection to {address.uri}: {words}") from exc
    except ValueError as exc:  # a label of the name is too long, say
        words = f"no certificate can be for {address.server_name!r}: {exc}"
        raise ConnectFailed(f"no connection to {address.uri}: {words}") from exc


def _keep_send_queue_short(raw_socket: socket.socket) -> None:
    # What lies in the kernel's send queue cannot be overtaken: megabytes of an upload, by default.
    if _TCP_NOTSENT_LOWAT is not None:
        with suppress(OSError):
            raw_socket.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
