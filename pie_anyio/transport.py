"""From a URI to a byte stream: TCP, TLS, a Unix socket, or any of the first two behind a proxy."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream, SocketAttribute

from pie_anyio.proxy import Proxy, open_tunnel, read_body, rejected
from pie_anyio.sockets import connect_tcp, connect_unix
from pie_anyio.threads import in_thread
from pie_proto.addresses import ServerAddress
from pie_proto.attempts import ATTEMPT_DELAY, Attempts, in_order
from pie_proto.connect_errors import tls_handshake_reason, unix_socket_reason
from pie_proto.errors import ConnectFailed, describe_cause
from pie_proto.http_responses import HttpResponse
from pie_proto.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import ssl

__all__ = ["Connector"]

# The `socket` module has had the name since Python 3.12 only; these are the systems' own numbers.
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)

# Two chunks: enough that the line does not run dry while the next is made.
_UNSENT_BYTES = 512 * 1024


class Connector:
    """Opens connections to one address, and says what is known if there is no time left.

    With ``wss://``, ``ssl_context`` says what is trusted; by default, what the system trusts.
    """

    def __init__(
        self,
        address: ServerAddress,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._address = address
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._limits = limits
        self._host, self._port = address.host, address.port
        if proxy is not None:
            self._host, self._port = proxy.host, proxy.port
        self._prefix = f"no connection to {address.uri}"
        self._attempts = Attempts(self._host)
        self._rejection: HttpResponse | None = None

    async def connect(self) -> ByteStream:
        """Open a connection. Raises `ConnectFailed` that names the address, the cause and a remedy.

        Unbounded in time: cancel it, and raise `timed_out`. Cancel-safe: nothing is left open.
        """
        address, proxy = self._address, self._proxy
        if address.path is not None:
            return await _connect_unix(address, address.path)
        self._attempts = Attempts(self._host)
        self._rejection = None
        stream = await self._connect_tcp()
        try:
            if proxy is not None:
                await self._lead_through(stream, proxy)
            if address.secure:
                return await _secured(stream, address, self._ssl_context)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        return stream

    def timed_out(self) -> ConnectFailed:
        """The exception for a connection that was not made in time."""
        if self._proxy is not None and self._rejection is not None:
            return rejected(self._proxy, self._address, self._rejection).at(self._prefix)
        seconds = f"{self._limits.handshake_timeout:g} s"
        return ConnectFailed(f"{self._prefix} within {seconds}{self._attempts.so_far}")

    async def _connect_tcp(self) -> ByteStream:
        attempts = self._attempts
        try:
            addresses = await _lookup(self._host, self._port)
        except (OSError, UnicodeError) as exc:  # no name can be of such a form
            attempts.fail_lookup(exc)
            addresses = []
        stream = await _first_connected(addresses, self._port, attempts)
        if stream is None:
            reason = f"{attempts.reason}. {attempts.advice}"
            if self._proxy is not None:
                reason = f"the proxy {self._proxy} is not reached: {attempts.reason}"
            raise ConnectFailed(f"{self._prefix}: {reason}") from attempts.cause
        attempts.reached()
        _keep_send_queue_short(stream.extra(SocketAttribute.raw_socket))
        return stream

    async def _lead_through(self, stream: ByteStream, proxy: Proxy) -> None:
        body_bytes = self._limits.handshake_body_bytes
        try:
            rejection = await open_tunnel(stream, proxy, self._address, body_bytes=body_bytes)
            if rejection is None:
                return
            self._rejection = rejection
            with anyio.move_on_after(self._limits.handshake_body_timeout):
                await read_body(stream, rejection)
            raise rejected(proxy, self._address, rejection)
        except ConnectFailed as exc:
            raise exc.at(self._prefix) from exc.__cause__
        except (anyio.BrokenResourceError, OSError) as exc:
            raise ConnectFailed(
                f"{self._prefix}: the proxy {proxy} hung up: {describe_cause(exc)}"
            ) from exc


async def _lookup(host: str, port: int) -> list[str]:
    # As bytes, since a resolver for text would take the zone of an address for part of a name.
    name = host.encode("utf-8", "surrogateescape")
    try:
        # An address needs no look-up, and no thread for one.
        numeric = socket.AI_NUMERICHOST
        return in_order(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=numeric))
    except socket.gaierror:
        return in_order(await anyio.getaddrinfo(name, port, type=socket.SOCK_STREAM))


async def _first_connected(
    addresses: Sequence[str], port: int, attempts: Attempts
) -> ByteStream | None:
    """Connect to one of the addresses: the next one if one fails, or has not answered for a while.

    ``None``: none was reached, and ``attempts`` knows why.
    """
    connected: list[ByteStream] = []

    async def connect(address: str, over: anyio.Event) -> None:
        attempts.begin(address)
        try:
            connected.append(await connect_tcp(address, port))
        except OSError as exc:
            attempts.fail(address, exc)
        else:
            tasks.cancel_scope.cancel()
        finally:
            over.set()

    try:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                over = anyio.Event()
                tasks.start_soon(connect, address, over)
                with anyio.move_on_after(ATTEMPT_DELAY):
                    await over.wait()
    except BaseException:
        for stream in connected:
            await anyio.aclose_forcefully(stream)
        raise
    # Two may have answered at the same time.
    for stream in connected[1:]:
        await anyio.aclose_forcefully(stream)
    return connected[0] if connected else None


async def _connect_unix(address: ServerAddress, path: str) -> ByteStream:
    if not hasattr(socket, "AF_UNIX"):
        raise ConnectFailed(f"no connection to {address.uri}: there are no Unix sockets here")
    try:
        return await connect_unix(path)
    except OSError as exc:
        reason = unix_socket_reason(exc, path)
        raise ConnectFailed(f"no connection to {address.uri}: {reason}") from exc


async def _secured(
    stream: ByteStream, address: ServerAddress, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    from pie_anyio.tls import client_stream  # noqa: PLC0415 - by need
    from pie_files.tls import default_context  # noqa: PLC0415 - by need

    if ssl_context is None:
        # Half a megabyte of certificates is read.
        ssl_context = await in_thread(default_context)
    try:
        return await client_stream(stream, ssl_context, address.server_name)
    except (OSError, ValueError, anyio.EndOfStream, anyio.BrokenResourceError) as exc:
        reason = tls_handshake_reason(exc, address.server_name)
        raise ConnectFailed(f"no connection to {address.uri}: {reason}") from exc


def _keep_send_queue_short(raw_socket: socket.socket) -> None:
    # What lies in the kernel's send queue cannot be overtaken: megabytes of an upload, by default.
    if _TCP_NOTSENT_LOWAT is not None:
        with suppress(OSError):
            raw_socket.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
